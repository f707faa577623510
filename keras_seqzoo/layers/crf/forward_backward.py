"""The forward-backward algorithm of a linear-chain CRF, with its gradient.

With emission scores `s_t`, transition scores `A`, end scores `e` and `n` steps, the backward
message of a tag `i` at step `t` is the log-sum-exp over all ways to continue a sequence after it:

    beta_n(i) = e(i)
    beta_t(i) = logsumexp_j(A(i, j) + s_{t+1}(j) + beta_{t+1}(j))

Messages are normalized at each step so that their maximum is 0; `scales` are the logs of the
factors. The gradient of the messages is a recursion in the other direction, the forward pass.

Arrays have time first, and the chain has one state more than there are tags: the start, which
precedes the first step. `messages[t]` is `beta_t` for `t < n`, and `beta_0` of the start is the
log-partition of the sequence.

Padded steps are left out of the chain: their message is that of the next step.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_seqzoo.layers.export_scope import in_export_scope, scan

# The log weight of forbidden transitions. It is finite, as infinity times 0 is NaN. After each step
# all lower values are set to it, so that it does not accumulate.
NEG_INF = -1e30
# Floor of log weights in probability space: exp(-230) cubed is a normal float64. A message above
# exp(-200) does not depend on terms at the floor.
LOG_FLOOR = -230.0
LOG_SAFE = -200.0


def backward_messages(scores, transitions, end, mask):
    """Normalized backward messages `(time, batch, states)` and scales `(time, batch, 1)`.

    Both are logarithms and differentiable.

    Args:
        scores: emission scores `(time, batch, states)`.
        transitions: transition scores `(states, states)`, [from, to].
        end: end scores `(states,)`.
        mask: `(time, batch, 1)`, bool, True for real steps, or None.
    """
    if keras.backend.backend() != "tensorflow":
        return log_space_messages(scores, transitions, end, mask, ops.logsumexp)
    from keras_seqzoo.layers.custom_gradient import custom_gradient

    @custom_gradient
    def messages(scores, transitions, end):
        results, vjp = backward_messages_with_vjp(scores, transitions, end, mask)
        return results, lambda message_grad, _: vjp(message_grad)

    return messages(scores, transitions, end)


def backward_messages_with_vjp(scores, transitions, end, mask):
    """Messages and scales of `backward_messages`, and their vector-Jacobian product.

    That is a function from the gradient by the messages to the gradients by scores, transitions
    and end scores.
    """
    if keras.backend.backend() == "tensorflow":
        return _scaled_messages_with_vjp(scores, transitions, end, mask)
    results = log_space_messages(scores, transitions, end, mask, ops.logsumexp)
    return results, lambda message_grad: _log_space_vjp(
        message_grad, scores, transitions, end, mask, *results
    )


def log_space_messages(scores, transitions, end, mask, reduce):
    """Messages and scales computed in logarithms, exact for scores of any size.

    Args:
        scores: as in `backward_messages`.
        transitions: as in `backward_messages`.
        end: as in `backward_messages`.
        mask: as in `backward_messages`.
        reduce: `ops.logsumexp` for all sequences (sum-product), `max_along` for the best sequence
            (max-product, as in the Viterbi algorithm).
    """
    states = transitions.shape[0]

    def step(next_message, inputs):
        score, *step_mask = inputs
        message = reduce(transitions + (score + next_message)[:, None], axis=-1)
        scale = ops.stop_gradient(max_along(message, axis=-1, keepdims=True))
        scale = ops.where(scale > NEG_INF / 2, scale, ops.zeros_like(scale))
        message = ops.maximum(message - scale, NEG_INF)
        if step_mask:
            message = ops.where(step_mask[0], message, next_message)
            scale = ops.where(step_mask[0], scale, ops.zeros_like(scale))
        return message, (message, scale)

    last = ops.broadcast_to(end, (ops.shape(scores)[1], states))
    inputs = [scores] if mask is None else [scores, mask]
    dtype = keras.backend.standardize_dtype(scores.dtype)
    spec = [(dtype, (None, states)), (dtype, (None, 1))]
    return scan_steps(step, last, inputs, spec, reverse=True)[1]


def _log_space_vjp(message_grads, scores, transitions, end, mask, messages, scales):
    states = transitions.shape[0]

    def step(carry, inputs):
        grad, transition_grad = carry
        message_grad, score, message, next_message, scale, *step_mask = inputs
        grad = grad + message_grad
        # The log probability of the next tag, given this one. Rounding may make it positive.
        log_probs = transitions + (score + next_message)[:, None] - (message + scale)[:, :, None]
        pair_grad = grad[:, :, None] * ops.exp(ops.minimum(log_probs, 0))
        if step_mask:
            pair_grad = ops.where(step_mask[0][:, :, None], pair_grad, ops.zeros_like(pair_grad))
        score_grad = ops.sum(pair_grad, axis=1)
        next_grad = ops.where(step_mask[0], score_grad, grad) if step_mask else score_grad
        return (next_grad, transition_grad + ops.sum(pair_grad, axis=0)), (score_grad,)

    inputs = [message_grads, scores, messages, next_messages(messages, end), scales]
    inputs += [] if mask is None else [mask]
    carry = (ops.zeros_like(message_grads[0]), ops.zeros_like(transitions))
    spec = [(keras.backend.standardize_dtype(scores.dtype), (None, states))]
    (grad, transition_grad), (score_grads,) = scan_steps(step, carry, inputs, spec)
    return score_grads, transition_grad, ops.sum(grad, axis=0)


def _scaled_messages_with_vjp(scores, transitions, end, mask):
    """`backward_messages_with_vjp` in probability space, many times faster on a CPU.

    A step is a float64 matrix product instead of a log-sum-exp. The weights of each step are scaled
    to at most 1 and floored at exp(-230); forbidden ones stay 0. Where a message gets so small that
    the floor might change it, the whole computation runs in log space instead.
    """
    dtype, states = scores.dtype, transitions.shape[0]
    scores, transitions, end = (ops.cast(x, "float64") for x in (scores, transitions, end))
    max_score = max_along(scores[..., :-1], axis=-1, keepdims=True)
    max_transition = max_along(transitions)
    score_weights = ops.exp(ops.maximum(scores - max_score, LOG_FLOOR))
    transition_weights = _exp_with_floor(transitions - max_transition)
    end_weights = ops.broadcast_to(_exp_with_floor(end), (ops.shape(scores)[1], states))
    mask_inputs = [] if mask is None else [mask]
    transposed_weights = ops.transpose(transition_weights)

    def step(next_weight, inputs):
        score_weight, *step_mask = inputs
        weight = ops.matmul(score_weight * next_weight, transposed_weights)
        scale = max_along(weight, axis=-1, keepdims=True)
        weight = ops.divide_no_nan(weight, scale)
        if step_mask:
            weight = ops.where(step_mask[0], weight, next_weight)
        return weight, (weight, scale)

    spec = [("float64", (None, states)), ("float64", (None, 1))]
    inputs = [score_weights, *mask_inputs]
    _, (weights, weight_scales) = scan_steps(step, end_weights, inputs, spec, reverse=True)
    smallest = -max_along(ops.where(weights > 0, -weights, -1), axis=-1, keepdims=True)
    unsafe = ops.logical_and(weight_scales > 0, smallest * weight_scales < np.exp(LOG_SAFE))
    unsafe = ops.any(unsafe if mask is None else ops.logical_and(unsafe, mask))

    def in_log_space():
        return log_space_messages(scores, transitions, end, mask, ops.logsumexp)

    def in_probability_space():
        log_scales = ops.log(weight_scales) + max_score + max_transition
        log_scales = ops.where(weight_scales > 0, log_scales, 0)
        log_scales = log_scales if mask is None else ops.where(mask, log_scales, 0)
        return [ops.maximum(ops.log(weights), NEG_INF), log_scales]

    messages, scales = ops.cond(unsafe, in_log_space, in_probability_space)

    def vjp(message_grads):
        message_grads = ops.cast(message_grads, "float64")

        def by_products():
            following = ops.concatenate([weights[1:], end_weights[None]], axis=0)
            return _scaled_vjp(
                message_grads,
                score_weights * following,
                transition_weights,
                weights * weight_scales,
                mask,
            )

        def by_logarithms():
            return _log_space_vjp(message_grads, scores, transitions, end, mask, messages, scales)

        return [ops.cast(grad, dtype) for grad in ops.cond(unsafe, by_logarithms, by_products)]

    return [ops.cast(messages, dtype), ops.cast(scales, dtype)], vjp


def _scaled_vjp(message_grads, next_weights, transition_weights, unscaled_weights, mask):
    states = transition_weights.shape[0]
    ones = unscaled_weights[..., :1]
    ones = ops.ones_like(ones) if mask is None else ops.cast(mask, ones.dtype)
    inverse_weights = ops.divide_no_nan(ones, unscaled_weights)  # 0 at padded steps
    mask_inputs = [] if mask is None else [mask]

    def step(grad, inputs):
        message_grad, next_weight, inverse_weight, *step_mask = inputs
        grad = grad + message_grad
        weight_grad = grad * inverse_weight
        score_grad = ops.matmul(weight_grad, transition_weights) * next_weight
        next_grad = ops.where(step_mask[0], score_grad, grad) if step_mask else score_grad
        return next_grad, (weight_grad, score_grad)

    inputs = [message_grads, next_weights, inverse_weights, *mask_inputs]
    spec = [("float64", (None, states))] * 2
    initial = ops.zeros_like(message_grads[0])
    grad, (weight_grads, score_grads) = scan_steps(step, initial, inputs, spec)
    weight_grads, next_weights = (
        ops.reshape(x, (-1, states)) for x in (weight_grads, next_weights)
    )
    products = ops.matmul(ops.transpose(weight_grads), next_weights)
    return score_grads, transition_weights * products, ops.sum(grad, axis=0)


def _exp_with_floor(log_weights):
    """The exponential, at least exp(-230), and 0 for forbidden transitions."""
    weights = ops.exp(ops.maximum(log_weights, LOG_FLOOR))
    return ops.where(log_weights > NEG_INF / 2, weights, ops.zeros_like(weights))


def max_along(x, axis=None, keepdims=False):
    """`ops.max` for batches that may be empty: it needs an initial value there."""
    return ops.max(x, axis=axis, keepdims=keepdims, initial=-np.inf)


def next_messages(messages, end):
    """For each step the message of the next step; for the last step the end scores."""
    last = ops.broadcast_to(end, (1, *ops.shape(messages)[1:]))
    return ops.concatenate([messages[1:], last], axis=0)


def replace_forbidden(x, value):
    """Scores with another value for forbidden ones."""
    return ops.where(x > NEG_INF / 2, x, ops.full_like(x, value))


def scan_steps(step, carry, inputs, spec, reverse=False):
    """`ops.scan` over a list of inputs, whose outputs may differ from the carry in shape and dtype.

    On TensorFlow `ops.scan` takes shapes and dtypes of the outputs from the carry. This function
    has its own loop there, and needs `spec`: dtype and shape of each output of a step.
    """
    if keras.backend.backend() != "tensorflow":
        return scan(step, carry, tuple(inputs), reverse=reverse)
    import tensorflow as tf

    flipped = reverse and in_export_scope()
    inputs = [ops.flip(x, 0) for x in inputs] if flipped else inputs
    length = tf.shape(inputs[0])[0]
    inputs = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in inputs]
    batch = inputs[0].element_shape[0]  # converters need a static batch size where there is one
    arrays = [
        tf.TensorArray(dtype, length, element_shape=(batch, *shape[1:])) for dtype, shape in spec
    ]

    def body(count, carry, arrays):
        t = length - 1 - count if reverse and not flipped else count
        carry, outputs = step(carry, [array.read(t) for array in inputs])
        arrays = [array.write(t, output) for array, output in zip(arrays, outputs, strict=True)]
        return count + 1, carry, arrays

    _, carry, arrays = tf.while_loop(lambda i, *_: i < length, body, (0, carry, arrays))
    outputs = [array.stack() for array in arrays]
    return carry, [ops.flip(x, 0) for x in outputs] if flipped else outputs
