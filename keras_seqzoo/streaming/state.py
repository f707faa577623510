"""What flows through a graph at one step, and what its layers keep for the next."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_seqzoo.utils import compat


class CannotStep(Exception):
    """Why a layer cannot take one step at a time; the graph says which layer."""


class Timed:
    """One step of a tensor that has a time axis, and its mask, where Keras would attach one.

    Attributes:
        step: `(batch, ...)`, without the time axis.
        mask: `(batch,)`, bool, True for a real step; or None.
    """

    def __init__(self, step: Any, mask: Any = None):
        self.step, self.mask = step, mask

    @functools.cached_property
    def sequence(self) -> Any:
        """A sequence of one step, `(batch, 1, ...)`, its mask attached."""
        sequence = ops.expand_dims(self.step, 1)
        if self.mask is not None:
            compat.set_keras_mask(sequence, ops.expand_dims(self.mask, 1))
        return sequence

    @property
    def alone(self) -> Any:
        """The step, its mask attached."""
        if self.mask is not None:
            compat.set_keras_mask(self.step, self.mask)
        return self.step

    @classmethod
    def of_sequence(cls, sequence: Any) -> Timed:
        """What `sequence` gives."""
        mask = compat.get_keras_mask(sequence)
        found = cls(ops.squeeze(sequence, 1), None if mask is None else ops.squeeze(mask, 1))
        found.__dict__["sequence"] = sequence  # else it would be squeezed and expanded again
        return found

    @classmethod
    def of_alone(cls, step: Any) -> Timed:
        """What `alone` gives."""
        return cls(step, compat.get_keras_mask(step))


class Whole:
    """A tensor without a time axis: what a graph makes of the sequence so far."""

    def __init__(self, value: Any):
        self.value = value


class Memory:
    """What the layers of a graph carry from one step to the next, a tensor each.

    Attributes:
        after: dict of tensors `(batch, ...)` by name, as the step leaves them.
        initial: the same before the first step, for one row; known where `before` is None.
    """

    def __init__(self, before: Mapping[str, Any] | None = None, usable: Any = None):
        self._before, self._usable = before, usable
        self.initial: dict[str, Any] = {}
        self.after: dict[str, Any] = {}

    def recall(self, layer: keras.Layer, initial: Callable[[], Any]):
        """The state of a layer before the step, and a function that keeps the one after it.

        That function takes the state and, `(batch,)` or None, whether the step is real; it gives
        what is kept: of rows that are padded, or whose reading is of no use, the state before.

        Args:
            layer: a second call of it has a state of its own.
            initial: gives the state of one row, `(1, ...)`, before the first step.
        """
        name = "state_" + re.sub(r"[^A-Za-z0-9_]", "_", layer.name)  # a name in any format
        while name in self.after:
            name += "_again"
        if self._before is None:
            self.initial[name] = initial()
        before = (self.initial if self._before is None else self._before)[name]
        self.after[name] = before

        def keep(after, real=None):
            allowed = [one for one in (real, self._usable) if one is not None]
            if allowed:
                may = functools.reduce(ops.logical_and, allowed)
                may = ops.expand_dims(may, list(range(1, len(after.shape))))
                after = ops.where(may, after, before)
            self.after[name] = after
            return after

        return before, keep
