"""Residuals of a reconstruction or a forecast, in units of their size in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo import registry
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import argument_message, check_bool, check_choice

# The output at a step: the same reading from itself, the next reading, or the same reading from its
# whole window. These are also tasks of the zoo, so that `model.task` selects one.
KINDS = ("identity", "forecasting", "reconstruction")


def find_kind(model: Any, kind: str | None) -> str:
    """`kind`, or the `task` of the model if `kind` is None.

    Raises:
        ArgumentError: if `kind` is unknown, or is None and the model has no `task` among `KINDS`.
    """
    if kind is not None:
        check_choice("kind", kind, KINDS)
        return kind
    task = registry.model_task(model)
    if task not in KINDS:
        raise ArgumentError(
            argument_message("kind", f"one of {', '.join(KINDS)} for a model without a task", kind)
            + " Choose by the output at a step: the same reading from itself (identity), the next "
            "reading (forecasting), or the same reading from its whole window (reconstruction)."
        )
    return task


def residual_function(
    model: Any, kind: str, *, alone: bool = False, batch_size: int = model_function.BATCH_SIZE
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from windows `(batch, time, features)` to reading minus output, the same shape.

    The residual is NaN where the model does not predict a reading: a forecaster does not predict
    the first reading of a window.

    Raises:
        ArgumentError: if `alone` is True and `kind` is not "identity".
    """
    check_bool(alone=alone)
    if alone and kind != "identity":
        raise ArgumentError(
            f"`alone` must be False for the kind {kind!r}, whose output depends on other readings. "
            "Received: alone=True."
        )
    function = model_function.as_function(model)

    def residual(x: np.ndarray) -> np.ndarray:
        if alone:
            steps = x.reshape(-1, 1, *x.shape[2:])
            output = model_function.predict_in_batches(function, steps, batch_size)
            output = output.reshape(x.shape) if output.size == x.size else output
        else:
            output = model_function.predict_in_batches(function, x, batch_size)
        if output.shape != x.shape:
            job = "forecast the next reading" if kind == "forecasting" else "reconstruct its input"
            raise DataError(
                f"The model must {job} at every step (return_sequences=True). "
                f"Received: output shape {output.shape} for input shape {x.shape}."
            )
        difference = x.astype(np.float64)
        if kind != "forecasting":
            return difference - output
        difference[:, 1:] -= output[:, :-1]
        difference[:, 0] = np.nan
        return difference

    return residual


def residual_scale(residual: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Root mean squared residual of each feature, `(features,)`; never 0.

    Args:
        residual: `(steps, features)`.
        values: `(steps, features)`, the readings.
    """
    # A residual below round-off carries no information; as a unit it would flag every reading.
    round_off = np.finfo(np.float32).eps * np.abs(values).max(axis=0)
    floor = np.maximum(round_off**2, np.finfo(np.float32).tiny)
    return np.sqrt(np.maximum((residual**2).mean(axis=0), floor))


def root_mean_square(scaled: np.ndarray) -> np.ndarray:
    """Root mean square over features, the last axis; about 1 for residuals as in training."""
    return np.sqrt((scaled**2).mean(axis=-1))
