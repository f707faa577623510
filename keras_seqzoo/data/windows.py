"""Windows of equal length, cut from unbroken stretches only."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from keras_seqzoo.data.time_series import Readings, as_steps
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_positive


def windows(readings: Readings | Any, *, length: int = 50, stride: int | None = None) -> np.ndarray:
    """Cuts readings into windows of equal length, in time order.

    A window never spans two stretches: what is left at the end of a stretch and is shorter than
    `length` is not used.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows, length, features)`, float32.

    Args:
        readings: `Readings`, or an array `(steps, features)` or `(steps,)` without a gap.
        length: int of at least 1, steps in each window.
        stride: int of at least 1, steps from the start of one window to the start of the next;
            None means `length`, so that windows do not overlap.

    Returns:
        float32 array `(rows, length, features)`, a copy.

    Raises:
        ArgumentError: if `length` or `stride` is not a positive int.
        DataError: if no window fits, or a value is not finite or too large for float32.

    Example:
        >>> windows([1.0, 2.0, 3.0, 4.0, 5.0], length=2)[..., 0].tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    positions = window_positions(readings, length=length, stride=stride)
    values = _float32(_values(readings))
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    return np.ascontiguousarray(view[positions].transpose(0, 2, 1))  # (rows, length, features)


def window_positions(
    readings: Readings | Any, *, length: int = 50, stride: int | None = None
) -> np.ndarray:
    """Gives the row at which each window of `windows`, with the same options, begins.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows,)`, int64, rising.

    Args:
        readings: `Readings`, or an array `(steps, features)` or `(steps,)` without a gap.
        length: int of at least 1, steps in each window.
        stride: int of at least 1, or None for `length`.

    Raises:
        ArgumentError: if `length` or `stride` is not a positive int.
        DataError: if no window fits, or the array cannot be used.

    Example:
        >>> window_positions([1.0, 2.0, 3.0, 4.0, 5.0], length=2, stride=1).tolist()
        [0, 1, 2, 3]
    """
    stride = length if stride is None else stride
    check_positive(length=length, stride=stride)
    edges = [*_starts(readings), len(_values(readings))]
    pieces = [
        np.arange(first, last - length + 1, stride) for first, last in itertools.pairwise(edges)
    ]
    positions = np.concatenate(pieces).astype(np.int64)
    if not positions.size:
        longest = max(last - first for first, last in itertools.pairwise(edges))
        raise DataError(
            f"`length` must be at most {longest}, the longest unbroken stretch of the readings. "
            f"Received: length={length}. Use shorter windows (--window) or a longer record."
        )
    return positions


def _values(readings: Readings | Any) -> np.ndarray:
    """The readings as float64 `(steps, features)`."""
    if isinstance(readings, Readings):
        return readings.values
    return as_steps(readings, argument="readings")


def _starts(readings: Readings | Any) -> tuple[int, ...]:
    """Where the stretches begin; an array is taken as one stretch."""
    return readings.starts if isinstance(readings, Readings) else (0,)


def _float32(values: np.ndarray) -> np.ndarray:
    """Casts to float32; refuses what is not finite before or after."""
    with np.errstate(over="ignore"):  # an overflow shows as inf and is refused below
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DataError(
            f"`readings` must be finite and below 3.4e38. Received: row {row} that is not. "
            "Leave such rows out, or read the file with read_readings, which does."
        )
    return values
