"""Both directions in one loop, and recurrent layers compiled by themselves, against Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seqzoo import layers
from tests.helpers.marks import slow, slow_except

pytestmark = pytest.mark.tensorflow

CELLS = ("SimpleRNN", "GRU", "LSTM")
MASKS = {
    "none": None,
    "right": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]],
}


def pair(cell: str, *, merge_mode="concat", **options):
    """A Keras layer and a fused layer with the same random weights."""
    pair = [
        module.Bidirectional(getattr(module, cell)(5, **options), merge_mode=merge_mode)
        for module in (keras.layers, layers)
    ]
    rng = np.random.default_rng(1)
    for layer in pair:
        layer.build((None, None, 3))
    weights = [0.5 * rng.normal(size=weight.shape) for weight in pair[0].weights]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def inputs() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(4, 6, 3)), tf.float32)


def with_gradients(layer, x, mask, *, jit_compile: bool):
    """The output, and the gradients of a function of it by the input and all weights."""

    @tf.function(jit_compile=jit_compile)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.nest.flatten(layer(x, mask=mask, training=True))
            flat = tf.concat([tf.reshape(output, (-1,)) for output in outputs], 0)
            loss = tf.reduce_sum(tf.sin(flat) * tf.range(tf.cast(tf.size(flat), tf.float32)))
        weights = [weight.value for weight in layer.trainable_variables]
        return flat, tape.gradient(loss, [x, *weights])

    return run(x)


@pytest.mark.parametrize("padding", slow_except(list(MASKS)[:2], MASKS))
@pytest.mark.parametrize("sequences", [True, slow(False)])
@pytest.mark.parametrize("cell", slow_except(["GRU"], CELLS))
def test_outputs_and_gradients_match_keras(cell, sequences, padding):
    keras_layer, fused = pair(cell, return_sequences=sequences)
    assert fused.fuses_directions(training=True)
    mask = None if MASKS[padding] is None else tf.constant(np.array(MASKS[padding], bool))
    expected, gradients = with_gradients(keras_layer, inputs(), mask, jit_compile=False)
    for jit_compile in (False, True):
        output, fused_gradients = with_gradients(fused, inputs(), mask, jit_compile=jit_compile)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
        for actual, reference in zip(fused_gradients, gradients, strict=True):
            size = np.abs(reference).max() + 1e-6
            np.testing.assert_allclose(actual / size, reference / size, rtol=0, atol=1e-5)
    np.testing.assert_allclose(  # inference runs without residuals
        np.ravel(fused(inputs(), mask=mask)), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("options", [{"use_bias": False}, {"reset_after": False}])
def test_options_of_the_wrapped_layers_match_keras(options):
    keras_layer, fused = pair("GRU", return_sequences=True, **options)
    np.testing.assert_allclose(fused(inputs()), keras_layer(inputs()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge_mode", ["sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [True, False])
def test_every_merge_mode_matches_keras(merge_mode, sequences):
    keras_layer, fused = pair("LSTM", merge_mode=merge_mode, return_sequences=sequences)
    for actual, reference in zip(
        tf.nest.flatten(fused(inputs())), tf.nest.flatten(keras_layer(inputs())), strict=True
    ):
        np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"return_state": True}, {"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"activation": "elu"}],
)
def test_unsupported_layers_run_the_loop_of_keras(options):
    keras_layer, fused = pair("LSTM", return_sequences=True, **options)
    assert not fused.fuses_directions(training=True)
    for actual, reference in zip(
        tf.nest.flatten(fused(inputs())), tf.nest.flatten(keras_layer(inputs())), strict=True
    ):
        np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)


def test_model_file_restores_the_layer(tmp_path):
    input_tensor = keras.Input((None, 3))
    layer = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")
    model = keras.Model(input_tensor, layer(input_tensor))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("both")) is layers.Bidirectional
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.slow
def test_compiled_recurrences_train_to_equal_weights(cell):
    def trained(jit_compile: bool):
        keras.utils.set_random_seed(0)
        input_tensor = keras.Input((None, 3))
        x = getattr(layers, cell)(4, return_sequences=True)(input_tensor)
        x = layers.Bidirectional(getattr(layers, cell)(4))(x)
        model = keras.Model(input_tensor, keras.layers.Dense(1)(x))
        layers.compile_recurrences(model, jit_compile)
        model.compile("adam", "mse", jit_compile=False)
        for steps in (6, 4, 6):
            model.train_on_batch(inputs()[:, :steps], np.ones((4, 1)))
        return model.get_weights()

    for actual, reference in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=1e-6)


def test_recurrences_are_compiled_in_training_only():
    layer = layers.LSTM(4)
    layers.compile_recurrences(keras.Sequential([keras.Input((None, 3)), layer]))

    def compiled(training: bool) -> bool:
        trace = tf.function(lambda x: layer(x, training=training)).get_concrete_function(inputs())
        functions = trace.graph.as_graph_def().library.function
        return any(function.attr["_XlaMustCompile"].b for function in functions)

    assert compiled(training=True)
    assert not compiled(training=False)
