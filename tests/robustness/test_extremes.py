"""Every entry at the edges: half precision, one step of one row, thousands of steps, weights."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import layers
from tests.conformance.table import TABLE, adapt, answer, arguments, given, joined, one, take
from tests.conformance.test_entries import loss_of, targets

TOLERANCE = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1}  # of the largest answer


@contextlib.contextmanager
def policy(name: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def built(name: str) -> keras.Model:
    """Small, without dropout, the same weights each time; readings scaled."""
    known = arguments(name, "default")
    config = {
        "units": 4,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "word_dropout": 0.0,
        "scheduled_sampling": 0.0,
    }
    config = {key: value for key, value in config.items() if key in known}
    keras.utils.set_random_seed(3)
    model = zoo.get(name, **TABLE[name]["default"].config | config)
    if layers.has_scaling(model):
        adapt(model, given(model, 8, 9))
    return model


def compiled(model: keras.Model, size: float = 0.1, *, eager: bool = False) -> keras.Model:
    """To be trained; a step of few short rows is faster than its graph is made."""
    optimizer = keras.optimizers.SGD(size, clipnorm=10.0)
    model.compile(optimizer, loss_of(model), run_eagerly=eager)
    return model


def check_trains(model: keras.Model, x, *, eager: bool = False) -> None:
    """Training has a finite loss and leaves finite weights, some of them others.

    In float16 it begins by steps that only tell by how much the loss may be scaled.
    """
    compiled(model, eager=eager)
    before = [np.array(weight) for weight in model.trainable_weights]
    for _ in range(20 if "float16" in model.dtype_policy.name else 1):
        assert np.isfinite(model.train_on_batch(one(x), targets(model, x)))
    after = [np.array(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert any((now != was).any() for now, was in zip(after, before, strict=True))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    "half", [pytest.param("mixed_float16", marks=pytest.mark.long), "mixed_bfloat16"]
)
def test_half_precision_answers_nearly_the_same_and_trains(half, name):
    whole = built(name)
    with policy(half):
        model = built(name)
    model.set_weights(whole.get_weights())
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    x = given(whole, 3, 6)
    expected, received = answer(whole, x), answer(model, x).astype("float32")
    assert np.abs(received - expected).max() <= TOLERANCE[half] * np.abs(expected).max()
    check_trains(model, x, eager=True)


@pytest.mark.parametrize("name", TABLE)
def test_one_step_of_one_row(name):
    model = built(name)
    many = given(model, 4, 1)
    x = take(many, slice(1))
    found = answer(model, x)
    assert len(found) == 1
    np.testing.assert_allclose(found, answer(model, many)[:1], rtol=1e-4, atol=1e-5)
    check_trains(model, x, eager=True)


# One for each way in which steps are gone through; the others in the long run.
WAYS = (
    "simple_rnn_identity", "gru_classifier", "bilstm_crf_tagger", "lstm_autoencoder",
    "attention_gru_encoder_decoder", "vector_encoder_decoder",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.long] * (one not in WAYS)) for one in TABLE]
)
def test_thousands_of_steps(name):
    model = built(name)
    x = given(model, 1, 5_000)
    found = model.predict_on_batch(one(x))  # compiled, as the marginals in `answer` are not
    assert np.isfinite(found).all()
    assert found.shape[1:2] in ((5_000,), model.output_shape[1:2])


@pytest.mark.long
@pytest.mark.parametrize("name", TABLE)
def test_training_on_thousands_of_steps(name):
    model = built(name)
    check_trains(model, given(model, 1, 5_000))


# ---------------------------------------------------------------------------------- sample_weight


def trained(name: str, x, y, weights) -> list[np.ndarray]:
    model = compiled(built(name), size=0.5, eager=True)
    model.train_on_batch(one(x), y, sample_weight=weights)
    return [np.array(weight) for weight in model.trainable_weights]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_weight_2_counts_as_two_and_one_of_0_as_none(name):
    model = built(name)
    x = given(model, 4, 5)
    y = targets(model, x)
    twice = joined(take(x, [0, 0]), take(x, [1, 2]))
    expected = trained(name, twice, y[[0, 0, 1, 2]], None)
    weights = np.array([2.0, 1.0, 1.0, 0.0], "float32")
    if len(model.output_shape) > 2:  # Keras wants them for each step that has a loss of its own
        weights = np.repeat(weights[:, None], 5, axis=1)
    received = trained(name, x, y, weights)
    start = [np.array(weight) for weight in model.trainable_weights]
    moved = max(np.abs(a - b).max() for a, b in zip(expected, start, strict=True))
    assert moved > 1e-4
    for one_way, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(other, one_way, rtol=1e-4, atol=1e-5 * max(moved, 1.0))


PER_STEP = [name for name in TABLE if name.endswith(("_tagger", "_identity", "_forecaster"))]


@pytest.mark.parametrize("name", [name for name in PER_STEP if "crf" not in name])
def test_a_step_of_weight_0_counts_as_none(name):
    """Whatever its target is."""
    model = built(name)
    x = given(model, 3, 5)
    y = targets(model, x)
    weights = np.ones((3, 5), "float32")
    weights[1, 2] = weights[2, 4] = 0.0
    other = np.array(y)
    other[1, 2], other[2, 4] = y[0, 0], y[0, 1]
    assert (other != y).any()
    for one_way, other_way in zip(
        trained(name, x, y, weights), trained(name, x, other, weights), strict=True
    ):
        np.testing.assert_array_equal(one_way, other_way)
