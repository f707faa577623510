"""Recurrent layers against those of Keras, NumPy references and finite differences."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_seqzoo as zoo
from keras_seqzoo import layers
from keras_seqzoo.layers.rnn import batch_splitting, bptt, cells
from tests.helpers.marks import slow, slow_except

pytestmark = pytest.mark.tensorflow

NAN, INF = float("nan"), float("inf")

# Each kind of cell: layer and arguments.
KINDS = {
    "rnn_tanh": ("SimpleRNN", {"activation": "tanh"}),
    "rnn_relu": ("SimpleRNN", {"activation": "relu"}),
    "rnn_sigmoid": ("SimpleRNN", {"activation": "sigmoid"}),
    "rnn_linear": ("SimpleRNN", {"activation": None}),
    "gru": ("GRU", {"reset_after": True}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
}
# One kind for each fused cell, for properties that do not depend on the activation.
KERNELS = ["rnn_tanh", "gru", "gru_reset_before", "lstm"]
GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
FEATURES, TINY, SMALL = 3, 2, 5


def units_to_split(kind: str) -> int:
    """The smallest number of units for which the loop splits a batch."""
    return -(-batch_splitting.MIN_TRAINING_WIDTH // GATES[KINDS[kind][0]])


def left(rng, batch, time):
    return np.arange(time) >= time - rng.integers(1, time + 1, (batch, 1))


def right(rng, batch, time):
    return np.arange(time) < rng.integers(1, time + 1, (batch, 1))


def scattered(rng, batch, time):
    return rng.random((batch, time)) < 0.5


def empty_rows(rng, batch, time):
    return scattered(rng, batch, time) & (np.arange(batch) % 2 > 0)[:, None]


PADDINGS = {
    "whole": None,
    "left": left,
    "right": right,
    "scattered": scattered,
    "empty_rows": empty_rows,
}

by_kind = pytest.mark.parametrize("kind", slow_except(KERNELS, KINDS))
every_padding = pytest.mark.parametrize("padding", slow_except(["whole", "scattered"], PADDINGS))
by_kernel = pytest.mark.parametrize("kind", KERNELS)
padded_or_not = pytest.mark.parametrize("padding", ["whole", "scattered"])
zeros_or_repeated = pytest.mark.parametrize("zeros", [False, slow(True)], ids=["repeated", "zeros"])
sequences_or_last = pytest.mark.parametrize("sequences", [True, False], ids=["sequences", "last"])
without_gpu = pytest.mark.usefixtures("no_gpu")


@pytest.fixture(autouse=True)
def seeded():
    """No global seed: it would drop compiled functions, and all random values here have a seed."""


@pytest.fixture
def untraced():
    """No cached traces, as in a fresh process: after several shapes, traces have dynamic ones."""
    bptt._recurrence.cache_clear()


@pytest.fixture
def no_gpu():
    if batch_splitting.on_gpu():
        pytest.skip("on a GPU, cuDNN runs GRU and LSTM, and no layer splits the batch")


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_mask(padding: str, batch: int, time: int) -> np.ndarray | None:
    make = PADDINGS[padding]
    return make and make(np.random.default_rng(7), batch, time)


def set_random_weights(*built, seed: int = 3):
    """Random weights, equal in all layers or models; recurrent kernels have a norm near 0.8."""
    rng = np.random.default_rng(seed)
    values = []
    for weight in built[0].weights:
        scale = {"kernel": 0.6, "recurrent_kernel": 0.8 / np.sqrt(weight.shape[0])}
        values.append(rng.normal(size=weight.shape) * scale.get(weight.name, 0.4))
    for layer in built:
        layer.set_weights(values)


def make(module, kind: str, units: int = SMALL, **options):
    name, arguments = KINDS[kind]
    return getattr(module, name)(units, **arguments | options)


def single(kind: str, units: int = SMALL, *, module=layers, features: int = FEATURES, **options):
    """One layer that returns its states, with random weights."""
    layer = make(module, kind, units, return_state=True, **options)
    layer.build((None, None, features))
    set_random_weights(layer)
    return layer


def pair(kind: str, units: int = SMALL, **options):
    """A layer of this package and the Keras layer, with the same weights."""
    return [single(kind, units, module=module, **options) for module in (layers, keras.layers)]


def random_states(layer, batch: int) -> list[np.ndarray]:
    states = layer.get_initial_state(batch)
    return [
        random(*state.shape, seed=20 + i, dtype=state.dtype.name) for i, state in enumerate(states)
    ]


def weighted(results):
    """A nonlinear scalar function of all results, with different weights for all entries."""
    total = 0
    for i, result in enumerate(results):
        places = tf.reshape(tf.range(tf.size(result)), tf.shape(result))
        weights = tf.cast(tf.cos(tf.cast(places, "float64") + i), result.dtype)
        total += tf.reduce_sum(weights * result + result * result)
    return total


def outputs_and_gradients(*args, **kwargs) -> dict[str, np.ndarray]:
    """`outputs_and_gradient_tensors` as arrays."""
    return {
        name: array(tensor)
        for name, tensor in outputs_and_gradient_tensors(*args, **kwargs).items()
    }


def outputs_and_gradient_tensors(
    layer, x, mask=None, states=None, training=True
) -> dict[str, tf.Tensor]:
    """Output, states, and the gradient of `weighted` by inputs, initial states and weights."""
    states = random_states(layer, len(x)) if states is None else states
    inputs = [tf.convert_to_tensor(tensor) for tensor in (x, *states)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        results = layer(inputs[0], initial_state=inputs[1:] or None, mask=mask, training=training)
        results = tf.nest.flatten(results)
        value = weighted(results)
    sources = [*inputs, *(weight.value for weight in layer.trainable_weights)]
    names = ["inputs", *[f"initial state {i}" for i in range(len(states))]]
    names += [f"{i}, {weight.name}" for i, weight in enumerate(layer.trainable_weights)]
    outputs = {f"result {i}": result for i, result in enumerate(results)}
    gradients = tape.gradient(value, sources)
    return outputs | dict(zip([f"gradient by {name}" for name in names], gradients, strict=True))


def assert_close(actual: dict, expected: dict, tolerance: float = 1e-5):
    """Within the tolerance, relative to the greatest value of each array."""
    assert list(actual) == list(expected)
    for name, values in expected.items():
        assert actual[name].dtype == values.dtype, name
        np.testing.assert_allclose(
            actual[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name
        )


def assert_equal(actual: dict, expected: dict):
    assert list(actual) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


# ------------------------------------------------------------------------------------ against Keras


@zeros_or_repeated
@pytest.mark.parametrize("backwards", [False, slow(True)], ids=["forwards", "backwards"])
@sequences_or_last
@every_padding
@by_kernel
def test_results_and_gradients_match_keras(kind, padding, sequences, backwards, zeros):
    ours, theirs = pair(
        kind,
        return_sequences=sequences,
        go_backwards=backwards,
        zero_output_for_mask=zeros,
    )
    x, mask = random(6, 7, FEATURES), random_mask(padding, 6, 7)
    assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@pytest.mark.parametrize(
    ("batch", "time"),
    [
        (3, 1),  # no previous step
        slow(3, 2),
        slow(1, 9),
        (7, 17),
    ],
)
@padded_or_not
@by_kind
def test_any_batch_size_and_time_match_keras(kind, padding, batch, time):
    ours, theirs = pair(kind, return_sequences=True)
    x, mask = random(batch, time, FEATURES), random_mask(padding, batch, time)
    assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@pytest.mark.parametrize(
    ("batch", "time"),
    [
        (7, 17),  # a row of padding makes the parts equal
        slow(4, 9),  # parts of the same size
        slow(1, 3),  # a part of padding alone where the batch size is dynamic
        (5, 1),
    ],
)
@padded_or_not
@by_kernel
@pytest.mark.slow
def test_layers_that_split_the_batch_match_keras(kind, padding, batch, time):
    ours, theirs = pair(kind, units_to_split(kind), return_sequences=True)
    x, mask = random(batch, time, FEATURES), random_mask(padding, batch, time)
    assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@by_kernel
@pytest.mark.slow
def test_long_sequences_match_keras(kind):
    ours, theirs = pair(kind, units_to_split(kind), return_sequences=True)
    x, mask = random(4, 200, FEATURES), random_mask("right", 4, 200)
    assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@padded_or_not
@by_kind
def test_layers_without_bias_match_keras(kind, padding):
    ours, theirs = pair(kind, use_bias=False, return_sequences=True)
    assert len(ours.weights) == 2
    x, mask = random(4, 6, FEATURES), random_mask(padding, 4, 6)
    assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@sequences_or_last
@padded_or_not
@by_kernel
def test_initial_states_default_to_zero(kind, padding, sequences):
    ours, theirs = pair(kind, return_sequences=sequences)
    x, mask = random(4, 6, FEATURES), random_mask(padding, 4, 6)
    actual = outputs_and_gradients(ours, x, mask, states=[])
    assert_close(actual, outputs_and_gradients(theirs, x, mask, states=[]))
    zeros = [np.zeros_like(state) for state in random_states(ours, 4)]
    expected = outputs_and_gradients(ours, x, mask, states=zeros)
    assert_equal(actual, {name: expected[name] for name in actual})


@without_gpu
@by_kernel
def test_large_layers_split_the_batch(kind):
    x = tf.zeros((7, 2, FEATURES))
    cell, smaller = (
        single(kind, units).fused_cell()
        for units in (units_to_split(kind), units_to_split(kind) - 1)
    )
    assert batch_splitting.count_parts(cell, x, True, 1) == 2
    assert batch_splitting.count_parts(smaller, x, True, 1) == 1
    assert batch_splitting.count_parts(cell, x[:3], True, 1) == 1
    assert batch_splitting.count_parts(type(cell)(128), x, False, 1) == 2
    assert batch_splitting.count_parts(type(cell)(31), x, False, 1) == 1


@by_kernel
@pytest.mark.slow
def test_layers_of_equal_units_take_any_number_of_features(kind, untraced):
    for features in (3, 4, 1):
        ours, theirs = pair(kind, features=features, return_sequences=True)
        x, mask = random(4, 5, features), random_mask("scattered", 4, 5)
        assert_close(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@pytest.mark.parametrize(
    ("kind", "padding", "batch", "time"),
    [
        ("gru", "whole", None, None),
        ("gru", "whole", None, 4),
        ("gru", "whole", 7, None),
        ("lstm", "empty_rows", None, None),
        ("lstm", "empty_rows", 7, 4),
        ("lstm", "empty_rows", 3, 4),  # too few rows for two parts
    ],
)
@pytest.mark.slow
def test_static_and_dynamic_shapes_give_equal_results(kind, padding, batch, time, untraced):
    ours, theirs = pair(kind, units_to_split(kind), return_sequences=True)
    masked = padding != "whole"
    signature = [
        tf.TensorSpec((batch, time, FEATURES)),
        *[tf.TensorSpec((batch, time), "bool")] * masked,
        *[tf.TensorSpec((batch, units_to_split(kind))) for _ in random_states(ours, 1)],
    ]

    @tf.function(input_signature=signature)
    def compiled(x, *rest):
        mask, states = (rest[0], rest[1:]) if masked else (None, rest)
        sources = [x, *states, *(weight.value for weight in ours.trainable_weights)]
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            results = tf.nest.flatten(ours(x, initial_state=states, mask=mask, training=True))
            value = weighted(results)
        return *results, *tape.gradient(value, sources)

    for rows in [batch] if batch else [1, 2, 5]:
        x = random(rows, time or 3, FEATURES)
        mask, states = random_mask(padding, *x.shape[:2]), random_states(ours, rows)
        expected = outputs_and_gradients(theirs, x, mask, states)
        actual = compiled(x, *[mask] * masked, *states)
        assert_close(dict(zip(expected, map(array, actual), strict=True)), expected)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@padded_or_not
@by_kernel
@pytest.mark.slow
def test_xla_matches_keras_with_split_and_whole_batches(kind, padding, training):
    for units in (SMALL, units_to_split(kind) if training else 128):
        ours, theirs = pair(kind, units, return_sequences=True)
        x, mask = random(5, 6, FEATURES), random_mask(padding, 5, 6)
        states = random_states(ours, 5)
        arguments = (x, mask, states, training)
        compiled = tf.function(outputs_and_gradient_tensors, jit_compile=True, autograph=False)
        actual = compiled(ours, *arguments)
        expected = outputs_and_gradients(theirs, *arguments)
        assert_close({name: array(actual[name]) for name in expected}, expected)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@by_kernel
def test_mask_may_have_any_dtype_and_a_last_axis_of_size_one(kind, dtype):
    ours = single(kind, return_sequences=True)
    x, mask = random(4, 6, FEATURES), random_mask("scattered", 4, 6)
    expected = outputs_and_gradients(ours, x, mask)
    assert_equal(outputs_and_gradients(ours, x, mask.astype(dtype)), expected)
    assert_equal(outputs_and_gradients(ours, x, mask[..., None]), expected)


# ------------------------------------------------------------------------------------ against NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


SQUASH = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}


def simple_rnn_step(x, states, kernel, recurrent_kernel, bias, *, activation):
    (h,) = states
    return [SQUASH[activation](x @ kernel + bias + h @ recurrent_kernel)]


def lstm_step(x, states, kernel, recurrent_kernel, bias):
    h, c = states
    i, f, g, o = np.split(x @ kernel + bias + h @ recurrent_kernel, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru_step(x, states, kernel, recurrent_kernel, bias, *, reset_after):
    (h,) = states
    if reset_after:
        x_z, x_r, x_n = np.split(x @ kernel + bias[0], 3, axis=1)
        h_z, h_r, h_n = np.split(h @ recurrent_kernel + bias[1], 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        n = np.tanh(x_n + r * h_n)
    else:
        x_z, x_r, x_n = np.split(x @ kernel + bias, 3, axis=1)
        r_z, r_r, r_n = np.split(recurrent_kernel, 3, axis=1)
        z, r = sigmoid(x_z + h @ r_z), sigmoid(x_r + h @ r_r)
        n = np.tanh(x_n + (r * h) @ r_n)
    return [z * h + (1 - z) * n]


STEPS = {"SimpleRNN": simple_rnn_step, "GRU": gru_step, "LSTM": lstm_step}


def numpy_rnn(kind, x, states, weights, mask=None, *, zeros=False):
    """Outputs of all steps and the last states, from the equations in NumPy."""
    name, arguments = KINDS[kind]
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    output, outputs = np.zeros_like(states[0]), []
    for t in range(x.shape[1]):
        real = mask[:, t, None]
        stepped = STEPS[name](x[:, t], states, *weights, **arguments)
        states = [np.where(real, *pair) for pair in zip(stepped, states, strict=True)]
        output = np.where(real, stepped[0], 0 if zeros else output)
        outputs.append(output)
    return [np.stack(outputs, axis=1), *states]


@pytest.mark.parametrize(
    ("dtype", "tolerance", "units"), [slow("float32", 1e-4, SMALL), ("float64", 1e-10, TINY)]
)
@zeros_or_repeated
@every_padding
@by_kind
def test_results_match_the_equations(kind, padding, zeros, dtype, tolerance, units):
    x, mask = random(6, 11, FEATURES, dtype=dtype), random_mask(padding, 6, 11)
    options = {"zero_output_for_mask": zeros, "dtype": dtype}
    ours = single(kind, units, return_sequences=True, **options)
    states = random_states(ours, 6)
    exact = [np.float64(values) for values in (x, *states, *ours.get_weights())]
    count = len(states) + 1
    expected = numpy_rnn(kind, exact[0], exact[1:count], exact[count:], mask, zeros=zeros)
    actual = ours(x, initial_state=states, mask=mask, training=True)
    for result, reference in zip(actual, expected, strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(array(result), reference, rtol=0, atol=tolerance)
    ours = single(kind, units, return_sequences=False, **options)
    actual = ours(x, initial_state=states, mask=mask, training=True)
    for result, reference in zip(actual, [expected[0][:, -1], *expected[1:]], strict=True):
        np.testing.assert_allclose(array(result), reference, rtol=0, atol=tolerance)


@every_padding
@by_kind
def test_go_backwards_equals_the_reversed_sequence(kind, padding):
    x, mask = random(6, 11, FEATURES, dtype="float64"), random_mask(padding, 6, 11)
    ours = single(kind, TINY, return_sequences=True, go_backwards=True, dtype="float64")
    states = random_states(ours, 6)
    reversed_mask = None if mask is None else mask[:, ::-1]
    expected = numpy_rnn(kind, x[:, ::-1], states, ours.get_weights(), reversed_mask)
    actual = ours(x, initial_state=states, mask=mask)
    for result, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(array(result), reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("padding", ["whole", slow("left"), "scattered", slow("empty_rows")])
@zeros_or_repeated
@by_kind
def test_gradients_match_finite_differences_of_the_equations(kind, zeros, padding):
    x, mask = random(4, 5, FEATURES, dtype="float64"), random_mask(padding, 4, 5)
    ours = single(kind, TINY, return_sequences=True, zero_output_for_mask=zeros, dtype="float64")
    states, h = random_states(ours, 4), 1e-5
    count = len(states) + 1
    arguments = [values.copy() for values in (x, *states, *ours.get_weights())]
    actual = outputs_and_gradients(ours, x, mask, states)

    def value():
        parts = arguments[0], arguments[1:count], arguments[count:]
        results = numpy_rnn(kind, *parts, mask, zeros=zeros)
        return sum(
            (np.cos(np.arange(y.size) + i).reshape(y.shape) * y + y * y).sum()
            for i, y in enumerate(results)
        )

    gradients = [values for name, values in actual.items() if name.startswith("gradient")]
    for argument, gradient in zip(arguments, gradients, strict=True):
        for index in np.ndindex(argument.shape):
            value_before = argument[index]
            argument[index] = value_before + h
            above = value()
            argument[index] = value_before - h
            below = value()
            argument[index] = value_before
            np.testing.assert_allclose(
                gradient[index], (above - below) / (2 * h), rtol=1e-6, atol=1e-7
            )


# ------------------------------------------------------------------------- training and gradients


@pytest.mark.parametrize(
    ("units", "padding", "sequences"),
    [(SMALL, "whole", True), (SMALL, "scattered", False), (units_to_split, "scattered", True)],
    ids=["whole", "last", "parts"],
)
@by_kernel
@pytest.mark.slow
def test_gradients_in_inference_equal_those_in_training(kind, units, padding, sequences):
    ours = single(kind, units(kind) if callable(units) else units, return_sequences=sequences)
    x, mask = random(5, 9, FEATURES), random_mask(padding, 5, 9)
    actual = outputs_and_gradients(ours, x, mask, training=False)
    assert_close(actual, outputs_and_gradients(ours, x, mask, training=True), 1e-6)


def gradients_of_penalty(layer, training, x, mask, *states):
    """A gradient penalty, the squared norm of all first gradients, and its gradients."""
    inputs = [x, *states]
    sources = [*inputs, *(weight.value for weight in layer.trainable_weights)]
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            results = layer(x, initial_state=states, mask=mask, training=training)
            value = weighted(tf.nest.flatten(results))
        penalty = sum(tf.reduce_sum(gradient**2) for gradient in inner.gradient(value, sources))
    return penalty, *outer.gradient(penalty, sources)


def assert_gradient_penalty_matches_keras(wrap, kind, padding, training, units=SMALL, **options):
    ours, theirs = pair(kind, units, **options)
    x, mask = tf.constant(random(5, 3, FEATURES)), random_mask(padding, 5, 3)
    states = list(map(tf.constant, random_states(ours, 5)))
    expected = gradients_of_penalty(theirs, training, x, mask, *states)
    actual = wrap(functools.partial(gradients_of_penalty, ours, training))(x, mask, *states)
    names = [
        "penalty",
        "inputs",
        *["state"] * len(states),
        *(weight.path for weight in theirs.weights),
    ]
    for name, result, reference in zip(
        names, map(array, actual), map(array, expected), strict=True
    ):
        np.testing.assert_allclose(
            result, reference, rtol=0, atol=3e-5 * np.abs(reference).max(), err_msg=name
        )


def eager(function):
    return function


@pytest.mark.parametrize("training", [True, slow(False)], ids=["training", "inference"])
@padded_or_not
@by_kind
def test_second_gradients_match_keras(kind, padding, training):
    assert_gradient_penalty_matches_keras(eager, kind, padding, training, return_sequences=training)


@pytest.mark.parametrize(
    ("kind", "padding", "training", "jit_compile"),
    [
        ("rnn_tanh", "scattered", True, False),
        ("gru_reset_before", "whole", False, False),
        ("rnn_tanh", "whole", False, True),
        ("gru", "scattered", False, True),
        ("lstm", "scattered", True, True),
    ],
)
@pytest.mark.slow
def test_compiled_second_gradients_match_keras(kind, padding, training, jit_compile):
    compiled = functools.partial(tf.function, jit_compile=jit_compile)
    assert_gradient_penalty_matches_keras(compiled, kind, padding, training, return_sequences=True)


@padded_or_not
@by_kernel
@pytest.mark.slow
def test_second_gradients_with_a_split_batch_match_keras(kind, padding):
    assert_gradient_penalty_matches_keras(
        eager, kind, padding, True, units_to_split(kind), return_sequences=True
    )


@by_kernel
@pytest.mark.slow
def test_third_gradients_match_keras(kind):
    ours, theirs = pair(kind, TINY, return_sequences=True, dtype="float64")
    x, mask = tf.constant(random(3, 3, FEATURES, dtype="float64")), random_mask("scattered", 3, 3)

    def derivatives(layer):
        kernel, actual = layer.trainable_weights[1].value, []
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            value = weighted(layer(x, mask=mask, training=True))
            for source in (x, kernel, x):
                gradient = tape.gradient(value, source)
                actual.append(array(gradient))
                value = tf.reduce_sum(gradient**2)
        return actual

    for result, reference in zip(derivatives(ours), derivatives(theirs), strict=True):
        np.testing.assert_allclose(result, reference, rtol=0, atol=1e-10 * np.abs(reference).max())


# ---------------------------------------------------------------------------- block diagonal layers


CELLS = {
    "rnn_tanh": cells.SimpleRNN,
    "gru": cells.GRU,
    "gru_reset_before": cells.GRUResetBefore,
    "lstm": cells.LSTM,
}
BLOCK_UNITS = (2, 3)  # of two layers that run as one block diagonal layer


def blocks(first, second, gates):
    """Block diagonal array of two others, gate by gate; the last axes are `gates * units`."""
    shape = [sum(sizes) for sizes in zip(first.shape, second.shape, strict=True)]
    joined = np.zeros((*shape[:-1], gates, shape[-1] // gates), first.dtype)
    by_gate = [array.reshape(*array.shape[:-1], gates, -1) for array in (first, second)]
    upper = tuple(slice(size) for size in first.shape[:-1])
    lower = tuple(slice(size, None) for size in first.shape[:-1])
    joined[..., : BLOCK_UNITS[0]][upper], joined[..., BLOCK_UNITS[0] :][lower] = by_gate
    return joined.reshape(shape)


def run_and_differentiate(cell, tensors, mask, weights, **options) -> dict[str, np.ndarray]:
    """The output of `bptt.run`, and the gradient of its weighted sum by each tensor."""
    tensors = {name: tf.constant(value) for name, value in tensors.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        arguments = dict(tensors)
        states = [arguments.pop(name) for name in ("hidden", "carry") if name in arguments]
        steps, last = bptt.run(cell, states=states, mask=mask, **arguments, **options)
        value = tf.reduce_sum((last[0] if steps is None else steps) * weights)
    gradients = tape.gradient(value, tensors)
    return {"output": array(last[0] if steps is None else steps)} | {
        name: array(gradient) for name, gradient in gradients.items()
    }


@pytest.mark.parametrize("broken", [False, slow(True)], ids=["sound", "one broken"])
@pytest.mark.parametrize("sequences", [True, False], ids=["sequences", "last"])
@pytest.mark.parametrize("kind", CELLS)
def test_block_diagonal_layers_equal_each_layer_alone(kind, sequences, broken):
    gates, batch, time = CELLS[kind].num_gates, 4, 6
    layer_tensors = []
    for seed, units in enumerate(BLOCK_UNITS):
        shapes = {
            "inputs": (batch, time, FEATURES),
            "kernel": (FEATURES, gates * units),
            "recurrent_kernel": (units, gates * units),
            "bias": (gates * units,),
            "hidden": (batch, units),
        }
        shapes |= {"carry": (batch, units)} if kind == "lstm" else {}
        shapes |= {"recurrent_bias": (gates * units,)} if kind == "gru" else {}
        layer_tensors.append({name: random(*shape, seed=seed) for name, shape in shapes.items()})
    rng = np.random.default_rng(1)
    masks = [rng.random((batch, time)) < 0.6 for _ in BLOCK_UNITS]
    weights = [random(batch, *([time] if sequences else []), units) for units in BLOCK_UNITS]
    options = {"keep_residuals": True, "return_sequences": sequences, "contain_overflow": True}
    alone = [
        run_and_differentiate(CELLS[kind](units), *arguments, **options)
        for units, *arguments in zip(BLOCK_UNITS, layer_tensors, masks, weights, strict=True)
    ]
    if broken:  # an overflow in the second layer does not reach the first
        weights[1][...], layer_tensors[1]["recurrent_kernel"][0] = np.nan, 1e15
    gated = ("kernel", "recurrent_kernel")
    joined = {
        name: blocks(layer_tensors[0][name], layer_tensors[1][name], gates)
        if name in gated
        else np.concatenate([layer[name] for layer in layer_tensors], -1)
        for name in layer_tensors[0]
        if name not in ("bias", "recurrent_bias")
    }
    for name in layer_tensors[0].keys() & {"bias", "recurrent_bias"}:
        joined[name] = np.concatenate(
            [layer[name].reshape(gates, -1) for layer in layer_tensors], -1
        ).reshape(-1)  # fmt: skip
    mask = np.concatenate(
        [np.repeat(m[..., None], units, -1) for m, units in zip(masks, BLOCK_UNITS, strict=True)],
        -1,
    )
    actual = run_and_differentiate(
        CELLS[kind](sum(BLOCK_UNITS)), joined, mask, np.concatenate(weights, -1), **options
    )
    for name, value in alone[0].items():
        assert np.isfinite(value).all()
        first = actual[name]
        if name in gated or name in ("bias", "recurrent_bias"):
            first = first.reshape(*first.shape[:-1], gates, -1)[..., : BLOCK_UNITS[0]]
            first = first.reshape(*first.shape[:-2], -1)
        first = first[tuple(map(slice, value.shape))]
        np.testing.assert_allclose(first, value, rtol=1e-5, atol=1e-6, err_msg=name)
    if broken:
        return
    for name in ("output", "hidden"):
        second = actual[name][..., BLOCK_UNITS[0] :]
        np.testing.assert_allclose(second, alone[1][name], rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- inside models of Keras


@sequences_or_last
@every_padding
@by_kernel
@pytest.mark.slow
def test_layers_inside_keras_bidirectional_match_keras(kind, padding, sequences):
    ours, theirs = (
        keras.layers.Bidirectional(
            make(module, kind, return_sequences=sequences, return_state=True)
        )
        for module in (layers, keras.layers)
    )
    x, mask = random(5, 8, FEATURES), random_mask(padding, 5, 8)
    for layer in (ours, theirs):
        layer.build(x.shape)
    set_random_weights(ours, theirs)
    directions = [ours.forward_layer, ours.backward_layer]
    assert [type(layer) for layer in directions] == [type(make(layers, kind))] * 2
    states = [state + i for i, layer in enumerate(directions) for state in random_states(layer, 5)]
    assert_close(
        outputs_and_gradients(ours, x, mask, states), outputs_and_gradients(theirs, x, mask, states)
    )


@padded_or_not
@by_kernel
def test_stateful_layer_continues_from_its_last_state(kind, padding):
    whole = single(kind)
    stateful = [
        make(module, kind, stateful=True, return_state=True) for module in (layers, keras.layers)
    ]
    x, mask = random(3, 10, FEATURES), random_mask(padding, 3, 10)
    for layer in stateful:
        layer.build((3, None, FEATURES))
        layer.set_weights(whole.get_weights())
    for _ in range(2):
        for part in (slice(0, 6), slice(6, 10)):
            actual, expected = (
                layer(x[:, part], mask=None if mask is None else mask[:, part])
                for layer in stateful
            )
            for result, reference in zip(actual, expected, strict=True):
                np.testing.assert_allclose(array(result), array(reference), rtol=0, atol=1e-6)
        for result, reference in zip(actual[1:], whole(x, mask=mask)[1:], strict=True):
            np.testing.assert_allclose(array(result), array(reference), rtol=0, atol=1e-6)
        for layer in stateful:
            layer.reset_state()


def stacked_model(module, kind: str, *, bidirectional: bool = False) -> keras.Model:
    """Masking, two stacked layers and a head, for any batch size and time."""
    inputs = keras.Input((None, FEATURES))
    hidden = keras.layers.Masking(0.0)(inputs)
    first = make(module, kind, return_sequences=True)
    hidden = (keras.layers.Bidirectional(first) if bidirectional else first)(hidden)
    last, *states = make(module, kind, return_state=True)(hidden)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.ops.concatenate([last, *states], -1)))


def padded(batch: int, time: int) -> np.ndarray:
    """Inputs with padding at the end of some rows, and at the beginning of one."""
    x = random(batch, time, FEATURES, seed=time)
    if time > 3:
        x[::2, -2:] = x[batch // 2, :1] = 0
    return x


def losses(model: keras.Model, *, jit_compile: bool) -> list[float]:
    set_random_weights(model)
    model.compile(keras.optimizers.SGD(0.03), "mse", jit_compile=jit_compile)
    x = padded(12, 6)
    fitted = model.fit(x, x.sum((1, 2)), batch_size=4, epochs=4, shuffle=False, verbose=0)
    return fitted.history["loss"]


@functools.cache
def losses_of_keras(kind: str) -> list[float]:
    return losses(stacked_model(keras.layers, kind), jit_compile=False)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
@by_kernel
@pytest.mark.slow
def test_training_losses_match_keras(kind, jit_compile):
    actual = losses(stacked_model(layers, kind), jit_compile=jit_compile)
    assert actual[-1] < 0.9 * actual[0]
    np.testing.assert_allclose(actual, losses_of_keras(kind), rtol=1e-5)


@by_kernel
@pytest.mark.slow
def test_model_takes_any_batch_size_and_time(kind):
    ours, theirs = stacked_model(layers, kind), stacked_model(keras.layers, kind)
    set_random_weights(ours, theirs)
    for batch, time in ((1, 1), (2, 20), (33, 7), (5, 8)):
        x = padded(batch, time)
        actual = ours.predict(x, verbose=0)
        np.testing.assert_allclose(actual, array(theirs(x)), rtol=0, atol=1e-5)


@sequences_or_last
@by_kernel
def test_symbolic_and_eager_outputs_have_equal_shapes_and_dtypes(kind, sequences):
    ours, theirs = pair(kind, return_sequences=sequences)
    inputs = keras.Input((None, FEATURES))
    eager_outputs = ours(np.zeros((2, 4, FEATURES), "float32"))
    for symbolic, reference, eager in zip(ours(inputs), theirs(inputs), eager_outputs, strict=True):
        assert symbolic.shape == reference.shape
        assert symbolic.dtype == reference.dtype == eager.dtype.name
        assert eager.shape.is_compatible_with(symbolic.shape)


# ----------------------------------------------------------------------- configs, files and weights


CONFIGS = [
    ("SimpleRNN", {}),
    ("SimpleRNN", {"activation": "relu", "use_bias": False, "dropout": 0.1, "seed": 3}),
    ("SimpleRNN", {"kernel_regularizer": "l2", "recurrent_constraint": "unit_norm"}),
    ("GRU", {}),
    ("GRU", {"reset_after": False, "go_backwards": True, "return_sequences": True}),
    ("GRU", {"recurrent_dropout": 0.2, "bias_initializer": "ones", "dtype": "mixed_float16"}),
    ("GRU", {"implementation": 1, "use_cudnn": False, "trainable": False}),
    ("LSTM", {}),
    ("LSTM", {"unit_forget_bias": False, "return_state": True, "unroll": True}),
    ("LSTM", {"stateful": True, "zero_output_for_mask": True, "activity_regularizer": "l1"}),
]


@pytest.mark.parametrize(("name", "options"), CONFIGS)
def test_configs_equal_those_of_keras_and_are_interchangeable(name, options):
    kinds = [getattr(module, name) for module in (layers, keras.layers)]
    config, keras_config = (kind(4, **options).get_config() for kind in kinds)
    assert config.pop("name").rstrip("0123456789") == keras_config.pop("name").rstrip("0123456789")
    assert config == keras_config
    for kind in kinds:
        again = kind.from_config(config)
        assert type(again) is kind
        assert {**again.get_config(), "name": None} == {**config, "name": None}


@by_kernel
def test_model_file_restores_the_model(kind, tmp_path):
    model = stacked_model(layers, kind, bidirectional=True)
    set_random_weights(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    assert type(make(layers, kind)) in map(type, again.layers)
    assert again.to_json() == model.to_json()
    x = padded(3, 5)
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


@pytest.mark.parametrize(
    ("source", "target"),
    [(keras.layers, layers), (layers, keras.layers)],
    ids=["to ours", "to Keras"],
)
@by_kernel
@pytest.mark.slow
def test_weights_and_checkpoints_are_interchangeable_with_keras(kind, source, target, tmp_path):
    original, from_list, loaded = (
        stacked_model(module, kind, bidirectional=True) for module in (source, target, target)
    )
    set_random_weights(original)
    from_list.set_weights(original.get_weights())
    original.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    x = padded(3, 5)
    for model in (from_list, loaded):
        names = [weight.name for weight in model.weights]
        assert names == [weight.name for weight in original.weights]
        for weight, value in zip(model.get_weights(), original.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, value)
        np.testing.assert_allclose(array(model(x)), array(original(x)), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("policy", "tolerance", "padding"),  # within a few roundings of the type
    [("mixed_float16", 4e-3, "scattered"), ("mixed_bfloat16", 3e-2, "whole")],
)
@by_kernel
@pytest.mark.slow
def test_half_precision_is_close_to_float32(kind, policy, tolerance, padding):
    ours = single(kind, return_sequences=True, dtype=policy)
    exact = single(kind, return_sequences=True)
    x, mask = random(5, 6, FEATURES), random_mask(padding, 5, 6)
    states = random_states(exact, 5)
    for result in ours(x, initial_state=states, mask=mask):
        assert result.dtype.name == policy.removeprefix("mixed_")
    actual, expected = (outputs_and_gradients(layer, x, mask, states) for layer in (ours, exact))
    for name, values in expected.items():
        if name.startswith("gradient"):
            assert actual[name].dtype == "float32", name
        assert np.isfinite(actual[name]).all(), name
        difference = np.linalg.norm(np.float32(actual[name]) - values)
        np.testing.assert_array_less(difference, tolerance * np.linalg.norm(values), err_msg=name)


# ------------------------------------------------------------------------------ implementation path


def tanh(x):
    """Another function than `keras.activations.tanh`, of the same name."""
    return keras.ops.tanh(x) / 2


FUSED = [
    ("SimpleRNN", {}),
    *[("SimpleRNN", {"activation": name}) for name in ("relu", "sigmoid", "linear", None)],
    ("SimpleRNN", {"dropout": 0.2}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"use_bias": False, "go_backwards": True, "stateful": True}),
    ("GRU", {"dropout": 0.2}),
    ("GRU", {"implementation": 1}),  # has an effect with dropout only
    ("LSTM", {}),
    ("LSTM", {"dropout": 0.2}),
    ("LSTM", {"implementation": 1}),
    ("LSTM", {"use_cudnn": False}),
]
NOT_FUSED = [
    *[(name, {"unroll": True}) for name in GATES],
    *[(name, {"recurrent_dropout": 0.3}) for name in GATES],
    *[(name, {"recurrent_dropout": 0.3, "dropout": 0.4}) for name in GATES],
    # One dropout mask for each gate.
    ("GRU", {"dropout": 0.3, "implementation": 1, "use_cudnn": False}),
    ("LSTM", {"dropout": 0.3, "implementation": 1, "use_cudnn": False}),
    *[(name, {"activation": tanh}) for name in GATES],
    ("SimpleRNN", {"activation": "gelu"}),
    ("GRU", {"activation": "relu"}),
    ("GRU", {"recurrent_activation": "hard_sigmoid", "reset_after": False}),
    ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
    ("LSTM", {"activation": "softsign", "recurrent_activation": "tanh"}),
]


@without_gpu
@pytest.mark.parametrize(("name", "options"), FUSED)
def test_supported_options_run_the_fused_kernel(name, options):
    assert getattr(layers, name)(4, **options).implementation_path == "fused"


@without_gpu
@padded_or_not
@pytest.mark.parametrize(("name", "options"), NOT_FUSED)
def test_unsupported_options_run_the_loop_of_keras(name, options, padding):
    x, mask = random(3, 4, FEATURES), random_mask(padding, 3, 4)
    options = {"return_sequences": True, "return_state": True, "seed": 5} | options
    ours, theirs = (getattr(module, name)(SMALL, **options) for module in (layers, keras.layers))
    for layer in (ours, theirs):
        layer.build(x.shape)
    set_random_weights(ours, theirs)
    assert ours.implementation_path == "keras"
    assert_equal(outputs_and_gradients(ours, x, mask), outputs_and_gradients(theirs, x, mask))


@without_gpu
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_cudnn_without_a_gpu_raises_the_error_of_keras(name):
    x, errors = np.zeros((2, 3, FEATURES), "float32"), []
    for module in (layers, keras.layers):
        with pytest.raises(ValueError, match="cuDNN is not supported") as caught:
            getattr(module, name)(4, use_cudnn=True)(x)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert getattr(layers, name)(4, use_cudnn=True).implementation_path == "cudnn"


@padded_or_not
@by_kernel
@pytest.mark.slow
def test_dropout_with_a_seed_drops_the_same_inputs_as_keras(kind, padding):
    ours, theirs = pair(kind, return_sequences=True, dropout=0.4, seed=11)
    x, mask = random(4, 5, FEATURES), random_mask(padding, 4, 5)
    # In inference this package draws no dropout mask; Keras does.
    whole = outputs_and_gradients(ours, x, mask, training=False)
    patterns = []
    for _ in range(2):  # each call draws another mask
        actual, expected = (outputs_and_gradients(layer, x, mask) for layer in (ours, theirs))
        assert_close(actual, expected)
        dropped = actual["gradient by inputs"] == 0
        np.testing.assert_array_equal(dropped, expected["gradient by inputs"] == 0)
        patterns.append(dropped & (True if mask is None else mask[..., None]))
        assert patterns[-1].any()
        assert np.abs(actual["result 0"] - whole["result 0"]).max() > 0.05
    assert (patterns[0] != patterns[1]).any()
    assert_close(whole, outputs_and_gradients(theirs, x, mask, training=False))


# --------------------------------------------------------------------------- padding and other rows


@pytest.mark.parametrize("value", [slow(1e3), NAN, slow(INF)])
@pytest.mark.parametrize(
    ("units", "backwards"),
    [(SMALL, False), (SMALL, True), (units_to_split, False)],
    ids=["forwards", "backwards", "parts"],
)
@pytest.mark.parametrize("padding", [*map(slow, ["left", "right", "empty_rows"]), "scattered"])
@by_kernel
def test_padding_does_not_change_results_or_gradients(kind, padding, units, backwards, value):
    units = units(kind) if callable(units) else units
    ours = single(kind, units, return_sequences=True, go_backwards=backwards)
    x, mask = random(7, 9, FEATURES), random_mask(padding, 7, 9)
    filled = np.where(mask[..., None], x, np.float32(value))
    actual, expected = (outputs_and_gradients(ours, values, mask) for values in (filled, x))
    for name in expected:
        if np.isfinite(value) or name.startswith("result") or "initial" in name:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    for training in (True, False):
        results = ours(filled, initial_state=random_states(ours, 7), mask=mask, training=training)
        for i, result in enumerate(results):
            np.testing.assert_array_equal(array(result), expected[f"result {i}"])
    by_inputs = expected["gradient by inputs"]
    np.testing.assert_array_equal(by_inputs[~mask], 0)
    assert (by_inputs[mask] != 0).all()


@pytest.mark.parametrize("units", [SMALL, units_to_split], ids=["small", "split"])
@padded_or_not
@by_kernel
@pytest.mark.slow
def test_rows_of_a_batch_are_independent(kind, padding, units):
    ours = single(kind, units(kind) if callable(units) else units, return_sequences=True)
    x, mask = random(7, 6, FEATURES), random_mask(padding, 7, 6)
    expected = outputs_and_gradients(ours, x, mask)
    for row in (0, 2, 3, 6):  # at both ends of both parts
        spoiled = x.copy()
        spoiled[row] = NAN
        actual, others = outputs_and_gradients(ours, spoiled, mask), np.arange(7) != row
        assert np.isnan(actual["result 0"][row]).any()
        for name, values in expected.items():
            if len(values) == 7:
                np.testing.assert_array_equal(actual[name][others], values[others], err_msg=name)


# ------------------------------------------------------------------------------------------- export


@pytest.mark.slow
def test_exported_model_has_standard_tensorflow_operations_only(tmp_path):
    inputs = keras.Input((None, FEATURES))
    hidden = keras.layers.Masking(0.0)(inputs)
    for kind in KERNELS:
        hidden = make(layers, kind, units_to_split(kind), return_sequences=True)(hidden)
    bidirectional = keras.layers.Bidirectional(make(layers, "lstm", return_state=True))
    model = keras.Model(inputs, keras.ops.concatenate(bidirectional(hidden), -1))
    set_random_weights(model)
    zoo.export(model, tmp_path / "served", verify=False)
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "served" / "saved_model.pb").read_bytes())
    (graph,) = (meta.graph_def for meta in saved.meta_graphs)
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    operations = {node.op for body in bodies for node in body}
    assert {"MatMul", "Tanh", "Split"} <= operations
    assert not [name for name in operations if name.startswith("_Xla")]
    assert operations <= set(dir(tf.raw_ops))
    artifact = zoo.load(tmp_path / "served")
    for batch, time in ((1, 1), (2, 30), (5, 4), (7, 9)):
        x = padded(batch, time)
        actual, expected = array(artifact.serve(x)), array(model(x))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
