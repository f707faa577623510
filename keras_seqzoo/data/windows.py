"""Windows of equal length, cut from unbroken stretches only."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from keras_seqzoo.data.time_series import TimeSeries, as_steps
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_positive


def make_windows(
    readings: TimeSeries | Any, *, sequence_length: int = 50, sequence_stride: int | None = None
) -> np.ndarray:
    """Cuts readings into windows of equal length, in time order.

    A window never spans two stretches: what is left at the end of a stretch and is shorter than
    `sequence_length` is not used.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows, sequence_length, features)`, float32.

    Args:
        readings: `TimeSeries`, or an array `(steps, features)` or `(steps,)` without a gap.
        sequence_length: int of at least 1, steps in each window.
        sequence_stride: int of at least 1, steps from the start of one window to the start of the next;
            None means `sequence_length`, so that windows do not overlap.

    Returns:
        float32 array `(rows, sequence_length, features)`, a copy.

    Raises:
        ArgumentError: if `sequence_length` or `sequence_stride` is not a positive int.
        DataError: if no window fits, or a value is not finite or too large for float32.

    Example:
        >>> make_windows([1.0, 2.0, 3.0, 4.0, 5.0], sequence_length=2)[..., 0].tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    positions = window_positions(
        readings, sequence_length=sequence_length, sequence_stride=sequence_stride
    )
    values = _float32(_values(readings))
    view = np.lib.stride_tricks.sliding_window_view(values, sequence_length, axis=0)
    return np.ascontiguousarray(
        view[positions].transpose(0, 2, 1)
    )  # (rows, sequence_length, features)


def window_positions(
    readings: TimeSeries | Any, *, sequence_length: int = 50, sequence_stride: int | None = None
) -> np.ndarray:
    """Gives the row at which each window of `make_windows`, with the same options, begins.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows,)`, int64, rising.

    Args:
        readings: `TimeSeries`, or an array `(steps, features)` or `(steps,)` without a gap.
        sequence_length: int of at least 1, steps in each window.
        sequence_stride: int of at least 1, or None for `sequence_length`.

    Raises:
        ArgumentError: if `sequence_length` or `sequence_stride` is not a positive int.
        DataError: if no window fits, or the array cannot be used.

    Example:
        >>> window_positions([1.0, 2.0, 3.0, 4.0, 5.0], sequence_length=2, sequence_stride=1).tolist()
        [0, 1, 2, 3]
    """
    sequence_stride = sequence_length if sequence_stride is None else sequence_stride
    check_positive(sequence_length=sequence_length, sequence_stride=sequence_stride)
    edges = [*_starts(readings), len(_values(readings))]
    pieces = [
        np.arange(first, last - sequence_length + 1, sequence_stride)
        for first, last in itertools.pairwise(edges)
    ]
    positions = np.concatenate(pieces).astype(np.int64)
    if not positions.size:
        longest = max(last - first for first, last in itertools.pairwise(edges))
        raise DataError(
            f"`sequence_length` must be at most {longest}, the longest unbroken stretch of the readings. "
            f"Received: sequence_length={sequence_length}. Use shorter windows (--sequence-length) or a longer record."
        )
    return positions


def _values(readings: TimeSeries | Any) -> np.ndarray:
    """The readings as float64 `(steps, features)`."""
    if isinstance(readings, TimeSeries):
        return readings.values
    return as_steps(readings, argument="readings")


def _starts(readings: TimeSeries | Any) -> tuple[int, ...]:
    """Where the stretches begin; an array is taken as one stretch."""
    return readings.starts if isinstance(readings, TimeSeries) else (0,)


def _float32(values: np.ndarray) -> np.ndarray:
    """Casts to float32; refuses what is not finite before or after."""
    with np.errstate(over="ignore"):  # an overflow shows as inf and is refused below
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DataError(
            f"`readings` must be finite and below 3.4e38. Received: row {row} that is not. "
            "Leave such rows out, or read the file with read_time_series, which does."
        )
    return values
