"""Windows of segmented time series, and overlap averaging of their values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo.data import TimeSeries
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.array_validation import as_array

COMBINE = ("longest", "mean")


@dataclasses.dataclass(frozen=True)
class SegmentedSeries:
    """Readings in contiguous segments.

    Attributes:
        values: `(steps, features)`.
        starts: int tuple, first row of each segment.
        times: `pandas.DatetimeIndex` of `steps` timestamps, or None.
        columns: tuple of str, one per feature.
    """

    values: np.ndarray
    starts: tuple[int, ...]
    times: Any = None
    columns: tuple[str, ...] = ()

    def bounds(self) -> list[tuple[int, int]]:
        """First row of each segment, and the row after its last."""
        return list(itertools.pairwise([*self.starts, len(self.values)]))


def as_segments(name: str, x: Any) -> SegmentedSeries:
    """Readings as a `SegmentedSeries`.

    Args:
        name: str, argument name for error messages.
        x: `TimeSeries`, an array `(steps, features)` or `(steps,)`, or windows
            `(batch, time, features)`, each a segment of its own.

    Raises:
        DataError: if `x` is none of these, is empty, or is not real.
    """
    if isinstance(x, TimeSeries):
        return SegmentedSeries(x.values, x.starts, x.times, x.columns)
    values = as_array(name, x)
    if values.ndim not in (1, 2, 3) or values.dtype.kind not in "iuf" or 0 in values.shape:
        raise DataError(
            f"`{name}` must be non-empty readings: an array (steps, features), or windows (batch, "
            f"time, features). Received: shape {values.shape}, dtype {values.dtype}."
        )
    length = values.shape[1] if values.ndim == 3 else len(values)
    features = 1 if values.ndim == 1 else values.shape[-1]
    values = values.reshape(-1, features)
    columns = tuple(f"feature {index}" for index in range(features))
    return SegmentedSeries(values, tuple(range(0, len(values), length)), None, columns)


def window_starts(
    series: SegmentedSeries, sequence_length: int, sequence_stride: int
) -> dict[int, np.ndarray]:
    """First rows of windows that cover every reading, by window length.

    The last window of a segment ends where the segment ends. A segment shorter than
    `sequence_length` is one window of its own length.
    """
    by_length: dict[int, list[int]] = {}
    for first, end in series.bounds():
        length = min(sequence_length, end - first)
        starts = list(range(first, end - length + 1, sequence_stride))
        if starts[-1] != end - length:
            starts.append(end - length)
        by_length.setdefault(length, []).extend(starts)
    return {length: np.array(starts) for length, starts in by_length.items()}


def take_windows(series: SegmentedSeries, starts: np.ndarray, length: int) -> np.ndarray:
    """Windows `(batch, length, features)` with these first rows."""
    return series.values[starts[:, None] + np.arange(length)]


def combine_windows(
    series: SegmentedSeries,
    function: Callable[[np.ndarray], np.ndarray],
    *,
    sequence_length: int,
    sequence_stride: int,
    combine: str,
) -> np.ndarray:
    """One value per reading from a function of overlapping windows.

    Args:
        series: `SegmentedSeries` of `steps` readings.
        function: from windows `(batch, time, features)` to values of the same shape; NaN where a
            reading has no value.
        sequence_length: int, steps in a window.
        sequence_stride: int, steps between windows.
        combine: "longest" takes the window in which the reading has the longest past, "mean" the
            mean over its windows.

    Returns:
        `(steps, features)`; NaN where no window has a value.
    """
    total = np.zeros(series.values.shape)
    count = np.zeros(len(total))
    for length, starts in window_starts(series, sequence_length, sequence_stride).items():
        values = function(take_windows(series, starts, length))
        # Step by step, since no reading is at the same step of two windows. Later steps overwrite.
        for step in range(length):
            defined = ~np.isnan(values[:, step]).any(axis=-1)
            rows = starts[defined] + step
            if combine == "longest":
                total[rows], count[rows] = values[defined, step], 1
            else:
                total[rows] += values[defined, step]
                count[rows] += 1
    with np.errstate(invalid="ignore"):
        return total / count[:, None]  # 0 / 0 where there is no value
