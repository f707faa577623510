"""A recurrence that looks at a source before each step, with a gradient written by hand.

With additive attention (Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2),
`K_s` the keys of a source's steps, `V_s` its values, multiplied by what contexts are multiplied by,
`v` and `W` the attention's weights, and `p_t` the projected inputs of a cell of `kernels`:

    e_ts = v tanh(W h_{t-1} + b + K_s),   w_t = softmax(e_t)
    h_t = cell(p_t + sum_s w_ts V_s, h_{t-1})

What automatic differentiation keeps of a step is as large as the keys, several times; here that is
the states, gates and weights `w_t`, and the way back computes `tanh(W h_{t-1} + b + K_s)` again.
The gradients of the values and of all weights but `v` are one product each, for all steps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from keras_seqzoo.layers.rnn import batch_splitting, bptt, cells
from keras_seqzoo.layers.rnn.attention_weights import attention_weights
from keras_seqzoo.layers.rnn.cells import Cell
from keras_seqzoo.utils import compat


def run(
    cell: Cell,
    fed,
    keys,
    values,
    states: Sequence,
    recurrent_kernel,
    recurrent_bias,
    query_kernel,
    bias,
    score,
    *,
    source_mask=None,
    mask=None,
    keep: bool = True,
    jit_compile: bool = False,
):
    """Runs `cell` over `fed`, looking at a source before each step.

    Args:
        cell: which recurrence.
        fed: `(batch, time, gates * units)`, the projected inputs, biases included; floating point,
            and all tensors below have its dtype.
        keys: `(batch, source, compared)`.
        values: `(batch, source, gates * units)`.
        states: the initial ones, `(batch, units)` each.
        recurrent_kernel: `(units, gates * units)`.
        recurrent_bias: `(gates * units,)`, or None.
        query_kernel: `(units, compared)`.
        bias: `(compared,)`.
        score: `(compared,)`.
        source_mask: `(batch, source)`, bool, or None.
        mask: `(batch, time)`, bool, or None; a padded step keeps the states.
        keep: bool, as of `bptt.run`.
        jit_compile: bool, as of `bptt.run`.

    Returns:
        The hidden states of all steps, `(batch, time, units)`, and the weights over the source,
        `(batch, time, source)`.
    """
    if recurrent_bias is None:
        recurrent_bias = tf.zeros_like(recurrent_kernel[0])
    tensors = [fed, keys, values, recurrent_kernel, recurrent_bias, query_kernel, bias, score]
    tensors = [tf.convert_to_tensor(tensor) for tensor in (*tensors, *states)]
    masks = [tf.convert_to_tensor(one) for one in (source_mask, mask) if one is not None]
    function = _differentiable(
        cell,
        (source_mask is not None, mask is not None),
        tensors[1].shape[-1],
        keep,
        jit_compile and not compat.in_xla_context(),
    )
    return function(*tensors, *masks)


@functools.lru_cache(maxsize=256)
def _differentiable(
    cell: Cell, masked: tuple[bool, bool], width: int, keep: bool, jit_compile: bool
):
    """As that of `kernels`; one for each width that queries and keys are compared in."""
    forward = functools.partial(_forward, cell, masked)
    backward = functools.partial(_backward, cell, masked)
    return bptt.differentiable(forward, backward, keep, jit_compile)


def _forward(cell: Cell, masked: tuple[bool, bool], keep: bool, *tensors):
    """Results, and what `_backward` needs: per part, histories of all states, what the cell kept,
    what was asked, and the weights.
    """
    by_row, weights, states, masks = _sorted(tensors, masked)
    recurrent_kernel, recurrent_bias, query_kernel, bias, score = weights
    fed, keys, values = by_row
    if cell.sigmoids:
        scale = cells.halves(cell, fed.dtype)
        recurrent_kernel, recurrent_bias = recurrent_kernel * scale, recurrent_bias * scale
        fed, values = fed * scale, values * scale
    parts, rows = batch_splitting.parts_of(cell, fed, keep), batch_splitting.rows_of(fed)
    fed = [bptt.as_array(part) for part in batch_splitting.split_steps(fed, parts)]
    keys, values = batch_splitting.split(keys, parts), batch_splitting.split(values, parts)
    there, real = _masks_of_parts(masks, parts)
    time = fed[0].size()
    states = list(zip(*(batch_splitting.split(state, parts) for state in states), strict=True))
    histories = [
        tuple(bptt.empty_array(state, time + 1).write(0, state) for state in part)
        for part in states
    ]
    looks = [bptt.empty_array(part[..., 0], time) for part in keys]
    widths = [
        recurrent_kernel.shape[-1],
        *[cell.units] * cell.residuals_beside,
        query_kernel.shape[-1],
    ]
    kept = [
        tuple(bptt.empty_array(part[0], time, width) for width in widths if keep) for part in states
    ]

    def body(t, states, histories, looks, kept):
        after = []
        for part, before in enumerate(states):
            asked = before[0] @ query_kernel + bias
            seen = _compared(asked, keys[part])
            share = attention_weights(tf.linalg.matvec(seen, score), there[part])
            given = fed[part].read(t) + tf.reduce_sum(share[..., None] * values[part], 1)
            new, gates = cell.step(given, before, recurrent_kernel, recurrent_bias)
            if real is not None:
                here = real[part].read(t)
                new = tuple(tf.where(here, *pair) for pair in zip(new, before, strict=True))
            after.append(new)
            histories[part] = bptt.write_each(histories[part], t + 1, new)
            looks[part] = looks[part].write(t, share)
            kept[part] = bptt.write_each(kept[part], t, (*gates, asked))
        return t + 1, after, histories, looks, kept

    _, _, histories, looks, kept = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (0, states, histories, looks, kept),
        maximum_iterations=time,
    )
    histories = [tuple(array.stack() for array in part) for part in histories]
    looks = [array.stack() for array in looks]
    hidden = batch_splitting.join_steps([part[0][1:] for part in histories], rows)
    kept = [tuple(array.stack() for array in part) for part in kept]
    return (hidden, batch_splitting.join_steps(looks, rows)), (histories, looks, kept)


def _backward(cell: Cell, masked: tuple[bool, bool], tensors, upstream, memory):
    """Gradients by all tensors but the masks, in the order of `_forward`."""
    by_row, weights, _, masks = _sorted(tensors, masked)
    recurrent_kernel, _, query_kernel, _, score = weights
    histories, looks, kept = memory
    parts, rows = len(histories), batch_splitting.rows_of(by_row[0])
    by_hidden, by_shares = (
        list(map(bptt.as_array, batch_splitting.split_steps(one, parts))) for one in upstream
    )
    keys, values = (batch_splitting.split(one, parts) for one in by_row[1:])
    _, real = _masks_of_parts(masks, parts)
    transposed, to_query = map(tf.linalg.matrix_transpose, (recurrent_kernel, query_kernel))
    time = by_hidden[0].size()
    factors = [
        cell.factors([one[:-1] for one in part], [one[1:] for one in part], gates[:-1])
        for part, gates in zip(histories, kept, strict=True)
    ]
    asked = [bptt.as_array(part[-1]) for part in kept]
    looked = list(map(bptt.as_array, looks))
    deltas = [bptt.as_array(part[0]) for part in factors]
    beside = [tuple(map(bptt.as_array, part[1:])) for part in factors]
    states = [tuple(tf.zeros_like(one[0]) for one in part) for part in histories]
    extras = [
        tuple(bptt.empty_array(part[0], time) for _ in range(cell.written_beside))
        for part in states
    ]
    by_asked = [bptt.empty_array(part[:, 0], time) for part in keys]
    by_keys = list(map(tf.zeros_like, keys))
    by_score = [tf.zeros_like(part[:, 0]) for part in keys]

    def body(t, states, deltas, extras, by_asked, by_keys, by_score):
        earlier = []
        for part, gradients in enumerate(states):
            gradients = (gradients[0] + by_hidden[part].read(t), *gradients[1:])
            here = [array.read(t) for array in (deltas[part], *beside[part])]
            written, new = cell.back(gradients, here, transposed)
            if real is not None:
                now = real[part].read(t)
                written = tuple(tf.where(now, one, 0) for one in written)
                new = tuple(tf.where(now, *pair) for pair in zip(new, gradients, strict=True))
            share = looked[part].read(t)
            by_share = by_shares[part].read(t) + tf.linalg.matvec(values[part], cell.delta(written))
            by_energy = share * (by_share - tf.reduce_sum(share * by_share, 1, keepdims=True))
            seen = _compared(asked[part].read(t), keys[part])
            slopes = by_energy[..., None] * (1 - seen * seen) * score
            ask = tf.reduce_sum(slopes, 1)
            by_keys[part] += slopes
            by_score[part] += tf.reduce_sum(by_energy[..., None] * seen, 1)
            by_asked[part] = by_asked[part].write(t, ask)
            deltas[part] = deltas[part].write(t, written[0])
            extras[part] = bptt.write_each(extras[part], t, written[1:])
            earlier.append((new[0] + ask @ to_query, *new[1:]))
        return t - 1, earlier, deltas, extras, by_asked, by_keys, by_score

    _, states, deltas, extras, by_asked, by_keys, by_score = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (time - 1, states, deltas, extras, by_asked, by_keys, by_score),
        maximum_iterations=time,
    )
    by_fed, by_values, sums = [], [], []
    for part, history in enumerate(histories):
        written = (deltas[part].stack(), *(array.stack() for array in extras[part]))
        ask, before = by_asked[part].stack(), history[0][:-1]
        by_fed.append(cell.delta(written))
        by_values.append(tf.einsum("tbs,tbv->bsv", looks[part], by_fed[-1]))
        sums.append(
            (
                cell.recurrent_gradient(before, written[0], kept[part][:-1]),
                tf.reduce_sum(written[0], (0, 1)),
                cells.outer(before, ask),
                tf.reduce_sum(ask, (0, 1)),
                tf.reduce_sum(by_score[part], 0),
            )
        )
    return (
        batch_splitting.join_steps(by_fed, rows),
        batch_splitting.join(by_keys, rows),
        batch_splitting.join(by_values, rows),
        *(tf.add_n(each) for each in zip(*sums, strict=True)),
        *(batch_splitting.join(state, rows) for state in zip(*states, strict=True)),
    )


def _sorted(tensors: Sequence, masked: tuple[bool, bool]) -> tuple[list, list, list, list]:
    """What rows have for themselves, weights, initial states and both masks."""
    tensors = list(tensors)
    masks = [tensors.pop() if there else None for there in masked[::-1]][::-1]
    return tensors[:3], tensors[3:8], tensors[8:], masks


def _masks_of_parts(masks: Sequence, parts: int) -> tuple[list, list | None]:
    """The source's, and the target's as arrays of `(rows, 1)`, or None."""
    there, real = masks
    there = [None] * parts if there is None else batch_splitting.split(there, parts)
    if real is not None:
        real = [bptt.as_array(one) for one in batch_splitting.split_steps(real[..., None], parts)]
    return there, real


def _compared(asked, keys):
    return tf.tanh(asked[:, None] + keys)
