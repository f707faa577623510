"""From a vector per step to one per sequence, over the real steps alone."""

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

    Shapes: `(batch, time, units)` -> `(batch, units)`.
    Masking: takes `mask=` `(batch, time)`; a sequence without real steps gives zeros.
    State: none. With "attention" the layer learns which steps to look at: weights are a softmax
        over the steps of `tanh(x W + b) v`.

    Args:
        pooling: "mean", "max" or "attention".

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
        """`(batch, time, 1)`, 0 for padding; they sum to 1 where any step is real."""
        weights = ops.cast(real, inputs.dtype)
        if self.pooling == "attention":
            seen = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias)
            scores = ops.matmul(seen, self.context)
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
    """Where recurrent layers end: the last real step, and of a second direction the first one.

    Shapes: `(batch, time, units)` -> `(batch, units)`.
    Masking: takes `mask=` `(batch, time)`; a sequence without real steps gives zeros.
    State: none.

    Args:
        both_ways: bool, whether the second half of the units was read from the end.

    Example:

    >>> from keras_seqzoo.layers import LastState
    >>> x, mask = np.array([[[1.0], [5.0]]]), np.array([[True, False]])
    >>> LastState()(x, mask=mask).numpy().tolist()
    [[1.0]]
    """

    def __init__(self, both_ways: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        check_bool(both_ways=both_ways)
        self.both_ways = both_ways

    def call(self, inputs, mask=None):
        real = ops.ones_like(inputs[..., 0], "bool") if mask is None else mask
        number = ops.cast(real, "int32")
        first = ops.argmax(number, axis=1)
        last = ops.shape(inputs)[1] - 1 - ops.argmax(ops.flip(number, 1), axis=1)
        if self.both_ways:
            there, back = ops.split(inputs, 2, axis=-1)
            found = ops.concatenate([_step(there, last), _step(back, first)], axis=-1)
        else:
            found = _step(inputs, last)
        return ops.where(ops.any(real, axis=1)[:, None], found, ops.zeros_like(found))

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"both_ways": self.both_ways}


def _step(x, index):
    """Of each row the step of that index."""
    return ops.take_along_axis(x, ops.cast(index, "int32")[:, None, None], axis=1)[:, 0]
