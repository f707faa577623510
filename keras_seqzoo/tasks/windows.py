"""Models of readings trained on windows: what gives readings back, and forecasters."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import layers, registry
from keras_seqzoo.diagnostics import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.losses import NormalizedMeanSquaredError
from keras_seqzoo.metrics import identity_error
from keras_seqzoo.optimizers import learning_rate_of
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_count,
    check_positive,
    check_seed,
    check_verbose,
)
from keras_seqzoo.utils.array_validation import as_windows
from keras_seqzoo.utils.random import seeded

TASKS = ("identity", "forecasting", "reconstruction")


@dataclasses.dataclass(frozen=True)
class TrainedOnWindows:
    """What `train_on_windows` returns.

    Attributes:
        model: `keras.Model`, raw readings in and out.
        error: float, mean squared error over variance on the validation windows: 0 is perfect, 1
            what the mean as a constant answer gets.
        leakage: `LeakageReport` on the validation windows.
        history: `pandas.DataFrame`, a row per epoch.
        seconds: float, of training.
    """

    model: keras.Model
    error: float
    leakage: LeakageReport
    history: pd.DataFrame
    seconds: float


def targets(task: str, x: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of windows: themselves, or for a forecaster each step's next one.

    Args:
        task: str, one of `TASKS`.
        x: array `(windows, time, features)`.
        last: bool, whether the last step alone is to come out.
    """
    check_choice("task", task, TASKS)
    check_bool(last=last)
    given, target = (x[:, :-1], x[:, 1:]) if task == "forecasting" else (x, x)
    return (given, target[:, -1]) if last else (given, target)


def train_on_windows(
    name: str,
    x: np.ndarray,
    validation: np.ndarray,
    *,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float | None = None,
    patience: int = 6,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> TrainedOnWindows:
    """Trains a model of readings: to give its input back, or to say each next reading.

    Args:
        name: str, an entry of the tasks "identity", "reconstruction" or "forecasting".
        x: array `(windows, time, features)`.
        validation: the same, to choose the epoch by.
        epochs: int, at least 1, at most so many.
        batch_size: int, at least 1.
        learning_rate: float above 0; None takes the default of the entry's search space.
        patience: int, epochs without a lower validation loss until training ends.
        seed: int, everything random follows from it.
        verbose: 0 is quiet, 1 prints a line per epoch.
        **arguments: of the constructor.

    Raises:
        ArgumentError: if the entry is for another task.
        DataError: if windows have another rank, or one step only where the next is the target.
    """
    entry = registry.get_entry(name)
    check_choice("task", entry.task, TASKS)
    learning_rate = learning_rate_of(entry, learning_rate)
    if entry.task == "identity" and not arguments.get("return_sequences", True):
        raise ArgumentError(
            argument_message("return_sequences", "True to train on whole windows", False)
        )
    x, validation = _finite_windows("x", x), _finite_windows("validation", validation)
    check_positive(epochs=epochs, batch_size=batch_size)
    check_count(patience=patience)
    check_seed(seed)
    check_verbose(verbose)
    if validation.shape[1:] != x.shape[1:]:
        raise DataError(
            argument_message("validation", f"windows of {x.shape[1:]}, as `x`", validation.shape)
        )
    started = time.monotonic()
    with seeded(seed):
        model = registry.get(name, features=x.shape[-1], **arguments)
        last = len(model.output_shape) == 2
        given, target = targets(entry.task, x, last=last)
        beside = targets(entry.task, validation, last=last)
        if layers.has_scaling(model):
            layers.adapt(model, given)
        loss = NormalizedMeanSquaredError()
        loss.adapt(target)
        # As a metric too: the loss of a regularized model has the penalty in it.
        error = keras.metrics.MeanMetricWrapper(loss.call, name="error")
        model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=[error])
        history = model.fit(
            given,
            target,
            validation_data=beside,
            batch_size=batch_size,
            epochs=epochs,
            verbose=2 if verbose else 0,
            callbacks=[
                keras.callbacks.EarlyStopping(
                    "val_error", mode="min", patience=patience, restore_best_weights=True
                )
            ],
        )
    model.compile(model.optimizer, loss)  # a file cannot hold that metric
    return TrainedOnWindows(
        model,
        identity_error(model, *beside),
        leakage(model, beside[0], seed=seed),
        pd.DataFrame(history.history).rename_axis("epoch"),
        time.monotonic() - started,
    )


def _finite_windows(name: str, values: Any) -> np.ndarray:
    windows = as_windows(name, values)
    if not np.isfinite(windows).all():
        raise DataError(f"`{name}` must be finite in float32. Received: NaN or infinity.")
    return windows
