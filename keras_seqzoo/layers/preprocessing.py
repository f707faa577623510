"""Names inside a model: sentences in front, the names of classes behind. TensorFlow alone."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.layers.masking import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class SplitTokens(keras.layers.Layer):
    """Sentences into tokens, at blanks.

    Shapes: `(batch,)`, string -> `(batch, time)`, string, "" behind the last token; time is at
        least 1, also where all sentences are empty.
    Masking: none.
    State: none.
    """

    def call(self, sentences):
        import tensorflow as tf

        tokens = tf.strings.split(sentences).to_tensor("")
        return tf.pad(tokens, [[0, 0], [0, tf.maximum(1 - tf.shape(tokens)[1], 0)]])

    def compute_output_spec(self, sentences):
        return keras.KerasTensor((sentences.shape[0], None), dtype="string")


@keras.saving.register_keras_serializable(package=PACKAGE)
class SplitCharacters(keras.layers.Layer):
    """Texts into characters, code points of UTF-8, without spaces and tabs at either end.

    Shapes: `(...)`, string -> `(..., characters)`, string, "" behind the last; at least one.
    Masking: none.
    State: none.

    Args:
        max_characters: int, of a text; what comes later is cut. None for all.
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
        short = tf.maximum(1 - tf.shape(characters)[-1], 0)
        return tf.pad(characters, [*[[0, 0]] * len(texts.shape), [0, short]])

    def compute_output_spec(self, texts):
        return keras.KerasTensor((*texts.shape, None), dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"max_characters": self.max_characters}


@keras.saving.register_keras_serializable(package=PACKAGE)
class JoinTokens(keras.layers.Layer):
    """Tokens into texts.

    Shapes: `(batch, time)`, string, "" behind the last token -> `(batch,)`, string.
    Masking: none.
    State: none.

    Args:
        separator: str between tokens, "" for characters.
    """

    def __init__(self, separator: str = " ", **kwargs: Any):
        super().__init__(**kwargs)
        self.separator = separator

    def call(self, tokens):
        import tensorflow as tf

        later = tf.concat([tf.zeros_like(tokens[:, :1], tf.bool), tokens[:, 1:] != ""], axis=1)
        return tf.strings.reduce_join(tf.where(later, self.separator + tokens, tokens), axis=-1)

    def compute_output_spec(self, tokens):
        return keras.KerasTensor(tokens.shape[:-1], dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"separator": self.separator}


@keras.saving.register_keras_serializable(package=PACKAGE)
class ClassNames(keras.layers.Layer):
    """The names of classes, given their numbers or a probability for each.

    Shapes: int `(...)` or float `(..., classes)` -> `(...)`, string.
    Masking: takes `mask=` `(...)`; where it says padding, the name is "".
    State: none.

    Args:
        names: list of str.
    """

    def __init__(self, names: list[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.names = list(names)

    def call(self, answers, mask=None):
        import tensorflow as tf

        if answers.dtype.is_floating:
            answers = tf.argmax(answers, -1)
        names = tf.gather(tf.constant(self.names), answers)
        return names if mask is None else tf.where(mask, names, "")

    def compute_mask(self, answers, previous_mask=None):
        return None

    def compute_output_spec(self, answers, mask=None):
        shape = answers.shape[:-1] if "float" in answers.dtype else answers.shape
        return keras.KerasTensor(shape, dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"names": self.names}
