"""The loop that looks at a source before each step, against its equations and their derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seqzoo.layers.rnn import attention_rnn, batch_splitting, cells

CELLS = {
    "rnn_tanh": cells.SimpleRNN,
    "rnn_linear": lambda units: cells.SimpleRNN(units, "linear"),
    "gru": cells.GRU,
    "gru_reset_before": cells.GRUResetBefore,
    "lstm": cells.LSTM,
}
MASKS = ("none", "source", "target", "both")
COMPARED, RECURRENT_BIAS = 3, -4
pytestmark = pytest.mark.tensorflow


def given(cell, batch=3, time=4, source=5, dtype="float64"):
    """Random tensors in the order of `looking.run`."""
    rng = np.random.default_rng(1)
    gates = cell.gates * cell.units
    shapes = [
        (batch, time, gates), (batch, source, COMPARED), (batch, source, gates),
        *[(batch, cell.units)] * (2 if isinstance(cell, cells.LSTM) else 1),
        (cell.units, gates), (gates,), (cell.units, COMPARED), (COMPARED,), (COMPARED,),
    ]  # fmt: skip
    tensors = [tf.constant(rng.normal(0, 0.7, shape), dtype) for shape in shapes]
    if type(cell) is not cells.GRU:
        tensors[RECURRENT_BIAS] *= 0  # no other has one, and nobody asks for its gradient
    return tensors


def masks(which, batch=3, time=4, source=5):
    """Of the source, whose first row is empty, and of the target, padded on either side."""
    there = np.arange(source) < np.array([0, source, 2, *[3] * batch])[:batch, None]
    real = np.ones((batch, time), bool)
    real[0, :2] = real[1:2, -1:] = False
    return (
        there if which in ("source", "both") else None,
        real if which in ("target", "both") else None,
    )


def run(cell, tensors, there, real, **options):
    fed, keys, values, *states = tensors[:-5]
    return attention_rnn.run(
        cell, fed, keys, values, states, *tensors[-5:], source_mask=there, mask=real, **options
    )


def by_the_equations(cell, tensors, there, real):
    """Step by step, as written, for automatic differentiation."""
    fed, keys, values, *states = tensors[:-5]
    recurrent_kernel, recurrent_bias, query_kernel, bias, score = tensors[-5:]
    hidden, weights, units = [], [], cell.units
    for t in range(fed.shape[1]):
        seen = tf.tanh((states[0] @ query_kernel + bias)[:, None] + keys)
        powers = tf.exp(tf.reduce_sum(seen * score, -1))
        if there is not None:
            powers = tf.where(there, powers, 0)
        sums = tf.reduce_sum(powers, -1, keepdims=True)
        shares = tf.math.divide_no_nan(powers, sums)
        projected, h = fed[:, t] + tf.einsum("bs,bsv->bv", shares, values), states[0]
        if isinstance(cell, cells.LSTM):
            i, f, g, o = tf.split(projected + h @ recurrent_kernel, 4, -1)
            c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
            new = [tf.sigmoid(o) * tf.tanh(c), c]
        elif isinstance(cell, cells.GRU):
            inner = h @ recurrent_kernel + recurrent_bias
            z, r = tf.split(tf.sigmoid((projected + inner)[:, : 2 * units]), 2, -1)
            after = r * inner[:, 2 * units :]
            if isinstance(cell, cells.GRUResetBefore):
                after = (r * h) @ recurrent_kernel[:, 2 * units :]
            new = [z * h + (1 - z) * tf.tanh(projected[:, 2 * units :] + after)]
        else:
            new = [cells.ACTIVATIONS[cell.activation](projected + h @ recurrent_kernel)]
        if real is not None:
            new = [tf.where(real[:, t, None], *pair) for pair in zip(new, states, strict=True)]
        states = new
        hidden.append(states[0])
        weights.append(shares)
    return tf.stack(hidden, 1), tf.stack(weights, 1)


def with_gradients(function, tensors):
    """Its results, and their gradients where each number has a weight of its own."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = function(tensors)
        weighed = [
            tf.tensordot(
                tf.reshape(one, [-1]), tf.cos(tf.cast(tf.range(tf.size(one)), one.dtype)), 1
            )
            for one in results
        ]
    return results, tape.gradient(weighed, tensors, unconnected_gradients="zero")


def assert_same(cell, found, wanted, atol):
    """By the place of each, but for the gradient that nobody asks for."""
    skipped = None if type(cell) is cells.GRU else len(wanted) + RECURRENT_BIAS
    for number, pair in enumerate(zip(found, wanted, strict=True)):
        if number != skipped:
            np.testing.assert_allclose(*pair, atol=atol, err_msg=str(number))


def check(cell, tensors, there, real, atol, **options):
    """Results and gradients by all tensors are those of the equations."""
    wanted = with_gradients(lambda x: by_the_equations(cell, x, there, real), tensors)
    found = with_gradients(lambda x: run(cell, x, there, real, **options), tensors)
    for pair in zip(found[0], wanted[0], strict=True):
        np.testing.assert_allclose(*pair, atol=atol)
    assert_same(cell, found[1], wanted[1], atol)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("which", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_are_those_of_the_equations(cell, which, keep):
    cell = CELLS[cell](4)
    check(cell, given(cell), *masks(which), 1e-11, keep=keep)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("batch", [1, 5, 6])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_parts_of_rows_give_what_rows_give(cell, batch, jit_compile):
    cell, sizes = CELLS[cell](batch_splitting.SPLIT_FROM), {"batch": batch, "time": 3, "source": 4}
    tensors = given(cell, **sizes)
    assert batch_splitting.parts_of(cell, tensors[0], True) == (2 if batch > 3 else 1)
    check(cell, tensors, *masks("both", **sizes), 1e-8, jit_compile=jit_compile)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_whole_steps_compile_and_sizes_may_be_unknown(jit_compile):
    cell, (there, real) = cells.GRU(4), masks("both")
    tensors = given(cell)
    unknown = [tf.TensorSpec((None, None, one.shape[-1]), one.dtype) for one in tensors[:3]]
    unknown += [tf.TensorSpec((None, 4), one.dtype) for one in tensors[3:-5]]
    unknown += [tf.TensorSpec(one.shape, one.dtype) for one in tensors[-5:]]

    @tf.function(input_signature=[unknown], jit_compile=jit_compile, autograph=False)
    def whole(tensors):
        return with_gradients(lambda x: run(cell, x, there, real), tensors)

    wanted = with_gradients(lambda x: by_the_equations(cell, x, there, real), tensors)
    for ours, theirs in zip(whole(tensors), wanted, strict=True):
        for pair in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(*pair, atol=1e-11)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_gradients_of_gradients_are_those_of_the_equations(cell):
    cell, (there, real) = CELLS[cell](3), masks("both")
    tensors = given(cell)

    def slopes(function):
        def first(tensors):
            return with_gradients(function, tensors)[1][:3]

        return with_gradients(first, tensors)[1]

    wanted = slopes(lambda x: by_the_equations(cell, x, there, real))
    assert_same(cell, slopes(lambda x: run(cell, x, there, real)), wanted, 1e-10)
