"""Several models that say one answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.generation.generate import GenerationMixin
from keras_seqzoo.layers.seq2seq.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.utils.argument_validation import check_instance, check_sequence


class Ensemble(GenerationMixin):
    """Says what the members of an ensemble say together: the mean of their probabilities at every
    step, or of their readings. `generate` is that of `EncoderDecoderModel`.

    Members that differ in nothing but the seed that they were trained with make fewer mistakes
    together than each of them alone.

    Args:
        models: list of `EncoderDecoderModel`, at least one, that take and say the same.

    Raises:
        ArgumentError: if they do not.

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
            (model.generates_tokens, model.width, model.inputs[0].shape, model.source_width)
            for model in self.models
        }
        if len(kinds) != 1:
            raise ArgumentError(
                "`models` must be at least one, and all take and say the same. Received: "
                f"{len(self.models)} models of {len(kinds)} kinds."
            )
        first = self.models[0]
        self.generates_tokens, self.width = first.generates_tokens, first.width
        self.value_dtype = first.value_dtype
        self.looks = all(model.looks for model in self.models)

    def encode(self, source):
        pairs = [model.encode(source) for model in self.models]
        return tuple(one for one, _ in pairs), tuple(state for _, state in pairs)

    def step(self, before, state, source):
        steps = [
            model.step(before, *one) for model, *one in zip(self.models, state, source, strict=True)
        ]
        said = ops.stack([one for one, _, _ in steps])
        if self.generates_tokens:
            said = ops.logsumexp(said, axis=0) - float(np.log(len(self.models)))
        else:
            said = ops.mean(said, axis=0)
        weights = None
        if self.looks:
            weights = ops.mean(ops.stack([one for _, _, one in steps]), axis=0)
        return said, tuple(after for _, after, _ in steps), weights

    def real_steps(self, looked_at):
        return self.models[0].real_steps(looked_at[0])

    def checked_source(self, source) -> tuple[np.ndarray, int]:
        return self.models[0].checked_source(source)
