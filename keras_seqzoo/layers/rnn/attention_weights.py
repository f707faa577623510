"""Attention weights: a masked softmax over the memory."""

from __future__ import annotations

from keras import ops

NEG_INF = -1e4  # of float16 too


def attention_weights(scores, real):
    """A softmax over the last axis, 0 where not real, and everywhere if nothing is.

    Keras's own warns of an axis of one step, as the source of one step has.
    """
    if real is not None:
        scores = ops.where(real, scores, ops.full_like(scores, NEG_INF))
    powers = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    if real is not None:
        powers = ops.where(real, powers, ops.zeros_like(powers))
    # That of the largest is 1: the sum is at least 1 unless nothing is real. Not by a maximum,
    # whose gradient JAX and PyTorch halve where both are 1, as for a source of one step.
    total = ops.sum(powers, axis=-1, keepdims=True)
    return powers / ops.where(total > 0, total, ops.ones_like(total))
