"""An encoder-decoder that decodes, as a layer: its answers in place of what comes next."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.utils.argument_validation import check_positive


@keras.saving.register_keras_serializable(package=PACKAGE)
class SequenceGenerator(keras.layers.Layer):
    """What a network says to each source, found by a beam; its weights are trained elsewhere.

    Shapes: sources as the network takes them -> int `(batch, max_length)` tokens, 0 after the end,
        and `(batch,)` log-probabilities; or readings `(batch, max_length, features)` alone.
    Masking: the network's own.
    State: none kept between calls.

    Args:
        network: `EncoderDecoderModel`.
        max_length: int, at least 1, tokens at most, or readings.
        num_beams: int, at least 1; 1 says the most probable token each time.
        length_penalty: float of at least 0, as of `EncoderDecoderModel.generate`.
    """

    def __init__(
        self,
        network: EncoderDecoderModel,
        max_length: int = 50,
        num_beams: int = 5,
        length_penalty: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(max_length=max_length, num_beams=num_beams)
        self.network, self.max_length = network, max_length
        self.num_beams, self.length_penalty = num_beams, length_penalty

    def build(self, source_shape):
        pass  # the network is built

    def call(self, source):
        options: dict[str, Any] = {"max_length": self.max_length}
        if self.network.generates_tokens and self.num_beams > 1:
            options |= {"strategy": "beam", "width": self.num_beams}
            options |= {"length_penalty": self.length_penalty}
        said = self.network.say(source, **options)
        if not self.network.generates_tokens:
            return said.sequences
        if self.num_beams > 1:
            return said.sequences[:, 0], said.scores[:, 0]
        return said.sequences, said.scores

    def compute_mask(self, source, previous_mask=None):
        return None

    def compute_output_spec(self, source):
        rows = source.shape[0]
        if not self.network.generates_tokens:
            features = self.network.output_shape[-1]
            return keras.KerasTensor((rows, self.max_length, features), dtype=self.compute_dtype)
        return (
            keras.KerasTensor((rows, self.max_length), dtype="int32"),
            keras.KerasTensor((rows,), dtype="float32"),
        )

    def get_config(self) -> dict[str, Any]:
        names = ("max_length", "num_beams", "length_penalty")
        network = keras.saving.serialize_keras_object(self.network)
        own = {name: getattr(self, name) for name in names}
        return super().get_config() | own | {"network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SequenceGenerator:
        network = keras.saving.deserialize_keras_object(config.pop("network"))
        return cls(network, **config)
