"""Text layers: splitting sentences, joining tokens, class names. They need TensorFlow."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.layers.masking import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class SplitTokens(keras.layers.Layer):
    """Splits sentences into tokens at whitespace.

    Shapes: `(batch,)`, string -> `(batch, time)`, string, padded with ""; time is at least 1, even
        if all sentences are empty.
    Masking: none.
    State: none.

    Example:

    >>> from keras_seqzoo.layers import SplitTokens
    >>> SplitTokens()(keras.ops.convert_to_tensor(["play jazz", "stop"])).numpy().tolist()
    [[b'play', b'jazz'], [b'stop', b'']]
    """

    def call(self, sentences):
        import tensorflow as tf

        tokens = tf.strings.split(sentences).to_tensor("")
        paddings: Any = [[0, 0], [0, tf.maximum(1 - tf.shape(tokens)[1], 0)]]
        return tf.pad(tokens, paddings)

    def compute_output_spec(self, sentences):
        return keras.KerasTensor((sentences.shape[0], None), dtype="string")


@keras.saving.register_keras_serializable(package=PACKAGE)
class SplitCharacters(keras.layers.Layer):
    """Splits texts into characters (UTF-8 code points), without leading and trailing blanks.

    Shapes: `(...)`, string -> `(..., characters)`, string, padded with ""; characters is at least
        1.
    Masking: none.
    State: none.

    Args:
        max_characters: int, the length to which texts are truncated; None for all characters.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import SplitCharacters
    >>> SplitCharacters()(keras.ops.convert_to_tensor(["no", "a"])).numpy().tolist()
    [[b'n', b'o'], [b'a', b'']]
    """

    def __init__(self, max_characters: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_characters = max_characters

    def call(self, texts):
        import tensorflow as tf

        texts = tf.strings.regex_replace(texts, "^[ \\t]+|[ \\t]+$", "")
        if self.max_characters is not None:
            texts = tf.strings.substr(texts, 0, self.max_characters, unit="UTF8_CHAR")
        characters = tf.strings.unicode_split(texts, "UTF-8").to_tensor("")
        missing = tf.maximum(1 - tf.shape(characters)[-1], 0)
        paddings: Any = [*[[0, 0]] * len(texts.shape), [0, missing]]
        return tf.pad(characters, paddings)

    def compute_output_spec(self, texts):
        return keras.KerasTensor((*texts.shape, None), dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"max_characters": self.max_characters}


@keras.saving.register_keras_serializable(package=PACKAGE)
class JoinTokens(keras.layers.Layer):
    """Joins tokens into texts.

    Shapes: `(batch, time)`, string, padded with "" -> `(batch,)`, string.
    Masking: none; "" adds nothing to a text.
    State: none.

    Args:
        separator: str between tokens, "" for characters.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import JoinTokens
    >>> tokens = keras.ops.convert_to_tensor([["play", "jazz"], ["stop", ""]])
    >>> JoinTokens()(tokens).numpy().tolist()
    [b'play jazz', b'stop']
    """

    def __init__(self, separator: str = " ", **kwargs: Any):
        super().__init__(**kwargs)
        self.separator = separator

    def call(self, tokens):
        import tensorflow as tf

        first = tf.zeros_like(tokens[:, :1], tf.bool)
        needs_separator = tf.concat([first, tokens[:, 1:] != ""], axis=1)
        tokens = tf.where(needs_separator, self.separator + tokens, tokens)
        return tf.strings.reduce_join(tokens, axis=-1)

    def compute_output_spec(self, tokens):
        return keras.KerasTensor(tokens.shape[:-1], dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"separator": self.separator}


@keras.saving.register_keras_serializable(package=PACKAGE)
class ClassNames(keras.layers.Layer):
    """Maps class ids, or the most probable class, to class names.

    Shapes: class ids `(...)`, int, or probabilities `(..., classes)`, float -> `(...)`, string.
    Masking: takes `mask=` `(...)`; the name of padding is "".
    State: none.

    Args:
        names: list of str in the order of the class ids.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import ClassNames
    >>> ClassNames(["Play", "Stop"])(np.array([1, 0])).numpy().tolist()
    [b'Stop', b'Play']
    """

    def __init__(self, names: list[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.names = list(names)

    def call(self, predictions, mask=None):
        import tensorflow as tf

        if predictions.dtype.is_floating:
            predictions = tf.argmax(predictions, -1)
        names = tf.gather(tf.constant(self.names), predictions)
        return names if mask is None else tf.where(mask, names, "")

    def compute_mask(self, predictions, previous_mask=None):
        return None

    def compute_output_spec(self, predictions, mask=None):
        shape = predictions.shape[:-1] if "float" in predictions.dtype else predictions.shape
        return keras.KerasTensor(shape, dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"names": self.names}
