"""Lipschitz bound: upper bound of the derivative of later outputs by an input, for all inputs."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.invertibility.inversion import (
    IDENTITY_AT_INFERENCE,
    layers_to_input,
)
from keras_seqzoo.diagnostics.invertibility.jacobian import Jacobian
from keras_seqzoo.diagnostics.invertibility.layer_inverses import scaling
from keras_seqzoo.diagnostics.lags import geometric_lags
from keras_seqzoo.inspection import model_function
from keras_seqzoo.layers import ApplyMask
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_not_negative,
    check_positive,
)
from keras_seqzoo.utils.serialization import to_json_values

# The largest slope of each activation; for softmax the largest norm of its Jacobian.
SLOPES = {
    "linear": 1.0, "tanh": 1.0, "relu": 1.0, "relu6": 1.0, "leaky_relu": 1.0, "elu": 1.0,
    "hard_tanh": 1.0, "softsign": 1.0, "softplus": 1.0, "log_sigmoid": 1.0, "sigmoid": 0.25,
    "hard_sigmoid": 1 / 6, "softmax": 0.5,
}  # fmt: skip
HINT = "Measure instead: keras_seqzoo.leakage takes any model, with rows of your data."


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class LipschitzBound:
    """Result of `lipschitz_bound`: bounds of the Jacobian norm by lag.

    `str(bound)` is a summary with a table.

    Attributes:
        bounds: `(lags + 1,)`, bound of `||dy_t/dx_(t-k)||` at `k = 0, 1, ...`, for all inputs.
        measured: `(lags + 1,)`, the largest norm on the given rows; None without rows, and nan at
            lags longer than the rows.
        decay: float, factor from one lag to the next at long lags: the largest `||R||`, times the
            activation's slope. Below 1, the influence of an input decays to zero.
        factors: dict, the factor of each layer at lag 0, from the output to the input: its norm,
            for a SimpleRNN that of its kernel.
        recurrent: dict, `||R||` of each SimpleRNN.
    """

    bounds: np.ndarray
    measured: np.ndarray | None
    decay: float
    factors: dict[str, float]
    recurrent: dict[str, float]

    def horizon(self, threshold: float = 0.01) -> int | None:
        """The smallest lag from which on no bound exceeds `threshold`; None beyond the last lag.

        Args:
            threshold: float, at least 0, in units of the output over units of the input.

        Raises:
            ArgumentError: if `threshold` is negative or no number.
        """
        check_not_negative(threshold=threshold)
        above = np.flatnonzero(self.bounds > threshold)
        if not len(above):
            return 0
        return int(above[-1]) + 1 if above[-1] + 1 < len(self.bounds) else None

    def to_dict(self) -> dict[str, Any]:
        """The bound as plain data for JSON; nan and infinity become None."""
        return {
            "bounds": to_json_values(self.bounds),
            "measured": to_json_values(self.measured),
            "decay": to_json_values(self.decay),
            "factors": dict(self.factors),
            "recurrent": dict(self.recurrent),
        }

    def __str__(self) -> str:
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in self.recurrent.items())
        limit = "decays to zero" if self.decay < 1 else "is not bounded to decay"
        lines = [
            f"The influence of an input {limit}: at most a factor of {self.decay:.3g} per step "
            f"(norms of recurrent kernels: {norms}).",
            "",
            "  lag   bound" + ("" if self.measured is None else "      measured"),
        ]
        for lag in [0, *geometric_lags(max(len(self.bounds) - 1, 1))][: len(self.bounds)]:
            measured = "" if self.measured is None else f"{self.measured[lag]:.3g}"
            lines.append(f"  {lag:>3}   {self.bounds[lag]:<10.3g} {measured}".rstrip())
        if self.decay >= 1:
            lines.append(
                "  To bound it, train with "
                "recurrent_regularizer=keras_seqzoo.regularizers.SpectralNorm()."
            )
        return "\n".join(lines)


def lipschitz_bound(
    model: Any, x: Any = None, *, lags: int = 50, mask: Any = None, batch_size: int = 1024
) -> LipschitzBound:
    """Upper bound of the Jacobian norm `||dy_t/dx_(t-k)||` by lag `k`, valid for all inputs.

    `||dy_t/dx_(t-k)|| <= max(sigma_out) ||C|| ||R||^k ||W|| max(1 / sigma_in)`, with kernel `W` and
    recurrent kernel `R` of a SimpleRNN, kernel `C` of the Dense layer after it, and the scaling
    before and after. Norms are largest singular values, by full decomposition. The bound holds
    since each activation has a slope of at most 1; a smaller slope tightens it. Stacked SimpleRNN
    layers are bounded by the sum over all splits of `k` among them.

    The bound is on derivatives, and holds for any input. State leakage is measured on given rows,
    and the two are not comparable. State leakage is the history dependence of the output: the share
    of its variance that is due to inputs before the present one (total Sobol index of the past);
    nothing to do with train/test data leakage.

    Shapes: the output has the steps of the input, or is the last step alone.
    Masking: lags count real steps, since padded steps leave the state as it is.
    State: none kept; a state from earlier calls only makes the past longer.

    Args:
        model: a Functional or Sequential Keras model that is a chain of SimpleRNN, Dense,
            Activation, Normalization, Rescaling, masking and dropout layers.
        x: rows `(batch, time, features)` to measure Jacobian norms on, for comparison; a few are
            enough. Default: none.
        lags: int, at least 1, the longest lag.
        mask: bool array `(batch, time)`, True for real steps of `x`. Default: the model's own mask.
        batch_size: int, copies of a row per call when measuring.

    Returns:
        A `LipschitzBound`.

    Raises:
        ArgumentError: if the model has another layer or activation; the message names the condition
            that fails.
        DataError: if `x` has an unusable shape, type or value.

    Example:

    >>> import keras
    >>> import keras_seqzoo as zoo
    >>> halved = keras.initializers.Identity(0.5)
    >>> model = zoo.get("simple_rnn_identity", recurrent_initializer=halved)
    >>> bound = zoo.diagnostics.lipschitz_bound(model, lags=8)
    >>> print(bound.decay, (bound.bounds[1:] / bound.bounds[:-1]).round(6)[:2])
    0.5 [0.5 0.5]
    """
    check_positive(lags=lags, batch_size=batch_size)
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        expected = "a Functional or Sequential Keras model"
        raise errors.ArgumentError(argument_message("model", expected, type(model), HINT))
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        _raise_unsupported(
            f"one input and one output. Received: {len(model.inputs)}, {len(model.outputs)}."
        )
    bounds = np.zeros(lags + 1)
    bounds[0] = 1.0
    factors, recurrent, decays = {}, {}, []
    for layer, node in layers_to_input(model.outputs[0]):
        factor, decay = _factor(layer, node)
        if isinstance(layer, keras.layers.SimpleRNN):
            recurrent[layer.name] = _norm(layer.cell.recurrent_kernel)
            decays.append(decay)
        with np.errstate(over="ignore"):
            layer_bounds = factor * decay ** np.arange(lags + 1)  # 0 ** 0 is 1
            bounds = np.convolve(bounds, layer_bounds)[: lags + 1]
        factors[layer.name] = factor
    if not recurrent:
        _raise_unsupported("at least one SimpleRNN layer. Received: none.")
    measured = None if x is None else _measured_norms(model, x, mask, lags, batch_size)
    return LipschitzBound(bounds, measured, max(decays), factors, recurrent)


def _factor(layer: Any, node: Any) -> tuple[float, float]:
    """Factor of a layer on the Jacobian norm at lag 0, and its factor from each lag to the next."""
    if isinstance(layer, keras.layers.SimpleRNN):
        return _simple_rnn_factor(layer, node)
    inputs = _inputs_without_masks(node)
    if len(inputs) > 1:
        _raise_unsupported(f"layers of one input. Received: {layer.name!r} with {len(inputs)}.")
    if isinstance(layer, keras.layers.Dense):
        return _norm(layer.kernel) * _slope(layer, layer.activation), 0.0
    if isinstance(layer, keras.layers.Activation):
        return _slope(layer, layer.activation), 0.0
    if isinstance(layer, keras.layers.Normalization):
        deviation = scaling(layer)[1]
        return float((deviation if layer.invert else 1 / deviation).max()), 0.0
    if isinstance(layer, keras.layers.Rescaling):
        return float(np.abs(layer.scale).max()), 0.0
    if isinstance(layer, (keras.layers.Masking, ApplyMask, *IDENTITY_AT_INFERENCE)):
        return 1.0, 0.0
    _raise_unsupported(
        "SimpleRNN, Dense, Activation, Normalization, Rescaling, masking and dropout layers only. "
        f"Received: layer {layer.name!r}, a {type(layer).__name__}."
    )


def _simple_rnn_factor(layer: keras.layers.SimpleRNN, node: Any) -> tuple[float, float]:
    if layer.go_backwards:
        _raise_unsupported(
            f"go_backwards=False. Received: layer {layer.name!r} with go_backwards=True."
        )
    if len(_inputs_without_masks(node)) > 1:
        _raise_unsupported(
            f"no initial state from another layer. Received: layer {layer.name!r} with one."
        )
    slope = _slope(layer, layer.activation)
    cell: Any = layer.cell
    return slope * _norm(cell.kernel), slope * _norm(cell.recurrent_kernel)


def _inputs_without_masks(node: Any) -> list[Any]:
    return [tensor for tensor in node.input_tensors if tensor.dtype != "bool"]


def _slope(layer: Any, activation: Any) -> float:
    name = getattr(activation, "__name__", str(activation))
    if name not in SLOPES or activation is not keras.activations.get(name):
        _raise_unsupported(
            f"activations with a slope of at most 1: {', '.join(SLOPES)}. Received: {name!r} in "
            f"layer {layer.name!r}."
        )
    return SLOPES[name]


def _norm(kernel: Any) -> float:
    """The largest singular value."""
    return float(np.linalg.norm(np.asarray(keras.ops.convert_to_numpy(kernel), np.float64), 2))


def _raise_unsupported(requirement: str) -> NoReturn:
    raise errors.ArgumentError(f"`model` must have {requirement} {HINT}")


def _measured_norms(model: Any, x: Any, mask: Any, lags: int, batch_size: int) -> np.ndarray:
    """The largest norm of the Jacobian by lag, over rows and steps."""
    x, mask = model_function.prepare_inputs(model, x, mask)
    jacobian = Jacobian(model, x, None, batch_size)
    function = model_function.as_function(model)
    y = model_function.predict_in_batches(function, x.astype(jacobian.dtype), batch_size)
    largest = np.full(lags + 1, np.nan)
    steps, outputs = x.shape[1], y.shape[-1]
    last_only = y.ndim < 3
    for row in range(len(x)):
        real = np.flatnonzero(np.ones(steps, bool) if mask is None else mask[row])
        matrix = jacobian(x[row], y[row].size).reshape(-1, outputs, steps, x[row, 0].size)
        for position, step in enumerate(real):
            if last_only and position < len(real) - 1:
                continue
            past = matrix[0 if last_only else step][:, real[: position + 1]]
            blocks = past.swapaxes(0, 1)[::-1][: lags + 1]  # (lags, outputs, features)
            norms = np.linalg.norm(blocks, ord=2, axis=(1, 2))
            largest[: len(norms)] = np.fmax(largest[: len(norms)], norms)
    return largest
