"""What a reading has beyond what a model says of it, in units of what is usual in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo import registry
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import argument_message, check_bool, check_choice

# What the output at a step is: this reading from itself, the next one, this one from its window.
# These are tasks of entries, so that an entry says which it is.
KINDS = ("identity", "forecasting", "reconstruction")


def find_kind(model: Any, kind: str | None) -> str:
    """`kind`, or the task of the entry that the model is called after.

    Raises:
        ArgumentError: if there is no such kind, or nothing says which it is.
    """
    if kind is not None:
        check_choice("kind", kind, KINDS)
        return kind
    name = getattr(model, "name", None)
    task = registry.get_entry(name).task if name in registry.list_models() else None
    if task not in KINDS:
        raise ArgumentError(
            argument_message("kind", f"one of {', '.join(KINDS)} for a model without one", kind)
            + " Say what the output at a step is: the reading of that step from itself, the next "
            "reading, or the reading given back from its whole window."
        )
    return task


def residuals(
    model: Any, kind: str, *, alone: bool = False, batch_size: int = model_function.BATCH_SIZE
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from windows `(batch, time, features)` to reading minus output, the same shape.

    NaN where nothing is said of a reading: the first of a window has no forecast.

    Raises:
        ArgumentError: if `alone` is asked of a model that needs other readings.
    """
    check_bool(alone=alone)
    if alone and kind != "identity":
        raise ArgumentError(
            f"`alone` must be False for the kind {kind!r}, which says something of a reading by "
            "others. Received: alone=True."
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
            what = "say the next reading" if kind == "forecasting" else "give its input back"
            raise DataError(
                f"The model must {what} at every step (return_sequences=True). "
                f"Received: output shape {output.shape} for input shape {x.shape}."
            )
        found = x.astype(np.float64)
        if kind != "forecasting":
            return found - output
        found[:, 1:] -= output[:, :-1]
        found[:, 0] = np.nan
        return found

    return residual


def usual(residual: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Root mean squared residual of each feature, `(steps, features)` each; never 0."""
    # A residual below round-off says nothing; dividing by it would make anything an anomaly.
    round_off = np.finfo(np.float32).eps * np.abs(values).max(axis=0)
    floor = np.maximum(round_off**2, np.finfo(np.float32).tiny)
    return np.sqrt(np.maximum((residual**2).mean(axis=0), floor))


def score(scaled: np.ndarray) -> np.ndarray:
    """Root mean square over features, the last axis: about 1 is usual."""
    return np.sqrt((scaled**2).mean(axis=-1))
