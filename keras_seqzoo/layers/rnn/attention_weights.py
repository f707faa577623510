"""Attention weights: a softmax over the steps of a memory that are not padding."""

from __future__ import annotations

from keras import ops

NEG_INF = -1e4  # finite in float16 too


def attention_weights(scores, mask):
    """Softmax over the last axis, 0 at padded steps, and 0 everywhere in a row without real steps.

    `keras.ops.softmax` warns of an axis of size 1, as a source of one step has.

    Shapes: `(..., source)` -> the same.
    Masking: `mask` `(..., source)`, bool, True for real steps, or None.
    State: none.

    Args:
        scores: floating point tensor.
        mask: bool tensor that broadcasts to `scores`, or None.
    """
    if mask is not None:
        scores = ops.where(mask, scores, ops.full_like(scores, NEG_INF))
    weights = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    if mask is not None:
        weights = ops.where(mask, weights, ops.zeros_like(weights))
    # The largest exponential is 1, so the total is at least 1 unless all steps are padding. Not
    # `ops.maximum(total, 1)`: JAX and PyTorch halve its gradient where both arguments are 1, as
    # they are for a source of one step.
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, ops.ones_like(total))
