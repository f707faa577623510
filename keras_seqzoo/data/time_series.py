"""Time series: sensor readings in time order, with the segments that have no gap."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message, check_sequence, is_int, is_real


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TimeSeries:
    """Readings in time order, in one or more segments without a gap.

    Shapes: `values` is `(steps, features)`, float64, finite and read-only.

    Args:
        values: array `(steps, features)`, in time order.
        columns: tuple of str, one name per feature.
        times: `pandas.DatetimeIndex` of `steps` time stamps that never decrease, or None.
        starts: tuple of int, the rows at which segments begin; the first is 0.
        notes: tuple of str, what a reader noticed in the data and what it did about it.
        source: str, the path or description of the data.

    Raises:
        DataError: if the parts do not fit each other, or a value is not finite.

    Example:
        >>> series = TimeSeries(values=[[1.0], [2.0], [9.0]], columns=("load",), starts=(0, 2))
        >>> [segment.tolist() for segment in series.segments()]
        [[[1.0], [2.0]], [[9.0]]]
    """

    values: np.ndarray
    columns: tuple[str, ...]
    times: pd.DatetimeIndex | None = None
    starts: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        values = _read_only(self.values)
        object.__setattr__(self, "values", values)
        check_sequence(columns=self.columns, starts=self.starts, notes=self.notes)
        for name in ("columns", "starts", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.columns) != values.shape[1]:
            expected = f"{values.shape[1]} names, one per feature of `values`"
            raise DataError(argument_message("columns", expected, self.columns))
        if self.times is not None and len(self.times) != len(values):
            expected = f"{len(values)} time stamps, one per row of `values`, or None"
            raise DataError(argument_message("times", expected, f"{len(self.times)} time stamps"))
        _check_starts(self.starts, len(values))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        segments = len(self.starts)
        return (
            f"TimeSeries({len(self)} steps, {self.features} features: {', '.join(self.columns)}; "
            f"{segments} segment{'s' * (segments > 1)}; from {self.source or 'memory'})"
        )

    @property
    def features(self) -> int:
        """The number of values per reading."""
        return self.values.shape[1]

    def segments(self) -> list[np.ndarray]:
        """The segments without a gap, arrays `(steps, features)`, in time order."""
        return np.split(self.values, self.starts[1:])

    def split(self, *fractions: float) -> list[TimeSeries]:
        """Split into consecutive parts in time order, without shuffling.

        A split inside a segment begins a new segment, so that no window spans two parts.

        Args:
            fractions: numbers in (0, 1] that sum to 1 within 1e-9, one per part.

        Returns:
            list of `TimeSeries`; their concatenated values are those of this one.

        Raises:
            ArgumentError: if the fractions are not numbers in (0, 1] that sum to 1.
            DataError: if a part would have no reading.

        Example:
            >>> series = TimeSeries(values=[[1.0], [2.0], [3.0], [4.0]], columns=("load",))
            >>> [len(part) for part in series.split(0.5, 0.25, 0.25)]
            [2, 1, 1]
        """
        _check_fractions(fractions)
        edges = [0, *(round(total * len(self)) for total in itertools.accumulate(fractions))]
        if any(first >= last for first, last in itertools.pairwise(edges)):
            raise DataError(
                f"`fractions` must leave a reading for every part. Received: fractions={fractions} "
                f"of {len(self)} readings. Use fewer parts or a longer time series."
            )
        parts = len(fractions)
        return [
            self._part(first, last, f"This is part {index} of {parts}: rows {first} to {last - 1}.")
            for index, (first, last) in enumerate(itertools.pairwise(edges), start=1)
        ]

    def _part(self, first: int, last: int, note: str) -> TimeSeries:
        """Rows `first` to `last`, the latter excluded."""
        inside = (start - first for start in self.starts if first < start < last)
        return dataclasses.replace(
            self,
            values=self.values[first:last],
            times=None if self.times is None else self.times[first:last],
            starts=(0, *inside),
            notes=(*self.notes, note),
        )


def as_readings(values: Any, *, argument: str) -> np.ndarray:
    """Real numbers `(steps, features)` as float64; `(steps,)` is one feature.

    Raises:
        DataError: if `values` has another rank or dtype, or is empty; `argument` is its name in the
            message.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal lengths
        raise DataError(
            f"`{argument}` must have rows of equal length. Received: rows of several lengths."
        ) from None
    if array.dtype.kind not in "iuf":
        raise DataError(
            argument_message(argument, "an array of real numbers", f"dtype {array.dtype}")
            + " Convert it to an array of floats first."
        )
    if array.ndim not in (1, 2):
        hint = "Three axes are windows already." if array.ndim == 3 else ""
        expected = "readings (steps, features) or (steps,)"
        raise DataError(argument_message(argument, expected, f"an array {array.shape}", hint))
    if array.size == 0:
        expected = "readings with at least one step and one feature"
        raise DataError(argument_message(argument, expected, f"an array {array.shape}"))
    return array.reshape(len(array), -1).astype(np.float64)


def _read_only(values: Any) -> np.ndarray:
    """A read-only view of finite float64 readings `(steps, features)`."""
    values = as_readings(values, argument="values").view()
    if not np.isfinite(values).all():
        raise DataError(
            "`values` must be finite. Received: "
            f"{int((~np.isfinite(values)).sum())} values that are NaN or infinite. "
            "Leave those rows out and start a new segment there, as read_time_series does."
        )
    # The parts of a split share memory, so a write to one would change the others.
    values.flags.writeable = False
    return values


def _check_starts(starts: Sequence[int], steps: int) -> None:
    """Raises `DataError` unless `starts` begins with 0, increases, and stays below `steps`."""
    increasing = all(map(is_int, starts)) and all(
        start < following for start, following in itertools.pairwise(starts)
    )
    if not starts or not increasing or starts[0] != 0 or starts[-1] >= steps:
        expected = f"increasing row numbers below {steps} that begin with 0"
        raise DataError(argument_message("starts", expected, starts))


def _check_fractions(fractions: tuple[float, ...]) -> None:
    """Raises `ArgumentError` unless every fraction is in (0, 1] and they sum to 1."""
    valid = all(is_real(fraction) and 0 < fraction <= 1 for fraction in fractions)
    if not valid or abs(sum(fractions) - 1) > 1e-9:
        expected = "numbers above 0 that sum to 1"
        raise ArgumentError(
            argument_message("fractions", expected, fractions, "Example: 0.6, 0.2, 0.2.")
        )
