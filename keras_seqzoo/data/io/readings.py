"""Reader of time series from a file; its notes list every decision that it took."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd

from keras_seqzoo.data.io.cells import parse_numbers
from keras_seqzoo.data.io.missing import handle_missing
from keras_seqzoo.data.io.ordering import find_gaps, merge_duplicates, sort_by_time
from keras_seqzoo.data.io.table import Columns, dataframe_columns, read_columns
from keras_seqzoo.data.io.timestamps import extract_times
from keras_seqzoo.data.time_series import TimeSeries
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_instance,
    unknown_name_message,
)


def read_time_series(
    path: str | os.PathLike,
    *,
    columns: str | Sequence[str] | None = None,
    missing: str = "split",
    duplicates: str = "mean",
) -> TimeSeries:
    r"""Read sensor readings from a file, in time order and without missing values.

    Time stamps are detected and are never a feature: datetimes, texts with a date in the first
    column or one named like a time, two columns "date" and "time", or numbers since 1970 in a
    column named timestamp, time, date or datetime. Rows are sorted by them. Where they are mostly
    regular, a time step above 1.5 times the median is a gap, and a new segment begins after it;
    windows never span two segments.

    Shapes: `values` of the result is `(steps, features)`, float64, finite.

    Args:
        path: a .csv or .tsv file in UTF-8 (also .csv.gz, .tsv.gz), .parquet, or .npy with an
            array `(steps, features)` or `(steps,)`. A file without a header has columns "0",
            "1" and so on.
        columns: names of the features in the order of the result, as a list or as a str with
            commas; None takes every numeric column.
        missing: what to do with empty cells, NaN and infinities. "split" leaves out the rows and
            begins a new segment; "ffill" carries the last value forward; "interpolate" interpolates
            linearly between neighbors, which uses later readings; "error" raises. No value is
            filled across a gap.
        duplicates: what to do with rows that have the same time stamp: "mean", "first" or "last",
            the latter two in the order of the file.

    Returns:
        `TimeSeries`; `notes` lists what the reader noticed and changed.

    Raises:
        ArgumentError: if an argument has another type or value.
        DataError: if the file cannot be read, a name is unknown, or no reading is left.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "pump.csv")
        >>> _ = path.write_text("time,bar\n2024-01-01 00:10,3\n2024-01-01 00:00,5\n")
        >>> read_time_series(path).values.tolist()
        [[5.0], [3.0]]
    """
    _check_options(columns, missing, duplicates)
    notes: list[str] = []
    table = read_columns(path, notes)
    return _assemble(table, columns, missing, duplicates, notes, os.fspath(path))


def time_series_from_dataframe(
    frame: pd.DataFrame,
    *,
    columns: str | Sequence[str] | None = None,
    missing: str = "split",
    duplicates: str = "mean",
) -> TimeSeries:
    """Make a time series of a DataFrame, as `read_time_series` makes one of a file.

    Args:
        frame: `pandas.DataFrame`, a row per reading; a DatetimeIndex holds the time stamps.
        columns: as in `read_time_series`.
        missing: as in `read_time_series`.
        duplicates: as in `read_time_series`.

    Returns:
        `TimeSeries`; `notes` lists what was noticed and changed.

    Raises:
        ArgumentError: if an argument has another type or value.
        DataError: if a name is unknown, or no reading is left.

    Example:
        >>> import pandas as pd
        >>> times = pd.date_range("2024-01-01", periods=3, freq="h")
        >>> time_series_from_dataframe(pd.DataFrame({"bar": [5, 3, 4]}, times)).columns
        ('bar',)
    """
    check_instance(pd.DataFrame, frame=frame)
    _check_options(columns, missing, duplicates)
    if not frame.size:
        raise DataError("`frame` must have rows and columns. Received: an empty DataFrame.")
    notes: list[str] = []
    table = dataframe_columns(frame, notes)
    return _assemble(table, columns, missing, duplicates, notes, "a DataFrame")


def _check_options(columns: str | Sequence[str] | None, missing: str, duplicates: str) -> None:
    check_choice("missing", missing, ("split", "ffill", "interpolate", "error"))
    check_choice("duplicates", duplicates, ("mean", "first", "last"))
    _check_columns(columns)


def _assemble(
    table: Columns,
    columns: str | Sequence[str] | None,
    missing: str,
    duplicates: str,
    notes: list[str],
    source: str,
) -> TimeSeries:
    """A time series in time order, without missing values, of columns of cells."""
    times, table, time_columns = extract_times(table, notes)
    names = _selected(columns, table, time_columns) or _numeric(table, time_columns, notes)
    values = _finite_or_nan(np.stack([table[name] for name in names], axis=1))
    after_gap = np.zeros(len(values), dtype=bool)
    if times is not None:
        values, times = sort_by_time(values, times, notes)
        values, times = merge_duplicates(values, times, duplicates, notes)
        after_gap = find_gaps(times, notes)
    # Again: the mean of two huge values may have become infinite.
    values = _finite_or_nan(values)
    values, kept, starts = handle_missing(values, after_gap, names, missing, notes)
    _note_constants(values, names, notes)
    return TimeSeries(
        values=values,
        columns=tuple(names),
        times=None if times is None else _kept(times, kept),
        starts=starts,
        notes=tuple(notes),
        source=source,
    )


def _check_columns(columns: str | Sequence[str] | None) -> None:
    """Raises `ArgumentError` unless `columns` is None, a str, or a list of names."""
    if columns is None or (isinstance(columns, str) and columns.strip(", ")):
        return
    is_list = isinstance(columns, list | tuple) and bool(columns)
    if not is_list or not all(isinstance(name, str) for name in columns):
        expected = "a list of column names, or a str with commas, not empty"
        raise ArgumentError(
            argument_message("columns", expected, columns, "Leave it out to take all.")
        )


def _selected(
    columns: str | Sequence[str] | None, table: Columns, time_columns: list[str]
) -> list[str]:
    """The names in `columns`, checked to be numeric columns; empty for None."""
    if columns is None:
        return []
    if isinstance(columns, str):  # a name may itself have a comma
        single = columns in table
        columns = [columns] if single else [name.strip() for name in columns.split(",")]
    if len(set(columns)) < len(columns):
        raise ArgumentError(argument_message("columns", "distinct names", columns))
    for name in columns:
        if name in time_columns:
            hint = "Time stamps order the readings; leave that name out of `columns`."
            raise DataError(f"`columns` must be features. Received: {name!r}, the times. {hint}")
        if name not in table:
            raise DataError(unknown_name_message("column", name, table))
        reason = _not_numeric(table[name])
        if reason:
            raise DataError(
                f"`columns` must name columns of numbers. Received: {name!r}, which {reason}. "
                "Fix that cell or leave the name out."
            )
    return list(columns)


def _numeric(table: Columns, time_columns: list[str], notes: list[str]) -> list[str]:
    """Every numeric column; notes list the others and why they were left out."""
    reasons = {name: _not_numeric(cells) for name, cells in table.items()}
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        columns = [f"{name!r}, which {reason}" for name, reason in reasons.items()]
        columns += [f"{name!r}, the times" for name in time_columns]
        raise DataError(
            f"`path` must have a column of numbers. Received: {'; '.join(columns)}. "
            "Fix those cells; commas (.csv) or tabs (.tsv) separate cells, points decimals."
        )
    notes += [
        f"Column {name!r} was left out: it {reason}." for name, reason in reasons.items() if reason
    ]
    return names


def _not_numeric(cells: np.ndarray | pd.Series | list[str]) -> str:
    """Why a column cannot be a feature, as text after "which"; empty if it can."""
    if isinstance(cells, pd.Series):
        return "has dates"
    if isinstance(cells, list):
        row = cast(int, parse_numbers(cells))  # texts have a cell that is not a number
        cell = cells[row] if len(cells[row]) <= 40 else cells[row][:37] + "..."
        return f"is not numeric: row {row + 1} below the header is {cell!r}"
    return "" if np.isfinite(cells).any() else "has no value"


def _finite_or_nan(values: np.ndarray) -> np.ndarray:
    """`values` with infinities replaced by NaN: both stand for a missing reading."""
    return np.where(np.isfinite(values), values, np.nan)


def _kept(times: pd.DatetimeIndex, kept: np.ndarray) -> pd.DatetimeIndex:
    """The time stamps of the rows that were kept."""
    return times if kept.all() else times[kept]


def _note_constants(values: np.ndarray, names: list[str], notes: list[str]) -> None:
    """Adds the constant columns to `notes`."""
    for name, low, high in zip(names, values.min(axis=0), values.max(axis=0), strict=True):
        if low == high and len(values) > 1:
            notes.append(f"Column {name!r} is constant ({low:g}) and was kept.")
