"""Losses that Keras lacks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, check_rate


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class NormalizedMeanSquaredError(keras.losses.Loss):
    """Mean over features of the squared error divided by the target's variance.

    Raw readings are in °F or bar; a plain mean squared error would weigh them by their units, and
    a regularizer's strength would mean something else for every data set. Divided by the variance,
    0 is perfect and 1 is what the mean as a constant answer gets.

    Shapes: `(batch, ..., features)` twice -> one value per step.
    Masking: steps that the prediction's mask leaves out do not count.

    Args:
        variance: sequence of float above 0, one per feature; None until it is known, which
            counts as 1. A search sets it from its training rows.
    """

    def __init__(self, variance=None, name: str = "normalized_mean_squared_error", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.variance = variance

    @property
    def variance(self) -> list[float] | None:
        """The target's variance, one number per feature."""
        return self._variance

    @variance.setter
    def variance(self, variance) -> None:
        variance = None if variance is None else [float(value) for value in variance]
        if variance is not None and not all(value > 0 for value in variance):
            raise ArgumentError(argument_message("variance", "above 0 for every feature", variance))
        self._variance = variance

    def adapt(self, y, mask=None) -> None:
        """Learns the variance of training targets.

        Args:
            y: array `(batch, ..., features)`. A constant feature is divided by nothing.
            mask: bool array `(batch, time)`, True for steps that count, or None.
        """
        steps = np.reshape(y, (-1, y.shape[-1])) if mask is None or y.ndim == 2 else y[mask]
        variance = steps.astype(np.float64).var(axis=0)
        self.variance = np.where(variance > 0, variance, 1.0)

    def call(self, y_true, y_pred):
        squared = ops.square(ops.cast(y_true, y_pred.dtype) - y_pred)
        if self.variance is not None:
            squared = squared / ops.convert_to_tensor(self.variance, y_pred.dtype)
        return ops.mean(squared, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"variance": self.variance}


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class SmoothedCrossentropy(keras.losses.Loss):
    """Crossentropy against numbers of classes, part of which is spread over all classes.

    What `keras.losses.CategoricalCrossentropy(label_smoothing=...)` gives for one-hot targets,
    without making them.

    Shapes: int `(batch, ...)` and `(batch, ..., classes)` -> one value per step.
    Masking: steps that the prediction's mask leaves out do not count.

    Args:
        label_smoothing: float in [0, 1), the part that is spread.

    Reference: [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), section 7
    """

    def __init__(
        self, label_smoothing: float = 0.1, name: str = "smoothed_crossentropy", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        check_rate(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        logs = ops.log(ops.maximum(y_pred, keras.config.epsilon()))
        numbers = ops.cast(y_true, "int32")[..., None]
        said = ops.take_along_axis(logs, numbers, axis=-1)[..., 0]
        part = self.label_smoothing
        return -(1 - part) * said - part * ops.mean(logs, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"label_smoothing": self.label_smoothing}


def crossentropy(label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Of probabilities against numbers of classes, finite where padded steps have none.

    Keras's own is, on TensorFlow. Elsewhere it divides probabilities by their sum, and what is no
    number stays none with a weight of 0.

    Args:
        label_smoothing: as of `SmoothedCrossentropy`.
    """
    if label_smoothing or keras.backend.backend() != "tensorflow":
        return SmoothedCrossentropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()
