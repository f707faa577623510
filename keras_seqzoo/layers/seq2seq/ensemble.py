"""Ensemble of encoder-decoders: decoding by the mean of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.generation.generate import GenerationMixin
from keras_seqzoo.layers.seq2seq.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.utils.argument_validation import check_instance, check_sequence


class Ensemble(GenerationMixin):
    """Generates with several encoder-decoders: the mean of their predictions at every step.

    Token probabilities are averaged, or readings. `generate` is that of `EncoderDecoderModel`.
    Models that differ in the seed of their training alone make fewer errors together than each of
    them.

    Shapes: those of each model.
    Masking: that of the models.
    State: none kept between calls.

    Args:
        models: list of `EncoderDecoderModel`, at least one, with the same inputs and outputs.

    Raises:
        ArgumentError: if they differ in their inputs or outputs.

    Example:

    >>> import keras_seqzoo as zoo
    >>> from keras_seqzoo import layers
    >>> arguments = {"source_vocabulary_size": 9, "target_vocabulary_size": 7, "units": 4}
    >>> models = [zoo.get("gru_encoder_decoder", **arguments) for _ in range(2)]
    >>> layers.Ensemble(models).generate(np.ones((3, 5), "int32"), max_length=4).sequences.shape
    (3, 4)

    Reference: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), section 3.6
    """

    def __init__(self, models: Sequence[EncoderDecoderModel]):
        check_sequence(models=models)
        self.models = list(models)
        for model in self.models:
            check_instance(EncoderDecoderModel, models=model)
        kinds = {
            (model.generates_tokens, model.output_dim, model.inputs[0].shape, model.source_dim)
            for model in self.models
        }
        if len(kinds) != 1:
            raise ArgumentError(
                "`models` must be at least one, all with the same inputs and outputs. Received: "
                f"{len(self.models)} models of {len(kinds)} kinds."
            )
        first = self.models[0]
        self.generates_tokens, self.output_dim = first.generates_tokens, first.output_dim
        self.readings_dtype = first.readings_dtype
        self.has_attention = all(model.has_attention for model in self.models)

    def encode(self, source: Any) -> tuple[tuple, tuple]:
        memories, states = zip(*(model.encode(source) for model in self.models), strict=True)
        return memories, states

    def step(self, inputs: Any, state: tuple, memory: tuple) -> tuple[Any, tuple, Any]:
        steps = [
            model.step(inputs, *arguments)
            for model, *arguments in zip(self.models, state, memory, strict=True)
        ]
        predictions, states, weights = zip(*steps, strict=True)
        prediction = ops.stack(predictions)
        if self.generates_tokens:
            prediction = ops.logsumexp(prediction, axis=0) - float(np.log(len(self.models)))
        else:
            prediction = ops.mean(prediction, axis=0)
        attention = ops.mean(ops.stack(weights), axis=0) if self.has_attention else None
        return prediction, states, attention

    def source_mask(self, memory: tuple) -> Any:
        return self.models[0].source_mask(memory[0])

    def prepare_source(self, source: Any) -> tuple[np.ndarray, int]:
        return self.models[0].prepare_source(source)
