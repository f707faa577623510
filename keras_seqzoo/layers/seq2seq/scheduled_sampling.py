"""Training on what a model says itself."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.layers.masking import PACKAGE, PADDING
from keras_seqzoo.utils.argument_validation import check_rate


@keras.saving.register_keras_serializable(package=PACKAGE)
class ScheduledSampling(keras.layers.Layer):
    """Marks where a target goes into an `EncoderDecoderModel`, to be mixed with what that says.

    In training, the model says the whole target once with every step given; then a share of the
    steps are replaced by what was said of them, and the model says it again. That takes two passes
    in place of one for each step, and is an approximation: what a step says has seen the true
    steps before it. The first step stays as it is.

    Shapes: `(batch, time)` tokens or `(batch, time, features)` readings -> the same, unchanged.
    Masking: padding stays padding.
    State: a random generator.

    Args:
        rate: float in [0, 1), the share.
        seed: int or None.

    References: [Bengio et al., 2015](https://arxiv.org/abs/1506.03099);
        [Mihaylova & Martins, 2019](https://doi.org/10.18653/v1/P19-2049), section 3, of two passes
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        check_rate(rate=rate)
        self.rate, self.seed = rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, target):
        return target

    def mixed(self, target, said):
        """The target with some of its steps replaced.

        Args:
            target: `(batch, time)` or `(batch, time, features)`, what was given so far.
            said: `(batch, time, classes)`, probabilities of what comes next, or the readings.
        """
        said = ops.stop_gradient(said)
        if len(target.shape) == 2:
            # Padding is no answer: a step that becomes padding would not be trained.
            logs = ops.where(ops.arange(said.shape[-1]) == PADDING, -1e9, ops.log(said + 1e-9))
            flat = ops.reshape(logs, (-1, said.shape[-1]))
            drawn = keras.random.categorical(flat, 1, seed=self.seed_generator)
            said = ops.reshape(ops.cast(drawn, target.dtype), ops.shape(target))
        before = ops.concatenate([target[:, :1], ops.cast(said, target.dtype)[:, :-1]], axis=1)
        chosen = keras.random.uniform(ops.shape(target)[:2], seed=self.seed_generator) < self.rate
        chosen = ops.logical_and(chosen, ops.arange(ops.shape(target)[1]) > 0)
        if len(target.shape) == 2:
            chosen = ops.logical_and(chosen, ops.not_equal(target, PADDING))
        else:
            chosen = chosen[..., None]
        return ops.where(chosen, before, target)

    def compute_mask(self, target, previous_mask=None):
        return previous_mask

    def compute_output_spec(self, target):
        return keras.KerasTensor(target.shape, dtype=target.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
