"""Fused Adam: equal to Keras's Adam for dense gradients, and correct for sparse ones."""

import keras
import numpy as np
import pytest

from keras_seqzoo.optimizers import Adam

pytestmark = pytest.mark.tensorflow

OPTIONS = [{}, {"global_clipnorm": 0.5}, {"clipnorm": 0.5}, {"weight_decay": 0.01}]


def trained_weights(optimizer, *, one_hot: bool) -> list[np.ndarray]:
    """Weights after some steps, with an embedding or a dense kernel of one-hot vectors."""
    rng = np.random.default_rng(0)
    tokens, y = rng.integers(0, 7, (40, 5)), rng.normal(size=(40, 1))
    kernel, readout = 0.1 * rng.normal(size=(7, 3)), 0.1 * rng.normal(size=(15, 1))
    if one_hot:
        first = [keras.Input((5, 7)), keras.layers.Dense(3, use_bias=False)]
    else:
        first = [keras.Input((5,)), keras.layers.Embedding(7, 3)]
    model = keras.Sequential(
        [*first, keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)]
    )
    model.set_weights([kernel, readout])
    model.compile(optimizer, "mse")
    x = np.eye(7)[tokens] if one_hot else tokens
    model.fit(x, y, batch_size=8, epochs=4, verbose=0, shuffle=False)
    return model.get_weights()


def with_schedule(optimizer_class, options):
    return optimizer_class(keras.optimizers.schedules.CosineDecay(0.05, 20), **options)


@pytest.mark.parametrize("options", [*OPTIONS, {"amsgrad": True}], ids=str)
def test_adam_updates_equal_keras(options):
    fused = trained_weights(with_schedule(Adam, options), one_hot=True)
    reference = trained_weights(with_schedule(keras.optimizers.Adam, options), one_hot=True)
    for weight, expected in zip(fused, reference, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.slow
def test_adam_updates_of_an_embedding_equal_those_of_a_kernel(options):
    """Tokens occur several times in a batch, so that their gradients must be summed."""
    for embedding, kernel in zip(
        trained_weights(with_schedule(Adam, options), one_hot=False),
        trained_weights(with_schedule(Adam, options), one_hot=True),
        strict=True,
    ):
        np.testing.assert_allclose(embedding, kernel, rtol=1e-4, atol=1e-6)
