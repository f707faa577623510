"""Layer that generates sequences with an encoder-decoder, for use inside end-to-end models."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.utils.argument_validation import check_positive


@keras.saving.register_keras_serializable(package=PACKAGE)
class SequenceGenerator(keras.layers.Layer):
    """Generates a target for each source with a trained encoder-decoder, by beam search.

    Shapes: sources as the model takes them -> int `(batch, max_length)` tokens, 0 from the end
        token on, and `(batch,)` log-probabilities; or readings `(batch, max_length, features)`
        alone.
    Masking: that of the model.
    State: none kept between calls.

    Args:
        model: `EncoderDecoderModel`, a sublayer of this one.
        max_length: int, at least 1, maximum number of tokens, or number of readings.
        num_beams: int, at least 1; 1 is greedy search.
        length_penalty: float of at least 0, as in `EncoderDecoderModel.generate`.

    Raises:
        ArgumentError: if `max_length` or `num_beams` is out of range.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        max_length: int = 50,
        num_beams: int = 5,
        length_penalty: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(max_length=max_length, num_beams=num_beams)
        self.model, self.max_length = model, max_length
        self.num_beams, self.length_penalty = num_beams, length_penalty

    def build(self, source_shape):
        pass  # the model is built

    def call(self, source):
        options: dict[str, Any] = {"max_length": self.max_length}
        if self.model.generates_tokens and self.num_beams > 1:
            options |= {"strategy": "beam", "num_beams": self.num_beams}
            options |= {"length_penalty": self.length_penalty}
        result = self.model.decode(source, **options)
        if not self.model.generates_tokens:
            return result.sequences
        if self.num_beams > 1:
            return result.sequences[:, 0], result.scores[:, 0]
        return result.sequences, result.scores

    def compute_mask(self, source, previous_mask=None):
        return None

    def compute_output_spec(self, source):
        batch = source.shape[0]
        if not self.model.generates_tokens:
            shape = (batch, self.max_length, self.model.output_dim)
            return keras.KerasTensor(shape, dtype=self.compute_dtype)
        return (
            keras.KerasTensor((batch, self.max_length), dtype="int32"),
            keras.KerasTensor((batch,), dtype="float32"),
        )

    def get_config(self) -> dict[str, Any]:
        names = ("max_length", "num_beams", "length_penalty")
        config = {name: getattr(self, name) for name in names}
        config["model"] = keras.saving.serialize_keras_object(self.model)
        return super().get_config() | config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SequenceGenerator:
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)
