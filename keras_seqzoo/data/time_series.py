"""What a record of sensor readings is, once it is clean."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message, check_sequence, is_int, is_real


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TimeSeries:
    """A record of readings in time order, made of one or more unbroken stretches.

    Shapes: `values` is `(steps, features)`, float64, finite and read-only.

    Args:
        values: array `(steps, features)`, in time order.
        columns: tuple of str, one name per feature.
        times: `pandas.DatetimeIndex` of `steps` stamps that do not step back, or None.
        starts: tuple of int, the rows at which a new unbroken stretch begins; the first is 0.
        notes: tuple of str, sentences that say what was noticed and what was done about it.
        source: str, where the readings come from.

    Raises:
        DataError: if the parts do not fit each other, or a value is not finite.

    Example:
        >>> record = TimeSeries(values=[[1.0], [2.0], [9.0]], columns=("load",), starts=(0, 2))
        >>> [stretch.tolist() for stretch in record.stretches()]
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
            expected = f"{len(values)} stamps, one per row of `values`, or None"
            raise DataError(argument_message("times", expected, f"{len(self.times)} stamps"))
        _check_starts(self.starts, len(values))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        stretches = len(self.starts)
        return (
            f"TimeSeries({len(self)} steps, {self.features} features: {', '.join(self.columns)}; "
            f"{stretches} unbroken stretch{'es' * (stretches > 1)}; from {self.source or 'memory'})"
        )

    @property
    def features(self) -> int:
        """How many values each reading has."""
        return self.values.shape[1]

    def stretches(self) -> list[np.ndarray]:
        """The unbroken stretches, arrays `(steps, features)`, in time order."""
        return np.split(self.values, self.starts[1:])

    def split(self, *fractions: float) -> list[TimeSeries]:
        """Cuts the record into consecutive parts, in time order; nothing is shuffled.

        A cut inside a stretch begins a new stretch, so no window ever spans two parts.

        Args:
            fractions: numbers in (0, 1] that sum to 1 within 1e-9, one per part.

        Returns:
            list of `TimeSeries`, whose values one after the other are those of this record.

        Raises:
            ArgumentError: if the fractions are not numbers in (0, 1] that sum to 1.
            DataError: if a part would have no reading.

        Example:
            >>> record = TimeSeries(values=[[1.0], [2.0], [3.0], [4.0]], columns=("load",))
            >>> [len(part) for part in record.split(0.5, 0.25, 0.25)]
            [2, 1, 1]
        """
        _check_fractions(fractions)
        edges = [0, *(round(total * len(self)) for total in itertools.accumulate(fractions))]
        if any(first >= last for first, last in itertools.pairwise(edges)):
            raise DataError(
                f"`fractions` must leave a reading for every part. Received: fractions={fractions} "
                f"of {len(self)} readings. Use fewer parts or a longer record."
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


def as_steps(values: Any, *, argument: str) -> np.ndarray:
    """Gives finite real readings `(steps, features)` as float64; `(steps,)` is one feature.

    Raises:
        DataError: if `values` has another rank or dtype, is empty or is not finite; the
            message calls it `argument`.
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
            + " Turn it into an array of floats first."
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
    """A view of finite float64 `(steps, features)` that cannot be written through."""
    values = as_steps(values, argument="values").view()
    if not np.isfinite(values).all():
        raise DataError(
            "`values` must be finite. Received: "
            f"{int((~np.isfinite(values)).sum())} values that are NaN or infinite. "
            "Leave those rows out and start a new stretch there, as read_time_series does."
        )
    # Parts of a split are views of one another; a write to one would show in all of them.
    values.flags.writeable = False
    return values


def _check_starts(starts: tuple[int, ...], steps: int) -> None:
    """Raises `DataError` unless `starts` begins with 0, rises, and stays below `steps`."""
    rises = all(map(is_int, starts)) and all(
        one < other for one, other in itertools.pairwise(starts)
    )
    if not starts or not rises or starts[0] != 0 or starts[-1] >= steps:
        expected = f"rising row numbers below {steps} that begin with 0"
        raise DataError(argument_message("starts", expected, starts))


def _check_fractions(fractions: tuple[float, ...]) -> None:
    """Raises `ArgumentError` unless every fraction is in (0, 1] and they sum to 1."""
    fine = all(is_real(fraction) and 0 < fraction <= 1 for fraction in fractions)
    if not fine or abs(sum(fractions) - 1) > 1e-9:
        expected = "numbers above 0 that sum to 1"
        raise ArgumentError(
            argument_message("fractions", expected, fractions, "Example: 0.6, 0.2, 0.2.")
        )
