"""State of a Keras model: every variable that may change between calls without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_seqzoo.inspection.model_graph import flatten_layers

# Layers whose `reset_state` discards what `adapt` computed, or is for stateful layers only.
_NO_STATE_RESET = (
    keras.layers.RNN,
    keras.layers.Bidirectional,
    keras.layers.TextVectorization,
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.Discretization,
)


class StateVariables:
    """Non-trainable variables, recurrent states and random seeds of a Keras model.

    Attributes:
        variables: list of variables.
        seeds: list of those that are states of random generators.
        stateful: list of layers with `stateful=True`.

    Args:
        model: `keras.Model`, built.
    """

    def __init__(self, model: keras.Model):
        layers = flatten_layers(model)
        # Keras does not count the states of a recurrent layer among its variables.
        states = [state for layer in layers for state in _variables(getattr(layer, "states", None))]
        self.variables = [*model.non_trainable_variables, *states]
        self.seeds = [
            variable for variable in self.variables if "seed_generator_state" in variable.path
        ]
        self.stateful = [layer for layer in layers if getattr(layer, "stateful", False)]
        self._resets = [
            reset
            for layer in layers
            if (reset := _reset_function(layer)) is not None
            and (getattr(layer, "stateful", False) or not isinstance(layer, _NO_STATE_RESET))
        ]

    def read(self, variables: list | None = None) -> list[tuple[Any, np.ndarray]]:
        """Variables and their current values; default all."""
        variables = self.variables if variables is None else variables
        return [
            (variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables
        ]

    def reset(self) -> None:
        """Calls `reset_state` of every layer that has one for its state."""
        for reset in self._resets:
            reset()


def _variables(states: Any) -> list:
    if states is None:
        return []
    return [state for state in keras.tree.flatten(states) if isinstance(state, keras.Variable)]


def _reset_function(layer: Any) -> Callable | None:
    return getattr(layer, "reset_state", None) or getattr(layer, "reset_states", None)
