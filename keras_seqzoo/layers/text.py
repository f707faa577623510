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
    """Tokens into characters, code points of UTF-8.

    Shapes: `(batch, time)`, string -> `(batch, time, characters)`, string, "" behind the last.
    Masking: none.
    State: none.

    Args:
        max_characters: int, of a token; what comes later is cut.
    """

    def __init__(self, max_characters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_characters = max_characters

    def call(self, tokens):
        import tensorflow as tf

        cut = tf.strings.substr(tokens, 0, self.max_characters, unit="UTF8_CHAR")
        characters = tf.strings.unicode_split(cut, "UTF-8").to_tensor("")
        return tf.pad(characters, [[0, 0], [0, 0], [0, tf.maximum(1 - tf.shape(characters)[2], 0)]])

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((*tokens.shape, None), dtype="string")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"max_characters": self.max_characters}


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
