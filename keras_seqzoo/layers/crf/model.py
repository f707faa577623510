"""A model whose loss is that of its CRF layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.crf.layer import REQUESTED, LinearChainCRF, request_scores
from keras_seqzoo.layers.masking import PACKAGE, ApplyMask
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import (
    argument_message,
)


@keras.saving.register_keras_serializable(package=PACKAGE)
class CRFModel(keras.Model):
    """A model that ends in a `LinearChainCRF` and is trained by its likelihood.

    The loss is the mean over real steps of `LinearChainCRF.step_losses`, with `sample_weight`
    `(batch,)` or `(batch, time)` multiplied in as Keras does. `y` is int `(batch, time)`; tags of
    real steps must be in [0, classes). Metrics get the predicted tags one-hot, `(batch, time,
    classes)`, and the mask; in training they cost a decoding of each batch. Keras's `class_weight`
    knows one class a row; give `sample_weight` for each step instead.

    Shapes: those of `inputs` -> `(batch, time)`, int32, the most probable tags.
    Masking: that of the CRF layer.
    State: none kept between calls.

    Args:
        inputs: as of `keras.Model`.
        outputs: what a `LinearChainCRF` gave.
        name: str or None.
        **kwargs: as of `keras.Model`.

    Raises:
        ArgumentError: if `outputs` does not come from a `LinearChainCRF`.

    Example:

    >>> from keras_seqzoo.layers import CRFModel, LinearChainCRF
    >>> inputs = keras.Input((None, 4))
    >>> model = CRFModel(inputs, LinearChainCRF(3)(keras.layers.Dense(3)(inputs)))
    >>> model.compile("adam", metrics=["accuracy"])
    >>> x, y = np.ones((8, 5, 4)), np.ones((8, 5), int)
    >>> _ = model.fit(x, y, verbose=0)
    >>> model.predict(x, verbose=0).shape
    (8, 5)
    """

    def __init__(self, inputs, outputs, name=None, **kwargs: Any):
        super().__init__(inputs, outputs, name=name, **kwargs)
        if len(self.outputs) != 1 or not isinstance(_crf(self), LinearChainCRF):
            hint = "Call the layer last."
            raise ArgumentError(
                argument_message("outputs", "what one LinearChainCRF layer gave", outputs, hint)
            )

    def compile(self, optimizer="rmsprop", loss=None, **options: Any) -> None:
        """As `keras.Model.compile`, without a loss: the CRF is the loss.

        Raises:
            ArgumentError: if `loss` is given.
        """
        if loss is not None:
            hint = "The loss is the negative log-likelihood of the tags; leave this out."
            raise ArgumentError(argument_message("loss", "None", loss, hint))
        self._decodes = bool(options.get("metrics") or options.get("weighted_metrics"))
        super().compile(optimizer, **options)

    def compile_from_config(self, config):
        # Keras's own refuses a model with a `compile` of its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None, mask=None):
        asked = REQUESTED.get()
        if asked is None or asked["layer"] is not _crf(self):
            return super().call(inputs, training=training, mask=mask)
        super().call(inputs, training=training, mask=mask)
        return asked.pop("found")

    def probabilities(self, inputs, *, training: bool = False):
        """The probability of each tag at each step, `(batch, time, classes)`, 0 at padded steps.

        Args:
            inputs: as of the model itself.
            training: bool, with dropout or without.
        """
        crf = _crf(self)
        with request_scores(crf, tags=False):
            found = self(inputs, training=training)
        return crf.marginals(found["scores"], found.get("mask"))

    def train_step(self, *args):
        with request_scores(_crf(self), tags=self._decodes):
            return super().train_step(*args)

    def test_step(self, *args):
        with request_scores(_crf(self), tags=self._decodes):
            return super().test_step(*args)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mask = y_pred.get("mask")
        losses = _crf(self).step_losses(y_pred["scores"], y, mask)
        mean = _GivenLosses(name="mean_over_steps", dtype=losses.dtype)
        loss = mean(losses, losses, _step_weights(losses, sample_weight, mask))
        if self.losses:
            loss = loss + super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._decodes:
            y_pred = self._one_hot_tags(y_pred)
            sample_weight = _of_steps(sample_weight, y_pred[..., 0])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _one_hot_tags(self, y_pred):
        if not isinstance(y_pred, dict):  # Keras builds metrics on what the model itself gives
            y_pred = {"tags": y_pred}
        tags = ops.one_hot(ops.cast(y_pred["tags"], "int32"), _crf(self).classes, dtype="float32")
        if "mask" not in y_pred:
            return tags
        return ApplyMask(name="mask", dtype="float32")([tags, y_pred["mask"]])


def _crf(model):
    # Not an attribute: the layer's weights would be saved under its name.
    return compat.keras_history(model.outputs[0]).operation


class _GivenLosses(keras.losses.Loss):
    """Keras's reduction, for losses that are there already."""

    def call(self, y_true, y_pred):
        return y_pred


def _step_weights(losses, sample_weight, mask=None):
    """What Keras makes of weights and a mask: the weighted sum over the number of real steps."""
    weights = _of_steps(sample_weight, losses)
    if mask is None:
        return weights
    real = ops.cast(mask, losses.dtype)
    total = ops.cast(ops.prod(ops.convert_to_tensor(ops.shape(real), "int32")), losses.dtype)
    real = real * ops.divide_no_nan(total, ops.sum(real))
    return real if weights is None else real * weights


def _of_steps(sample_weight, like):
    """Weights of rows or of steps as `(batch, time)`, as `like` is, or None.

    In full: on PyTorch, Keras multiplies a mask into weights where they are.
    """
    if sample_weight is None:
        return None
    weights = ops.cast(sample_weight, like.dtype)
    return ops.ones_like(like) * (weights if len(weights.shape) > 1 else weights[:, None])
