"""Masks, normalization and the normalized loss against NumPy."""

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
def test_step_is_padding_if_all_features_are_the_mask_value(value):
    x = random(2, 5, 3)
    x[0, 1] = value
    x[0, 2, :2] = value  # two of three features: a real step
    x[1, 3:] = value
    expected = np.ones((2, 5), bool)
    expected[0, 1] = expected[1, 3] = expected[1, 4] = False
    actual = array(StepMask(value)(x))
    assert actual.dtype == bool
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(array(StepMask(value).compute_mask(x)), expected)


def test_zero_readings_are_real_with_nan_as_mask_value():
    assert array(StepMask(NAN)(np.zeros((2, 3, 1), "float32"))).all()


def test_input_mask_is_combined_with_the_mask_value():
    x = random(1, 3, 2)
    x[0, 2] = NAN
    actual = StepMask(NAN)(x, mask=np.array([[False, True, True]]))
    np.testing.assert_array_equal(array(actual), [[False, True, False]])


def test_symbolic_mask_has_shape_and_dtype_of_the_mask():
    symbolic = StepMask(0.0)(keras.Input((None, 3)))
    assert symbolic.shape == (None, None)
    assert symbolic.dtype == "bool"


def test_step_mask_without_mask_value_is_none():
    assert step_mask(keras.Input((None, 1)), None) is None


@pytest.mark.parametrize("value", [True, "nan", [0.0], 10**400, 1e39, -1e300, 1j])
def test_invalid_mask_values_are_rejected(value):
    with pytest.raises(ArgumentError, match="`mask_value`"):
        step_mask(keras.Input((None, 1)), value)


@pytest.mark.parametrize("value", [np.float32(-1), np.int64(-1), -1, INF, NAN])
def test_mask_value_may_be_any_number(value):
    assert step_mask(keras.Input((None, 1)), value).shape == (None, None)


# --------------------------------------------------------------------------------------- ApplyMask


def test_apply_mask_zeroes_padding_and_carries_the_mask():
    x, mask = random(2, 4, 3), np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool)
    actual = ApplyMask()([x, mask])
    np.testing.assert_array_equal(array(actual), np.where(mask[..., None], x, 0))
    np.testing.assert_array_equal(array(ApplyMask().compute_mask([x, mask])), mask)
    np.testing.assert_array_equal(array(actual._keras_mask), mask)


def test_nan_padding_does_not_reach_gradients():
    x = keras.Variable(np.where([[[True], [False]]], random(1, 2, 1), np.nan))
    (gradient,) = weight_gradients(
        lambda: 3.0 * keras.ops.sum(ApplyMask()([x, np.array([[True, False]])])), [x]
    )
    np.testing.assert_array_equal(gradient, [[[3.0], [0.0]]])


def test_loss_after_apply_mask_is_the_mean_over_real_steps():
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, ApplyMask()([inputs, StepMask(NAN)(inputs)]))
    model.compile(loss="mse")
    x, y = random(3, 4, 2), random(3, 4, 2, seed=1)
    x[0, 2:] = x[2, 1:] = NAN
    real = ~np.isnan(x).any(axis=-1)
    expected = ((x - y)[real] ** 2).mean()
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), expected, rtol=1e-6)


# ----------------------------------------------------------------------------------- Normalization


def test_normalization_matches_numpy_and_invert_is_its_inverse():
    x = random(6, 5, 3) * [1, 10, 100] + [5, 50, -500]
    scale, unscale = Normalization(), Normalization(invert=True)
    for layer in (scale, unscale):
        layer.build(x.shape)
        layer.set_statistics(x.mean(axis=(0, 1)), x.var(axis=(0, 1)), 30)
    scaled = array(scale(x.astype("float32")))
    expected = (x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(unscale(scaled)), x, rtol=1e-5)


def test_adapt_of_the_layer_works_as_in_keras():
    x = random(50, 3) * 7 + 2
    layer = Normalization()
    layer.adapt(x)
    np.testing.assert_allclose(array(layer(x)).mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(array(layer(x)).std(axis=0), 1, rtol=1e-4)
    assert layer.adapted


def test_fixed_mean_and_variance_match_keras():
    x = random(4, 2)
    ours, theirs = (
        layer(mean=[1.0, 2.0], variance=[4.0, 9.0])
        for layer in (Normalization, keras.layers.Normalization)
    )
    np.testing.assert_array_equal(array(ours(x, training=True)), array(theirs(x)))


def test_constant_feature_is_only_shifted():
    layer = Normalization()
    layer.build((None, 2))
    layer.set_statistics(np.array([3.0, 0.0]), np.array([0.0, 4.0]), 10)
    np.testing.assert_allclose(array(layer(np.array([[5.0, 6.0]], "float32"))), [[2.0, 3.0]])


@pytest.mark.tensorflow
def test_compiled_function_uses_weights_that_are_set_later():
    layer = Normalization()
    layer.build((None, 1))
    compiled = tf.function(lambda x: layer(x))
    x = np.array([[10.0]], "float32")
    np.testing.assert_array_equal(compiled(x), [[10.0]])
    layer.set_weights([np.array([4.0]), np.array([9.0]), np.array(1)])
    np.testing.assert_array_equal(compiled(x), [[2.0]])


def test_model_file_restores_whether_the_layer_was_adapted(tmp_path):
    for adapted in (False, True):
        model = zoo.get("simple_rnn_identity")
        if adapted:
            adapt(model, random(4, 5, 1))
        model.save(tmp_path / "model.keras")
        assert zoo.load(tmp_path / "model.keras").get_layer("scale").adapted is adapted


def test_large_step_count_does_not_overflow():
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
def test_invalid_rows_are_rejected_without_changing_the_model(x):
    model = identity()
    before = model.get_weights()
    with pytest.raises(DataError):
        adapt(model, x)
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("mask", [np.ones((4, 6), bool), np.ones((4, 5)), [[True], [True, False]]])
def test_mask_of_wrong_shape_or_dtype_is_rejected(mask):
    with pytest.raises(DataError, match="`mask`"):
        adapt(identity(), random(4, 5, 2), mask=mask)


def test_adapt_combines_mask_and_mask_value():
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


def test_rows_without_real_steps_are_rejected():
    with pytest.raises(DataError, match="at least one real step"):
        adapt(identity(mask_value=0.0), np.zeros((2, 3, 2)))


def test_model_without_normalization_is_rejected():
    with pytest.raises(ArgumentError, match="normalize=True"):
        adapt(identity(normalize=False), random(2, 3, 2))


class Batches(keras.utils.PyDataset):
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
def test_adapt_to_batches_equals_adapt_to_one_array(kind):
    x = 1e4 + random(9, 5, 2) * [1, 100]
    x[7, 3] = NAN
    parts = [x[:2], x[2:3], x[3:]]
    model, whole = identity(mask_value=NAN), identity(mask_value=NAN)
    adapt(model, iter(parts) if kind == "iterator" else Batches(*parts))
    adapt(whole, x)
    for name in ("scale", "unscale"):
        for batched, expected in zip(
            model.get_layer(name).get_weights(), whole.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_allclose(batched, expected, rtol=1e-6)


def test_adapt_uses_the_inputs_of_batches_with_targets():
    x, other = random(4, 5, 2), 100 + random(4, 5, 2)
    model = identity()
    adapt(model, Batches((x[:3], other[:3]), (x[3:], other[3:])))
    np.testing.assert_allclose(
        model.get_layer("scale").get_weights()[0], x.mean(axis=(0, 1)), rtol=1e-5
    )


def test_invalid_batches_are_rejected_without_changing_the_model():
    model, x = identity(), random(4, 5, 2)
    before = model.get_weights()
    with pytest.raises(DataError, match="at least one batch"):
        adapt(model, iter([]))
    with pytest.raises(DataError, match="must be finite"):
        adapt(model, iter([x, x * NAN]))
    with pytest.raises(ArgumentError, match="`mask` must be None where `x` comes in batches"):
        adapt(model, iter([x]), mask=np.ones((4, 5), bool))
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


# ---------------------------------------------------------------------- NormalizedMeanSquaredError


def test_normalized_loss_is_the_squared_error_over_the_variance():
    y, predicted = random(4, 5, 3), random(4, 5, 3, seed=1)
    variance = np.array([0.5, 2.0, 100.0])
    expected = ((y - predicted) ** 2 / variance).mean()
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError(variance)(y, predicted)), expected, rtol=1e-5
    )
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError()(y, predicted)), ((y - predicted) ** 2).mean(), rtol=1e-5
    )


def test_normalized_loss_of_the_mean_is_one():
    y = random(8, 50, 2) * [1, 30] + [5, 70]
    y = y.astype("float32")
    prediction = np.broadcast_to(y.mean(axis=(0, 1)), y.shape)
    loss = NormalizedMeanSquaredError(y.var(axis=(0, 1)))
    np.testing.assert_allclose(array(loss(y, prediction)), 1, rtol=1e-4)
    assert array(loss(y, y)) == 0


def test_normalized_loss_ignores_masked_steps():
    y, predicted = random(3, 4, 2), random(3, 4, 2, seed=1)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    variance = np.array([0.5, 3.0])
    prediction = keras.ops.convert_to_tensor(predicted)
    prediction._keras_mask = keras.ops.convert_to_tensor(mask)
    expected = ((y - predicted) ** 2 / variance).mean(axis=-1)[mask].mean()
    np.testing.assert_allclose(
        array(NormalizedMeanSquaredError(variance)(y, prediction)), expected, rtol=1e-5
    )


@pytest.mark.parametrize("variance", [[1.0, 0.0], [-1.0], [NAN]])
def test_variances_that_are_not_positive_are_rejected(variance):
    with pytest.raises(ArgumentError, match="`variance`"):
        NormalizedMeanSquaredError(variance)
    loss = NormalizedMeanSquaredError()
    with pytest.raises(ArgumentError, match="`variance`"):
        loss.variance = variance
    assert loss.variance is None


@pytest.mark.parametrize("variance", [None, [0.5, 2.0]])
def test_config_and_model_file_restore_the_normalized_loss(variance, tmp_path):
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
def test_normalization_keeps_its_precision_under_a_mixed_policy(tmp_path):
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


def test_masks_compare_raw_readings_under_a_mixed_policy():
    x = np.array([[[5000.25], [4999.5], [-999.9]]], "float32")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.get("simple_rnn_identity", mask_value=-999.9, normalize=False)
    finally:
        keras.config.set_dtype_policy("float32")
    kept = keras.Model(model.input, model.get_layer("real_steps").output).predict_on_batch(x)
    np.testing.assert_array_equal(kept[0, :, 0], np.float32([5000.25, 4999.5, 0]))
