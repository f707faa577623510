"""Adam in one pass over each weight: Keras's numbers, and for an embedding those of a kernel."""

import keras
import numpy as np
import pytest

from keras_seqzoo.optimizers import Adam

pytestmark = pytest.mark.tensorflow

OPTIONS = [{}, {"global_clipnorm": 0.5}, {"clipnorm": 0.5}, {"weight_decay": 0.01}]


def trained(optimizer, *, one_hot: bool) -> list[np.ndarray]:
    """Weights after some steps on tokens, embedded or as a product of one-hot vectors."""
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


def made(kind, options):
    return kind(keras.optimizers.schedules.CosineDecay(0.05, 20), **options)


@pytest.mark.parametrize("options", [*OPTIONS, {"amsgrad": True}], ids=str)
def test_weights_go_where_keras_takes_them(options):
    ours = trained(made(Adam, options), one_hot=True)
    theirs = trained(made(keras.optimizers.Adam, options), one_hot=True)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_embedding_goes_where_a_kernel_goes(options):
    """Tokens occur several times in a batch."""
    for one, other in zip(
        trained(made(Adam, options), one_hot=False),
        trained(made(Adam, options), one_hot=True),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
