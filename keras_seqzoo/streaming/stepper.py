"""A graph that was built for whole sequences, taken through one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers import StepMask
from keras_seqzoo.streaming.rules import rule_of
from keras_seqzoo.streaming.state import CannotStep, Memory, Timed, Whole
from keras_seqzoo.utils import compat


class Stepper:
    """Takes the graph of a Functional or Sequential model through one step at a time.

    Attributes:
        initial: dict of arrays by name, the state of one row before the first step.
        timed: for each output whether it has a time axis.

    Args:
        model: `keras.Model`, each of whose inputs has a time axis.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._graphs: dict[int, keras.Function] = {}
        self._padding = _padding_layers(self._graph(model))
        memory = Memory()
        outputs = self._run(model, [Timed(_zeros(one)) for one in model.inputs], memory)
        self.timed = [isinstance(one, Timed) for one in outputs]
        self.initial = {name: ops.convert_to_numpy(state) for name, state in memory.initial.items()}

    def step(self, inputs: list, state: Mapping[str, Any], usable: Any = None):
        """The outputs of a step, and the state after it.

        Args:
            inputs: tensors `(batch, ...)`, without the time axis.
            state: dict of tensors.
            usable: bool `(batch,)`, True for rows whose state may change, or None for all.
        """
        memory = Memory(state, usable)
        outputs = self._run(self._model, [Timed(one) for one in inputs], memory)
        return [one.step if isinstance(one, Timed) else one.value for one in outputs], memory.after

    def usable(self, inputs: list) -> Any:
        """Bool `(batch,)`, True for rows of finite readings or padding; None of tokens."""
        found = None
        for x, layer in zip(inputs, self._padding, strict=True):
            if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
                continue
            one = ops.all(ops.isfinite(x), axis=list(range(1, len(x.shape))))
            if layer is not None:
                one = ops.logical_or(one, ops.logical_not(layer.compute_mask(x, None)))
            found = one if found is None else ops.logical_and(found, one)
        return found

    def _run(self, model: keras.Model, inputs: list[Timed], memory: Memory) -> list:
        def call(operation, *args, **kwargs):
            given = tree.flatten((args, kwargs))
            if not any(isinstance(one, Timed) for one in given):
                args, kwargs = tree.map_structure(_value, (args, kwargs))
                return tree.map_structure(Whole, operation(*args, **kwargs))
            if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
                return self._nested(operation, memory, *args, **kwargs)
            try:
                return rule_of(operation)(memory, operation, *args, **kwargs)
            except CannotStep as why:
                raise ArgumentError(_refusal(self._model, operation, why)) from None

        return compat.run_through_graph(self._graph(model), inputs, call)

    def _nested(self, model, memory, inputs, training=None, mask=None):
        inputs = tree.flatten(inputs)
        if mask is not None:
            pairs = zip(inputs, tree.flatten(mask), strict=True)
            inputs = [one if by is None else Timed(one.step, by.step) for one, by in pairs]
        return self._run(model, inputs, memory)

    def _graph(self, model) -> keras.Function:
        if id(model) not in self._graphs:
            self._graphs[id(model)] = keras.Function(model.inputs, model.outputs)
        return self._graphs[id(model)]


def _refusal(model: keras.Model, operation, why: CannotStep) -> str:
    kind = type(operation).__name__
    return (
        f"`model` must be able to go step by step. Received: {model.name!r}, whose layer "
        f"{operation.name!r} ({kind}) {why}."
    )


def _value(given: Any) -> Any:
    return given.value if isinstance(given, Whole) else given


def _zeros(tensor: Any) -> Any:
    """A step of an input for one row; where an axis is free, of one."""
    inner = (1 if size is None else size for size in tensor.shape[2:])
    return ops.zeros((1, *inner), tensor.dtype)


def _padding_layers(graph: keras.Function) -> list:
    """For each input the layer that finds its padding, or None."""
    looking = [one for one in graph.operations if isinstance(one, StepMask | keras.layers.Masking)]
    return [
        next((layer for layer in looking if layer.input is tensor), None) for tensor in graph.inputs
    ]
