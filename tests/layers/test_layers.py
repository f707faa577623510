"""Masks, scaling and the loss, each against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers import (
    ApplyMask,
    Normalization,
    NormalizedMeanSquaredError,
    StepMask,
    adapt,
    step_mask,
)
from tests.helpers.weight_gradients import weight_gradients

NAN, INF = float("nan"), float("inf")


def array(layer_output) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer_output)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# ---------------------------------------------------------------------------------------- StepMask


@pytest.mark.parametrize("value", [NAN, 0.0, -1.0, 1e30, INF])
def test_a_step_is_padding_if_every_feature_says_so(value):
    x = random(2, 5, 3)
    x[0, 1] = value
    x[0, 2, :2] = value  # two of three features: a real step
    x[1, 3:] = value
    expected = np.ones((2, 5), bool)
    expected[0, 1] = expected[1, 3] = expected[1, 4] = False
    found = array(StepMask(value)(x))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(array(StepMask(value).compute_mask(x)), expected)


def test_a_zero_reading_is_a_reading_when_nan_is_padding():
    assert array(StepMask(NAN)(np.zeros((2, 3, 1), "float32"))).all()


def test_a_mask_that_comes_with_the_input_is_kept():
    x = random(1, 3, 2)
    x[0, 2] = NAN
    found = StepMask(NAN)(x, mask=np.array([[False, True, True]]))
    np.testing.assert_array_equal(array(found), [[False, True, False]])


def test_symbolic_and_actual_masks_have_the_same_shape_and_type():
    symbolic = StepMask(0.0)(keras.Input((None, 3)))
    assert symbolic.shape == (None, None)
    assert symbolic.dtype == "bool"


def test_step_mask_is_none_where_nothing_is_padding():
    assert step_mask(keras.Input((None, 1)), None) is None


@pytest.mark.parametrize("value", [True, "nan", [0.0], 10**400, 1e39, -1e300, 1j])
def test_a_mask_value_that_is_no_number_is_refused(value):
    with pytest.raises(ArgumentError, match="`mask_value`"):
        step_mask(keras.Input((None, 1)), value)


@pytest.mark.parametrize("value", [np.float32(-1), np.int64(-1), -1, INF, NAN])
def test_a_mask_value_may_be_any_number(value):
    assert step_mask(keras.Input((None, 1)), value).shape == (None, None)


# --------------------------------------------------------------------------------------- ApplyMask


def test_padded_steps_become_zero_and_carry_the_mask():
    x, mask = random(2, 4, 3), np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool)
    found = ApplyMask()([x, mask])
    np.testing.assert_array_equal(array(found), np.where(mask[..., None], x, 0))
    np.testing.assert_array_equal(array(ApplyMask().compute_mask([x, mask])), mask)
    np.testing.assert_array_equal(array(found._keras_mask), mask)


def test_nan_padding_reaches_no_gradient():
    x = keras.Variable(np.where([[[True], [False]]], random(1, 2, 1), np.nan))
    (gradient,) = weight_gradients(
        lambda: 3.0 * keras.ops.sum(ApplyMask()([x, np.array([[True, False]])])), [x]
    )
    np.testing.assert_array_equal(gradient, [[[3.0], [0.0]]])


def test_a_loss_behind_a_mask_is_the_mean_over_real_steps():
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, ApplyMask()([inputs, StepMask(NAN)(inputs)]))
    model.compile(loss="mse")
    x, y = random(3, 4, 2), random(3, 4, 2, seed=1)
    x[0, 2:] = x[2, 1:] = NAN
    real = ~np.isnan(x).any(axis=-1)
    expected = ((x - y)[real] ** 2).mean()
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), expected, rtol=1e-6)


# ----------------------------------------------------------------------------------- Normalization


def test_scaling_is_that_of_numpy_and_its_inverse_undoes_it():
    x = random(6, 5, 3) * [1, 10, 100] + [5, 50, -500]
    scale, unscale = Normalization(), Normalization(invert=True)
    for layer in (scale, unscale):
        layer.build(x.shape)
        layer.set_statistics(x.mean(axis=(0, 1)), x.var(axis=(0, 1)), 30)
    scaled = array(scale(x.astype("float32")))
    expected = (x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(unscale(scaled)), x, rtol=1e-5)


def test_keras_own_adapt_works_too():
    x = random(50, 3) * 7 + 2
    layer = Normalization()
    layer.adapt(x)
    np.testing.assert_allclose(array(layer(x)).mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(array(layer(x)).std(axis=0), 1, rtol=1e-4)
    assert layer.adapted


def test_a_fixed_mean_and_variance_work_as_in_keras():
    x = random(4, 2)
    ours, theirs = (
        kind(mean=[1.0, 2.0], variance=[4.0, 9.0])
        for kind in (Normalization, keras.layers.Normalization)
    )
    np.testing.assert_array_equal(array(ours(x, training=True)), array(theirs(x)))


def test_a_feature_without_variance_is_only_shifted():
    layer = Normalization()
    layer.build((None, 2))
    layer.set_statistics(np.array([3.0, 0.0]), np.array([0.0, 4.0]), 10)
    np.testing.assert_allclose(array(layer(np.array([[5.0, 6.0]], "float32"))), [[2.0, 3.0]])


@pytest.mark.tensorflow
def test_weights_set_late_are_seen_by_a_compiled_function():
    layer = Normalization()
    layer.build((None, 1))
    compiled = tf.function(lambda x: layer(x))
    x = np.array([[10.0]], "float32")
    np.testing.assert_array_equal(compiled(x), [[10.0]])
    layer.set_weights([np.array([4.0]), np.array([9.0]), np.array(1)])
    np.testing.assert_array_equal(compiled(x), [[2.0]])


def test_whether_it_was_adapted_is_kept_in_the_model_file(tmp_path):
    for adapted in (False, True):
        model = zoo.get("simple_rnn_identity")
        if adapted:
            adapt(model, random(4, 5, 1))
        model.save(tmp_path / "model.keras")
        assert zoo.load(tmp_path / "model.keras").get_layer("scale").adapted is adapted


def test_a_great_count_of_steps_does_not_overflow():
    layer = Normalization()
    layer.build((None, 1))
    layer.set_statistics(np.zeros(1), np.ones(1), 2**40)
    assert layer.adapted
    assert int(layer.count) == 2**31 - 1


# ------------------------------------------------------------------------------------------- adapt


def identity(**config) -> keras.Model:
    return zoo.get("simple_rnn_identity", features=2, **config)


@pytest.mark.parametrize(
    "x",
    [
        random(4, 5),
        random(4, 5, 3),
        random(0, 5, 2),
        np.full((2, 3, 2), NAN),
        np.full((2, 3, 2), INF),
        np.full((2, 3, 2), "a"),
        np.ones((2, 3, 2), complex),
        [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]],
        np.array([[[1.0, 2.0], [-1e300, 4.0]]]),
        None,
    ],
    ids=["rank", "features", "empty", "nan", "inf", "text", "complex", "ragged", "huge", "none"],
)
def test_rows_that_cannot_be_learned_from_are_refused_and_change_nothing(x):
    model = identity()
    before = model.get_weights()
    with pytest.raises(DataError):
        adapt(model, x)
    for weight, known in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, known)


@pytest.mark.parametrize("mask", [np.ones((4, 6), bool), np.ones((4, 5)), [[True], [True, False]]])
def test_a_mask_of_another_shape_or_type_is_refused(mask):
    with pytest.raises(DataError, match="`mask`"):
        adapt(identity(), random(4, 5, 2), mask=mask)


def test_a_mask_and_a_mask_value_both_count():
    model = identity(mask_value=NAN)
    x = random(2, 4, 2)
    x[0, 3] = NAN
    mask = np.ones((2, 4), bool)
    mask[1, :2] = False
    adapt(model, x, mask=mask)
    real = mask & ~np.isnan(x).any(axis=-1)
    np.testing.assert_allclose(
        model.get_layer("scale").get_weights()[0], x[real].mean(axis=0), rtol=1e-5
    )
    assert int(model.get_layer("scale").count) == real.sum() == 5


def test_rows_that_are_all_padding_are_refused():
    with pytest.raises(DataError, match="at least one real step"):
        adapt(identity(mask_value=0.0), np.zeros((2, 3, 2)))


def test_a_model_without_scaling_is_refused():
    with pytest.raises(ArgumentError, match="normalize=True"):
        adapt(identity(normalize=False), random(2, 3, 2))


class Halves(keras.utils.PyDataset):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    @property
    def num_batches(self):
        return len(self.parts)

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, index):
        return self.parts[index]


@pytest.mark.parametrize("kind", ["iterator", "dataset"])
def test_rows_in_batches_are_learned_as_if_they_were_one_array(kind):
    x = 1e4 + random(9, 5, 2) * [1, 100]
    x[7, 3] = NAN
    parts = [x[:2], x[2:3], x[3:]]
    model, whole = identity(mask_value=NAN), identity(mask_value=NAN)
    adapt(model, iter(parts) if kind == "iterator" else Halves(*parts))
    adapt(whole, x)
    for name in ("scale", "unscale"):
        for one, other in zip(
            model.get_layer(name).get_weights(), whole.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_of_batches_with_targets_the_inputs_count():
    x, other = random(4, 5, 2), 100 + random(4, 5, 2)
    model = identity()
    adapt(model, Halves((x[:3], other[:3]), (x[3:], other[3:])))
    np.testing.assert_allclose(
        model.get_layer("scale").get_weights()[0], x.mean(axis=(0, 1)), rtol=1e-5
    )


def test_batches_that_cannot_be_learned_from_are_refused_and_change_nothing():
    model, x = identity(), random(4, 5, 2)
    before = model.get_weights()
    with pytest.raises(DataError, match="at least one batch"):
        adapt(model, iter([]))
    with pytest.raises(DataError, match="must be finite"):
        adapt(model, iter([x, x * NAN]))
    with pytest.raises(ArgumentError, match="`mask` must be None where `x` comes in batches"):
        adapt(model, iter([x]), mask=np.ones((4, 5), bool))
    for weight, known in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, known)


# ---------------------------------------------------------------------- NormalizedMeanSquaredError


def test_the_loss_is_the_squared_error_over_the_variance():
    y, found = random(4, 5, 3), random(4, 5, 3, seed=1)
    variance = np.array([0.5, 2.0, 100.0])
    expected = ((y - found) ** 2 / variance).mean()
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError(variance)(y, found)), expected, rtol=1e-5
    )
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError()(y, found)), ((y - found) ** 2).mean(), rtol=1e-5
    )


def test_the_mean_as_a_constant_answer_gets_one():
    y = random(8, 50, 2) * [1, 30] + [5, 70]
    y = y.astype("float32")
    answer = np.broadcast_to(y.mean(axis=(0, 1)), y.shape)
    loss = NormalizedMeanSquaredError(y.var(axis=(0, 1)))
    np.testing.assert_allclose(array(loss(y, answer)), 1, rtol=1e-4)
    assert array(loss(y, y)) == 0


def test_masked_steps_do_not_count_in_the_normalized_loss():
    y, found = random(3, 4, 2), random(3, 4, 2, seed=1)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    variance = np.array([0.5, 3.0])
    prediction = keras.ops.convert_to_tensor(found)
    prediction._keras_mask = keras.ops.convert_to_tensor(mask)
    expected = ((y - found) ** 2 / variance).mean(axis=-1)[mask].mean()
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError(variance)(y, prediction)), expected, rtol=1e-5
    )


@pytest.mark.parametrize("variance", [[1.0, 0.0], [-1.0], [NAN]])
def test_a_variance_that_cannot_be_divided_by_is_refused(variance):
    with pytest.raises(ArgumentError, match="`variance`"):
        NormalizedMeanSquaredError(variance)
    loss = NormalizedMeanSquaredError()
    with pytest.raises(ArgumentError, match="`variance`"):
        loss.variance = variance
    assert loss.variance is None


@pytest.mark.parametrize("variance", [None, [0.5, 2.0]])
def test_the_loss_survives_its_config_and_a_model_file(variance, tmp_path):
    loss = NormalizedMeanSquaredError(variance)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, NormalizedMeanSquaredError)
    assert again.variance == variance
    model = identity()
    x = random(4, 5, 2)
    adapt(model, x)
    model.compile("adam", loss)
    model.train_on_batch(x, x)
    model.save(tmp_path / "model.keras")
    loaded = zoo.load(tmp_path / "model.keras")
    assert loaded.loss.variance == variance
    np.testing.assert_allclose(loaded.test_on_batch(x, x), model.test_on_batch(x, x), rtol=1e-6)


@pytest.mark.tensorflow
def test_scaling_keeps_its_precision_under_a_mixed_policy(tmp_path):
    x = (20_000 + np.random.default_rng(0).normal(size=(32, 6, 1))).astype("float32")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.get("simple_rnn_identity")
        zoo.adapt(model, x)
        model.compile("adam", "mse")
        model.fit(x, x, verbose=0)
        scaled = keras.Model(model.input, model.get_layer("scale").output).predict_on_batch(x)
        np.testing.assert_allclose(np.std(np.asarray(scaled, np.float64)), 1, rtol=0.01)
        parity = zoo.export(model, tmp_path / "served", verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("recurrent").compute_dtype == "float16"
    assert parity.difference <= parity.tolerance == 1e-2


def test_masks_see_raw_readings_under_a_mixed_policy():
    x = np.array([[[5000.25], [4999.5], [-999.9]]], "float32")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.get("simple_rnn_identity", mask_value=-999.9, normalize=False)
    finally:
        keras.config.set_dtype_policy("float32")
    kept = keras.Model(model.input, model.get_layer("real_steps").output).predict_on_batch(x)
    np.testing.assert_array_equal(kept[0, :, 0], np.float32([5000.25, 4999.5, 0]))
