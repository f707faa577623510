"""Exact inversion: the input sequence of a SimpleRNN from its states or its output."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.invertibility import layer_inverses
from keras_seqzoo.diagnostics.invertibility.layer_inverses import refuse
from keras_seqzoo.inspection import model_function
from keras_seqzoo.layers import ApplyMask, StepMask
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.utils.array_validation import as_array
from keras_seqzoo.utils.serialization import to_json_values

NOT_OF_THIS_MODEL = 1e-2  # share of the states that no input explains


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Inversion:
    """What `invert` found. `str(inversion)` says how far to trust it.

    Attributes:
        x: `(batch, time, features)`, float64, the input sequence.
        condition: float, product of the condition numbers of the kernels that were inverted.
        conditions: dict, condition number of each, by layer; that of the SimpleRNN is `cond(W)`.
        slope: float, the largest `1 / |activation'|`, 1 for a linear model.
        error_bound: float, what round-off of `y` can make of `x`, relative to its largest step:
            carried through every layer to first order, at the worst step.
        residual: float in [0, 1], the largest share of a state that no input explains: round-off,
            since more is refused. Where kernels are square there is nothing that none explains.
    """

    x: np.ndarray
    condition: float
    conditions: dict[str, float]
    slope: float
    error_bound: float
    residual: float

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        kernels = ", ".join(f"{name!r} {one:.3g}" for name, one in self.conditions.items())
        return (
            f"Input of shape {self.x.shape}, with a relative error of about "
            f"{self.error_bound:.1g} at most (condition numbers: {kernels}; largest slope of an "
            f"inverse activation {self.slope:.3g})."
        )


def invert(model: Any, y: Any, *, layer: str | None = None, initial_state: Any = None) -> Inversion:
    """Computes the input sequence that a SimpleRNN made its states, or its output, of: exactly.

    With `h_t = act(x_t W + h_(t-1) R + b)`, the input is `x_t = (act^-1(h_t) - h_(t-1) R - b) W^+`.
    Layers in front and behind are undone as well: scaling (`Normalization`, `Rescaling`), Dense
    layers, dropout and further SimpleRNN layers, so that raw readings come out of a
    `simple_rnn_identity`. It takes

    - all states: `return_sequences=True`, from an initial state that is known;
    - no mask;
    - an activation that can be inverted, "linear", "tanh" or "sigmoid", and is not saturated;
    - a kernel of full row rank, that is, at least as many units as features;
    - from the output, a head of full row rank, that is, at least as many outputs as units: then the
      states follow. Otherwise give the states themselves: `layer=`.

    Shapes: `y` is `(batch, time, outputs)`, the input comes out as `(batch, time, features)`.
    Masking: none; models with a mask are refused.
    State: the initial state is that of the layer, zeros, or `initial_state`.

    Args:
        model: a Functional or Sequential Keras model; any whose layers are those above.
        y: what came out of the model, or of `layer`.
        layer: str, name of the layer that `y` is the output of; default the model's last.
        initial_state: array `(batch, units)` or `(units,)`, the state before the first step;
            default zeros. For models with one SimpleRNN.

    Returns:
        An `Inversion`: the input in `.x`, and how well conditioned it is.

    Raises:
        ArgumentError: if the model has no exact inverse, or an argument cannot be used; it says
            which condition fails.
        DataError: if `y` or `initial_state` has a shape, type or value that cannot be used, an
            activation is saturated there, or no input makes `y` of that initial state.

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
            f"`model` must have one output. Received: {len(part.outputs)}. Give the output of one "
            "layer: layer=its name."
        )
    steps = steps_back(part.outputs[0])
    recurrent = [one for one, _ in steps if isinstance(one, keras.layers.SimpleRNN)]
    if not recurrent:
        passed = ", ".join(one.name for one, _ in steps) or "none"
        refuse(f"`model` must have a SimpleRNN layer to invert. Received: layers {passed}.")
    for one, node in steps:
        _check(one, node)
    y = _read(y, part.outputs[0].shape)
    eps = model_function.machine_epsilon(part)
    found = layer_inverses.Findings(
        {}, slope=1.0, residual=0.0, eps=eps, error=eps * layer_inverses.largest(y)
    )
    for one, node in steps:
        if isinstance(one, keras.layers.SimpleRNN):
            initial = _initial_state(one, node, initial_state, len(y), len(recurrent))
            y = layer_inverses.simple_rnn(one, y, initial, found)
        else:
            y = _undone(one, y, found)
    size = layer_inverses.largest(y)
    error_bound = found.error / size if size > 0 else found.error
    if found.residual > max(NOT_OF_THIS_MODEL, 10 * error_bound):
        raise errors.DataError(
            f"`y` must be what {part.name!r} makes of some input from that initial state. Received:"
            f" one with a state of which no input explains {found.residual:.2g}. Is it the output "
            "of another layer (layer=), or was there another initial state (initial_state=)?"
        )
    return Inversion(
        x=y,
        condition=math.prod(found.conditions.values()),
        conditions=found.conditions,
        slope=found.slope,
        error_bound=error_bound,
        residual=found.residual,
    )


def steps_back(tensor) -> list[tuple[Any, Any]]:
    """Layers and their calls on the way from an output back to the input, the last one first."""
    steps = []
    while True:
        layer, at, index = compat.keras_history(tensor)
        node = compat.inbound_nodes(layer)[at]
        if node.is_input:
            return steps
        if index:
            raise errors.ArgumentError(
                f"The first output of layer {layer.name!r} must be taken. Received: output "
                f"{index}. Look at the output of one layer: layer=its name."
            )
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):  # one inside
            steps += steps_back(layer.outputs[0])
        else:
            steps.append((layer, node))
        tensor = node.input_tensors[0]


# What does nothing outside training.
IDLE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
_UNDONE = (
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Dense,
    keras.layers.Activation,
    *IDLE,
)
_MASKS = (keras.layers.Masking, ApplyMask, StepMask)


def _check(layer, node) -> None:
    """Refuses what cannot be undone, before any number is looked at."""
    if isinstance(layer, _MASKS) or node.arguments.kwargs.get("mask") is not None:
        refuse(
            "The model must have no mask: a padded step keeps the state and says nothing of its "
            f"input. Received: layer {layer.name!r} with one. Cut the padding off and build the "
            "model without a mask."
        )
    if isinstance(layer, keras.layers.SimpleRNN):
        for name, wanted in (("return_sequences", True), ("go_backwards", False)):
            if getattr(layer, name) is not wanted:
                refuse(
                    f"All states must be given, in order: layer {layer.name!r} must have "
                    f"{name}={wanted}. Received: {name}={not wanted}."
                )
    elif not isinstance(layer, _UNDONE) or len(node.input_tensors) > 1:
        refuse(
            "Every layer between the output and the input must be a SimpleRNN, Dense, Activation, "
            f"Normalization, Rescaling or dropout layer. Received: {layer.name!r}, a "
            f"{type(layer).__name__}."
        )


def _undone(layer, y: np.ndarray, found: layer_inverses.Findings) -> np.ndarray:
    if isinstance(layer, keras.layers.Normalization):
        return layer_inverses.normalization(layer, y, found)
    if isinstance(layer, keras.layers.Rescaling):
        found.error /= float(np.abs(layer.scale).min())
        return (y - layer.offset) / layer.scale
    if isinstance(layer, keras.layers.Dense):
        return layer_inverses.dense(layer, y, found)
    if isinstance(layer, keras.layers.Activation):
        return layer_inverses.activation(layer.activation, y, layer.name, found)
    return y


def _initial_state(layer, node, state: Any, rows: int, recurrent: int) -> np.ndarray:
    units = layer.cell.units
    if state is None:
        from_graph = len(node.input_tensors) > 1
        if from_graph or layer.stateful:
            why = "another layer's" if from_graph else "that of the call before (stateful=True)"
            raise errors.ArgumentError(
                f"The initial state of layer {layer.name!r} must be known, and is {why}. Received: "
                "initial_state=None. Give it: an array (batch, units)."
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


def _read(y: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`y` in float64, if it can have come out with that shape."""
    y = as_array("y", y)
    fits = y.ndim == len(shape) == 3 and y.shape[-1] == shape[-1] and shape[1] in (None, y.shape[1])
    if y.dtype.kind not in "iuf" or not fits or 0 in y.shape:
        shown = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise errors.DataError(
            f"`y` must be numeric, of the output's shape (batch, {shown}), with time in the "
            f"middle. Received: shape {y.shape}, dtype {y.dtype}."
        )
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise errors.DataError("`y` must be finite. Received: NaN or infinity.")
    return y
