"""Custom gradients, and their release with the graphs that use them."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

import keras_seqzoo as zoo
from keras_seqzoo.layers.custom_gradient import custom_gradient
from keras_seqzoo.optimizers import Adam

pytestmark = pytest.mark.tensorflow


@custom_gradient
def tripled(x):
    """`3 x` with a gradient of 30, which automatic differentiation would not give."""
    return 3 * x, lambda upstream: 30 * upstream


def slope(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tripled(x)
    return tape.gradient(y, x)


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_gradient_is_the_custom_gradient(jit_compile):
    x = tf.constant([1.0, 2.0])
    function = slope if jit_compile is None else tf.function(slope, jit_compile=jit_compile)
    np.testing.assert_array_equal(function(x), [30, 30])


def test_traced_function_has_the_custom_gradient():
    x, function = tf.constant([1.0, 2.0]), tf.function(tripled)
    gc.collect()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [30, 30])


def test_loop_in_a_graph_has_the_custom_gradient():
    @tf.function(autograph=False)
    def looped(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.while_loop(lambda t, _: t < 3, lambda t, y: (t + 1, tripled(y)), (0, x))[1]
        return tape.gradient(y, x)

    np.testing.assert_array_equal(looped(tf.constant([1.0])), [30.0**3])


def test_loaded_saved_model_has_the_custom_gradient(tmp_path):
    module = tf.Module()
    module.call = tf.function(tripled, input_signature=[tf.TensorSpec([None])])
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path / "saved"), options=options)
    served, x = tf.saved_model.load(str(tmp_path / "saved")), tf.constant([1.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = served.call(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [30])


@pytest.mark.parametrize("name", ["gru_classifier", "bilstm_crf_tagger"])
def test_deleting_a_trained_model_releases_its_gradients(name):
    rng = np.random.default_rng(0)
    x, tags = rng.normal(size=(4, 5, 2)).astype("float32"), rng.integers(0, 3, (4, 5))
    before = count_registered_gradients()
    model = zoo.get(name, features=2, units=3, classes=3, normalize=False)
    if name == "gru_classifier":
        model.compile(Adam(), "sparse_categorical_crossentropy")
        model.fit(x, tags[:, 0], verbose=0)
    else:
        model.compile(Adam())
        model.fit(x, tags, verbose=0)
    assert count_registered_gradients() > before
    del model
    keras.backend.clear_session()
    assert count_registered_gradients() == before


def count_registered_gradients() -> int:
    """The number of gradients in the registry of TensorFlow that belong to one trace."""
    gc.collect()
    return sum(name.startswith("CustomGradient") for name in gradient_registry.list())
