"""Every entry in half precision, on one step, on thousands of steps, and with sample weights."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import layers
from tests.conformance.table import (
    TABLE,
    adapt,
    arguments,
    join_rows,
    make_inputs,
    model_input,
    predict,
    take_rows,
)
from tests.conformance.test_entries import loss_of, targets

pytestmark = pytest.mark.slow

TOLERANCE = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1}  # relative to the largest output


@contextlib.contextmanager
def dtype_policy(name: str):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def build(name: str) -> keras.Model:
    """A small model without dropout, adapted to readings, with the same weights in every call."""
    config = {
        "units": 4,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "word_dropout": 0.0,
        "scheduled_sampling": 0.0,
    }
    allowed = arguments(name, "default")
    config = {key: value for key, value in config.items() if key in allowed}
    keras.utils.set_random_seed(3)
    model = zoo.get(name, **TABLE[name]["default"].config | config)
    if layers.has_scaling(model):
        adapt(model, make_inputs(model, 8, 9))
    return model


def compile_sgd(model: keras.Model, rate: float = 0.1, *, eager: bool = False) -> keras.Model:
    """Compile with SGD; an eager step on few short rows is faster than tracing a graph."""
    optimizer = keras.optimizers.SGD(rate, clipnorm=10.0)
    model.compile(optimizer, loss_of(model), run_eagerly=eager)
    return model


def check_trains(model: keras.Model, x, *, eager: bool = False) -> None:
    """Training has a finite loss, and changes the weights to finite values.

    In float16 the first steps only adjust the loss scale.
    """
    compile_sgd(model, eager=eager)
    initial = [np.array(weight) for weight in model.trainable_weights]
    for _ in range(20 if "float16" in model.dtype_policy.name else 1):
        assert np.isfinite(model.train_on_batch(model_input(x), targets(model, x)))
    trained = [np.array(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in trained)
    assert any((new != old).any() for new, old in zip(trained, initial, strict=True))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    "half", [pytest.param("mixed_float16", marks=pytest.mark.long), "mixed_bfloat16"]
)
def test_half_precision_is_close_to_float32_and_trains(half, name):
    single = build(name)
    with dtype_policy(half):
        model = build(name)
    model.set_weights(single.get_weights())
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    x = make_inputs(single, 3, 6)
    expected, outputs = predict(single, x), predict(model, x).astype("float32")
    assert np.abs(outputs - expected).max() <= TOLERANCE[half] * np.abs(expected).max()
    check_trains(model, x, eager=True)


@pytest.mark.parametrize("name", TABLE)
def test_one_step_of_one_row_equals_its_output_in_a_batch_and_trains(name):
    model = build(name)
    rows = make_inputs(model, 4, 1)
    x = take_rows(rows, slice(1))
    outputs = predict(model, x)
    assert len(outputs) == 1
    np.testing.assert_allclose(outputs, predict(model, rows)[:1], rtol=1e-4, atol=1e-5)
    check_trains(model, x, eager=True)


# One entry for each kind of loop over time; the other entries are marked `long`.
LOOPS = (
    "simple_rnn_identity", "gru_classifier", "bilstm_crf_tagger", "lstm_autoencoder",
    "attention_gru_encoder_decoder", "vector_encoder_decoder",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name not in LOOPS)) for name in TABLE]
)
def test_outputs_of_thousands_of_steps_are_finite(name):
    model = build(name)
    x = make_inputs(model, 1, 5_000)
    outputs = model.predict_on_batch(model_input(x))  # compiled, without the marginals of a CRF
    assert np.isfinite(outputs).all()
    assert outputs.shape[1:2] in ((5_000,), model.output_shape[1:2])


@pytest.mark.long
@pytest.mark.parametrize("name", TABLE)
def test_training_on_thousands_of_steps(name):
    model = build(name)
    check_trains(model, make_inputs(model, 1, 5_000))


# ---------------------------------------------------------------------------------- sample_weight


def train_step(name: str, x, y, sample_weight) -> list[np.ndarray]:
    """The weights after one training step."""
    model = compile_sgd(build(name), rate=0.5, eager=True)
    model.train_on_batch(model_input(x), y, sample_weight=sample_weight)
    return [np.array(weight) for weight in model.trainable_weights]


@pytest.mark.parametrize("name", TABLE)
def test_sample_weight_2_equals_two_rows_and_0_equals_no_row(name):
    model = build(name)
    x = make_inputs(model, 4, 5)
    y = targets(model, x)
    repeated = join_rows(take_rows(x, [0, 0]), take_rows(x, [1, 2]))
    expected = train_step(name, repeated, y[[0, 0, 1, 2]], None)
    sample_weight = np.array([2.0, 1.0, 1.0, 0.0], "float32")
    if len(model.output_shape) > 2:  # Keras needs one weight for each loss value
        sample_weight = np.repeat(sample_weight[:, None], 5, axis=1)
    weights = train_step(name, x, y, sample_weight)
    initial = [np.array(weight) for weight in model.trainable_weights]
    moved = max(np.abs(a - b).max() for a, b in zip(expected, initial, strict=True))
    assert moved > 1e-4
    for desired, actual in zip(expected, weights, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-5 * max(moved, 1.0))


PER_STEP = [name for name in TABLE if name.endswith(("_tagger", "_identity", "_forecaster"))]


@pytest.mark.parametrize("name", [name for name in PER_STEP if "crf" not in name])
def test_target_of_a_step_with_weight_0_does_not_affect_training(name):
    model = build(name)
    x = make_inputs(model, 3, 5)
    y = targets(model, x)
    sample_weight = np.ones((3, 5), "float32")
    sample_weight[1, 2] = sample_weight[2, 4] = 0.0
    changed = np.array(y)
    changed[1, 2], changed[2, 4] = y[0, 0], y[0, 1]
    assert (changed != y).any()
    for desired, actual in zip(
        train_step(name, x, y, sample_weight),
        train_step(name, x, changed, sample_weight),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, desired)
