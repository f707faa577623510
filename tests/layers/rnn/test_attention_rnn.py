"""The attention loop against its equations and their automatic derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seqzoo.layers.rnn import attention_rnn, batch_splitting, cells
from tests.helpers.marks import slow

CELLS = {
    "rnn_tanh": cells.SimpleRNN,
    "rnn_linear": lambda units: cells.SimpleRNN(units, "linear"),
    "gru": cells.GRU,
    "gru_reset_before": cells.GRUResetBefore,
    "lstm": cells.LSTM,
}
MASKS = ("none", "source", "target", "both")
ATTENTION_UNITS, RECURRENT_BIAS = 3, -4
pytestmark = pytest.mark.tensorflow


def random_tensors(cell, batch=3, time=4, source=5, dtype="float64"):
    """Random tensors: projections, keys, values, states and the weights of `attention_rnn.run`."""
    rng = np.random.default_rng(1)
    gates = cell.num_gates * cell.units
    shapes = [
        (batch, time, gates), (batch, source, ATTENTION_UNITS), (batch, source, gates),
        *[(batch, cell.units)] * (2 if isinstance(cell, cells.LSTM) else 1),
        (cell.units, gates), (gates,), (cell.units, ATTENTION_UNITS),
        (ATTENTION_UNITS,), (ATTENTION_UNITS,),
    ]  # fmt: skip
    tensors = [tf.constant(rng.normal(0, 0.7, shape), dtype) for shape in shapes]
    if type(cell) is not cells.GRU:
        # The other cells have no recurrent bias; its gradient is not compared.
        tensors[RECURRENT_BIAS] *= 0
    return tensors


def masks(masked, batch=3, time=4, source=5):
    """A source mask whose first row is all padding, and a target mask with padding at both ends."""
    source_mask = np.arange(source) < np.array([0, source, 2, *[3] * batch])[:batch, None]
    mask = np.ones((batch, time), bool)
    mask[0, :2] = mask[1:2, -1:] = False
    return (
        source_mask if masked in ("source", "both") else None,
        mask if masked in ("target", "both") else None,
    )


def run(cell, tensors, source_mask, mask, **options):
    projections, keys, values, *states = tensors[:-5]
    return attention_rnn.run(
        cell,
        projections,
        keys,
        values,
        states,
        *tensors[-5:],
        source_mask=source_mask,
        mask=mask,
        **options,
    )


def reference(cell, tensors, source_mask, mask):
    """The equations step by step, for automatic differentiation."""
    projections, keys, values, *states = tensors[:-5]
    recurrent_kernel, recurrent_bias, query_kernel, bias, score = tensors[-5:]
    hidden, attention, units = [], [], cell.units
    for t in range(projections.shape[1]):
        compared = tf.tanh((states[0] @ query_kernel + bias)[:, None] + keys)
        powers = tf.exp(tf.reduce_sum(compared * score, -1))
        if source_mask is not None:
            powers = tf.where(source_mask, powers, 0)
        sums = tf.reduce_sum(powers, -1, keepdims=True)
        w = tf.math.divide_no_nan(powers, sums)
        projected, h = projections[:, t] + tf.einsum("bs,bsv->bv", w, values), states[0]
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
        if mask is not None:
            new = [tf.where(mask[:, t, None], *pair) for pair in zip(new, states, strict=True)]
        states = new
        hidden.append(states[0])
        attention.append(w)
    return tf.stack(hidden, 1), tf.stack(attention, 1)


def with_gradients(function, tensors):
    """The results of a function, and the gradients of their weighted sum."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = function(tensors)
        weighted_sums = [
            tf.tensordot(tf.reshape(y, [-1]), tf.cos(tf.cast(tf.range(tf.size(y)), y.dtype)), 1)
            for y in results
        ]
    return results, tape.gradient(weighted_sums, tensors, unconnected_gradients="zero")


def assert_gradients_close(cell, actual, expected, atol):
    """All gradients but that by a recurrent bias that the cell does not have."""
    skipped = None if type(cell) is cells.GRU else len(expected) + RECURRENT_BIAS
    for index, pair in enumerate(zip(actual, expected, strict=True)):
        if index != skipped:
            np.testing.assert_allclose(*pair, atol=atol, err_msg=str(index))


def check(cell, tensors, source_mask, mask, atol, **options):
    """Compare results and gradients by all tensors with the reference."""
    expected = with_gradients(lambda x: reference(cell, x, source_mask, mask), tensors)
    actual = with_gradients(lambda x: run(cell, x, source_mask, mask, **options), tensors)
    for pair in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(*pair, atol=atol)
    assert_gradients_close(cell, actual[1], expected[1], atol)


@pytest.mark.parametrize("keep_residuals", [True, slow(False)])
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_match_the_equations(cell, masked, keep_residuals):
    cell = CELLS[cell](4)
    check(cell, random_tensors(cell), *masks(masked), 1e-11, keep_residuals=keep_residuals)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
@pytest.mark.parametrize("batch", [slow(1), 5, slow(6)])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_split_batches_match_the_equations(cell, batch, jit_compile):
    cell = CELLS[cell](batch_splitting.MIN_TRAINING_WIDTH)
    sizes = {"batch": batch, "time": 3, "source": 4}
    tensors = random_tensors(cell, **sizes)
    assert batch_splitting.count_parts(cell, tensors[0], True) == (2 if batch > 3 else 1)
    check(cell, tensors, *masks("both", **sizes), 1e-8, jit_compile=jit_compile)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_compiled_training_step_with_dynamic_shapes_matches_the_equations(jit_compile):
    cell, (source_mask, mask) = cells.GRU(4), masks("both")
    tensors = random_tensors(cell)
    dynamic = [
        tf.TensorSpec((None, None, tensor.shape[-1]), tensor.dtype) for tensor in tensors[:3]
    ]
    dynamic += [tf.TensorSpec((None, 4), tensor.dtype) for tensor in tensors[3:-5]]
    dynamic += [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors[-5:]]

    @tf.function(input_signature=[dynamic], jit_compile=jit_compile, autograph=False)
    def training_step(tensors):
        return with_gradients(lambda x: run(cell, x, source_mask, mask), tensors)

    expected = with_gradients(lambda x: reference(cell, x, source_mask, mask), tensors)
    for ours, theirs in zip(training_step(tensors), expected, strict=True):
        for pair in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(*pair, atol=1e-11)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_second_gradients_match_the_equations(cell):
    cell, (source_mask, mask) = CELLS[cell](3), masks("both")
    tensors = random_tensors(cell)

    def second_gradients(function):
        def first(tensors):
            return with_gradients(function, tensors)[1][:3]

        return with_gradients(first, tensors)[1]

    expected = second_gradients(lambda x: reference(cell, x, source_mask, mask))
    assert_gradients_close(
        cell, second_gradients(lambda x: run(cell, x, source_mask, mask)), expected, 1e-10
    )
