"""A model that is trained by the negative log-likelihood of its CRF layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.crf.layer import (
    LinearChainCRF,
    request_scores,
    requested_outputs,
)
from keras_seqzoo.layers.masking import PACKAGE, ApplyMask
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import (
    argument_message,
)


@keras.saving.register_keras_serializable(package=PACKAGE)
class CRFModel(keras.Model):
    """A model that ends in a `LinearChainCRF` and is trained by its negative log-likelihood.

    The loss is the mean over real steps of `LinearChainCRF.step_losses`, weighted by
    `sample_weight` `(batch,)` or `(batch, time)` as in Keras. `y` is int `(batch, time)`; tag ids
    of real steps must be in [0, classes). Metrics receive the decoded tags one-hot, `(batch, time,
    classes)`, with the mask, so that training with metrics decodes each batch. Keras's
    `class_weight` supports one class per row only; use a `sample_weight` of each step instead.

    Shapes: those of `inputs` -> the most probable tag ids `(batch, time)`, int32.
    Masking: that of the CRF layer.
    State: none kept between calls.

    Args:
        inputs: as in `keras.Model`.
        outputs: the output of a `LinearChainCRF`.
        name: str or None.
        **kwargs: those of `keras.Model`.

    Raises:
        ArgumentError: if `outputs` is not the output of a `LinearChainCRF`.

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
                argument_message("outputs", "the output of one LinearChainCRF layer", outputs, hint)
            )

    def compile(self, optimizer="rmsprop", loss=None, **options: Any) -> None:
        """Configure training as `keras.Model.compile` does, without a loss.

        Args:
            optimizer: as in `keras.Model.compile`.
            loss: None; the loss is the negative log-likelihood of the tags.
            **options: those of `keras.Model.compile`.

        Raises:
            ArgumentError: if `loss` is not None.
        """
        if loss is not None:
            hint = "The loss is the negative log-likelihood of the tags. Leave `loss` out."
            raise ArgumentError(argument_message("loss", "None", loss, hint))
        self._decodes = bool(options.get("metrics") or options.get("weighted_metrics"))
        super().compile(optimizer, **options)

    def compile_from_config(self, config):
        # The method of Keras rejects models that override `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None, mask=None):
        tags = super().call(inputs, training=training, mask=mask)
        outputs = requested_outputs(_crf(self))
        return tags if outputs is None else outputs

    def probabilities(self, inputs, *, training: bool = False):
        """Marginal probability of each tag at each step.

        Shapes: those of the model's inputs -> `(batch, time, classes)`.
        Masking: padded steps get 0.
        State: none.

        Args:
            inputs: the inputs of the model.
            training: bool, whether dropout is active.
        """
        crf = _crf(self)
        with request_scores(crf, decode=False):
            outputs = self(inputs, training=training)
        return crf.marginals(outputs["scores"], outputs.get("mask"))

    def train_step(self, *args):
        with request_scores(_crf(self), decode=self._decodes):
            return super().train_step(*args)

    def test_step(self, *args):
        with request_scores(_crf(self), decode=self._decodes):
            return super().test_step(*args)

    def compute_loss(self, x=None, y=None, y_pred: Any = None, sample_weight=None, training=True):
        mask = y_pred.get("mask")
        losses = _crf(self).step_losses(y_pred["scores"], y, mask)
        mean = _Mean(name="mean_over_steps", dtype=losses.dtype)
        loss = mean(losses, losses, _step_weights(losses, sample_weight, mask))
        if self.losses:
            loss = loss + super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._decodes:
            y_pred = self._one_hot_tags(y_pred)
            sample_weight = _as_step_weights(sample_weight, y_pred[..., 0])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _one_hot_tags(self, y_pred):
        if not isinstance(y_pred, dict):  # Keras builds metrics with the output of the model
            y_pred = {"tags": y_pred}
        tags = ops.one_hot(ops.cast(y_pred["tags"], "int32"), _crf(self).classes, dtype="float32")
        if "mask" not in y_pred:
            return tags
        return ApplyMask(name="mask", dtype="float32")([tags, y_pred["mask"]])


def _crf(model):
    # An attribute would save the weights of the layer under the attribute's name.
    return compat.keras_history(model.outputs[0]).operation


class _Mean(keras.losses.Loss):
    """Keras's weighted reduction of losses that are passed as `y_pred`."""

    def call(self, y_true, y_pred):
        return y_pred


def _step_weights(losses, sample_weight, mask=None):
    """Weights and mask combined as in Keras: the weighted sum is divided by the real steps."""
    weights = _as_step_weights(sample_weight, losses)
    if mask is None:
        return weights
    real = ops.cast(mask, losses.dtype)
    total = ops.cast(ops.prod(ops.convert_to_tensor(ops.shape(real), "int32")), losses.dtype)
    real = real * ops.divide_no_nan(total, ops.sum(real))
    return real if weights is None else real * weights


def _as_step_weights(sample_weight, like):
    """Sample weights of rows or steps as `(batch, time)`, the shape of `like`, or None.

    They are not left to broadcast: on PyTorch, Keras multiplies a mask into weights in place.
    """
    if sample_weight is None:
        return None
    weights = ops.cast(sample_weight, like.dtype)
    return ops.ones_like(like) * (weights if len(weights.shape) > 1 else weights[:, None])
