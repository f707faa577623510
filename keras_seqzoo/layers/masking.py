"""Padding: which steps are real, and a mask that arrives wherever it is needed."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import argument_message, check_mask_value

PACKAGE = "keras_seqzoo"  # of the names that layers are registered by
PADDING = 0  # token id


@keras.saving.register_keras_serializable(package=PACKAGE)
class StepMask(keras.layers.Layer):
    """Tells real steps from padding, on raw input: a step is padding if all its features say so.

    `keras.layers.Masking` hides its mask in the tensor and never finds NaN, which equals nothing,
    itself included. This layer returns the mask, to be passed on as `mask=`.

    Shapes: `(batch, time, features)` -> `(batch, time)`, bool, True for real steps.
    Masking: makes the mask; a mask that comes with the input is kept where it says padding.
    State: none.

    Args:
        mask_value: number that fills padded steps; NaN is allowed and collides with no reading.

    Example:

    >>> from keras_seqzoo.layers import StepMask
    >>> bool(StepMask(float("nan"))(np.array([[[1.0], [np.nan]]]))[0, 1])
    False
    """

    def __init__(self, mask_value: float, **kwargs: Any):
        # Raw readings, compared as they are: float16 would round them under a mixed policy.
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
    """The mask of input without padding, for what takes the length of its answer from a mask.

    Shapes: `(batch, time, ...)` -> `(batch, time)`, bool, True throughout.
    Masking: makes the mask.
    State: none.
    """

    def call(self, inputs):
        return ops.ones(ops.shape(inputs)[:2], "bool")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape[:2], dtype="bool")


@keras.saving.register_keras_serializable(package=PACKAGE)
class ApplyMask(keras.layers.Layer):
    """Sets padded steps to 0 and lets the tensor carry the mask, for losses and metrics.

    From Keras 3.16 on, recurrent layers no longer pass their mask on; a loss behind them would
    count padding. Zeros keep NaN padding out of every product and every gradient.

    Shapes: `[(batch, time, features), (batch, time)]` -> `(batch, time, features)`.
    Masking: the second input is the mask, True for real steps; the output carries it.
    State: none.
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
    """The mask of raw `inputs`, or None if `mask_value` is None: padding is never guessed.

    Raises:
        ArgumentError: if `mask_value` is neither None nor a number that float32 holds; NaN and
            infinity are numbers here. Or if `inputs` have no axis of time.
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
    """What marks padded steps of a model's readings; None where nothing does."""
    found = [layer.mask_value for layer in model.layers if isinstance(layer, StepMask)]
    return found[0] if found else None


def input_mask(model: keras.Model, x):
    """Real steps `(batch, time)` of `x`, as the first layer behind the input masks it, or None.

    Args:
        model: Functional or Sequential.
        x: tensor, what goes into its first input.
    """
    for layer in model.layers:
        try:
            sees_input = layer.input is model.inputs[0]
        except (AttributeError, ValueError):  # called never, or more than once
            continue
        if sees_input and not isinstance(layer, keras.layers.InputLayer):
            found = layer.compute_mask(x, None)
            if found is not None:
                return ops.cast(found, "bool")
    return None
