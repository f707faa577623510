"""One time step through the graph of a model that was built for whole sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo.layers import StepMask
from keras_seqzoo.streaming.rules import streaming_rule
from keras_seqzoo.streaming.state import CannotStep, LayerStates, Summary, TimeStep, leaves
from keras_seqzoo.utils import compat


class Stepper:
    """Runs the graph of a Functional or Sequential model one time step at a time.

    Attributes:
        initial: dict of arrays by name, the state of one row before the first step.
        timed: for each output whether it has a time axis.

    Args:
        model: `keras.Model`, each of whose inputs has a time axis.

    Raises:
        CannotStep: if a layer needs other steps than the present and earlier ones.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._graphs: dict[int, keras.Function] = {}
        self._padding_layers = _padding_layers(self._graph(model))
        states = LayerStates()
        outputs = self._run(model, [TimeStep(_zeros(tensor)) for tensor in model.inputs], states)
        self.timed = [isinstance(output, TimeStep) for output in outputs]
        self.initial: dict[str, np.ndarray] = {
            name: np.asarray(ops.convert_to_numpy(state)) for name, state in states.initial.items()
        }

    def step(
        self, inputs: list, state: Mapping[str, Any], finite_rows: Any = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Computes one time step.

        Args:
            inputs: tensors `(batch, ...)`, without the time axis.
            state: mapping of name to tensor, the state before the step.
            finite_rows: bool `(batch,)`, True for rows whose state may change; None for all.

        Returns:
            The outputs, and the state after the step.
        """
        states = LayerStates(state, finite_rows)
        outputs = self._run(self._model, [TimeStep(tensor) for tensor in inputs], states)
        tensors = [
            output.step if isinstance(output, TimeStep) else output.value for output in outputs
        ]
        return tensors, states.updated

    def finite_rows(self, inputs: list) -> Any:
        """Bool `(batch,)`, True where all readings are finite or padding; None of tokens."""
        rows = None
        for x, layer in zip(inputs, self._padding_layers, strict=True):
            if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
                continue
            finite = ops.all(ops.isfinite(x), axis=list(range(1, len(x.shape))))
            if layer is not None:
                finite = ops.logical_or(finite, ops.logical_not(layer.compute_mask(x, None)))
            rows = finite if rows is None else ops.logical_and(rows, finite)
        return rows

    def _run(self, model: keras.Model, inputs: list[TimeStep], states: LayerStates) -> list:
        graph = self._graph(model)

        def call(operation, *args, **kwargs):
            arguments = leaves((args, kwargs))
            if not any(isinstance(argument, TimeStep) for argument in arguments):
                args, kwargs = _summary_values((args, kwargs))
                return tree.map_structure(Summary, operation(*args, **kwargs))
            if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
                return self._run_inner_model(operation, states, *args, **kwargs)
            try:
                return streaming_rule(operation)(states, operation, *args, **kwargs)
            except CannotStep as reason:
                raise CannotStep(
                    f"`model` must be computable step by step. Received: {self._model.name!r}, "
                    f"whose layer {operation.name!r} ({type(operation).__name__}) {reason}."
                ) from None

        return compat.run_through_graph(graph, inputs, call)

    def _run_inner_model(
        self, model: keras.Model, states: LayerStates, inputs, training=None, mask=None
    ):
        inputs = leaves(inputs)
        if mask is not None:
            masks = leaves(mask)
            inputs = [
                step if step_mask is None else TimeStep(step.step, step_mask.step)
                for step, step_mask in zip(inputs, masks, strict=True)
            ]
        return self._run(model, inputs, states)

    def _graph(self, model: keras.Model) -> keras.Function:
        if id(model) not in self._graphs:
            self._graphs[id(model)] = keras.Function(model.inputs, model.outputs)
        return self._graphs[id(model)]


def _summary_values(arguments: Any) -> Any:
    """A layer's arguments, with the tensor in place of each `Summary`."""
    return tree.map_structure(
        lambda argument: argument.value if isinstance(argument, Summary) else argument, arguments
    )


def _zeros(tensor: Any) -> Any:
    """One step of zeros for one row of an input; an axis of any size has size 1."""
    inner = (1 if size is None else size for size in tensor.shape[2:])
    return ops.zeros((1, *inner), tensor.dtype)


def _padding_layers(graph: keras.Function) -> list:
    """For each input the layer that masks its padding, or None."""
    masking = [
        layer for layer in graph.operations if isinstance(layer, StepMask | keras.layers.Masking)
    ]
    return [
        next((layer for layer in masking if layer.input is tensor), None) for tensor in graph.inputs
    ]
