"""Scheduled sampling: training a decoder on its own predictions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE, PADDING
from keras_seqzoo.utils.argument_validation import check_rate


@keras.saving.register_keras_serializable(package=PACKAGE)
class ScheduledSampling(keras.layers.Layer):
    """Marks the target of an `EncoderDecoderModel` for scheduled sampling; an identity by itself.

    In training, the model runs twice: once with the whole target as input, and once with the
    proportion `rate` of the target's steps replaced by the first pass's predictions. This is an
    approximation, since those predictions depend on true earlier steps. The first step is never
    replaced.

    Shapes: `(batch, time)` tokens or `(batch, time, features)` readings -> the same, unchanged.
    Masking: padding stays padding.
    State: a random generator.

    Args:
        rate: float in [0, 1), proportion of steps that are replaced.
        seed: int or None.

    Raises:
        ArgumentError: if `rate` is not in [0, 1).

    References: [Bengio et al., 2015](https://arxiv.org/abs/1506.03099);
        [Mihaylova & Martins, 2019](https://doi.org/10.18653/v1/P19-2049), section 3, two passes
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        check_rate(rate=rate)
        self.rate, self.seed = rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, target):
        return target

    def mix(self, target, predictions):
        """Replaces some steps of the target by predictions.

        Args:
            target: `(batch, time)` or `(batch, time, features)`, input of the decoder.
            predictions: `(batch, time, classes)`, probabilities of the next token at each step; or
                the next readings.
        """
        predictions = ops.stop_gradient(predictions)
        is_tokens = len(target.shape) == 2
        if is_tokens:
            predictions = self._draw_tokens(predictions, target)
        predictions = ops.cast(predictions, target.dtype)[:, :-1]
        shifted = ops.concatenate([target[:, :1], predictions], axis=1)
        replaced = keras.random.uniform(ops.shape(target)[:2], seed=self.seed_generator) < self.rate
        replaced = ops.logical_and(replaced, ops.arange(ops.shape(target)[1]) > 0)
        if is_tokens:
            replaced = ops.logical_and(replaced, ops.not_equal(target, PADDING))
        else:
            replaced = replaced[..., None]
        return ops.where(replaced, shifted, target)

    def _draw_tokens(self, probabilities, target):
        classes = probabilities.shape[-1]
        # Padding is never drawn: a step that became padding would not be trained.
        is_padding = ops.arange(classes) == PADDING
        log_probs = ops.where(is_padding, -1e9, ops.log(probabilities + 1e-9))
        log_probs = ops.reshape(log_probs, (-1, classes))
        tokens = keras.random.categorical(log_probs, 1, seed=self.seed_generator)
        return ops.reshape(ops.cast(tokens, target.dtype), ops.shape(target))

    def compute_mask(self, target, previous_mask=None):
        return previous_mask

    def compute_output_spec(self, target):
        return keras.KerasTensor(target.shape, dtype=target.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
