"""Identity error: normalized mean squared error between output and input."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_seqzoo.errors import DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.array_validation import as_array
from keras_seqzoo.utils.masks import last_real_step


def identity_error(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    mask: Any = None,
    batch_size: int = model_function.BATCH_SIZE,
) -> float:
    """Mean over features of the mean squared error divided by the target's variance.

    0 is the identity; the mean as a constant output has an error of 1.

    Shapes: inputs are `(batch, time, features)`; the output has the same shape, or is the last step
        `(batch, features)`.
    Masking: only real steps count, by `mask` or the model's own mask. A last-step output is
        compared with the last real step.
    State: none.

    Args:
        model: any Keras model, a loaded SavedModel, or a function from array to array.
        x: array of inputs.
        y: the target, of the shape of the output; None for `x` itself.
        mask: bool array `(batch, time)`, True for real steps.
        batch_size: int, rows per call of the model.

    Returns:
        float, at least 0; nan if the output is not finite. Features with a constant target are left
        out.

    Raises:
        DataError: if the shapes of target and output differ, or no target feature varies.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 2))
    >>> zoo.metrics.identity_error(lambda x: x, x)
    0.0
    """
    x, mask = model_function.prepare_inputs(model, x, mask)
    outputs = model_function.predict_in_batches(model_function.as_function(model), x, batch_size)
    output, last = model_function.align_output(model, outputs, x.shape[1], None)
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    target = _target(x, y, real, last)
    if target.shape != output.shape:
        raise DataError(
            "The target must have the shape of the output. Received: target "
            f"{target.shape}, output {output.shape}."
        )
    if last:
        real = real.any(axis=1)
    if not real.any():
        raise DataError("`x` must have real steps. Received: padding only.")
    return normalized_error(target[real], output[real])


def normalized_error(target: np.ndarray, output: np.ndarray) -> float:
    """Mean over features of MSE / variance of two arrays `(steps, features)`.

    Raises:
        DataError: if no feature of the target varies.
    """
    variance = target.var(axis=0)
    varies = variance > (np.finfo(np.float32).eps * np.abs(target).max(axis=0, initial=0)) ** 2
    if not varies.any():
        raise DataError(
            "The target must vary in some feature, because the error is divided by its variance. "
            f"Received: {len(target)} real steps, all equal."
        )
    error = ((target - output) ** 2).mean(axis=0)
    return float((error[varies] / variance[varies]).mean())


def _target(x: np.ndarray, y: Any, real: np.ndarray, last: bool) -> np.ndarray:
    if y is not None:
        y = as_array("y", y)
        if y.dtype.kind not in "biuf" or 0 in y.shape:
            raise DataError(
                f"`y` must be a non-empty array of real numbers. Received: shape {y.shape}, dtype "
                f"{y.dtype}."
            )
        y = y.astype(np.float64)
        return y if last else y.reshape(*y.shape[:2], -1)
    x = x.astype(np.float64).reshape(*x.shape[:2], -1)
    if last:
        return x[np.arange(len(x)), last_real_step(real)]
    return x
