"""Arrays of windows: splits, targets, and the order of their batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import data
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_fraction,
    is_real,
)
from keras_seqzoo.utils.array_validation import as_array, as_windows
from keras_seqzoo.utils.masks import last_real_step

TASKS = ("identity", "forecasting", "reconstruction")


class Windows(NamedTuple):
    """Training and validation windows; targets are None where the input is the target."""

    x: np.ndarray
    y: np.ndarray | None
    x_val: np.ndarray
    y_val: np.ndarray | None


def targets(task: str, x: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of windows: the windows themselves, or each step's next reading.

    Args:
        task: str, one of `TASKS`.
        x: array `(windows, time, features)`.
        last: bool, whether the model returns the last step only.
    """
    check_choice("task", task, TASKS)
    inputs, target = (x[:, :-1], x[:, 1:]) if task == "forecasting" else (x, x)
    return (inputs, target[:, -1]) if last else (inputs, target)


def aligned_targets(model: keras.Model, x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """`y`, or `x` itself: every step, or the last real one if the model returns only that.

    NaN that marks padding becomes 0: the loss multiplies it by 0, which would leave NaN.
    """
    last = len(model.output_shape) == 2
    if y is not None:
        return y[:, -1] if last and y.ndim == 3 else y
    if last:
        mask = model_function.resolve_mask(model, x)
        real = np.ones(x.shape[:2], bool) if mask is None else mask
        x = x[np.arange(len(x)), last_real_step(real)]
    return np.nan_to_num(x)


def full_batches(batches: Sequence[np.ndarray]) -> np.ndarray:
    """Batches of row numbers as one array, -1 where one holds fewer than others."""
    size = max(map(len, batches))
    array = np.full((len(batches), size), -1)
    for batch, rows in zip(array, batches, strict=True):
        batch[: len(rows)] = rows
    return array


def split_windows(x: Any, y: Any, validation_data: Any, validation_split: float) -> Windows:
    """Takes the validation windows as given, or else the last ones: they are in time order.

    Raises:
        ArgumentError: without validation windows, or with targets for one part only.
        DataError: if arrays do not fit one another or hold too few windows.
    """
    x = as_windows("x", x)
    y = _targets("y", y, x)
    if validation_data is not None:
        x_val, y_val = _pair(validation_data)
        if (y is None) != (y_val is None):
            raise ArgumentError(
                "`y` and the targets in `validation_data` must be given both or not at all. "
                f"Received: {'no y' if y is None else 'y'}, validation_data "
                f"{'without' if y_val is None else 'with'} targets. Pass validation_data=(x, y)."
            )
        if x_val.shape[2:] != x.shape[2:]:
            raise DataError(
                "`validation_data` must have the features of `x`. Received: shapes "
                f"{x_val.shape} and {x.shape}."
            )
        return Windows(x, y, x_val, y_val)
    if is_real(validation_split) and validation_split == 0:
        raise ArgumentError(
            "`validation_data` or `validation_split` must be given: the metrics are measured on "
            "windows that were not trained on. Received: neither."
        )
    check_fraction(validation_split=validation_split)
    count = len(x) - round(len(x) * validation_split)
    if count < 1 or len(x) - count < 2:
        raise DataError(
            "`x` must have enough rows for at least 1 to train and 2 to validate. Received: "
            f"{len(x)} rows, validation_split={validation_split}. Use shorter windows or a stride."
        )
    return Windows(
        x[:count], None if y is None else y[:count], x[count:], None if y is None else y[count:]
    )


def load_windows(x: Any, y: Any) -> tuple[Any, Any]:
    """Reads a path, and turns a DataFrame into a time series and a Dataset into arrays."""
    if isinstance(x, (str, Path)):
        return data.read_time_series(x), y
    if isinstance(x, pd.DataFrame):
        return data.time_series_from_dataframe(x), y
    return arrays_of_dataset(x, y)


def arrays_of_dataset(x: Any, y: Any) -> tuple[Any, Any]:
    """Batches of a `tf.data.Dataset` as arrays; anything else as it is."""
    if not (hasattr(x, "element_spec") and hasattr(x, "as_numpy_iterator")):
        return x, y
    if y is not None:
        raise ArgumentError(argument_message("y", "None for a Dataset", type(y)))
    batches = list(x.as_numpy_iterator())
    if not batches:
        raise DataError("`x` must have at least one batch. Received: an empty Dataset.")
    if isinstance(batches[0], tuple):
        inputs, labels = (np.concatenate(parts) for parts in list(zip(*batches, strict=True))[:2])
        return inputs, labels
    return np.concatenate(batches), None


def ordered_dataset(x: np.ndarray, y: np.ndarray, orders: Iterable[np.ndarray]) -> dict[str, Any]:
    """Arguments of `fit` that train on the rows in this order."""
    import tensorflow as tf

    order = np.stack(list(orders))
    inputs, labels = tf.constant(x), tf.constant(y)
    batches = tf.data.Dataset.from_tensor_slices(order.reshape(-1, order.shape[-1]))

    def gather(rows):
        rows = rows[rows >= 0]
        return tf.gather(inputs, rows), tf.gather(labels, rows)

    return {
        "x": batches.map(gather).prefetch(2),
        "steps_per_epoch": order.shape[1],
        "shuffle": False,
    }


def _pair(validation_data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(validation_data, (tuple, list)) and len(validation_data) == 2:
        x_val, y_val = validation_data
    elif hasattr(validation_data, "shape"):
        x_val, y_val = validation_data, None
    else:
        raise ArgumentError(
            argument_message("validation_data", "an array, or a pair (x, y)", type(validation_data))
        )
    x_val = as_windows("validation_data", x_val)
    if len(x_val) < 2:
        raise DataError(f"`validation_data` must have at least 2 rows. Received: {len(x_val)}.")
    return x_val, _targets("validation_data", y_val, x_val)


def _targets(name: str, y: Any, x: np.ndarray) -> np.ndarray | None:
    """Targets as an array of numbers, one row for each of `x`; None stays None."""
    if y is None:
        return None
    y = as_array(name, y)
    if y.ndim < 1 or len(y) != len(x) or y.dtype.kind not in "biuf":
        raise DataError(
            f"`{name}` must hold numeric targets, as many rows as `x`. Received: shape {y.shape}, "
            f"dtype {y.dtype}, for {len(x)} rows."
        )
    return y
