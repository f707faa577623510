"""Readings from a file: every decision is taken in the open and told in a note."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_seqzoo.data.io.cells import numbers
from keras_seqzoo.data.io.missing import without_missing
from keras_seqzoo.data.io.ordering import gaps, merge_repeats, sort_by_time
from keras_seqzoo.data.io.table import Columns, read_columns
from keras_seqzoo.data.io.timestamps import take_times
from keras_seqzoo.data.time_series import TimeSeries
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    unknown_name_message,
)


def read_time_series(
    path: str | os.PathLike,
    *,
    columns: str | Sequence[str] | None = None,
    missing: str = "split",
    repeats: str = "mean",
) -> TimeSeries:
    r"""Reads a sequence of sensor readings from a file, in time order, with nothing missing.

    Time stamps are found by themselves and are never a feature: datetimes, texts with a date in
    the first column or one named like a time, two columns "date" and "time", or numbers since
    1970 in a column named timestamp, time, date or datetime. Rows are sorted by them. Where they
    are mostly regular, a step above 1.5 times the median step is a gap, and a new stretch begins
    after it; `windows` never span two stretches.

    Shapes: `values` of the result is `(steps, features)`, float64, finite.

    Args:
        path: a .csv or .tsv file in UTF-8 (also .csv.gz, .tsv.gz), .parquet, or .npy with an
            array `(steps, features)` or `(steps,)`. A file without a header has columns "0",
            "1" and so on.
        columns: names of the features, in the order wanted, as a list or as a text with commas;
            None takes every column of numbers.
        missing: what to do about empty cells, NaN and infinities. "split" leaves out the rows
            and begins a new stretch, so that nothing is invented; "ffill" carries the last value
            forward; "interpolate" draws a line between the neighbours, which uses later readings;
            "error" refuses the file. Nothing is carried over a gap.
        repeats: what to do about rows with the same stamp: "mean", "first" or "last", the latter
            two in the order of the file.

    Returns:
        `TimeSeries`; `notes` says all that was noticed and done.

    Raises:
        ArgumentError: if an argument is not one of those above.
        DataError: if the file cannot be read, a name is unknown, or no reading is left.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "pump.csv")
        >>> _ = path.write_text("time,bar\n2024-01-01 00:10,3\n2024-01-01 00:00,5\n")
        >>> read_time_series(path).values.tolist()
        [[5.0], [3.0]]
    """
    check_choice("missing", missing, ("split", "ffill", "interpolate", "error"))
    check_choice("repeats", repeats, ("mean", "first", "last"))
    _check_columns(columns)
    notes: list[str] = []
    times, found, stamps = take_times(read_columns(path, notes), notes)
    names = _chosen(columns, found, stamps) or _numeric(found, stamps, notes)
    values = _finite_or_nan(np.stack([found[name] for name in names], axis=1))
    after_gap = np.zeros(len(values), dtype=bool)
    if times is not None:
        values, times = sort_by_time(values, times, notes)
        values, times = merge_repeats(values, times, repeats, notes)
        after_gap = gaps(times, notes)
    # Again, for the mean of two huge values may have become infinite.
    values = _finite_or_nan(values)
    values, kept, starts = without_missing(values, after_gap, names, missing, notes)
    _note_constants(values, names, notes)
    return TimeSeries(
        values=values,
        columns=tuple(names),
        times=None if times is None else _kept(times, kept),
        starts=starts,
        notes=tuple(notes),
        source=os.fspath(path),
    )


def _check_columns(columns: str | Sequence[str] | None) -> None:
    """Raises `ArgumentError` unless `columns` is None, a text, or distinct names."""
    if columns is None or (isinstance(columns, str) and columns.strip(", ")):
        return
    listed = isinstance(columns, list | tuple) and bool(columns)
    if not listed or not all(isinstance(name, str) for name in columns):
        expected = "a list of column names, or a text with commas, not empty"
        raise ArgumentError(
            argument_message("columns", expected, columns, "Leave it out to take all.")
        )


def _chosen(columns: str | Sequence[str] | None, found: Columns, stamps: list[str]) -> list[str]:
    """The names asked for, once they are known to be columns of numbers; none if none were."""
    if columns is None:
        return []
    if isinstance(columns, str):  # a name may itself have a comma
        whole = columns in found
        columns = [columns] if whole else [name.strip() for name in columns.split(",")]
    if len(set(columns)) < len(columns):
        raise ArgumentError(argument_message("columns", "distinct names", columns))
    for name in columns:
        if name in stamps:
            hint = "Stamps order the readings; leave that name out of `columns`."
            raise DataError(f"`columns` must be features. Received: {name!r}, the times. {hint}")
        if name not in found:
            raise DataError(unknown_name_message("column", name, found))
        reason = _useless(found[name])
        if reason:
            raise DataError(
                f"`columns` must name columns of numbers. Received: {name!r}, which {reason}. "
                "Mend that cell or leave the name out."
            )
    return list(columns)


def _numeric(found: Columns, stamps: list[str], notes: list[str]) -> list[str]:
    """Every column of numbers; notes say which others were left out and why."""
    reasons = {name: _useless(cells) for name, cells in found.items()}
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        columns = [f"{name!r}, which {reason}" for name, reason in reasons.items()]
        columns += [f"{name!r}, the times" for name in stamps]
        raise DataError(
            f"`path` must have a column of numbers. Received: {'; '.join(columns)}. "
            "Mend those cells; commas (.csv) or tabs (.tsv) separate cells, points decimals."
        )
    notes += [
        f"Column {name!r} was left out: it {reason}." for name, reason in reasons.items() if reason
    ]
    return names


def _useless(cells: np.ndarray | pd.Series | list[str]) -> str:
    """Why a column cannot be a feature, in words that follow "which"; empty if it can."""
    if isinstance(cells, pd.Series):
        return "holds dates"
    if isinstance(cells, list):
        row = numbers(cells)
        cell = cells[row] if len(cells[row]) <= 40 else cells[row][:37] + "..."
        return f"is not numeric: row {row + 1} below the header holds {cell!r}"
    return "" if np.isfinite(cells).any() else "has no value at all"


def _finite_or_nan(values: np.ndarray) -> np.ndarray:
    """Infinities become NaN: both mean that there is no reading."""
    return np.where(np.isfinite(values), values, np.nan)


def _kept(times: pd.DatetimeIndex, kept: np.ndarray) -> pd.DatetimeIndex:
    """The stamps of the rows that were kept."""
    return times if kept.all() else times[kept]


def _note_constants(values: np.ndarray, names: list[str], notes: list[str]) -> None:
    """Says which columns never change."""
    for name, low, high in zip(names, values.min(axis=0), values.max(axis=0), strict=True):
        if low == high and len(values) > 1:
            notes.append(f"Column {name!r} is constant ({low:g}) and was kept.")
