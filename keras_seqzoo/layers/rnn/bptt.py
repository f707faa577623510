"""Backpropagation through time: recurrences with hand-written gradients in TensorFlow.

What costs time in a loop under automatic differentiation, and not here:

- **The projection** of all steps is one matrix product before the loop. The gates overwrite it and
  are kept for the backward pass.
- **The backward pass** follows Werbos (1990, https://doi.org/10.1109/5.58337, backpropagation
  through time), for the LSTM Graves and Schmidhuber (2005,
  https://doi.org/10.1016/j.neunet.2005.06.042, appendix). With `d_t` the gradient of the loss
  by the pre-activation of step t, only `d_t` and its contribution to step t - 1, `d_t R^T`, need
  a loop. Everything it is multiplied by is computed for all steps at once (`factors`), and
  `dW = sum_t x_t^T d_t`, `dR = sum_t h_{t-1}^T d_t` and `dx_t = d_t W^T` are one product each.

A masked step is the identity on the state, and so is its transpose on the state's gradient.

Shapes: `(batch, time, features)` in, states `(batch, units)`. Weights and states may have a first
axis of size two: the forward and the backward direction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_seqzoo.layers.custom_gradient import custom_gradient
from keras_seqzoo.layers.export_scope import in_export_scope
from keras_seqzoo.layers.rnn.batch_splitting import (
    count_directions,
    join,
    join_states,
    join_steps,
    parts_of,
    rows_of,
    split_states,
    split_steps,
    swap_batch_and_time,
    weights_of_parts,
)
from keras_seqzoo.layers.rnn.cells import Cell, halves, outer, project
from keras_seqzoo.utils import compat

# See `contain`: large, and yet their products, and sums of these, are finite.
LARGEST_STATE = 1e15


LARGEST_GRADIENT = 1e18


def run(
    cell: Cell,
    inputs,
    states: Sequence,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias=None,
    *,
    mask=None,
    keep: bool = True,
    return_sequences: bool = True,
    contain: bool = False,
    jit_compile: bool = False,
):
    """Runs `cell` over `inputs`.

    Args:
        cell: which recurrence.
        inputs: `(batch, time, features)`, floating point; all tensors below have its dtype.
        states: the initial ones, `(batch, units)` each.
        kernel: `(features, gates * units)`.
        recurrent_kernel: `(units, gates * units)`.
        bias: `(gates * units,)`.
        recurrent_bias: `(gates * units,)`, of a GRU that resets after the product.
            For two directions, kernels, biases and states have them as their first axis.
        mask: `(batch, time)`, or `(batch, time, units)` where each unit has its own, bool, True for
            real steps; or None.
        keep: bool, whether to keep what a gradient needs. Without it a gradient is as right, and
            runs the recurrence once more.
        return_sequences: bool, whether the states of all steps are wanted.
        contain: bool, whether states and gradients are held below `LARGEST_STATE` and
            `LARGEST_GRADIENT`, NaN included. Layers that run side by side, their kernels the
            blocks of one, would else spread what overflows, as 0 times infinity is NaN.
        jit_compile: bool, whether XLA compiles the recurrence alone, once for each shape.

    Returns:
        The hidden states of all steps, `(batch, time, units)`, or None; and the last states. For
        two directions `(batch, time, 2 * units)`, each step's own side by side, and
        `(2, batch, units)`.
    """
    tensors = _tensors(inputs, states, kernel, recurrent_kernel, bias, recurrent_bias, mask)
    ranks = len(kernel.shape), 0 if mask is None else len(mask.shape)
    kind = (tensors[0].shape[-1], *ranks)
    jit_compile = jit_compile and not compat.in_xla_context()
    function = _differentiable(cell, kind, keep, return_sequences, contain, jit_compile)
    results = function(*tensors)
    return (results[0], results[1:]) if return_sequences else (None, results)


def histories(cell: Cell, inputs, states: Sequence, *weights, mask=None) -> tuple:
    """All states before the first step and after each, `(time + 1, batch, units)`.

    Not differentiable; `weights` are kernels and biases in the order of `run`.
    """
    tensors = _tensors(inputs, states, *weights, mask)
    _, (parts, _) = _forward(cell, mask is not None, True, True, True, *tensors)
    return tuple(join(states, rows_of(inputs), 1) for states in zip(*parts, strict=True))


def _tensors(inputs, states, kernel, recurrent_kernel, bias, recurrent_bias, mask) -> list:
    tensors = [inputs, kernel, recurrent_kernel, bias, *states]
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    tensors.insert(4, tf.zeros_like(tensors[3]) if recurrent_bias is None else recurrent_bias)
    return tensors if mask is None else [*tensors, tf.convert_to_tensor(mask)]


@functools.lru_cache(maxsize=256)
def _differentiable(
    cell: Cell,
    kind: tuple[int, int, int],
    keep: bool,
    sequences: bool,
    contain: bool,
    jit_compile: bool,
) -> Callable:
    """The recurrence as a function of tensors alone, with its gradient and that one's.

    One for each number of features and rank of kernels and mask (0: none), as a trace that has seen
    several knows none.
    """
    masked = kind[-1] > 0
    forward = functools.partial(_forward, cell, masked, sequences, contain)
    backward = functools.partial(_backward, cell, masked, sequences, contain)
    return differentiable(forward, backward, keep, jit_compile)


def differentiable(
    forward: Callable, backward: Callable, keep: bool, jit_compile: bool = False
) -> Callable:
    """A function of tensors alone with a gradient written by hand, and that one's.

    Args:
        forward: from `keep` and tensors to results, and what `backward` needs, if kept.
        backward: from the tensors, the results' gradients and what was kept to a gradient for each
            tensor of floating point; the others come last.
        keep: bool, whether to keep what a gradient needs. Without it a gradient is as right, and
            runs `forward` once more.
        jit_compile: bool, whether XLA compiles either alone, once for each shape.
    """
    once = _compiled(functools.partial(forward, keep), jit_compile)
    once_kept = once if keep else _compiled(functools.partial(forward, True), jit_compile)
    back = _compiled(backward, jit_compile)

    def plain(tensors):
        """For automatic differentiation, any number of times."""
        return forward(False, *tensors)[0]

    @custom_gradient
    def function(*tensors):
        # Stopped, or an outer tape would differentiate the inside as well, for nothing.
        results, kept = once(*map(tf.stop_gradient, tensors))

        def gradient(*upstream):
            memory = kept if keep else once_kept(*map(tf.stop_gradient, tensors))[1]
            return _gradient(tensors, upstream, memory)

        return results, gradient

    def _gradient(tensors, upstream, memory):
        floating = sum(tensor.dtype.is_floating for tensor in tensors)

        @custom_gradient
        def first(*arguments):
            stopped = [tf.stop_gradient(argument) for argument in arguments]
            given, above = stopped[: len(tensors)], stopped[len(tensors) :]
            return back(given, above, memory), lambda *above: second(arguments, above)

        def second(arguments, above):
            watched = [argument for argument in arguments if argument.dtype.is_floating]
            with tf.GradientTape() as outer:
                outer.watch(watched)
                given, upstream = arguments[: len(tensors)], arguments[len(tensors) :]
                with tf.GradientTape() as inner:
                    inner.watch(given[:floating])
                    results = plain(given)
                gradients = inner.gradient(
                    results,
                    given[:floating],
                    upstream,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            found = iter(outer.gradient(gradients, watched, above))
            return [next(found) if one.dtype.is_floating else None for one in arguments]

        return (*first(*tensors, *upstream), *[None] * (len(tensors) - floating))

    return function


def _compiled(function: Callable, jit_compile: bool) -> Callable:
    """Eager calls need not step through Python; a graph takes the operations themselves in, unless
    they are to be compiled alone.
    """
    traced = tf.function(
        function, autograph=False, reduce_retracing=True, jit_compile=jit_compile or None
    )

    def call(*tensors):
        return (traced if jit_compile or tf.executing_eagerly() else function)(*tensors)

    return call


def _forward(cell: Cell, masked: bool, sequences: bool, contain: bool, keep: bool, *tensors):
    """Results, and what `_backward` needs: per part, histories of all states, and what was kept."""
    inputs, kernel, recurrent_kernel, bias, recurrent_bias, *states = tensors
    mask = states.pop() if masked else None
    if cell.sigmoids:
        scale = halves(cell, inputs.dtype)
        kernel, bias = kernel * scale, bias * scale
        recurrent_kernel, recurrent_bias = recurrent_kernel * scale, recurrent_bias * scale
    ways = count_directions(kernel)
    parts, rows = parts_of(cell, inputs, keep, ways), rows_of(inputs)
    weights = (kernel, bias, recurrent_kernel, recurrent_bias[..., None, :])
    kernels, biases, recurrent_kernels, recurrent_biases = (
        weights_of_parts(weight, parts, ways) for weight in weights
    )
    states = list(zip(*(split_states(state, parts, ways) for state in states), strict=True))
    inputs = split_steps(inputs, parts, ways)
    projections = [
        as_array(project(*pair) + one) for *pair, one in zip(inputs, kernels, biases, strict=True)
    ]
    real = None if mask is None else _mask_arrays(mask, parts, ways)
    time = tf.shape(inputs[0])[0]
    # The outputs of all parts in one, one after the other: joining them later takes longer.
    show, apart = sequences and not keep, parts == 1 or in_export_scope()
    shown = [empty_array(part[0], time if apart else time * parts) for part in states if show]
    shown = shown if apart else shown[:1]
    histories = [
        tuple(empty_array(state, time + 1).write(0, state) for state in part) if keep else ()
        for part in states
    ]
    beside = cell.residuals_beside if keep else 0
    extras = [tuple(empty_array(part[0], time) for _ in range(beside)) for part in states]

    # Written, XLA computes the gates once, and not again for each of their uses.
    write_gates = keep or compat.in_xla_context()
    # XLA may put one part's product where the other's state was, and then has to wait for that
    # one's product; not if the state is looked at afterwards.
    look_back = compat.in_xla_context() and parts > 1 and not keep

    def body(t, shown, histories, extras, states, projections):
        after = []
        for part, before in enumerate(states):
            new, kept = cell.step(
                projections[part].read(t),
                before,
                recurrent_kernels[part],
                recurrent_biases[part],
            )
            if real is not None or look_back:
                here = t < time if real is None else real[part].read(t)
                new = tuple(tf.where(here, *pair) for pair in zip(new, before, strict=True))
            if contain:
                new = tuple(held(state, LARGEST_STATE) for state in new)
            after.append(new)
            histories[part] = write_each(histories[part], t + 1, new)
            if write_gates:
                projections[part] = projections[part].write(t, kept[0])
            extras[part] = write_each(extras[part], t, kept[1:])
            if show and apart:
                shown[part] = shown[part].write(t, new[0])
            elif show:
                shown[0] = shown[0].write(t * parts + part, new[0])
        return t + 1, shown, histories, extras, after, projections

    # What is written comes first: tf2onnx miscounts what comes behind arrays that are read alone.
    _, shown, histories, extras, states, projections = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (0, shown, histories, extras, states, projections),
        maximum_iterations=None if in_export_scope() else time,
    )
    histories = [tuple(array.stack() for array in part) for part in histories]
    last = [join_states(state, rows, ways) for state in zip(*states, strict=True)]
    if not keep:
        steps = [array.stack() for array in shown]
        if show and apart:
            last.insert(0, join_steps(steps, rows, ways))
        elif show and ways == 1:
            steps = tf.reshape(steps[0], (time, -1, cell.units))[:, :rows]
            last.insert(0, swap_batch_and_time(steps))
        elif show:
            steps = tf.reshape(steps[0], (time, parts, -1, cell.units))
            last.insert(0, join_steps(tf.unstack(steps, axis=1), rows, ways))
        return last, ()
    if sequences:
        last.insert(0, join_steps([part[0][1:] for part in histories], rows, ways))
    kept = [
        (gates.stack(), *(array.stack() for array in part))
        for gates, part in zip(projections, extras, strict=True)
    ]
    return last, (histories, kept)


def _backward(cell: Cell, masked: bool, sequences: bool, contain: bool, tensors, upstream, memory):
    """Gradients by inputs, kernel, recurrent kernel, both biases and the initial states."""
    inputs, kernel, recurrent_kernel, _, _, *states = tensors
    mask = states.pop() if masked else None
    histories, kept = memory
    parts, rows, ways = len(histories), rows_of(inputs), count_directions(kernel)
    inputs = split_steps(inputs, parts, ways)
    upstream = list(upstream)
    by_step = None
    if sequences:
        by_step = list(map(as_array, split_steps(upstream.pop(0), parts, ways, apart=True)))
    states = list(zip(*(split_states(state, parts, ways) for state in upstream), strict=True))
    real = None if mask is None else _mask_arrays(mask, parts, ways)
    transposed = weights_of_parts(tf.linalg.matrix_transpose(recurrent_kernel), parts, ways)
    back_to_inputs = weights_of_parts(tf.linalg.matrix_transpose(kernel), parts, ways)
    time = tf.shape(inputs[0])[0]
    factors = [
        cell.factors([one[:-1] for one in part], [one[1:] for one in part], gates)
        for part, gates in zip(histories, kept, strict=True)
    ]
    deltas = [as_array(part[0]) for part in factors]
    beside = [tuple(map(as_array, part[1:])) for part in factors]
    extras = [
        tuple(empty_array(part[0], time) for _ in range(cell.written_beside)) for part in states
    ]

    def body(t, states, deltas, extras):
        earlier = []
        for part, gradients in enumerate(states):
            if by_step is not None:
                gradients = (gradients[0] + by_step[part].read(t), *gradients[1:])
            if contain:
                gradients = tuple(held(one, LARGEST_GRADIENT) for one in gradients)
            here = [array.read(t) for array in (deltas[part], *beside[part])]
            written, new = cell.back(gradients, here, transposed[part])
            if real is not None:
                now = real[part].read(t)
                new = tuple(tf.where(now, *pair) for pair in zip(new, gradients, strict=True))
            earlier.append(new)
            deltas[part] = deltas[part].write(t, written[0])
            extras[part] = write_each(extras[part], t, written[1:])
        return t - 1, earlier, deltas, extras

    _, states, deltas, extras = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (time - 1, states, deltas, extras),
        maximum_iterations=time,
    )
    sums = []
    by_inputs = []
    for part, steps in enumerate(inputs):
        written = (deltas[part].stack(), *(array.stack() for array in extras[part]))
        if real is not None:
            now = real[part].stack()
            written = tuple(tf.where(_as_wide(now, one), one, 0) for one in written)
        inner, delta = written[0], cell.delta(written)
        by_inputs.append(project(delta, back_to_inputs[part]))
        sums.append(
            (
                outer(steps, delta),
                cell.recurrent_gradient(histories[part][0][:-1], inner, kept[part]),
                tf.reduce_sum(delta, (0, 1)),
                tf.reduce_sum(inner, (0, 1)),
            )
        )
    return (
        join_steps(by_inputs, rows, ways, add=True),
        *((tf.add_n if ways == 1 else tf.stack)(each) for each in zip(*sums, strict=True)),
        *(join_states(state, rows, ways) for state in zip(*states, strict=True)),
    )


def as_array(steps) -> tf.TensorArray:
    """Of `(time, ...)`, to be read step by step."""
    return tf.TensorArray(
        steps.dtype, tf.shape(steps)[0], clear_after_read=False, element_shape=steps.shape[1:]
    ).unstack(steps)


def empty_array(like, size, width: int | None = None) -> tf.TensorArray:
    """Of as many as `size` like this one; with `width`, of as many rows of that width."""
    shape = like.shape if width is None else (like.shape[0], width)
    return tf.TensorArray(like.dtype, size, clear_after_read=False, element_shape=shape)


def write_each(arrays: tuple, t, values) -> tuple:
    """Writes a value into each array; there may be fewer arrays than values."""
    return tuple(array.write(t, value) for array, value in zip(arrays, values, strict=False))


def _mask_arrays(mask, parts: int, ways: int) -> list:
    mask = mask if len(mask.shape) == 3 else mask[..., None]
    return list(map(as_array, split_steps(mask, parts, ways)))


def _as_wide(mask, array):
    """A mask of single units, once for each gate of `array`."""
    width = mask.shape[-1]
    return mask if width == 1 else tf.tile(mask, (1, 1, array.shape[-1] // width))


def held(values, limit: float):
    """What is not below the limit, NaN included, is the limit."""
    return tf.where(tf.abs(values) < limit, values, limit)
