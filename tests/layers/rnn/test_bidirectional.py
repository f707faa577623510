"""Both directions in one loop, and recurrences compiled alone: numbers stay Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seqzoo import layers

pytestmark = pytest.mark.tensorflow

CELLS = ("SimpleRNN", "GRU", "LSTM")
MASKS = {
    "none": None,
    "right": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]],
}


def pair(cell: str, *, merge_mode="concat", **options):
    """Keras's layer and ours with the same random weights."""
    made = [
        kind.Bidirectional(getattr(kind, cell)(5, **options), merge_mode=merge_mode)
        for kind in (keras.layers, layers)
    ]
    rng = np.random.default_rng(1)
    made[0].build((None, None, 3))
    made[1].build((None, None, 3))
    weights = [0.5 * rng.normal(size=weight.shape) for weight in made[0].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


def inputs() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(4, 6, 3)), tf.float32)


def with_gradients(layer, x, mask, *, jit_compile: bool):
    """The output, and the gradients of some function of it by the input and all weights."""

    @tf.function(jit_compile=jit_compile)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = layer(x, mask=mask, training=True)
            flat = tf.concat([tf.reshape(one, (-1,)) for one in tf.nest.flatten(found)], 0)
            loss = tf.reduce_sum(tf.sin(flat) * tf.range(tf.cast(tf.size(flat), tf.float32)))
        weights = [weight.value for weight in layer.trainable_variables]
        return flat, tape.gradient(loss, [x, *weights])

    return run(x)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_give_what_keras_gives(cell, sequences, padding):
    theirs, ours = pair(cell, return_sequences=sequences)
    assert ours._runs_together(training=True)
    mask = None if MASKS[padding] is None else tf.constant(np.array(MASKS[padding], bool))
    expected, gradients = with_gradients(theirs, inputs(), mask, jit_compile=False)
    for jit_compile in (False, True):
        found, by = with_gradients(ours, inputs(), mask, jit_compile=jit_compile)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        for one, other in zip(by, gradients, strict=True):
            size = np.abs(other).max() + 1e-6
            np.testing.assert_allclose(one / size, other / size, rtol=0, atol=1e-5)
    np.testing.assert_allclose(  # inference runs other code
        np.ravel(ours(inputs(), mask=mask)), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("options", [{"use_bias": False}, {"reset_after": False}])
def test_options_of_the_layers_inside_are_kept(options):
    theirs, ours = pair("GRU", return_sequences=True, **options)
    np.testing.assert_allclose(ours(inputs()), theirs(inputs()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge_mode", ["sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [True, False])
def test_every_merge_mode_gives_what_keras_gives(merge_mode, sequences):
    theirs, ours = pair("LSTM", merge_mode=merge_mode, return_sequences=sequences)
    for one, other in zip(
        tf.nest.flatten(ours(inputs())), tf.nest.flatten(theirs(inputs())), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"return_state": True}, {"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"activation": "elu"}],
)
def test_what_does_not_run_together_runs_as_in_keras(options):
    theirs, ours = pair("LSTM", return_sequences=True, **options)
    assert not ours._runs_together(training=True)
    for one, other in zip(
        tf.nest.flatten(ours(inputs())), tf.nest.flatten(theirs(inputs())), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_model_file_gives_the_layer_back(tmp_path):
    given = keras.Input((None, 3))
    layer = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")
    model = keras.Model(given, layer(given))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("both")) is layers.Bidirectional
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))


@pytest.mark.parametrize("cell", CELLS)
def test_recurrences_compiled_alone_train_alike(cell):
    def trained(jit_compile: bool):
        keras.utils.set_random_seed(0)
        given = keras.Input((None, 3))
        x = getattr(layers, cell)(4, return_sequences=True)(given)
        x = layers.Bidirectional(getattr(layers, cell)(4))(x)
        model = keras.Model(given, keras.layers.Dense(1)(x))
        layers.compile_recurrences(model, jit_compile)
        model.compile("adam", "mse", jit_compile=False)
        for steps in (6, 4, 6):
            model.train_on_batch(inputs()[:, :steps], np.ones((4, 1)))
        return model.get_weights()

    for one, other in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_recurrences_to_be_compiled_are_so_in_training_alone():
    layer = layers.LSTM(4)
    layers.compile_recurrences(keras.Sequential([keras.Input((None, 3)), layer]))

    def compiled(training: bool) -> bool:
        trace = tf.function(lambda x: layer(x, training=training)).get_concrete_function(inputs())
        functions = trace.graph.as_graph_def().library.function
        return any(function.attr["_XlaMustCompile"].b for function in functions)

    assert compiled(training=True)
    assert not compiled(training=False)
