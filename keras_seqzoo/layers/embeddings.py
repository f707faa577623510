"""Token masks, word dropout and character encoders of words."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE, PADDING
from keras_seqzoo.utils.argument_validation import check_size

UNKNOWN = 1  # id of tokens outside the vocabulary


@keras.saving.register_keras_serializable(package=PACKAGE)
class TokenMask(keras.layers.Layer):
    """Computes the mask of token ids, in which 0 is padding.

    Shapes: `(...)`, int -> the same, bool, True for real tokens.
    Masking: the output is the mask, to be passed on as `mask=`.
    State: none.

    Example:

    >>> from keras_seqzoo.layers import TokenMask
    >>> TokenMask()(np.array([[5, 7, 0]])).numpy().tolist()
    [[True, True, False]]
    """

    def call(self, inputs):
        return ops.not_equal(inputs, PADDING)

    def compute_mask(self, inputs, previous_mask=None):
        return self.call(inputs)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="bool")


@keras.saving.register_keras_serializable(package=PACKAGE)
class WordDropout(keras.layers.Layer):
    """Replaces random tokens by the unknown token in training.

    A vocabulary that was learned from the training text has no unknown tokens there. Without word
    dropout the embedding of unknown tokens keeps its initial value.

    Shapes: `(batch, time)`, int -> the same.
    Masking: padding stays padding.
    State: a random generator.

    Args:
        rate: float in [0, 1), the fraction of tokens that become unknown (id 1) in each step.
        seed: int or None.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import WordDropout
    >>> WordDropout(0.5)(np.array([[5, 7, 0]])).numpy().tolist()  # not in inference
    [[5, 7, 0]]
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        uniform = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator)
        dropped = ops.logical_and(uniform < self.rate, ops.not_equal(inputs, PADDING))
        return ops.where(dropped, ops.cast(UNKNOWN, inputs.dtype), inputs)

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package=PACKAGE)
class CharacterCNN(keras.layers.Layer):
    """Character encoder of words: embedding, convolution and maximum over the characters.

    Shapes: character ids `(batch, time, characters)`, int -> `(batch, time, units)`.
    Masking: characters with id 0 are padding and do not change the output. The output of a word
        without characters is zero.
    State: none.

    Args:
        vocabulary_size: int, the number of character ids, with padding (0) and unknown (1).
        units: int, the number of filters of the convolution.
        embedding_dim: int, the size of a character embedding.
        width: int, odd, the kernel size of the convolution.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ArgumentError: if a size is not a positive int.

    Example:

    >>> from keras_seqzoo.layers import CharacterCNN
    >>> CharacterCNN(vocabulary_size=30, units=8)(np.ones((2, 5, 7), int)).shape
    TensorShape([2, 5, 8])

    Reference: [Ma & Hovy, 2016](https://doi.org/10.18653/v1/P16-1101)
    """

    def __init__(
        self,
        vocabulary_size: int,
        units: int,
        *,
        embedding_dim: int = 25,
        width: int = 3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_size(vocabulary_size=vocabulary_size, units=units)
        check_size(embedding_dim=embedding_dim, width=width)
        self.vocabulary_size, self.units = vocabulary_size, units
        self.embedding_dim, self.width = embedding_dim, width
        self.embedding = keras.layers.Embedding(vocabulary_size, embedding_dim, name="embedding")
        self.convolution = keras.layers.Conv2D(units, (1, width), padding="same", name="filters")

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.convolution.build((*input_shape, self.embedding_dim))

    def call(self, inputs):
        real = ops.expand_dims(ops.not_equal(inputs, PADDING), -1)
        x = self.embedding(inputs)
        # Zeros, as the convolution's own padding of words that fill the array.
        x = self.convolution(ops.where(real, x, ops.zeros_like(x)))
        x = ops.max(ops.where(real, x, ops.full_like(x, -1e4)), axis=2)
        return ops.where(ops.any(real, axis=2), x, ops.zeros_like(x))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "units", "embedding_dim", "width")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package=PACKAGE)
class CharacterBiLSTM(keras.layers.Layer):
    """Character encoder of words: embedding and the last states of a bidirectional LSTM.

    Shapes: character ids `(batch, time, characters)`, int -> `(batch, time, 2 * units)`.
    Masking: characters with id 0 are padding and do not change the output. The output of a word
        without characters is zero.
    State: none kept between calls.

    Args:
        vocabulary_size: int, the number of character ids, with padding (0) and unknown (1).
        units: int, the units of each direction.
        embedding_dim: int, the size of a character embedding.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ArgumentError: if a size is not a positive int.

    Example:

    >>> from keras_seqzoo.layers import CharacterBiLSTM
    >>> CharacterBiLSTM(vocabulary_size=30, units=8)(np.ones((2, 5, 7), int)).shape
    TensorShape([2, 5, 16])

    Reference: [Lample et al., 2016](https://doi.org/10.18653/v1/N16-1030)
    """

    def __init__(self, vocabulary_size: int, units: int, *, embedding_dim: int = 25, **kwargs: Any):
        super().__init__(**kwargs)
        from keras_seqzoo.layers.rnn.recurrent import LSTM, Bidirectional

        check_size(vocabulary_size=vocabulary_size, units=units, embedding_dim=embedding_dim)
        self.vocabulary_size, self.units = vocabulary_size, units
        self.embedding_dim = embedding_dim
        self.embedding = keras.layers.Embedding(vocabulary_size, embedding_dim, name="embedding")
        self.recurrent = Bidirectional(LSTM(units), name="recurrent")

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.recurrent.build((None, input_shape[-1], self.embedding_dim))

    def call(self, inputs):
        batch, time, characters = ops.shape(inputs)
        words = ops.reshape(inputs, (-1, characters))
        states = self.recurrent(self.embedding(words), mask=ops.not_equal(words, PADDING))
        return ops.reshape(states, (batch, time, 2 * self.units))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * self.units)

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "units", "embedding_dim")
        return super().get_config() | {name: getattr(self, name) for name in names}
