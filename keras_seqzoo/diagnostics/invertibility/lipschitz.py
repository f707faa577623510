"""A certificate: how much an input can move outputs later on, whatever the input."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.invertibility.inversion import IDLE, steps_back
from keras_seqzoo.diagnostics.invertibility.jacobian import Jacobian
from keras_seqzoo.diagnostics.invertibility.layer_inverses import scaling
from keras_seqzoo.diagnostics.leakage.report import geometric
from keras_seqzoo.inspection import model_function
from keras_seqzoo.layers import ApplyMask
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_not_negative,
    check_positive,
)
from keras_seqzoo.utils.serialization import to_json_values

# The largest slope of each activation, of a softmax the largest norm of its Jacobian.
SLOPES = {
    "linear": 1.0, "tanh": 1.0, "relu": 1.0, "relu6": 1.0, "leaky_relu": 1.0, "elu": 1.0,
    "hard_tanh": 1.0, "softsign": 1.0, "softplus": 1.0, "log_sigmoid": 1.0, "sigmoid": 0.25,
    "hard_sigmoid": 1 / 6, "softmax": 0.5,
}  # fmt: skip
ADVICE = "Measure instead: keras_seqzoo.leakage on rows of yours takes any model."


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class LipschitzBound:
    """What `lipschitz_bound` found. `str(certificate)` is a sentence and a table.

    Attributes:
        bounds: `(lags + 1,)`, bound of `||dy_t/dx_(t-k)||` at `k = 0, 1, ...`, for all inputs.
        measured: `(lags + 1,)`, the largest norm found at the rows given; None without rows, and
            nan at lags that they do not reach.
        decay: float, factor from one lag to the next for old inputs: the largest `||R||`, times
            the activation's slope. Below 1, influence dies out.
        factors: dict, what each layer contributes, from the output to the input: its norm, of a
            SimpleRNN that of its kernel.
        recurrent: dict, `||R||` of each SimpleRNN.
    """

    bounds: np.ndarray
    measured: np.ndarray | None
    decay: float
    factors: dict[str, float]
    recurrent: dict[str, float]

    def horizon(self, threshold: float = 0.01) -> int | None:
        """The smallest lag from which on no bound is above `threshold`; None beyond the lags.

        Args:
            threshold: float, at least 0, in units of the output over units of the input.

        Raises:
            ArgumentError: if `threshold` is something else.
        """
        check_not_negative(threshold=threshold)
        above = np.flatnonzero(self.bounds > threshold)
        if not len(above):
            return 0
        return int(above[-1]) + 1 if above[-1] + 1 < len(self.bounds) else None

    def to_dict(self) -> dict[str, Any]:
        """The certificate as plain data, for JSON; nan and infinity become None."""
        return {
            "bounds": to_json_values(self.bounds),
            "measured": to_json_values(self.measured),
            "decay": to_json_values(self.decay),
            "factors": dict(self.factors),
            "recurrent": dict(self.recurrent),
        }

    def __str__(self) -> str:
        kernels = ", ".join(f"{name} {norm:.3g}" for name, norm in self.recurrent.items())
        fate = "dies out" if self.decay < 1 else "is not bounded to die out"
        lines = [
            f"The influence of an old input {fate}: at most a factor of {self.decay:.3g} per step "
            f"(norms of recurrent kernels: {kernels}).",
            "",
            "  steps back   bound" + ("" if self.measured is None else "      measured"),
        ]
        for lag in [0, *geometric(max(len(self.bounds) - 1, 1))][: len(self.bounds)]:
            found = "" if self.measured is None else f"{self.measured[lag]:.3g}"
            lines.append(f"  {lag:>10}   {self.bounds[lag]:<10.3g} {found}".rstrip())
        if self.decay >= 1:
            lines.append(
                "  To bound it, train with recurrent_regularizer=keras_seqzoo.regularizers.SpectralNorm()."
            )
        return "\n".join(lines)


def lipschitz_bound(
    model: Any, x: Any = None, *, lags: int = 50, mask: Any = None, batch_size: int = 1024
) -> LipschitzBound:
    """Bounds how much an input can move the output `k` steps later, for all inputs there are.

    `||dy_t/dx_(t-k)|| <= max(sigma_out) ||C|| ||R||^k ||W|| max(1 / sigma_in)`: kernel `W` and
    recurrent kernel `R` of a SimpleRNN, kernel `C` of a Dense layer behind it, scaling in front and
    behind; largest singular values, by full decomposition. It holds since each activation has a
    slope of at most 1 (where it is less, that is used). Several SimpleRNN layers on top of each
    other are bounded by the sum over the ways to split `k` among them.

    Leakage says what the past does on the rows at hand; this says what it can do on any. The two
    are not compared: the bound is of derivatives.

    Shapes: the output has the input's steps, or is that of the last step alone.
    Masking: lags count real steps, since a padded one hands the state on as it is.
    State: none that matters: a state from calls before only makes the past longer.

    Args:
        model: a Functional or Sequential Keras model of SimpleRNN, Dense, Activation,
            Normalization, Rescaling, masking and dropout layers, one behind the other.
        x: rows `(batch, time, features)` to measure derivatives at, beside the bound; a few will
            do. Default: none.
        lags: int, at least 1, how many steps to look back.
        mask: bool array `(batch, time)`, True for real steps of `x`. Default: the model's own.
        batch_size: int, copies of a row per call when measuring.

    Returns:
        A `LipschitzBound`.

    Raises:
        ArgumentError: if the model has another layer or activation; it says which condition fails.
        DataError: if `x` cannot be used.

    Example:

    >>> import keras
    >>> import keras_seqzoo as zoo
    >>> halved = keras.initializers.Identity(0.5)
    >>> model = zoo.get("simple_rnn_identity", recurrent_initializer=halved)
    >>> certificate = zoo.diagnostics.lipschitz_bound(model, lags=8)
    >>> print(certificate.decay, (certificate.bounds[1:] / certificate.bounds[:-1]).round(6)[:2])
    0.5 [0.5 0.5]
    """
    check_positive(lags=lags, batch_size=batch_size)
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        expected = "a Functional or Sequential Keras model"
        raise errors.ArgumentError(argument_message("model", expected, type(model), ADVICE))
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        _refuse(f"one input and one output. Received: {len(model.inputs)}, {len(model.outputs)}.")
    bounds = np.zeros(lags + 1)
    bounds[0] = 1.0
    factors, recurrent, decays = {}, {}, []
    for layer, node in steps_back(model.outputs[0]):
        factor, decay = _factor(layer, node)
        if isinstance(layer, keras.layers.SimpleRNN):
            recurrent[layer.name] = _norm(layer.cell.recurrent_kernel)
            decays.append(decay)
        with np.errstate(over="ignore"):
            reach = factor * decay ** np.arange(lags + 1)  # 0 ** 0 is 1
            bounds = np.convolve(bounds, reach)[: lags + 1]
        factors[layer.name] = factor
    if not recurrent:
        _refuse("at least one SimpleRNN layer. Received: none.")
    measured = None if x is None else _measured(model, x, mask, lags, batch_size)
    return LipschitzBound(bounds, measured, max(decays), factors, recurrent)


def _factor(layer: Any, node: Any) -> tuple[float, float]:
    """What a layer multiplies a derivative by at lag 0, and from each lag to the next."""
    if isinstance(layer, keras.layers.SimpleRNN):
        return _simple_rnn(layer, node)
    values = [one for one in node.input_tensors if one.dtype != "bool"]
    if len(values) > 1:
        _refuse(f"layers of one input. Received: {layer.name!r} with {len(values)}.")
    if isinstance(layer, keras.layers.Dense):
        return _norm(layer.kernel) * _slope(layer, layer.activation), 0.0
    if isinstance(layer, keras.layers.Activation):
        return _slope(layer, layer.activation), 0.0
    if isinstance(layer, keras.layers.Normalization):
        deviation = scaling(layer)[1]
        return float((deviation if layer.invert else 1 / deviation).max()), 0.0
    if isinstance(layer, keras.layers.Rescaling):
        return float(np.abs(layer.scale).max()), 0.0
    if isinstance(layer, (keras.layers.Masking, ApplyMask, *IDLE)):
        return 1.0, 0.0
    _refuse(
        "SimpleRNN, Dense, Activation, Normalization, Rescaling, masking and dropout layers alone. "
        f"Received: layer {layer.name!r}, a {type(layer).__name__}."
    )


def _simple_rnn(layer: keras.layers.SimpleRNN, node: Any) -> tuple[float, float]:
    if layer.go_backwards:
        _refuse(f"time forwards. Received: layer {layer.name!r} with go_backwards=True.")
    given = [one for one in node.input_tensors if one.dtype != "bool"]
    if len(given) > 1:
        _refuse(f"no state from another layer. Received: layer {layer.name!r} with one.")
    slope = _slope(layer, layer.activation)
    return slope * _norm(layer.cell.kernel), slope * _norm(layer.cell.recurrent_kernel)


def _slope(layer: Any, activation: Any) -> float:
    name = getattr(activation, "__name__", str(activation))
    known = name in SLOPES and activation is keras.activations.get(name)
    if not known:
        _refuse(
            f"activations with a slope of at most 1: {', '.join(SLOPES)}. Received: {name!r} in "
            f"layer {layer.name!r}."
        )
    return SLOPES[name]


def _norm(kernel: Any) -> float:
    """The largest singular value."""
    return float(np.linalg.norm(np.asarray(keras.ops.convert_to_numpy(kernel), np.float64), 2))


def _refuse(what: str) -> NoReturn:
    raise errors.ArgumentError(f"`model` must have {what} {ADVICE}")


def _measured(model, x, mask, lags: int, batch_size: int) -> np.ndarray:
    """The largest norm of the Jacobian by lag, over rows and steps."""
    x, mask = model_function.prepare_inputs(model, x, mask)
    jacobian = Jacobian(model, x, None, batch_size)
    y = model_function.predict_in_batches(
        model_function.as_function(model), x.astype(jacobian.dtype), batch_size
    )
    found = np.full(lags + 1, np.nan)
    steps, outputs = x.shape[1], y.shape[-1]
    last = y.ndim < 3
    for row in range(len(x)):
        real = np.flatnonzero(np.ones(steps, bool) if mask is None else mask[row])
        whole = jacobian(x[row], y[row].size).reshape(-1, outputs, steps, x[row, 0].size)
        for at, step in enumerate(real):
            if last and at < len(real) - 1:
                continue
            blocks = whole[0 if last else step][:, real[: at + 1]].swapaxes(0, 1)[::-1][: lags + 1]
            norms = np.linalg.norm(blocks, ord=2, axis=(1, 2))
            found[: len(norms)] = np.fmax(found[: len(norms)], norms)
    return found
