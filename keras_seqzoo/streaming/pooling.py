"""From a vector per step to one for the sequence so far, as a running figure."""

from __future__ import annotations

import keras
from keras import ops

from keras_seqzoo.streaming.state import CannotStep, Memory, Whole

_LOWEST = -1e4  # the score of a padded step in `layers.Pooling`


def pooled(memory: Memory, layer, /, inputs, mask=None):
    """`layers.Pooling`: zeros before the first real step."""
    mask = inputs.mask if mask is None else mask.step
    if layer.pooling == "max":
        highest = _highest(memory, layer, inputs.step, mask)
        return Whole(ops.where(ops.isfinite(highest), highest, ops.zeros_like(highest)))
    scores = None
    if layer.pooling == "attention":
        seen = ops.tanh(ops.matmul(inputs.step, layer.kernel) + layer.bias)
        scores = ops.matmul(seen, layer.context)
    mean, _ = _mean(memory, layer, inputs.step, mask, scores)
    return Whole(ops.cast(mean, inputs.step.dtype))


def last(memory: Memory, layer, /, inputs, mask=None):
    """`layers.LastState`."""
    if layer.bidirectional:
        raise CannotStep("looks at the first step of what is read from the end")
    mask = inputs.mask if mask is None else mask.step
    if mask is None:
        return Whole(inputs.step)
    _, keep = memory.recall(layer, lambda: ops.zeros_like(inputs.step[:1]))
    return Whole(keep(inputs.step, mask))


def global_average(memory: Memory, layer, /, inputs, mask=None):
    """Keras's, which is NaN before the first real step."""
    _check_axis(layer)
    mask = inputs.mask if mask is None else mask.step
    mean, total = _mean(memory, layer, inputs.step, mask)
    mean = ops.where(total > 0, mean, ops.full_like(mean, float("nan")))
    mean = ops.cast(mean, inputs.step.dtype)
    return Whole(ops.expand_dims(mean, 1) if layer.keepdims else mean)


def global_maximum(memory: Memory, layer, /, inputs):
    """Keras's, which knows no mask."""
    _check_axis(layer)
    highest = _highest(memory, layer, inputs.step, None)
    return Whole(ops.expand_dims(highest, 1) if layer.keepdims else highest)


def _mean(memory: Memory, layer, x, mask, scores=None):
    """The mean so far, weighted by exp(score), and the sum of weights; both in full precision.

    The state holds the mean, that sum, and the highest score, which all are measured against. A
    mean that moves by its newest part, unlike a sum, stays exact over millions of steps.
    """
    dtype = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
    width = x.shape[-1]

    def initial():
        zeros = ops.zeros((1, width + 1), dtype)
        return ops.concatenate([zeros, ops.full((1, 1), _LOWEST, dtype)], axis=-1)

    before, keep = memory.recall(layer, initial)
    mean, total, top = ops.split(before, [width, width + 1], axis=-1)
    x = ops.cast(x, dtype)
    if scores is None:
        new, highest = ops.ones_like(total), top
    else:
        scores = ops.cast(scores, dtype)
        highest = ops.maximum(top, scores)
        new, total = ops.exp(scores - highest), total * ops.exp(top - highest)
    total = total + new
    mean = mean + (x - mean) * (new / total)
    kept = keep(ops.concatenate([mean, total, highest], axis=-1), mask)
    return kept[:, :width], kept[:, width : width + 1]


def _highest(memory: Memory, layer, x, mask):
    """The maximum so far, minus infinity before the first real step."""
    before, keep = memory.recall(layer, lambda: ops.full_like(x[:1], -float("inf")))
    return keep(ops.maximum(before, x), mask)


def _check_axis(layer) -> None:
    if layer.data_format != "channels_last":
        raise CannotStep("takes the last axis for that of time")
