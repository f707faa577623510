"""Recurrent decoder loop with additive attention, with a hand-written gradient.

Additive attention is that of Bahdanau et al. (2015, https://arxiv.org/abs/1409.0473, appendix
A.1.2). With `K_s` the keys of the source's steps, `V_s` their values, already multiplied by the
kernel of the contexts, `v` and `W` the attention's weights, and `p_t` the projected inputs of a
cell of `cells`:

    e_ts = v tanh(W h_{t-1} + b + K_s),   w_t = softmax(e_t)
    h_t = cell(p_t + sum_s w_ts V_s, h_{t-1})

Automatic differentiation stores several tensors of the size of the keys for each step. Here the
residuals are the states, the gates, the queries `W h_{t-1} + b` and the attention weights `w_t`.
The backward pass computes `tanh(W h_{t-1} + b + K_s)` again. The gradients by the values and by all
weights but `v` are one product each, for all steps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from keras_seqzoo.layers.rnn import batch_splitting, bptt
from keras_seqzoo.layers.rnn.attention_weights import attention_weights
from keras_seqzoo.layers.rnn.cells import Cell, gate_scale, sum_outer_products
from keras_seqzoo.utils import compat


def run(
    cell: Cell,
    projections,
    keys,
    values,
    states: Sequence,
    recurrent_kernel,
    recurrent_bias,
    query_kernel,
    query_bias,
    score_kernel,
    *,
    source_mask=None,
    mask=None,
    keep_residuals: bool = True,
    jit_compile: bool = False,
):
    """Run a recurrent cell that attends to a source before each step.

    Shapes: projections `(batch, time, num_gates * units)` -> hidden states of all steps
        `(batch, time, units)`, and attention weights `(batch, time, source)`.
    Masking: a padded step keeps the states; padded steps of the source have an attention weight of
        0.
    State: `states` are the initial ones.

    Args:
        cell: the cell.
        projections: `(batch, time, num_gates * units)`, the projected inputs, biases included;
            floating point, and all tensors below have its dtype.
        keys: `(batch, source, attention_units)`.
        values: `(batch, source, num_gates * units)`.
        states: list of tensors `(batch, units)`; for an LSTM the hidden state and the carry.
        recurrent_kernel: `(units, num_gates * units)`.
        recurrent_bias: `(num_gates * units,)`, or None.
        query_kernel: `(units, attention_units)`.
        query_bias: `(attention_units,)`.
        score_kernel: `(attention_units,)`.
        source_mask: `(batch, source)`, bool, True for real steps, or None.
        mask: `(batch, time)`, bool, True for real steps, or None.
        keep_residuals: bool, as in `bptt.run`.
        jit_compile: bool, as in `bptt.run`.

    Returns:
        The hidden states and the attention weights.
    """
    if recurrent_bias is None:
        recurrent_bias = tf.zeros_like(recurrent_kernel[0])
    tensors = [projections, keys, values, recurrent_kernel, recurrent_bias]
    tensors += [query_kernel, query_bias, score_kernel, *states]
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    masks = [tf.convert_to_tensor(x) for x in (source_mask, mask) if x is not None]
    function = _recurrence(
        cell,
        (source_mask is not None, mask is not None),
        tensors[1].shape[-1],
        keep_residuals,
        jit_compile and not compat.in_xla_context(),
    )
    return function(*tensors, *masks)


@functools.lru_cache(maxsize=256)
def _recurrence(
    cell: Cell,
    masked: tuple[bool, bool],
    attention_units: int,
    keep_residuals: bool,
    jit_compile: bool,
):
    """The recurrence as a differentiable function of tensors; see `bptt._recurrence`."""
    forward = functools.partial(_forward, cell, masked)
    backward = functools.partial(_backward, cell, masked)
    return bptt.make_differentiable(forward, backward, keep_residuals, jit_compile)


# `_forward` and `_backward` stay whole: set-up, loop body and results share a dozen variables each,
# which would be the arguments of every part.


def _forward(cell: Cell, masked: tuple[bool, bool], keep_residuals: bool, *tensors) -> tuple:
    """The forward pass: results and residuals.

    Residuals are, per part, all states, the attention weights, and those of the cell with the
    queries.
    """
    by_batch, weights, states, masks = _group(tensors, masked)
    recurrent_kernel, recurrent_bias, query_kernel, query_bias, score_kernel = weights
    projections, keys, values = by_batch
    if cell.sigmoid_gates:
        scale = gate_scale(cell, projections.dtype)
        recurrent_kernel, recurrent_bias = recurrent_kernel * scale, recurrent_bias * scale
        projections, values = projections * scale, values * scale
    parts = batch_splitting.count_parts(cell, projections, keep_residuals)
    batch = batch_splitting.batch_size(projections)
    projections = batch_splitting.split_steps(projections, parts)
    projections = [bptt.to_tensor_array(part) for part in projections]
    keys, values = batch_splitting.split(keys, parts), batch_splitting.split(values, parts)
    source_masks, step_masks = _split_masks(masks, parts)
    time = projections[0].size()
    states = list(zip(*(batch_splitting.split(state, parts) for state in states), strict=True))
    all_states = [
        tuple(bptt.empty_tensor_array(state, time + 1).write(0, state) for state in part)
        for part in states
    ]
    attention = [bptt.empty_tensor_array(part[..., 0], time) for part in keys]
    widths = [
        recurrent_kernel.shape[-1],
        *[cell.units] * cell.num_extra_residuals,
        query_kernel.shape[-1],
    ]
    residuals = [
        tuple(bptt.empty_tensor_array(part[0], time, width) for width in widths if keep_residuals)
        for part in states
    ]

    def body(t, states, all_states, attention, residuals):
        new_states = []
        for part, previous in enumerate(states):
            query = previous[0] @ query_kernel + query_bias
            scores = tf.linalg.matvec(_compare(query, keys[part]), score_kernel)
            w = attention_weights(scores, source_masks[part])
            context = tf.reduce_sum(w[..., None] * values[part], 1)
            projection = projections[part].read(t) + context
            new, gates = cell.step(projection, previous, recurrent_kernel, recurrent_bias)
            if step_masks is not None:
                real = step_masks[part].read(t)
                new = tuple(tf.where(real, *pair) for pair in zip(new, previous, strict=True))
            new_states.append(new)
            all_states[part] = bptt.write_each(all_states[part], t + 1, new)
            attention[part] = attention[part].write(t, w)
            residuals[part] = bptt.write_each(residuals[part], t, (*gates, query))
        return t + 1, new_states, all_states, attention, residuals

    _, _, all_states, attention, residuals = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (0, states, all_states, attention, residuals),
        maximum_iterations=time,
    )
    all_states = [tuple(array.stack() for array in part) for part in all_states]
    attention = [array.stack() for array in attention]
    hidden = batch_splitting.join_steps([part[0][1:] for part in all_states], batch)
    residuals = [tuple(array.stack() for array in part) for part in residuals]
    results = hidden, batch_splitting.join_steps(attention, batch)
    return results, (all_states, attention, residuals)


def _backward(cell: Cell, masked: tuple[bool, bool], tensors, upstream, forward_residuals) -> tuple:
    """The backward pass: gradients by all tensors but the masks, in the order of `_forward`."""
    by_batch, weights, _, masks = _group(tensors, masked)
    recurrent_kernel, _, query_kernel, _, score_kernel = weights
    all_states, attention, residuals = forward_residuals
    parts, batch = len(all_states), batch_splitting.batch_size(by_batch[0])
    hidden_grads, attention_grads = (
        list(map(bptt.to_tensor_array, batch_splitting.split_steps(grad, parts)))
        for grad in upstream
    )
    keys, values = (batch_splitting.split(tensor, parts) for tensor in by_batch[1:])
    _, step_masks = _split_masks(masks, parts)
    transposed_recurrent_kernel, transposed_query_kernel = map(
        tf.linalg.matrix_transpose, (recurrent_kernel, query_kernel)
    )
    time = hidden_grads[0].size()
    local_gradients = [
        cell.local_gradients([x[:-1] for x in part], [x[1:] for x in part], gates[:-1])
        for part, gates in zip(all_states, residuals, strict=True)
    ]
    queries = [bptt.to_tensor_array(part[-1]) for part in residuals]
    attention_arrays = list(map(bptt.to_tensor_array, attention))
    # The gradients by the pre-activations overwrite the first local gradients.
    pre_activation_grads = [bptt.to_tensor_array(part[0]) for part in local_gradients]
    other_local_gradients = [tuple(map(bptt.to_tensor_array, part[1:])) for part in local_gradients]
    state_grads = [tuple(tf.zeros_like(state[0]) for state in part) for part in all_states]
    extra_grads = [
        tuple(bptt.empty_tensor_array(part[0], time) for _ in range(cell.num_extra_gradients))
        for part in state_grads
    ]
    query_grads = [bptt.empty_tensor_array(part[:, 0], time) for part in keys]
    key_grads = list(map(tf.zeros_like, keys))
    score_kernel_grads = [tf.zeros_like(part[:, 0]) for part in keys]

    def body(t, state_grads, *accumulated):
        pre_activation_grads, extra_grads, query_grads, key_grads, score_kernel_grads = accumulated
        previous_grads = []
        for part, grads in enumerate(state_grads):
            grads = (grads[0] + hidden_grads[part].read(t), *grads[1:])
            arrays = (pre_activation_grads[part], *other_local_gradients[part])
            step_grads, previous = cell.backward_step(
                grads, [array.read(t) for array in arrays], transposed_recurrent_kernel
            )
            if step_masks is not None:
                real = step_masks[part].read(t)
                step_grads = tuple(tf.where(real, grad, 0) for grad in step_grads)
                previous = tuple(
                    tf.where(real, *pair) for pair in zip(previous, grads, strict=True)
                )
            w = attention_arrays[part].read(t)
            w_grad = attention_grads[part].read(t) + tf.linalg.matvec(
                values[part], cell.projection_grad(step_grads)
            )
            # By the scores, through the softmax.
            score_grad = w * (w_grad - tf.reduce_sum(w * w_grad, 1, keepdims=True))
            compared = _compare(queries[part].read(t), keys[part])
            key_grad = score_grad[..., None] * (1 - compared * compared) * score_kernel
            query_grad = tf.reduce_sum(key_grad, 1)
            key_grads[part] += key_grad
            score_kernel_grads[part] += tf.reduce_sum(score_grad[..., None] * compared, 1)
            query_grads[part] = query_grads[part].write(t, query_grad)
            pre_activation_grads[part] = pre_activation_grads[part].write(t, step_grads[0])
            extra_grads[part] = bptt.write_each(extra_grads[part], t, step_grads[1:])
            hidden_grad = previous[0] + query_grad @ transposed_query_kernel
            previous_grads.append((hidden_grad, *previous[1:]))
        return t - 1, previous_grads, *accumulated

    accumulated = pre_activation_grads, extra_grads, query_grads, key_grads, score_kernel_grads
    _, state_grads, *accumulated = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (time - 1, state_grads, *accumulated),
        maximum_iterations=time,
    )
    pre_activation_grads, extra_grads, query_grads, key_grads, score_kernel_grads = accumulated
    projection_grads, value_grads, weight_grads = [], [], []
    for part, states in enumerate(all_states):
        arrays = (pre_activation_grads[part], *extra_grads[part])
        grads = tuple(array.stack() for array in arrays)
        query_grad, previous_hidden = query_grads[part].stack(), states[0][:-1]
        projection_grads.append(cell.projection_grad(grads))
        value_grads.append(tf.einsum("tbs,tbv->bsv", attention[part], projection_grads[-1]))
        weight_grads.append(
            (
                cell.recurrent_kernel_grad(previous_hidden, grads[0], residuals[part][:-1]),
                tf.reduce_sum(grads[0], (0, 1)),
                sum_outer_products(previous_hidden, query_grad),
                tf.reduce_sum(query_grad, (0, 1)),
                tf.reduce_sum(score_kernel_grads[part], 0),
            )
        )
    return (
        batch_splitting.join_steps(projection_grads, batch),
        batch_splitting.join(key_grads, batch),
        batch_splitting.join(value_grads, batch),
        *(tf.add_n(grads) for grads in zip(*weight_grads, strict=True)),
        *(batch_splitting.join(grads, batch) for grads in zip(*state_grads, strict=True)),
    )


def _group(tensors: Sequence, masked: tuple[bool, bool]) -> tuple[list, list, list, list]:
    """Projections, keys and values; weights; initial states; the masks of source and steps."""
    tensors = list(tensors)
    masks = [tensors.pop() if has_mask else None for has_mask in masked[::-1]][::-1]
    return tensors[:3], tensors[3:8], tensors[8:], masks


def _split_masks(masks: Sequence, parts: int) -> tuple[list, list | None]:
    """The source mask of each part, and the step mask as arrays of `(batch, 1)`, or None."""
    source_mask, mask = masks
    source_masks = (
        [None] * parts if source_mask is None else batch_splitting.split(source_mask, parts)
    )
    if mask is None:
        return source_masks, None
    steps = batch_splitting.split_steps(mask[..., None], parts)
    return source_masks, [bptt.to_tensor_array(part) for part in steps]


def _compare(query, keys):
    return tf.tanh(query[:, None] + keys)
