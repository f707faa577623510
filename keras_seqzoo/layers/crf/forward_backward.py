"""The forward-backward algorithm of a linear chain, with its gradient."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_seqzoo.layers.export_scope import in_export_scope, scan

# The log weight of what cannot be. It is finite, since infinity times 0 is NaN; whatever is this
# low is set to it again after each step, so that it does not add up.
NEG_INF = -1e30


# exp(-230) * exp(-230) * exp(-230) is a normal float64. What is floored there counts for nothing
# beside anything above exp(-200).
FLOOR = -230.0


SAFE = -200.0


def backward_messages(scores, steps, end, real):
    """Messages `(time, batch, states)` and scales `(time, batch, 1)`, differentiable."""
    if keras.backend.backend() != "tensorflow":
        return log_messages(scores, steps, end, real, ops.logsumexp)
    from keras_seqzoo.layers.custom_gradient import custom_gradient

    @custom_gradient
    def messages(scores, steps, end):
        found, adjoint = messages_with_backward(scores, steps, end, real)
        return found, lambda gradient, _: adjoint(gradient)

    return messages(scores, steps, end)


def messages_with_backward(scores, steps, end, real):
    """Messages and scales; and a function from the gradient by the messages to those by the scores
    `(time, batch, states)`, the steps `(states, states)` and the ends `(states,)`.
    """
    if keras.backend.backend() == "tensorflow":
        return _scaled_messages_with_backward(scores, steps, end, real)
    found = log_messages(scores, steps, end, real, ops.logsumexp)
    return found, lambda gradient: _log_backward(gradient, scores, steps, end, real, *found)


def log_messages(scores, steps, end, real, reduce):
    """In logarithms, right for any scores. With `max_along` for `reduce`: of the best sequence."""
    states = steps.shape[0]

    def step(after, inputs):
        score, *known = inputs
        now = reduce(steps + (score + after)[:, None], axis=-1)
        top = ops.stop_gradient(max_along(now, axis=-1, keepdims=True))
        top = ops.where(top > NEG_INF / 2, top, ops.zeros_like(top))
        now = ops.maximum(now - top, NEG_INF)
        if known:
            now = ops.where(known[0], now, after)
            top = ops.where(known[0], top, ops.zeros_like(top))
        return now, (now, top)

    first = ops.broadcast_to(end, (ops.shape(scores)[1], states))
    inputs = [scores] if real is None else [scores, real]
    dtype = keras.backend.standardize_dtype(scores.dtype)
    spec = [(dtype, (None, states)), (dtype, (None, 1))]
    return scan_steps(step, first, inputs, spec, reverse=True)[1]


def _log_backward(gradient, scores, steps, end, real, messages, scales):
    states = steps.shape[0]

    def step(carry, inputs):
        flow, total = carry
        direct, score, message, after, scale, *known = inputs
        flow = flow + direct
        # The probability of each next tag, given this one; below 1 also where rounding is coarse.
        chance = steps + (score + after)[:, None] - (message + scale)[:, :, None]
        moved = flow[:, :, None] * ops.exp(ops.minimum(chance, 0))
        if known:
            moved = ops.where(known[0][:, :, None], moved, ops.zeros_like(moved))
        arrived = ops.sum(moved, axis=1)
        kept = ops.where(known[0], arrived, flow) if known else arrived
        return (kept, total + ops.sum(moved, axis=0)), (arrived,)

    inputs = [gradient, scores, messages, following_messages(messages, end), scales]
    inputs += [] if real is None else [real]
    carry = (ops.zeros_like(gradient[0]), ops.zeros_like(steps))
    spec = [(keras.backend.standardize_dtype(scores.dtype), (None, states))]
    (flow, total), (arrived,) = scan_steps(step, carry, inputs, spec)
    return arrived, total, ops.sum(flow, axis=0)


def _scaled_messages_with_backward(scores, steps, end, real):
    """The same, many times faster on a CPU: products of float64 instead of logarithms.

    Each step's weights are scaled to at most 1 and floored at exp(-230), which keeps 0 for what is
    forbidden. Where a message gets so low that the floor might be felt, logarithms take over.
    """
    dtype, states = scores.dtype, steps.shape[0]
    scores, steps, end = (ops.cast(x, "float64") for x in (scores, steps, end))
    top_score = max_along(scores[..., :-1], axis=-1, keepdims=True)
    top_step = max_along(steps)
    score_weights = ops.exp(ops.maximum(scores - top_score, FLOOR))
    step_weights = _weights(steps - top_step)
    ends = ops.broadcast_to(_weights(end), (ops.shape(scores)[1], states))
    known = [] if real is None else [real]
    backwards = ops.transpose(step_weights)

    def step(after, inputs):
        weight, *known = inputs
        now = ops.matmul(weight * after, backwards)
        top = max_along(now, axis=-1, keepdims=True)
        now = ops.divide_no_nan(now, top)
        if known:
            now = ops.where(known[0], now, after)
        return now, (now, top)

    spec = [("float64", (None, states)), ("float64", (None, 1))]
    _, (weights, tops) = scan_steps(step, ends, [score_weights, *known], spec, reverse=True)
    least = -max_along(ops.where(weights > 0, -weights, -1), axis=-1, keepdims=True) * tops
    low = ops.logical_and(tops > 0, least < np.exp(SAFE))
    low = ops.any(low if real is None else ops.logical_and(low, real))

    def in_logarithms():
        return log_messages(scores, steps, end, real, ops.logsumexp)

    def in_products():
        scales = ops.where(tops > 0, ops.log(tops) + top_score + top_step, 0)
        scales = scales if real is None else ops.where(real, scales, 0)
        return [ops.maximum(ops.log(weights), NEG_INF), scales]

    messages, scales = ops.cond(low, in_logarithms, in_products)

    def adjoint(gradient):
        gradient = ops.cast(gradient, "float64")

        def of_products():
            after = score_weights * ops.concatenate([weights[1:], ends[None]], axis=0)
            return _scaled_backward(gradient, after, step_weights, weights * tops, real)

        def of_logarithms():
            return _log_backward(gradient, scores, steps, end, real, messages, scales)

        return [ops.cast(one, dtype) for one in ops.cond(low, of_logarithms, of_products)]

    return [ops.cast(messages, dtype), ops.cast(scales, dtype)], adjoint


def _scaled_backward(gradient, after, step_weights, raw, real):
    states = step_weights.shape[0]
    moves = ops.ones_like(raw[..., :1]) if real is None else ops.cast(real, raw.dtype)
    share = ops.divide_no_nan(moves, raw)  # 0 at padded steps
    known = [] if real is None else [real]

    def step(flow, inputs):
        direct, weight, part, *known = inputs
        flow = flow + direct
        part = flow * part
        arrived = ops.matmul(part, step_weights) * weight
        kept = ops.where(known[0], arrived, flow) if known else arrived
        return kept, (part, arrived)

    inputs = [gradient, after, share, *known]
    spec = [("float64", (None, states))] * 2
    flow, (parts, arrived) = scan_steps(step, ops.zeros_like(gradient[0]), inputs, spec)
    parts, after = (ops.reshape(x, (-1, states)) for x in (parts, after))
    total = step_weights * ops.matmul(ops.transpose(parts), after)
    return arrived, total, ops.sum(flow, axis=0)


def _weights(logarithms):
    weights = ops.exp(ops.maximum(logarithms, FLOOR))
    return ops.where(logarithms > NEG_INF / 2, weights, ops.zeros_like(weights))


def max_along(x, axis=None, keepdims=False):
    """As `ops.max`, which refuses an empty batch unless it is told what to begin with."""
    return ops.max(x, axis=axis, keepdims=keepdims, initial=-np.inf)


def following_messages(messages, end):
    """For each step the message behind it."""
    last = ops.broadcast_to(end, (1, *ops.shape(messages)[1:]))
    return ops.concatenate([messages[1:], last], axis=0)


def at_least(x, least):
    """With `least` for what cannot be: a sequence that is forbidden has a finite loss."""
    return ops.where(x > NEG_INF / 2, x, ops.full_like(x, least))


def scan_steps(step, carry, inputs, spec, reverse=False):
    """`ops.scan` over a list of inputs, whose outputs need not look like the carry.

    TensorFlow's takes shapes and types of the outputs from the carry, hence a loop of our own and
    `spec`, the type and shape of each output of a step.
    """
    if keras.backend.backend() != "tensorflow":
        return scan(step, carry, tuple(inputs), reverse=reverse)
    import tensorflow as tf

    turned = reverse and in_export_scope()
    inputs = [ops.flip(x, 0) for x in inputs] if turned else inputs
    length = tf.shape(inputs[0])[0]
    inputs = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in inputs]
    rows = inputs[0].element_shape[0]  # where they are known, converters must be told
    arrays = [
        tf.TensorArray(dtype, length, element_shape=(rows, *shape[1:])) for dtype, shape in spec
    ]

    def body(count, carry, arrays):
        at = length - 1 - count if reverse and not turned else count
        carry, outputs = step(carry, [one.read(at) for one in inputs])
        written = [array.write(at, one) for array, one in zip(arrays, outputs, strict=True)]
        return count + 1, carry, written

    _, carry, arrays = tf.while_loop(lambda i, *_: i < length, body, (0, carry, arrays))
    found = [array.stack() for array in arrays]
    return carry, [ops.flip(x, 0) for x in found] if turned else found
