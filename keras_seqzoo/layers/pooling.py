"""Masked pooling over time: mean, maximum, attention, and last states."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.utils.argument_validation import check_bool, check_choice

POOLINGS = ("mean", "max", "attention")


@keras.saving.register_keras_serializable(package=PACKAGE)
class Pooling(keras.layers.Layer):
    """Mean, maximum or attention-weighted mean over the real steps.

    The attention weights are a softmax over the steps of `tanh(x W + b) v`, with trainable `W`, `b`
    and `v`.

    Shapes: `(batch, time, units)` -> `(batch, units)`.
    Masking: takes `mask=` `(batch, time)`, True for real steps. The output of a sequence without
        real steps is zero.
    State: none.

    Args:
        pooling: "mean", "max" or "attention".
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ArgumentError: if `pooling` is none of these.

    Example:

    >>> from keras_seqzoo.layers import Pooling
    >>> x, mask = np.array([[[1.0], [5.0]]]), np.array([[True, False]])
    >>> Pooling("mean")(x, mask=mask).numpy().tolist()
    [[1.0]]

    Reference: [Yang et al., 2016](https://doi.org/10.18653/v1/N16-1174), equations 5 to 7
    """

    def __init__(self, pooling: str, **kwargs: Any):
        super().__init__(**kwargs)
        check_choice("pooling", pooling, POOLINGS)
        self.pooling = pooling
        self.supports_masking = True

    def build(self, input_shape):
        if self.pooling == "attention":
            units = input_shape[-1]
            self.kernel = self.add_weight((units, units), name="kernel")
            self.bias = self.add_weight((units,), initializer="zeros", name="bias")
            self.context = self.add_weight((units, 1), name="context")

    def call(self, inputs, mask=None):
        real = ops.ones_like(inputs[..., :1], "bool") if mask is None else mask[..., None]
        if self.pooling == "max":
            lowest = ops.full_like(inputs, -float("inf"))
            highest = ops.max(ops.where(real, inputs, lowest), axis=1)
            return ops.where(ops.any(real, axis=1), highest, ops.zeros_like(highest))
        weights = ops.swapaxes(self._weights(inputs, real), 1, 2)
        return ops.matmul(weights, inputs)[:, 0]

    def _weights(self, inputs, real):
        """Weights `(batch, time, 1)`, 0 at padded steps, with a sum of 1 if any step is real."""
        weights = ops.cast(real, inputs.dtype)
        if self.pooling == "attention":
            hidden = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias)
            scores = ops.matmul(hidden, self.context)
            scores = ops.where(real, scores, ops.full_like(scores, -1e4))
            weights = weights * ops.exp(scores - ops.max(scores, axis=1, keepdims=True))
        return weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1e-7)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"pooling": self.pooling}


@keras.saving.register_keras_serializable(package=PACKAGE)
class LastState(keras.layers.Layer):
    """Selects the last state of a recurrent layer: the last real step of the sequence.

    Shapes: `(batch, time, units)` -> `(batch, units)`.
    Masking: takes `mask=` `(batch, time)`, True for real steps. The output of a sequence without
        real steps is zero.
    State: none.

    Args:
        bidirectional: bool, whether the second half of the units is a backward direction, whose
            last state is at the first real step.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ArgumentError: if `bidirectional` is no bool.

    Example:

    >>> from keras_seqzoo.layers import LastState
    >>> x, mask = np.array([[[1.0], [5.0]]]), np.array([[True, False]])
    >>> LastState()(x, mask=mask).numpy().tolist()
    [[1.0]]
    """

    def __init__(self, bidirectional: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        check_bool(bidirectional=bidirectional)
        self.bidirectional = bidirectional

    def call(self, inputs, mask=None):
        real = ops.ones_like(inputs[..., 0], "bool") if mask is None else mask
        real_int = ops.cast(real, "int32")
        first = ops.argmax(real_int, axis=1)
        last = ops.shape(inputs)[1] - 1 - ops.argmax(ops.flip(real_int, 1), axis=1)
        if self.bidirectional:
            forward, backward = ops.split(inputs, 2, axis=-1)
            states = ops.concatenate([_take_step(forward, last), _take_step(backward, first)], -1)
        else:
            states = _take_step(inputs, last)
        return ops.where(ops.any(real, axis=1)[:, None], states, ops.zeros_like(states))

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"bidirectional": self.bidirectional}


def _take_step(x, index):
    """The step of each row at an index of its own."""
    return ops.take_along_axis(x, ops.cast(index, "int32")[:, None, None], axis=1)[:, 0]
