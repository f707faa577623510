"""Windows of equal length, cut from the segments of a time series."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from keras_seqzoo.data.time_series import TimeSeries, as_readings
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_positive


def make_windows(
    readings: TimeSeries | Any, *, sequence_length: int = 50, sequence_stride: int | None = None
) -> np.ndarray:
    """Cut readings into windows of equal length, in time order.

    A window never spans two segments. The end of a segment that is shorter than `sequence_length`
    is not used.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows, sequence_length, features)`, float32.

    Args:
        readings: `TimeSeries`, or an array `(steps, features)` or `(steps,)` without a gap.
        sequence_length: int of at least 1, steps in each window.
        sequence_stride: int of at least 1, steps between the starts of consecutive windows. None
            means `sequence_length`, so that windows do not overlap.

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
    # (rows, features, sequence_length) -> (rows, sequence_length, features)
    return np.ascontiguousarray(view[positions].transpose(0, 2, 1))


def window_positions(
    readings: TimeSeries | Any, *, sequence_length: int = 50, sequence_stride: int | None = None
) -> np.ndarray:
    """The row at which each window of `make_windows`, with the same options, begins.

    Shapes: `(steps, features)` or `(steps,)` -> `(rows,)`, int64, increasing.

    Args:
        readings: `TimeSeries`, or an array `(steps, features)` or `(steps,)` without a gap.
        sequence_length: int of at least 1, steps in each window.
        sequence_stride: int of at least 1, or None for `sequence_length`.

    Raises:
        ArgumentError: if `sequence_length` or `sequence_stride` is not a positive int.
        DataError: if no window fits, or the array cannot be used.

    Example:
        >>> readings = [1.0, 2.0, 3.0, 4.0, 5.0]
        >>> window_positions(readings, sequence_length=2, sequence_stride=1).tolist()
        [0, 1, 2, 3]
    """
    sequence_stride = sequence_length if sequence_stride is None else sequence_stride
    check_positive(sequence_length=sequence_length, sequence_stride=sequence_stride)
    edges = [*_starts(readings), len(_values(readings))]
    positions = np.concatenate(
        [
            np.arange(first, last - sequence_length + 1, sequence_stride)
            for first, last in itertools.pairwise(edges)
        ]
    ).astype(np.int64)
    if not positions.size:
        longest = max(last - first for first, last in itertools.pairwise(edges))
        raise DataError(
            f"`sequence_length` must be at most {longest}, the length of the longest segment of "
            f"the readings. Received: sequence_length={sequence_length}. Use shorter windows "
            "(--sequence-length) or a longer time series."
        )
    return positions


def _values(readings: TimeSeries | Any) -> np.ndarray:
    """The readings as float64 `(steps, features)`."""
    if isinstance(readings, TimeSeries):
        return readings.values
    return as_readings(readings, argument="readings")


def _starts(readings: TimeSeries | Any) -> tuple[int, ...]:
    """The rows at which segments begin; an array is one segment."""
    return readings.starts if isinstance(readings, TimeSeries) else (0,)


def _float32(values: np.ndarray) -> np.ndarray:
    """`values` in float32, checked to be finite."""
    with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DataError(
            f"`readings` must be finite and below 3.4e38. Received: row {row} that is not. "
            "Leave such rows out, or read the file with read_time_series, which does."
        )
    return values
