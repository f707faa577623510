"""Exact inverses of single layers from their weights, with the conditions of their existence."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import keras
import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers import Normalization

INVERTIBLE = ("linear", "tanh", "sigmoid")
# Round-off may take up to this share of a value where an activation is inverted; beyond, the
# activation is saturated.
MAX_ROUND_OFF = 1e-2
NEXT_STEP = (
    " There is no exact inverse: train a decoder, an entry such as 'attention_autoencoder' or "
    "'linear_rnn_autoencoder'; keras_seqzoo.diagnostics.recoverability measures what a linear "
    "decoder recovers."
)


@dataclasses.dataclass
class ErrorAnalysis:
    """Condition numbers and first-order error bound, updated by each layer inverse.

    Attributes:
        conditions: condition number of each inverted kernel, by layer.
        slope: the largest `1 / |activation'|`.
        residual: the largest share of a layer's output that no input explains.
        eps: unit of round-off of the model.
        error: first-order bound of the round-off error of a step, as a norm.
    """

    conditions: dict[str, float]
    slope: float
    residual: float
    eps: float
    error: float


def raise_not_invertible(reason: str, error: type[Exception] = ArgumentError) -> NoReturn:
    """Raises `error` with the condition that fails and what to do instead."""
    raise error(reason + NEXT_STEP)


def scaling(layer: keras.layers.Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a Normalization layer."""
    if isinstance(layer, Normalization) and layer.input_mean is None:
        mean, variance = _array(layer.adapt_mean), _array(layer.adapt_variance)
        return mean, np.where(variance > 0, np.sqrt(variance), 1.0)
    mean, variance = _array(layer.mean), _array(layer.variance)
    return mean, np.maximum(np.sqrt(variance), keras.backend.epsilon())


def invert_normalization(
    layer: keras.layers.Normalization, y: np.ndarray, analysis: ErrorAnalysis
) -> np.ndarray:
    """Input of a Normalization layer."""
    mean, deviation = scaling(layer)
    analysis.error *= float((1 / deviation if layer.invert else deviation).max())
    return (y - mean) / deviation if layer.invert else y * deviation + mean


def invert_dense(layer: keras.layers.Dense, y: np.ndarray, analysis: ErrorAnalysis) -> np.ndarray:
    """Input of a Dense layer with a kernel of full row rank."""
    kernel, bias = _array(layer.kernel), _bias(layer.bias)
    y = invert_activation(layer.activation, y, layer.name, analysis)
    inverse = _right_inverse(
        kernel, layer.name, analysis, "inputs", "states do not follow from the output. Pass the "
        "states of the recurrent layer if you have them: y=its output, layer=its name."
    )  # fmt: skip
    return _solve(y - bias, kernel, inverse, analysis)


def invert_simple_rnn(
    layer: keras.layers.SimpleRNN,
    states: np.ndarray,
    initial: np.ndarray,
    analysis: ErrorAnalysis,
) -> np.ndarray:
    """Input sequence of a SimpleRNN: `x_t = (act^-1(h_t) - h_(t-1) R - b) W^+`.

    Args:
        layer: the layer.
        states: `(batch, time, units)`.
        initial: `(batch, units)`, the state before the first step.
        analysis: `ErrorAnalysis`, updated.
    """
    cell: Any = layer.cell
    kernel, recurrent_kernel = _array(cell.kernel), _array(cell.recurrent_kernel)
    inverse = _right_inverse(
        kernel, layer.name, analysis, "features", "several inputs give the same states."
    )
    state_error = analysis.error
    previous = np.concatenate([initial[:, None], states[:, :-1]], axis=1)
    pre_activation = invert_activation(cell.activation, states, layer.name, analysis)
    recurrent = previous @ recurrent_kernel
    # Round-off enters through the state itself, the previous state, and their sum.
    rounded = state_error * np.linalg.norm(recurrent_kernel, 2)
    analysis.error += float(rounded + analysis.eps * max_step_norm(recurrent))
    return _solve(pre_activation - recurrent - _bias(cell.bias), kernel, inverse, analysis)


def invert_activation(
    function: Any, y: np.ndarray, name: str, analysis: ErrorAnalysis
) -> np.ndarray:
    """Pre-activations of an activation function.

    Args:
        function: Keras activation.
        y: the activations.
        name: str, of the layer, for error messages.
        analysis: `ErrorAnalysis`, updated.

    Raises:
        ArgumentError: if the activation is not one of `INVERTIBLE`.
        DataError: if it is saturated, so that round-off exceeds the information left in `y`.
    """
    matches = (kind for kind in INVERTIBLE if function is getattr(keras.activations, kind))
    kind = next(matches, None)
    if kind is None:
        shown = getattr(function, "__name__", repr(function))
        raise_not_invertible(
            f"The activation of layer {name!r} must be invertible: one of "
            f"{', '.join(INVERTIBLE)}. Received: {shown}."
        )
    if kind == "linear":
        return y
    slope = (1 - y) * (1 + y) if kind == "tanh" else y * (1 - y)  # act' as a function of act
    least = float(slope.min(initial=1.0))
    if not least * MAX_ROUND_OFF > analysis.eps:
        raise_not_invertible(
            f"The activation of layer {name!r} must not be saturated. Received: an output of "
            f"{y.flat[slope.argmin()]:.9g}, where round-off dominates the inverse of {kind}.",
            DataError,
        )
    analysis.slope = max(analysis.slope, 1 / least)
    analysis.error /= least
    return np.arctanh(y) if kind == "tanh" else np.log(y) - np.log1p(-y)


def _right_inverse(
    kernel: np.ndarray, name: str, analysis: ErrorAnalysis, inputs: str, consequence: str
) -> np.ndarray:
    """`W^+` `(units, rows)` with `W W^+ = I`; raises with `consequence` if there is none."""
    rows = len(kernel)
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    rank = int((values > analysis.eps * max(kernel.shape) * values.max(initial=0.0)).sum())
    if rank < rows:
        raise_not_invertible(
            f"The kernel of layer {name!r} must have full row rank, with at least as many units as "
            f"{inputs}. Received: shape {kernel.shape} of rank {rank}, so that {consequence}"
        )
    analysis.conditions[name] = float(values[0] / values[-1])
    return (right.T / values) @ left.T


def _solve(
    values: np.ndarray, kernel: np.ndarray, inverse: np.ndarray, analysis: ErrorAnalysis
) -> np.ndarray:
    """The inputs `x` with `x W` nearest to `values`; updates residual and error."""
    x = values @ inverse
    unexplained, size = max_step_norm(values - x @ kernel), max_step_norm(values)
    analysis.residual = max(analysis.residual, unexplained / size if size > 0 else 0.0)
    analysis.error *= float(np.linalg.norm(inverse, 2))
    return x


def max_step_norm(values: np.ndarray) -> float:
    """The largest norm of a step of `(batch, time, features)`."""
    return float(np.linalg.norm(values, axis=-1).max(initial=0.0))


def _bias(bias: Any) -> np.ndarray | float:
    return 0.0 if bias is None else _array(bias)


def _array(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
