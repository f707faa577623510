"""Exact inversion: the input sequence of a SimpleRNN from its states or its output."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.invertibility import layer_inverses
from keras_seqzoo.diagnostics.invertibility.layer_inverses import (
    ErrorAnalysis,
    raise_not_invertible,
)
from keras_seqzoo.inspection import model_function
from keras_seqzoo.layers import ApplyMask, StepMask
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.utils.array_validation import as_array
from keras_seqzoo.utils.serialization import to_json_values

MAX_RESIDUAL = 1e-2  # share of the states that no input explains


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Inversion:
    """Result of `invert`: the input sequence and its conditioning. `str(inversion)` sums it up.

    Attributes:
        x: `(batch, time, features)`, float64, the input sequence.
        condition: float, product of the condition numbers of the inverted kernels.
        conditions: dict, condition number of each kernel, by layer; `cond(W)` for the SimpleRNN.
        slope: float, the largest `1 / |activation'|`, 1 for a linear model.
        error_bound: float, first-order bound of the error of `x` from round-off of `y`, relative to
            the largest step of `x`, propagated through every layer at the worst step.
        residual: float in [0, 1], the largest share of a state that no input explains. It is
            round-off, since more is an error. With square kernels an input explains every state.
    """

    x: np.ndarray
    condition: float
    conditions: dict[str, float]
    slope: float
    error_bound: float
    residual: float

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        conditions = ", ".join(f"{name!r} {value:.3g}" for name, value in self.conditions.items())
        return (
            f"Input of shape {self.x.shape}, relative error at most about {self.error_bound:.1g} "
            f"(condition numbers: {conditions}; largest slope of an inverse activation: "
            f"{self.slope:.3g})."
        )


def invert(model: Any, y: Any, *, layer: str | None = None, initial_state: Any = None) -> Inversion:
    """Exact inverse of a SimpleRNN model: the input sequence from the states or the output.

    With `h_t = act(x_t W + h_(t-1) R + b)`, the input is `x_t = (act^-1(h_t) - h_(t-1) R - b) W^+`.
    Other layers on the path are inverted as well: scaling (`Normalization`, `Rescaling`), Dense
    layers, dropout and further SimpleRNN layers, so that the inverse of a `simple_rnn_identity` is
    in raw readings. Requirements:

    - all states: `return_sequences=True`, from a known initial state;
    - no mask;
    - an invertible activation, "linear", "tanh" or "sigmoid", that is not saturated;
    - a kernel of full row rank, which takes at least as many units as features;
    - for inversion from the output, a head of full row rank, which takes at least as many outputs
      as units, so that the states follow from it. Otherwise pass the states themselves: `layer=`.

    Shapes: `y` is `(batch, time, outputs)`; the input is `(batch, time, features)`.
    Masking: none; models with a mask are refused.
    State: the initial state is that of the layer, zeros, or `initial_state`.

    Args:
        model: a Functional or Sequential Keras model of the layers above.
        y: the output of the model, or of `layer`.
        layer: str, name of the layer with output `y`; default the model's last.
        initial_state: array `(batch, units)` or `(units,)`, the state before the first step;
            default zeros. For models with one SimpleRNN.

    Returns:
        An `Inversion`: the input in `.x`, and its conditioning.

    Raises:
        ArgumentError: if the model has no exact inverse; the message names the condition that
            fails. Also if an argument is invalid.
        DataError: if `y` or `initial_state` has an unusable shape, type or value, if an activation
            is saturated there, or if no input gives `y` from that initial state.

    Example:

    >>> import keras
    >>> import keras_seqzoo as zoo
    >>> inputs = keras.Input((None, 2))
    >>> states = keras.layers.SimpleRNN(4, return_sequences=True)(inputs)
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 2))
    >>> model = keras.Model(inputs, states)
    >>> bool(np.allclose(zoo.diagnostics.invert(model, model.predict_on_batch(x)).x, x, atol=1e-4))
    True

    Reference: [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1), for the layer
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise errors.ArgumentError(
            argument_message("model", "a Functional or Sequential Keras model", type(model))
        )
    part = model_function.truncate_at_layer(model, layer)
    if len(part.outputs) != 1:
        raise errors.ArgumentError(
            f"`model` must have one output. Received: {len(part.outputs)}. Pass the output of one "
            "layer: layer=its name."
        )
    path = layers_to_input(part.outputs[0])
    recurrent = [step for step, _ in path if isinstance(step, keras.layers.SimpleRNN)]
    if not recurrent:
        names = ", ".join(step.name for step, _ in path) or "none"
        raise_not_invertible(
            f"`model` must have a SimpleRNN layer to invert. Received: layers {names}."
        )
    for step, node in path:
        _check_invertible(step, node)
    y = _check_output(y, part.outputs[0].shape)
    eps = model_function.machine_epsilon(part)
    analysis = ErrorAnalysis(
        {}, slope=1.0, residual=0.0, eps=eps, error=eps * layer_inverses.max_step_norm(y)
    )
    for step, node in path:
        if isinstance(step, keras.layers.SimpleRNN):
            initial = _initial_state(step, node, initial_state, len(y), len(recurrent))
            y = layer_inverses.invert_simple_rnn(step, y, initial, analysis)
        else:
            y = _invert_layer(step, y, analysis)
    size = layer_inverses.max_step_norm(y)
    error_bound = analysis.error / size if size > 0 else analysis.error
    if analysis.residual > max(MAX_RESIDUAL, 10 * error_bound):
        raise errors.DataError(
            f"`y` must be the output of {part.name!r} for some input and that initial state. "
            f"Received: a state of which no input explains {analysis.residual:.2g}. Is it the "
            "output of another layer (layer=), or was there another initial state "
            "(initial_state=)?"
        )
    return Inversion(
        x=y,
        condition=math.prod(analysis.conditions.values()),
        conditions=analysis.conditions,
        slope=analysis.slope,
        error_bound=error_bound,
        residual=analysis.residual,
    )


def layers_to_input(tensor: Any) -> list[tuple[Any, Any]]:
    """Layers and their call nodes on the path from an output to the input, the last layer first."""
    path = []
    while True:
        layer, at, index = compat.keras_history(tensor)
        node = compat.inbound_nodes(layer)[at]
        if node.is_input:
            return path
        if index:
            raise errors.ArgumentError(
                f"Only the first output of layer {layer.name!r} must be used. Received: output "
                f"{index}. Pass the output of one layer: layer=its name."
            )
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):  # a nested model
            path += layers_to_input(layer.outputs[0])
        else:
            path.append((layer, node))
        tensor = node.input_tensors[0]


# Layers that are the identity at inference.
IDENTITY_AT_INFERENCE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
_INVERTIBLE_LAYERS = (
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Dense,
    keras.layers.Activation,
    *IDENTITY_AT_INFERENCE,
)
_MASKS = (keras.layers.Masking, ApplyMask, StepMask)


def _check_invertible(layer: Any, node: Any) -> None:
    """Raises for a layer without an inverse, before any computation."""
    if isinstance(layer, _MASKS) or node.arguments.kwargs.get("mask") is not None:
        raise_not_invertible(
            "The model must have no mask: a padded step keeps the state, whatever its input. "
            f"Received: layer {layer.name!r} with a mask. Remove the padding and build the model "
            "without a mask."
        )
    if isinstance(layer, keras.layers.SimpleRNN):
        for name, required in (("return_sequences", True), ("go_backwards", False)):
            if getattr(layer, name) is not required:
                raise_not_invertible(
                    f"All states are needed, in time order: layer {layer.name!r} must have "
                    f"{name}={required}. Received: {name}={not required}."
                )
    elif not isinstance(layer, _INVERTIBLE_LAYERS) or len(node.input_tensors) > 1:
        raise_not_invertible(
            "Every layer between the output and the input must be a SimpleRNN, Dense, Activation, "
            f"Normalization, Rescaling or dropout layer. Received: {layer.name!r}, a "
            f"{type(layer).__name__}."
        )


def _invert_layer(layer: Any, y: np.ndarray, analysis: ErrorAnalysis) -> np.ndarray:
    if isinstance(layer, keras.layers.Normalization):
        return layer_inverses.invert_normalization(layer, y, analysis)
    if isinstance(layer, keras.layers.Rescaling):
        analysis.error /= float(np.abs(layer.scale).min())
        return (y - layer.offset) / layer.scale
    if isinstance(layer, keras.layers.Dense):
        return layer_inverses.invert_dense(layer, y, analysis)
    if isinstance(layer, keras.layers.Activation):
        return layer_inverses.invert_activation(layer.activation, y, layer.name, analysis)
    return y


def _initial_state(layer: Any, node: Any, state: Any, rows: int, recurrent: int) -> np.ndarray:
    """State `(rows, units)` before the first step of one of `recurrent` SimpleRNN layers."""
    units = layer.cell.units
    if state is None:
        from_graph = len(node.input_tensors) > 1
        if from_graph or layer.stateful:
            source = (
                "the output of another layer"
                if from_graph
                else "the last state of the previous call (stateful=True)"
            )
            raise errors.ArgumentError(
                f"The initial state of layer {layer.name!r} must be known; it is {source}. "
                "Received: initial_state=None. Pass it as an array (batch, units)."
            )
        return np.zeros((rows, units))
    if recurrent > 1:
        raise errors.ArgumentError(
            f"`initial_state` must be None where several layers have one. Received: {recurrent} "
            "SimpleRNN layers. Invert them one by one: layer=."
        )
    state = as_array("initial_state", state)
    if state.dtype.kind not in "iuf" or state.shape not in {(rows, units), (units,)}:
        raise errors.DataError(
            f"`initial_state` must be numeric of shape (batch, units) = {(rows, units)} or "
            f"{(units,)}. Received: shape {state.shape}, dtype {state.dtype}."
        )
    if not np.isfinite(state).all():
        raise errors.DataError("`initial_state` must be finite. Received: NaN or infinity.")
    return np.broadcast_to(state.astype(np.float64), (rows, units))


def _check_output(y: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`y` in float64, if it fits the output shape `(batch, time, outputs)`."""
    y = as_array("y", y)
    fits = y.ndim == len(shape) == 3 and y.shape[-1] == shape[-1] and shape[1] in (None, y.shape[1])
    if y.dtype.kind not in "iuf" or not fits or 0 in y.shape:
        shown = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise errors.DataError(
            f"`y` must be numeric, of the output's shape (batch, {shown}), with time on the second "
            f"axis. Received: shape {y.shape}, dtype {y.dtype}."
        )
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise errors.DataError("`y` must be finite. Received: NaN or infinity.")
    return y
