"""Streaming rules of pooling layers: statistics of the sequence so far, updated at each step."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo import layers
from keras_seqzoo.streaming.state import CannotStep, LayerStates, Summary, TimeStep

_LOWEST = -1e4  # the score of a padded step in `layers.Pooling`


def pool(states: LayerStates, layer: layers.Pooling, /, inputs: TimeStep, mask=None) -> Summary:
    """`layers.Pooling`, whose output is zeros before the first real step."""
    mask = inputs.mask if mask is None else mask.step
    if layer.pooling == "max":
        maximum = _running_max(states, layer, inputs.step, mask)
        return Summary(ops.where(ops.isfinite(maximum), maximum, ops.zeros_like(maximum)))
    scores = None
    if layer.pooling == "attention":
        hidden: Any = ops.tanh(ops.matmul(inputs.step, layer.kernel) + layer.bias)
        scores = ops.matmul(hidden, layer.context)
    mean, _ = _running_mean(states, layer, inputs.step, mask, scores)
    return Summary(ops.cast(mean, inputs.step.dtype))


def last_state(
    states: LayerStates, layer: layers.LastState, /, inputs: TimeStep, mask=None
) -> Summary:
    """`layers.LastState`, the output at the last real step so far."""
    if layer.bidirectional:
        raise CannotStep("takes the backward direction's output at the first step")
    mask = inputs.mask if mask is None else mask.step
    if mask is None:
        return Summary(inputs.step)
    _, update = states.of_layer(layer, lambda: ops.zeros_like(inputs.step[:1]))
    return Summary(update(inputs.step, mask))


def global_average(states: LayerStates, layer, /, inputs: TimeStep, mask=None) -> Summary:
    """`keras.layers.GlobalAveragePooling1D`, whose output is NaN before the first real step."""
    _check_channels_last(layer)
    mask = inputs.mask if mask is None else mask.step
    mean, weight = _running_mean(states, layer, inputs.step, mask)
    mean = ops.where(weight > 0, mean, ops.full_like(mean, float("nan")))
    mean = ops.cast(mean, inputs.step.dtype)
    return Summary(ops.expand_dims(mean, 1) if layer.keepdims else mean)


def global_max(states: LayerStates, layer, /, inputs: TimeStep) -> Summary:
    """`keras.layers.GlobalMaxPooling1D`, which ignores the mask as Keras does."""
    _check_channels_last(layer)
    maximum = _running_max(states, layer, inputs.step, None)
    return Summary(ops.expand_dims(maximum, 1) if layer.keepdims else maximum)


def _running_mean(states: LayerStates, layer, x, mask, scores=None) -> tuple[Any, Any]:
    """The mean so far, weighted by exp(score), and the sum of weights, at least in float32.

    The state holds the mean, the sum of weights, and the highest score, from which all scores are
    subtracted. Unlike a sum, a mean that is moved by a share of the difference to the newest step
    stays exact over millions of steps.
    """
    dtype = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
    width = x.shape[-1]

    def initial():
        zeros = ops.zeros((1, width + 1), dtype)
        return ops.concatenate([zeros, ops.full((1, 1), _LOWEST, dtype)], axis=-1)

    previous, update = states.of_layer(layer, initial)
    mean: Any = previous[:, :width]
    total: Any = previous[:, width : width + 1]
    top: Any = previous[:, width + 1 :]
    x = ops.cast(x, dtype)
    if scores is None:
        weight, highest = ops.ones_like(total), top
    else:
        scores = ops.cast(scores, dtype)
        highest: Any = ops.maximum(top, scores)
        weight, total = ops.exp(scores - highest), total * ops.exp(top - highest)
    total = total + weight
    mean = mean + (x - mean) * (weight / total)
    state = update(ops.concatenate([mean, total, highest], axis=-1), mask)
    return state[:, :width], state[:, width : width + 1]


def _running_max(states: LayerStates, layer, x, mask) -> Any:
    """The maximum so far, minus infinity before the first real step."""
    previous, update = states.of_layer(layer, lambda: ops.full_like(x[:1], -float("inf")))
    return update(ops.maximum(previous, x), mask)


def _check_channels_last(layer) -> None:
    if layer.data_format != "channels_last":
        raise CannotStep("has its time axis last (data_format='channels_first')")
