"""Time steps and layer states: the values that a model's graph computes with while streaming."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import compat


class CannotStep(ArgumentError):
    """A model cannot be computed one time step at a time, so that it cannot be streamed."""


class TimeStep:
    """One step of a tensor with a time axis, and its Keras mask.

    Attributes:
        step: tensor `(batch, ...)`, without the time axis.
        mask: bool tensor `(batch,)`, True for a real step; None without a mask.
    """

    def __init__(self, step: Any, mask: Any = None):
        self.step, self.mask = step, mask

    @functools.cached_property
    def sequence(self) -> Any:
        """The step as a sequence of length 1, `(batch, 1, ...)`, with the mask attached."""
        sequence = ops.expand_dims(self.step, 1)
        if self.mask is not None:
            compat.set_keras_mask(sequence, ops.expand_dims(self.mask, 1))
        return sequence

    @property
    def masked_step(self) -> Any:
        """The step, `(batch, ...)`, with the mask attached."""
        if self.mask is not None:
            compat.set_keras_mask(self.step, self.mask)
        return self.step

    @classmethod
    def from_sequence(cls, sequence: Any) -> TimeStep:
        """The time step of a sequence of length 1."""
        mask = compat.get_keras_mask(sequence)
        step = cls(ops.squeeze(sequence, 1), None if mask is None else ops.squeeze(mask, 1))
        step.__dict__["sequence"] = sequence  # fills the cached property: nothing is expanded again
        return step

    @classmethod
    def from_masked_step(cls, step: Any) -> TimeStep:
        """The time step of a tensor `(batch, ...)` that may carry a mask."""
        return cls(step, compat.get_keras_mask(step))


class Summary:
    """A tensor without a time axis, computed from the sequence so far.

    Attributes:
        value: tensor `(batch, ...)`.
    """

    def __init__(self, value: Any):
        self.value = value


class LayerStates:
    """The states that the layers of a graph carry from one time step to the next.

    Attributes:
        updated: dict of tensors `(batch, ...)` by name, the states after the step.
        initial: dict of tensors `(1, ...)` by name, the states before the first step; filled only
            where `previous` is None.

    Args:
        previous: mapping of name to tensor `(batch, ...)`, the states before the step; None before
            the first step.
        finite_rows: bool tensor `(batch,)`, False for rows whose states must not change; None
            where all may.
    """

    def __init__(self, previous: Mapping[str, Any] | None = None, finite_rows: Any = None):
        self._previous, self._finite_rows = previous, finite_rows
        self.initial: dict[str, Any] = {}
        self.updated: dict[str, Any] = {}

    def of_layer(
        self, layer: keras.Layer, initial: Callable[[], Any]
    ) -> tuple[Any, Callable[..., Any]]:
        """The state of a layer before the step, and a function that stores the state after it.

        Args:
            layer: `keras.Layer`; each further call of the same layer has a state of its own.
            initial: function that returns the state of one row before the first step, `(1, ...)`.

        Returns:
            The previous state, `(batch, ...)`, and `update(state, mask=None)`. Rows whose mask is
            False, or that are not finite, keep the previous state. `update` returns the state that
            was stored.
        """
        name = "state_" + re.sub(r"[^A-Za-z0-9_]", "_", layer.name)  # valid in every format
        while name in self.updated:
            name += "_again"
        if self._previous is None:
            self.initial[name] = initial()
        previous = (self.initial if self._previous is None else self._previous)[name]
        self.updated[name] = previous

        def update(state, mask=None):
            conditions = [rows for rows in (mask, self._finite_rows) if rows is not None]
            if conditions:
                changes = functools.reduce(ops.logical_and, conditions)
                changes = ops.expand_dims(changes, list(range(1, len(state.shape))))
                state = ops.where(changes, state, previous)
            self.updated[name] = state
            return state

        return previous, update


def leaves(structure: Any) -> list[Any]:
    """The values inside a structure of lists, tuples and dicts, as `keras.tree.flatten`."""
    return tree.flatten(structure) or []
