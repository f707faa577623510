"""How single layers are undone, each from the weights that it has, or why they cannot be."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import keras
import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers import Normalization

INVERTIBLE = ("linear", "tanh", "sigmoid")
# Share of a value that round-off may make up where an activation is undone; more is saturated.
LEAST_LEFT = 1e-2
NEXT_STEP = (
    " There is no exact inverse: train a decoder, an entry such as 'attention_autoencoder' or "
    "'linear_rnn_autoencoder'; keras_seqzoo.diagnostics.recoverability says what to expect."
)


@dataclasses.dataclass
class Findings:
    """What undoing layers has met so far.

    Attributes:
        conditions: condition number of each kernel that was inverted, by layer.
        slope: the largest `1 / |activation'|`.
        residual: the largest share of what was to be explained by an input that no input explains.
        eps: unit of round-off of the model.
        error: bound, of first order, of the error that round-off makes in a step, as a norm.
    """

    conditions: dict[str, float]
    slope: float
    residual: float
    eps: float
    error: float


def refuse(reason: str, error: type[Exception] = ArgumentError) -> NoReturn:
    """Raises with the condition that fails and what to do instead."""
    raise error(reason + NEXT_STEP)


def scaling(layer: keras.layers.Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation that a scaling layer uses."""
    if isinstance(layer, Normalization) and layer.input_mean is None:
        mean, variance = _array(layer.adapt_mean), _array(layer.adapt_variance)
        return mean, np.where(variance > 0, np.sqrt(variance), 1.0)
    mean, variance = _array(layer.mean), _array(layer.variance)
    return mean, np.maximum(np.sqrt(variance), keras.backend.epsilon())


def normalization(layer: keras.layers.Normalization, y, found: Findings) -> np.ndarray:
    """The values in front of a scaling layer."""
    mean, deviation = scaling(layer)
    found.error *= float((1 / deviation if layer.invert else deviation).max())
    return (y - mean) / deviation if layer.invert else y * deviation + mean


def dense(layer: keras.layers.Dense, y: np.ndarray, found: Findings) -> np.ndarray:
    """The values in front of a Dense layer whose kernel has full row rank."""
    kernel, bias = _array(layer.kernel), _bias(layer.bias)
    y = activation(layer.activation, y, layer.name, found)
    inverse = _right_inverse(
        kernel, layer.name, found, "values", "states do not follow from the output. Give those "
        "of the recurrent layer where you can: y=its output, layer=its name."
    )  # fmt: skip
    return _explained(y - bias, kernel, inverse, found)


def simple_rnn(layer: keras.layers.SimpleRNN, states, initial, found: Findings) -> np.ndarray:
    """The input sequence of a SimpleRNN: `x_t = (act^-1(h_t) - h_(t-1) R - b) W^+`.

    Args:
        layer: the layer.
        states: `(batch, time, units)`.
        initial: `(batch, units)`, the state before the first step.
        found: what was met, added to.
    """
    cell = layer.cell
    kernel, recurrent = _array(cell.kernel), _array(cell.recurrent_kernel)
    inverse = _right_inverse(
        kernel, layer.name, found, "features", "several inputs give the same states."
    )
    error = found.error
    before = np.concatenate([initial[:, None], states[:, :-1]], axis=1)
    inside = activation(cell.activation, states, layer.name, found)
    carried = before @ recurrent
    # A state is rounded by itself, as what went before, and in the sum that it is made of.
    rounded = error * np.linalg.norm(recurrent, 2) + found.eps * largest(carried)
    found.error += float(rounded)
    return _explained(inside - carried - _bias(cell.bias), kernel, inverse, found)


def activation(function, y: np.ndarray, name: str, found: Findings) -> np.ndarray:
    """The values in front of an activation.

    Raises:
        ArgumentError: if it is none of `INVERTIBLE`.
        DataError: if it is saturated, so that nothing is left of them but round-off.
    """
    known = (one for one in INVERTIBLE if function is getattr(keras.activations, one))
    kind = next(known, None)
    if kind is None:
        shown = getattr(function, "__name__", repr(function))
        refuse(
            f"The activation of layer {name!r} must be invertible: one of "
            f"{', '.join(INVERTIBLE)}. Received: {shown}."
        )
    if kind == "linear":
        return y
    slope = (1 - y) * (1 + y) if kind == "tanh" else y * (1 - y)  # act' by act
    least = float(slope.min(initial=1.0))
    if not least * LEAST_LEFT > found.eps:
        refuse(
            f"The activation of layer {name!r} must not be saturated. Received: an output of "
            f"{y.flat[slope.argmin()]:.9g}, of which {kind} leaves nothing but round-off.",
            DataError,
        )
    found.slope = max(found.slope, 1 / least)
    found.error /= least
    return np.arctanh(y) if kind == "tanh" else np.log(y) - np.log1p(-y)


def _right_inverse(kernel: np.ndarray, name: str, found: Findings, inputs: str, why: str):
    """`W^+`, if `W W^+` is the identity."""
    rows = len(kernel)
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    rank = int((values > found.eps * max(kernel.shape) * values.max(initial=0.0)).sum())
    if rank < rows:
        refuse(
            f"The kernel of layer {name!r} must have full row rank, as many units as {inputs} at "
            f"least. Received: shape {kernel.shape} of rank {rank}, so that {why}"
        )
    found.conditions[name] = float(values[0] / values[-1])
    return (right.T / values) @ left.T  # (units, rows)


def _explained(values: np.ndarray, kernel, inverse, found: Findings) -> np.ndarray:
    """The inputs that a kernel makes `values` of; what no input explains is noted."""
    x = values @ inverse
    missing, size = largest(values - x @ kernel), largest(values)
    found.residual = max(found.residual, missing / size if size > 0 else 0.0)
    found.error *= float(np.linalg.norm(inverse, 2))
    return x


def largest(values: np.ndarray) -> float:
    """The largest norm of a step, of `(batch, time, features)`."""
    return float(np.linalg.norm(values, axis=-1).max(initial=0.0))


def _bias(bias) -> np.ndarray | float:
    return 0.0 if bias is None else _array(bias)


def _array(weight) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
