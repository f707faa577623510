"""A model with a leading axis of members: one graph runs and trains many of its kind.

Every layer has a rule that works on `(members, batch, ...)`, each member with weights of its own. A
member with fewer units is padded with zeros: a unit whose weights are all zero gives zero, and so
is its gradient, so that it stays out of everything, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_seqzoo import layers

_RECURRENT = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}
# Without weights of its members' own, and working on the last axes alone.
_AS_THEY_ARE = (layers.Normalization, layers.StepMask, layers.ApplyMask)
_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
_ZERO_AT_ZERO = ("linear", "relu", "tanh")


class Stacked:
    """The graph of `model`, for members that differ in weights, and in units up to its own.

    Args:
        model: a Functional model of one input and one output; see `obstacle`.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.variables = model.trainable_variables
        self._index = {id(variable): at for at, variable in enumerate(self.variables)}
        self._gates = [1] * len(self.variables)
        for layer in model.layers:
            for variable in layer.trainable_variables:
                self._gates[self._index[id(variable)]] = _RECURRENT.get(type(layer), 1)

    @staticmethod
    def obstacle(model: keras.Model) -> str | None:
        """Why this model cannot be stacked, or None."""
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return "it has several inputs or outputs"
        for layer in model.layers:
            if isinstance(layer, keras.layers.InputLayer) or type(layer) in _AS_THEY_ARE:
                continue
            if type(layer) in _RECURRENT:
                if layer.implementation_path != "fused" or layer.cell.dropout or layer.stateful:
                    return f"layer {layer.name!r} keeps state, or has dropout or no fused kernel"
                call = layer._inbound_nodes[0].arguments
                if len(call.args) > 1 or call.kwargs.get("initial_state") is not None:
                    return f"layer {layer.name!r} starts from a given state"
                if layer.go_backwards:
                    return f"layer {layer.name!r} runs backwards"
                if layer.activation.__name__ not in _ZERO_AT_ZERO:
                    return f"the activation of layer {layer.name!r} is not 0 at 0"
            elif type(layer) is not keras.layers.Dense:
                return f"there is no rule for {type(layer).__name__}"
            if layer.compute_dtype != layer.variable_dtype:
                return f"layer {layer.name!r} mixes precisions"
            if len(layer.trainable_variables) != len(layer.weights):
                return f"layer {layer.name!r} has weights that are not trained"
        for _, regularizer in _regularized(model):
            if type(regularizer) not in _REGULARIZERS:
                return f"there is no rule for {type(regularizer).__name__}"
        return None

    def pad(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A member's trainable weights, with zeros for the units that it lacks."""
        return [
            _resize(weight, variable.shape, gates)
            for weight, variable, gates in zip(weights, self.variables, self._gates, strict=True)
        ]

    def cut(self, weights: Sequence[np.ndarray], like: keras.Model) -> list[np.ndarray]:
        """The trainable weights of the units that `like` has; undoes `pad`."""
        return [
            _resize(weight, variable.shape, gates)
            for weight, variable, gates in zip(
                weights, like.trainable_variables, self._gates, strict=True
            )
        ]

    def strengths(self, model: keras.Model) -> list[tuple[float, float]]:
        """What `penalty` takes of a member: L1 and L2 of each trainable weight."""
        found = [(0.0, 0.0)] * len(self.variables)
        index = {id(variable): at for at, variable in enumerate(model.trainable_variables)}
        for variable, regularizer in _regularized(model):
            strengths = (getattr(regularizer, name, 0.0) for name in ("l1", "l2"))
            found[index[id(variable)]] = tuple(map(float, strengths))
        return found

    def penalty(self, weights: Sequence, strengths: Sequence):
        """The regularizers' penalties, `(members,)`; `strengths` are of `(members, 2)` each."""
        total = 0.0
        for weight, strength in zip(weights, strengths, strict=True):
            axes = range(1, len(weight.shape))
            total += strength[:, 0] * tf.reduce_sum(tf.abs(weight), axes)
            total += strength[:, 1] * tf.reduce_sum(weight * weight, axes)
        return total

    def __call__(
        self,
        weights: Sequence,
        x,
        *,
        training: bool = False,
        states: dict[str, Sequence] | None = None,
        record: dict[str, tuple] | None = None,
    ):
        """Runs all members.

        Args:
            weights: as `variables`, with a leading axis of members.
            x: `(members, batch, time, features)`.
            training: bool.
            states: by recurrent layer, what to start from, `(members, batch, units)` each; default
                zeros.
            record: a dictionary that is filled, by recurrent layer, with all its states before the
                first step and after each, `(time + 1, members, batch, units)`.
        """

        def run(operation) -> Callable:
            def rule(*args, **kwargs):
                if type(operation) is keras.layers.Dense:
                    return self._dense(operation, weights, *args)
                if type(operation) in _RECURRENT:
                    mask = kwargs.get("mask")
                    return self._recurrent(
                        operation, weights, *args, mask, training, states, record
                    )
                return operation.call(*args)

            return rule

        return self.model._run_through_graph([x], run)

    def _of(self, weights: Sequence, variable):
        return None if variable is None else weights[self._index[id(variable)]]

    def _dense(self, layer, weights, x):
        kernel, bias = self._of(weights, layer.kernel), self._of(weights, layer.bias)
        rows = tf.reshape(x, (tf.shape(x)[0], -1, kernel.shape[1]))
        y = rows @ kernel
        if bias is not None:
            y = y + bias[:, None]
        y = tf.reshape(y, (*tf.unstack(tf.shape(x)[:-1]), kernel.shape[2]))
        return layer.activation(y)

    def _recurrent(self, layer, weights, x, mask, training, states, record):
        # TensorFlow's, and hence imported only where a search runs.
        from keras_seqzoo.layers import kernels

        cell = layer.cell
        kernel, recurrent_kernel, bias = (
            self._of(weights, one) for one in (cell.kernel, cell.recurrent_kernel, cell.bias)
        )
        recurrent_bias = None
        if bias is None:
            bias = tf.zeros_like(kernel[:, 0])
        elif len(bias.shape) == 3:
            bias, recurrent_bias = bias[:, 0], bias[:, 1]
        if states is None:
            zeros = tf.zeros((*tf.unstack(tf.shape(x)[:2]), cell.units), x.dtype)
            initial = [zeros] * (2 if isinstance(layer, layers.LSTM) else 1)
        else:
            initial = states[layer.name]
        arguments = (
            layer._recurrence(),
            x,
            initial,
            kernel,
            recurrent_kernel,
            bias,
            recurrent_bias,
        )
        if record is None:
            steps, last = kernels.run(
                *arguments, mask=mask, keep=training, return_sequences=layer.return_sequences
            )
        else:
            record[layer.name] = histories = kernels.histories(*arguments, mask=mask)
            steps = tf.transpose(histories[0][1:], (1, 2, 0, 3)) if layer.return_sequences else None
            last = [one[-1] for one in histories]
        output, steps, _ = layer._outputs(steps, last, mask)
        return steps if layer.return_sequences else output


def _regularized(model: keras.Model) -> list[tuple]:
    """Trainable variables with a regularizer, and that."""
    return [(one, one.regularizer) for one in model.trainable_variables if one.regularizer]


def _resize(weight: np.ndarray, shape: Sequence[int], gates: int) -> np.ndarray:
    """More or fewer units: along every axis, and in the last one gate by gate."""

    def by_gate(shape):
        return (*shape[:-1], gates, shape[-1] // gates)

    found = np.zeros(by_gate(shape), weight.dtype)
    common = tuple(map(slice, np.minimum(found.shape, by_gate(weight.shape))))
    found[common] = weight.reshape(by_gate(weight.shape))[common]
    return found.reshape(shape)
