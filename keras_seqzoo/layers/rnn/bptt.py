"""Backpropagation through time: recurrent loops with hand-written gradients in TensorFlow.

Automatic differentiation of a loop is slow where this module is not:

- **The projection** of all steps, `p_t = x_t W + b`, is one matrix product before the loop. The
  gates overwrite it and are the residuals of the backward pass.
- **The backward pass** follows Werbos (1990, https://doi.org/10.1109/5.58337, backpropagation
  through time), for the LSTM Graves and Schmidhuber (2005,
  https://doi.org/10.1016/j.neunet.2005.06.042, appendix). With `d_t` the gradient of the loss
  by the pre-activation of step t, only `d_t` and its contribution to step t - 1, `d_t R^T`, need
  a loop. The local gradients that it is multiplied with are computed for all steps at once, and
  `dW = sum_t x_t^T d_t`, `dR = sum_t h_{t-1}^T d_t` and `dx_t = d_t W^T` are one product each.

A masked step is the identity on the state, and its backward step is the identity on the gradient
by the state.

Shapes: inputs `(batch, time, features)`, states `(batch, units)`. For a bidirectional layer weights
and states have a first axis of size two: the forward and the backward direction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_seqzoo.layers.custom_gradient import custom_gradient
from keras_seqzoo.layers.export_scope import in_export_scope
from keras_seqzoo.layers.rnn.batch_splitting import (
    batch_size,
    count_directions,
    count_parts,
    join,
    join_state,
    join_steps,
    split_state,
    split_steps,
    split_weight,
    swap_batch_and_time,
)
from keras_seqzoo.layers.rnn.cells import Cell, gate_scale, project, sum_outer_products
from keras_seqzoo.utils import compat

# The limits of `contain_overflow`: large, and yet products of two and sums of these are finite.
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
    keep_residuals: bool = True,
    return_sequences: bool = True,
    contain_overflow: bool = False,
    jit_compile: bool = False,
):
    """Run a recurrent cell over a sequence.

    Shapes: `(batch, time, features)` -> hidden states of all steps `(batch, time, units)`, and the
        last states, `(batch, units)` each. For two directions `(batch, time, 2 * units)` and
        `(2, batch, units)`.
    Masking: a padded step keeps the states.
    State: `states` are the initial ones; the last ones are returned.

    Args:
        cell: the cell.
        inputs: floating point tensor; all tensors below have its dtype.
        states: list of tensors `(batch, units)`; for an LSTM the hidden state and the carry.
        kernel: `(features, num_gates * units)`.
        recurrent_kernel: `(units, num_gates * units)`.
        bias: `(num_gates * units,)`.
        recurrent_bias: `(num_gates * units,)` for a GRU that resets after the product, else None.
            For two directions, kernels, biases and states have a first axis of size two.
        mask: `(batch, time)`, or `(batch, time, units)` for a mask of each unit, bool, True for
            real steps; or None.
        keep_residuals: bool, whether the forward pass stores the residuals of the backward pass,
            as in training. Otherwise a gradient has the same value and runs the forward pass again.
        return_sequences: bool, whether to return the hidden states of all steps.
        contain_overflow: bool, whether states and gradients are limited to `LARGEST_STATE` and
            `LARGEST_GRADIENT`, which also replace NaN. Several layers can run as one whose kernels
            are block diagonal; without limits an overflow in one would spread to the others, as 0
            times infinity is NaN.
        jit_compile: bool, whether XLA compiles the recurrence by itself, once for each shape.

    Returns:
        The hidden states of all steps, or None without `return_sequences`; and the last states.
    """
    tensors = _tensors(inputs, states, kernel, recurrent_kernel, bias, recurrent_bias, mask)
    ranks = len(kernel.shape), 0 if mask is None else len(mask.shape)
    signature = (tensors[0].shape[-1], *ranks)
    jit_compile = jit_compile and not compat.in_xla_context()
    function = _recurrence(
        cell, signature, keep_residuals, return_sequences, contain_overflow, jit_compile
    )
    results = function(*tensors)
    return (results[0], results[1:]) if return_sequences else (None, results)


def record_states(
    cell: Cell,
    inputs,
    states: Sequence,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias=None,
    *,
    mask=None,
) -> tuple:
    """Return all states before the first step and after each step, `(time + 1, batch, units)`.

    Arguments are those of `run`. The result is not differentiable.
    """
    tensors = _tensors(inputs, states, kernel, recurrent_kernel, bias, recurrent_bias, mask)
    _, (parts, _) = _forward(cell, mask is not None, True, True, True, *tensors)
    return tuple(join(states, batch_size(inputs), 1) for states in zip(*parts, strict=True))


def _tensors(inputs, states, kernel, recurrent_kernel, bias, recurrent_bias, mask) -> list:
    tensors = [inputs, kernel, recurrent_kernel, bias, *states]
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    tensors.insert(4, tf.zeros_like(tensors[3]) if recurrent_bias is None else recurrent_bias)
    return tensors if mask is None else [*tensors, tf.convert_to_tensor(mask)]


@functools.lru_cache(maxsize=256)
def _recurrence(
    cell: Cell,
    signature: tuple[int, int, int],
    keep_residuals: bool,
    return_sequences: bool,
    contain_overflow: bool,
    jit_compile: bool,
) -> Callable:
    """The recurrence as a differentiable function of tensors.

    `signature` holds the number of features, the rank of the kernels and the rank of the mask (0
    without a mask). Each signature has a function of its own, as `tf.function` replaces sizes that
    differ between calls by dynamic ones.
    """
    masked = signature[-1] > 0
    forward = functools.partial(_forward, cell, masked, return_sequences, contain_overflow)
    backward = functools.partial(_backward, cell, masked, return_sequences, contain_overflow)
    return make_differentiable(forward, backward, keep_residuals, jit_compile)


def make_differentiable(
    forward: Callable, backward: Callable, keep_residuals: bool, jit_compile: bool = False
) -> Callable:
    """Combine a forward and a backward pass into a function that has gradients of every order.

    First gradients are those of `backward`. Higher ones come from automatic differentiation of
    `forward`.

    Args:
        forward: from `keep_residuals` and tensors to results and residuals.
        backward: from the tensors, the gradients by the results and the residuals to a gradient by
            each floating point tensor. The other tensors must come last.
        keep_residuals: bool, whether the forward pass stores the residuals. Otherwise a gradient
            has the same value and runs `forward` again.
        jit_compile: bool, whether XLA compiles each pass by itself, once for each shape.

    Returns:
        A function from tensors to the results of `forward`.
    """
    run_forward = _compiled(functools.partial(forward, keep_residuals), jit_compile)
    run_with_residuals = (
        run_forward if keep_residuals else _compiled(functools.partial(forward, True), jit_compile)
    )
    run_backward = _compiled(backward, jit_compile)

    @custom_gradient
    def function(*tensors):
        # Without `stop_gradient` an outer tape would record the operations inside too.
        results, residuals = run_forward(*map(tf.stop_gradient, tensors))

        def gradient(*upstream):
            if keep_residuals:
                return first_gradient(tensors, upstream, residuals)
            stopped = map(tf.stop_gradient, tensors)
            return first_gradient(tensors, upstream, run_with_residuals(*stopped)[1])

        return results, gradient

    def first_gradient(tensors, upstream, residuals):
        floating = sum(tensor.dtype.is_floating for tensor in tensors)

        @custom_gradient
        def differentiable_backward(*arguments):
            stopped = [tf.stop_gradient(argument) for argument in arguments]
            inputs, output_grads = stopped[: len(tensors)], stopped[len(tensors) :]
            gradients = run_backward(inputs, output_grads, residuals)
            return gradients, lambda *upstream: second_gradient(arguments, upstream)

        def second_gradient(arguments, second_upstream):
            watched = [argument for argument in arguments if argument.dtype.is_floating]
            with tf.GradientTape() as outer:
                outer.watch(watched)
                inputs, output_grads = arguments[: len(tensors)], arguments[len(tensors) :]
                with tf.GradientTape() as inner:
                    inner.watch(inputs[:floating])
                    results = forward(False, *inputs)[0]
                gradients = inner.gradient(
                    results,
                    inputs[:floating],
                    output_grads,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            second = iter(outer.gradient(gradients, watched, second_upstream))
            return [next(second) if argument.dtype.is_floating else None for argument in arguments]

        gradients = differentiable_backward(*tensors, *upstream)
        return (*gradients, *[None] * (len(tensors) - floating))

    return function


def _compiled(function: Callable, jit_compile: bool) -> Callable:
    """The function, traced where it is called eagerly or compiled by itself.

    Inside another graph it adds its operations to that graph.
    """
    traced = tf.function(
        function, autograph=False, reduce_retracing=True, jit_compile=jit_compile or None
    )

    def call(*tensors):
        return (traced if jit_compile or tf.executing_eagerly() else function)(*tensors)

    return call


# `_forward` and `_backward` stay whole: set-up, loop body and results share a dozen variables each,
# which would be the arguments of every part.


def _forward(
    cell: Cell,
    masked: bool,
    return_sequences: bool,
    contain_overflow: bool,
    keep_residuals: bool,
    *tensors,
) -> tuple[list, tuple]:
    """The forward pass: results and residuals, which are per part all states and the gates."""
    inputs, kernel, recurrent_kernel, bias, recurrent_bias, *states = tensors
    mask = states.pop() if masked else None
    if cell.sigmoid_gates:
        scale = gate_scale(cell, inputs.dtype)
        kernel, bias = kernel * scale, bias * scale
        recurrent_kernel, recurrent_bias = recurrent_kernel * scale, recurrent_bias * scale
    directions, batch = count_directions(kernel), batch_size(inputs)
    parts = count_parts(cell, inputs, keep_residuals, directions)
    weights = (kernel, bias, recurrent_kernel, recurrent_bias[..., None, :])
    kernels, biases, recurrent_kernels, recurrent_biases = (
        split_weight(weight, parts, directions) for weight in weights
    )
    states = list(zip(*(split_state(state, parts, directions) for state in states), strict=True))
    inputs = split_steps(inputs, parts, directions)
    projections = [
        to_tensor_array(project(steps, kernel) + bias)
        for steps, kernel, bias in zip(inputs, kernels, biases, strict=True)
    ]
    masks = None if mask is None else _mask_arrays(mask, parts, directions)
    time = tf.shape(inputs[0])[0]
    write_outputs = return_sequences and not keep_residuals
    # Outputs of all parts in turn in one array: joining separate arrays takes longer.
    interleaved = parts > 1 and not in_export_scope()
    outputs = [
        empty_tensor_array(part[0], time * parts if interleaved else time)
        for part in states
        if write_outputs
    ]
    outputs = outputs[:1] if interleaved else outputs
    all_states = [
        tuple(empty_tensor_array(state, time + 1).write(0, state) for state in part)
        if keep_residuals
        else ()
        for part in states
    ]
    num_extra = cell.num_extra_residuals if keep_residuals else 0
    extra_residuals = [
        tuple(empty_tensor_array(part[0], time) for _ in range(num_extra)) for part in states
    ]

    # XLA computes gates once if they are written, else again for each use.
    write_gates = keep_residuals or compat.in_xla_context()
    # XLA may put the product of one part where the state of the other part was, and then has to
    # wait for the product of that part. It does not if the state is read after the product.
    read_states_again = compat.in_xla_context() and parts > 1 and not keep_residuals

    def body(t, outputs, all_states, extra_residuals, states, projections):
        new_states = []
        for part, previous in enumerate(states):
            new, residuals = cell.step(
                projections[part].read(t),
                previous,
                recurrent_kernels[part],
                recurrent_biases[part],
            )
            if masks is not None or read_states_again:
                real = t < time if masks is None else masks[part].read(t)
                new = tuple(tf.where(real, *pair) for pair in zip(new, previous, strict=True))
            if contain_overflow:
                new = tuple(replace_overflow(state, LARGEST_STATE) for state in new)
            new_states.append(new)
            all_states[part] = write_each(all_states[part], t + 1, new)
            if write_gates:
                projections[part] = projections[part].write(t, residuals[0])
            extra_residuals[part] = write_each(extra_residuals[part], t, residuals[1:])
            if write_outputs and interleaved:
                outputs[0] = outputs[0].write(t * parts + part, new[0])
            elif write_outputs:
                outputs[part] = outputs[part].write(t, new[0])
        return t + 1, outputs, all_states, extra_residuals, new_states, projections

    # Arrays that are written come first: tf2onnx miscounts what follows arrays that are only read.
    _, outputs, all_states, extra_residuals, states, projections = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (0, outputs, all_states, extra_residuals, states, projections),
        maximum_iterations=None if in_export_scope() else time,
    )
    all_states = [tuple(array.stack() for array in part) for part in all_states]
    results = [join_state(state, batch, directions) for state in zip(*states, strict=True)]
    if write_outputs:
        steps = [array.stack() for array in outputs]
        if interleaved and directions == 1:
            steps = tf.reshape(steps[0], (time, -1, cell.units))[:, :batch]
            results.insert(0, swap_batch_and_time(steps))
        else:
            if interleaved:
                steps = tf.reshape(steps[0], (time, parts, -1, cell.units))
                steps = tf.unstack(steps, axis=1)
            results.insert(0, join_steps(steps, batch, directions))
    elif return_sequences:
        steps = [part[0][1:] for part in all_states]
        results.insert(0, join_steps(steps, batch, directions))
    if not keep_residuals:
        return results, ()
    residuals = [
        (gates.stack(), *(array.stack() for array in part))
        for gates, part in zip(projections, extra_residuals, strict=True)
    ]
    return results, (all_states, residuals)


def _backward(
    cell: Cell,
    masked: bool,
    return_sequences: bool,
    contain_overflow: bool,
    tensors,
    upstream,
    forward_residuals,
) -> tuple:
    """The backward pass: gradients by inputs, kernels, biases and initial states."""
    inputs, kernel, recurrent_kernel, _, _, *states = tensors
    mask = states.pop() if masked else None
    all_states, residuals = forward_residuals
    parts, batch, directions = len(all_states), batch_size(inputs), count_directions(kernel)
    inputs = split_steps(inputs, parts, directions)
    upstream, output_grads = list(upstream), None
    if return_sequences:
        output_grads = split_steps(upstream.pop(0), parts, directions, split_features=True)
        output_grads = list(map(to_tensor_array, output_grads))
    state_grads = list(
        zip(*(split_state(state, parts, directions) for state in upstream), strict=True)
    )
    masks = None if mask is None else _mask_arrays(mask, parts, directions)
    transposed_recurrent_kernels, transposed_kernels = (
        split_weight(tf.linalg.matrix_transpose(weight), parts, directions)
        for weight in (recurrent_kernel, kernel)
    )
    time = tf.shape(inputs[0])[0]
    local_gradients = [
        cell.local_gradients([x[:-1] for x in part], [x[1:] for x in part], gates)
        for part, gates in zip(all_states, residuals, strict=True)
    ]
    # The gradients by the pre-activations overwrite the first local gradients.
    pre_activation_grads = [to_tensor_array(part[0]) for part in local_gradients]
    other_local_gradients = [tuple(map(to_tensor_array, part[1:])) for part in local_gradients]
    extra_grads = [
        tuple(empty_tensor_array(part[0], time) for _ in range(cell.num_extra_gradients))
        for part in state_grads
    ]

    def body(t, state_grads, pre_activation_grads, extra_grads):
        previous_grads = []
        for part, grads in enumerate(state_grads):
            if output_grads is not None:
                grads = (grads[0] + output_grads[part].read(t), *grads[1:])
            if contain_overflow:
                grads = tuple(replace_overflow(grad, LARGEST_GRADIENT) for grad in grads)
            arrays = (pre_activation_grads[part], *other_local_gradients[part])
            step_grads, previous = cell.backward_step(
                grads, [array.read(t) for array in arrays], transposed_recurrent_kernels[part]
            )
            if masks is not None:
                real = masks[part].read(t)
                previous = tuple(
                    tf.where(real, *pair) for pair in zip(previous, grads, strict=True)
                )
            previous_grads.append(previous)
            pre_activation_grads[part] = pre_activation_grads[part].write(t, step_grads[0])
            extra_grads[part] = write_each(extra_grads[part], t, step_grads[1:])
        return t - 1, previous_grads, pre_activation_grads, extra_grads

    _, state_grads, pre_activation_grads, extra_grads = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (time - 1, state_grads, pre_activation_grads, extra_grads),
        maximum_iterations=time,
    )
    input_grads, weight_grads = [], []
    for part, steps in enumerate(inputs):
        arrays = (pre_activation_grads[part], *extra_grads[part])
        grads = tuple(array.stack() for array in arrays)
        if masks is not None:
            real = masks[part].stack()
            grads = tuple(tf.where(_repeat_for_gates(real, grad), grad, 0) for grad in grads)
        recurrent_grad, projection_grad = grads[0], cell.projection_grad(grads)
        input_grads.append(project(projection_grad, transposed_kernels[part]))
        previous_hidden = all_states[part][0][:-1]
        weight_grads.append(
            (
                sum_outer_products(steps, projection_grad),
                cell.recurrent_kernel_grad(previous_hidden, recurrent_grad, residuals[part]),
                tf.reduce_sum(projection_grad, (0, 1)),
                tf.reduce_sum(recurrent_grad, (0, 1)),
            )
        )
    join_weight = tf.add_n if directions == 1 else tf.stack
    return (
        join_steps(input_grads, batch, directions, add=True),
        *(join_weight(grads) for grads in zip(*weight_grads, strict=True)),
        *(join_state(grads, batch, directions) for grads in zip(*state_grads, strict=True)),
    )


def to_tensor_array(steps) -> tf.TensorArray:
    """`(time, ...)` as an array to read step by step."""
    return tf.TensorArray(
        steps.dtype, tf.shape(steps)[0], clear_after_read=False, element_shape=steps.shape[1:]
    ).unstack(steps)


def empty_tensor_array(like, size, width: int | None = None) -> tf.TensorArray:
    """An array of `size` tensors with the dtype and shape of `like`, or of another width."""
    shape = like.shape if width is None else (like.shape[0], width)
    return tf.TensorArray(like.dtype, size, clear_after_read=False, element_shape=shape)


def write_each(arrays: tuple, t, values) -> tuple:
    """Write a value into each array; there may be fewer arrays than values."""
    return tuple(array.write(t, value) for array, value in zip(arrays, values, strict=False))


def _mask_arrays(mask, parts: int, directions: int) -> list:
    mask = mask if len(mask.shape) == 3 else mask[..., None]
    return list(map(to_tensor_array, split_steps(mask, parts, directions)))


def _repeat_for_gates(mask, grad):
    """The mask, repeated for each gate in `grad` where each unit has a mask of its own."""
    width = mask.shape[-1]
    return mask if width == 1 else tf.tile(mask, (1, 1, grad.shape[-1] // width))


def replace_overflow(values, limit: float):
    """Replace values that are NaN or not below the limit in size by the limit."""
    return tf.where(tf.abs(values) < limit, values, limit)
