"""Mask layers: computing the mask of padded steps and applying it."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, check_mask_value

PACKAGE = "keras_seqzoo"  # of the registered names of layers
PADDING = 0  # token id


@keras.saving.register_keras_serializable(package=PACKAGE)
class StepMask(keras.layers.Layer):
    """Computes the mask of raw inputs: a step is padding if all its features are `mask_value`.

    `keras.layers.Masking` attaches its mask to the tensor and does not support NaN, which is not
    equal to itself. This layer returns the mask, to be passed on as `mask=`.

    Shapes: `(batch, time, features)` -> `(batch, time)`, bool, True for real steps.
    Masking: the output is the mask. With an input mask, a step is real if it is real in both.
    State: none.

    Args:
        mask_value: float that fills padded steps. NaN never collides with a reading.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import StepMask
    >>> bool(StepMask(float("nan"))(np.array([[[1.0], [np.nan]]]))[0, 1])
    False
    """

    def __init__(self, mask_value: float, **kwargs: Any):
        # Raw readings are compared: under a mixed policy they would be rounded to float16.
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        self.mask_value = float(mask_value)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if math.isnan(self.mask_value):
            padding = ops.isnan(inputs)
        else:
            padding = ops.equal(inputs, ops.cast(self.mask_value, inputs.dtype))
        real = ops.logical_not(ops.all(padding, axis=-1))
        return real if mask is None else ops.logical_and(real, mask)

    def compute_mask(self, inputs, previous_mask=None):
        return self.call(inputs, previous_mask)

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(inputs.shape[:-1], dtype="bool")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mask_value": self.mask_value}


@keras.saving.register_keras_serializable(package=PACKAGE)
class AllSteps(keras.layers.Layer):
    """Computes the mask of inputs without padding, for layers that need a mask.

    Shapes: `(batch, time, ...)` -> `(batch, time)`, bool, True everywhere.
    Masking: the output is the mask.
    State: none.

    Example:

    >>> from keras_seqzoo.layers import AllSteps
    >>> AllSteps()(np.zeros((1, 2, 3))).numpy().tolist()
    [[True, True]]
    """

    def call(self, inputs):
        return ops.ones(ops.shape(inputs)[:2], "bool")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape[:2], dtype="bool")


@keras.saving.register_keras_serializable(package=PACKAGE)
class ApplyMask(keras.layers.Layer):
    """Sets padded steps to 0 and attaches the mask to the output, for losses and metrics.

    From Keras 3.16 on, recurrent layers do not propagate their mask, and a loss after them would
    include padding. Zeros keep NaN padding out of products and gradients.

    Shapes: `[(batch, time, features), (batch, time)]` -> `(batch, time, features)`.
    Masking: the second input is the mask, True for real steps; the output carries it.
    State: none.

    Args:
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> from keras_seqzoo.layers import ApplyMask
    >>> x, mask = np.array([[[1.0], [5.0]]]), np.array([[True, False]])
    >>> ApplyMask()([x, mask]).numpy().tolist()
    [[[1.0], [0.0]]]
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        values, mask = inputs
        return ops.where(ops.expand_dims(mask, -1), values, ops.zeros_like(values))

    def compute_mask(self, inputs, previous_mask=None):
        return inputs[1]

    def compute_output_spec(self, inputs):
        values, _ = inputs
        return keras.KerasTensor(values.shape, dtype=values.dtype)


def step_mask(inputs, mask_value: float | None, *, name: str = "mask"):
    """Compute the mask of raw inputs with `StepMask`; padding is never guessed.

    Shapes: `(batch, time, features)` -> `(batch, time)`, bool, True for real steps.
    Masking: the result is the mask, or None if `mask_value` is None.
    State: none.

    Args:
        inputs: tensor.
        mask_value: float that fills padded steps, or None.
        name: str, the name of the layer.

    Raises:
        ArgumentError: if `mask_value` is neither None nor a number in the range of float32 (NaN and
            infinity are allowed), or if `inputs` has no time axis.
    """
    if mask_value is None:
        return None
    check_mask_value(mask_value)
    if float(np.finfo(np.float32).max) < abs(mask_value) != math.inf:
        raise ArgumentError(
            argument_message("mask_value", "within the range of float32", mask_value)
        )
    if len(getattr(inputs, "shape", ())) < 2:
        raise ArgumentError(argument_message("inputs", "a tensor (batch, time, features)", inputs))
    return StepMask(mask_value, name=name)(inputs)


def mask_value_of(model: keras.Model) -> float | None:
    """The `mask_value` of the first `StepMask` layer of a model, or None without one."""
    values = (layer.mask_value for layer in model.layers if isinstance(layer, StepMask))
    return next(values, None)


def input_mask(model: keras.Model, x):
    """Compute the mask that the layers after the first input of a model give its values.

    Shapes: `(batch, time, ...)` -> `(batch, time)`, bool, True for real steps; or None if no layer
        masks the input.

    Args:
        model: Functional or Sequential model.
        x: tensor of values of the first input.
    """
    for layer in model.layers:
        try:
            takes_input = layer.input is model.inputs[0]
        except (AttributeError, ValueError):  # never called, or called more than once
            continue
        if takes_input and not isinstance(layer, keras.layers.InputLayer):
            mask = layer.compute_mask(x, None)
            if mask is not None:
                return ops.cast(mask, "bool")
    return None
