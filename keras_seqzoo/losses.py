"""Loss functions: normalized mean squared error and label-smoothed sparse crossentropy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, check_rate

__all__ = ["NormalizedMeanSquaredError", "SmoothedCrossentropy"]


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class NormalizedMeanSquaredError(keras.losses.Loss):
    """Mean over features of the squared error divided by the target's variance.

    Readings in °F or bar would dominate a plain mean squared error by their units, and the strength
    of a regularizer would depend on the data set. Divided by the variance, a perfect prediction has
    a loss of 0, and the mean as a constant prediction has a loss of 1.

    Shapes: targets and predictions `(batch, ..., features)` -> one value per step.
    Masking: steps that the prediction's Keras mask excludes do not count.

    Args:
        variance: sequence of float above 0, one per feature; None means 1. `adapt` sets it from
            training targets.
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
        """Set the variance to that of training targets.

        Args:
            y: array `(batch, ..., features)`. A constant feature gets a variance of 1.
            mask: bool array `(batch, time)`, True for real steps, or None.
        """
        steps = np.reshape(y, (-1, y.shape[-1])) if mask is None or y.ndim == 2 else y[mask]
        variance = steps.astype(np.float64).var(axis=0)
        self.variance = np.where(variance > 0, variance, 1.0)

    def call(self, y_true, y_pred):
        squared: Any = ops.square(ops.cast(y_true, y_pred.dtype) - y_pred)
        if self.variance is not None:
            squared = squared / ops.convert_to_tensor(self.variance, y_pred.dtype)
        return ops.mean(squared, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"variance": self.variance}


@keras.saving.register_keras_serializable(package="keras_seqzoo")
class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse categorical crossentropy with label smoothing.

    Equal to `keras.losses.CategoricalCrossentropy(label_smoothing=...)` of one-hot targets.

    Shapes: class ids `(batch, ...)`, probabilities `(batch, ..., classes)` -> one value per step.
    Masking: steps that the prediction's Keras mask excludes do not count.

    Args:
        label_smoothing: float in [0, 1), the probability that is spread evenly over all classes.

    Reference: [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), section 7
    """

    def __init__(
        self, label_smoothing: float = 0.1, name: str = "smoothed_crossentropy", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        check_rate(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        log_probs = ops.log(ops.maximum(y_pred, keras.config.epsilon()))
        class_ids: Any = ops.cast(y_true, "int32")
        true_log_probs: Any = ops.take_along_axis(log_probs, class_ids[..., None], axis=-1)
        mean_log_probs: Any = ops.mean(log_probs, axis=-1)
        smoothing = self.label_smoothing
        return -(1 - smoothing) * true_log_probs[..., 0] - smoothing * mean_log_probs

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"label_smoothing": self.label_smoothing}


def crossentropy(label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Sparse categorical crossentropy of probabilities that is finite at padded steps.

    At padded steps all probabilities may be 0. `keras.losses.SparseCategoricalCrossentropy` is
    finite there on TensorFlow. On other backends it divides probabilities by their sum, and the
    resulting nan remains nan with a weight of 0.

    Args:
        label_smoothing: float in [0, 1), as in `SmoothedCrossentropy`.
    """
    if label_smoothing or keras.backend.backend() != "tensorflow":
        return SmoothedCrossentropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()
