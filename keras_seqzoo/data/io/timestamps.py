"""Detection and parsing of time stamps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from keras_seqzoo.data.io.ordering import count_decreases
from keras_seqzoo.data.io.table import Columns
from keras_seqzoo.errors import DataError

_EPOCH_NAMES = ("timestamp", "datetime", "date", "time")  # the most likely first
_TIME_NAME = re.compile(r"time|date|stamp|^ts$|^when$", re.IGNORECASE)
_OFFSET = re.compile(r"\d:\d\d(:\d\d)?(\.\d+)?\s?(Z|[+-]\d\d:?\d\d)$")
# pandas does not guess unpadded days and hours with AM or PM.
_FORMATS = tuple(
    day + hour
    for day in ("%m/%d/%Y", "%d/%m/%Y")
    for hour in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
_SAMPLE_SIZE = 200


def extract_times(
    columns: Columns, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, Columns, list[str]]:
    """Separate the time stamps from the other columns; adds to `notes`.

    Returns:
        the time stamps in the order of the file, or None; the other columns; and the names of the
        columns with the time stamps.

    Raises:
        DataError: if a column has time stamps, but not in every row.
    """
    columns = dict(columns)
    names, cells = _time_columns(columns)
    if cells is None:
        notes.append("No time stamps were found: rows are in the order of the file.")
        return None, columns, []
    for name in names:
        del columns[name]
    shown = " and ".join(map(repr, names))
    times = _parsed(cells, shown, notes)
    _check_parsed(times, cells, shown)
    return times, columns, names


def _time_columns(columns: Columns) -> tuple[list[str], pd.Series | list[str] | np.ndarray | None]:
    """The names of the columns with time stamps, and their cells; None if there are none."""
    for name in _most_likely_first(columns):
        if isinstance(columns[name], pd.Series):  # datetimes by dtype
            return [name], columns[name]
    texts = {name: cells for name, cells in columns.items() if isinstance(cells, list)}
    lower = {name.lower(): name for name in texts}
    if {"date", "time"} <= set(lower):
        names = [lower["date"], lower["time"]]
        joined = [" ".join(pair) for pair in zip(*(texts[name] for name in names), strict=True)]
        if _parsable_fraction(joined) >= 0.5:
            return names, joined
    for name in _most_likely_first(texts):
        suggested = bool(_TIME_NAME.search(name))
        # Without a name that suggests times, the first column must be parsable almost everywhere.
        if suggested and _parsable_fraction(texts[name]) >= 0.5:
            return [name], texts[name]
        if name == next(iter(columns)) and _parsable_fraction(texts[name]) >= 0.9:
            return [name], texts[name]
    for epoch in _EPOCH_NAMES:
        for name, cells in columns.items():
            if name.lower() == epoch and isinstance(cells, np.ndarray):
                return [name], cells
    return [], None


def _most_likely_first(names: Iterable[str]) -> list[str]:
    """Names sorted by how likely they are those of time stamps; ties in the order of the file."""

    def rank(name: str) -> int:
        if name.lower() in _EPOCH_NAMES:
            return _EPOCH_NAMES.index(name.lower())
        return len(_EPOCH_NAMES) if _TIME_NAME.search(name) else len(_EPOCH_NAMES) + 1

    return sorted(names, key=rank)


def _parsable_fraction(cells: list[str]) -> float:
    """The fraction of cells, in a sample, that can be parsed as time stamps with a date.

    Times of day without a date cannot: they decrease at midnight and cannot be sorted.
    """
    sample = cells[:: max(1, len(cells) // _SAMPLE_SIZE)]
    return max(_parse(sample, form).notna().mean() for form in _formats(sample))


def _parsed(
    cells: pd.Series | list[str] | np.ndarray, shown: str, notes: list[str]
) -> pd.DatetimeIndex:
    """Cells as time stamps without a time zone, NaT where one cannot be parsed."""
    if isinstance(cells, np.ndarray):
        return _parse_epochs(cells, shown, notes)
    notes.append(f"Time stamps are read from column {shown}.")
    if isinstance(cells, list):
        times = _parse_texts(cells, shown, notes)
        zoned = any(_OFFSET.search(cell) for cell in cells)
    else:
        times = pd.DatetimeIndex(cells)
        zoned = times.tz is not None
        times = times.tz_convert("UTC").tz_localize(None) if zoned else times
    if zoned:
        notes.append("Time stamps with a time zone were converted to UTC.")
    return times.rename(None)


def _parse_texts(cells: list[str], shown: str, notes: list[str]) -> pd.DatetimeIndex:
    """Texts as time stamps, in the format that parses most of them and decreases least."""
    sample = cells[:: max(1, len(cells) // _SAMPLE_SIZE)]
    parsed = {form: int(_parse(sample, form).notna().sum()) for form in _formats(sample)}
    best = [form for form, count in parsed.items() if count == max(parsed.values())]
    times = {form: _parse(cells, form) for form in best}
    chosen = max(best, key=lambda form: (times[form].notna().sum(), -count_decreases(times[form])))
    complete = [form for form in best if times[form].notna().all()]
    if any(not times[form].equals(times[chosen]) for form in complete):
        notes.append(
            f"Day and month of {shown} are ambiguous; {cells[0]!r} was read as {times[chosen][0]}."
        )
    return times[chosen]


def _formats(sample: list[str]) -> list[str]:
    """Candidate formats for the sample."""
    guesses: list[str | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns that it guessed; a note replaces that
        for dayfirst in (False, True):
            candidates = (guess_datetime_format(cell, dayfirst=dayfirst) for cell in sample[:20])
            guesses.append(next((guess for guess in candidates if guess), None))
    if guesses[0] and guesses[0].startswith("%Y"):
        guesses[1] = None  # year, day, month is not in use
    return list(dict.fromkeys(["ISO8601", *filter(None, guesses), *_FORMATS]))


def _parse(cells: list[str], form: str) -> pd.DatetimeIndex:
    """Cells parsed in one format, NaT where they do not match it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            times = pd.to_datetime(pd.Index(cells), format=form, utc=True, errors="coerce")
        except (ValueError, OverflowError):  # a guessed format that pandas rejects
            return pd.DatetimeIndex([pd.NaT] * len(cells))
    return times.tz_localize(None)


def _parse_epochs(cells: np.ndarray, shown: str, notes: list[str]) -> pd.DatetimeIndex:
    """Numbers since 1970 as time stamps, in the unit that their magnitude suggests."""
    cells = np.where(np.isfinite(cells), cells, np.nan)
    magnitude = np.nanmax(np.abs(cells)) if np.isfinite(cells).any() else 0
    days = (cells >= 1e7) & (cells < 1e8) & (cells == np.floor(cells))
    if days.all():  # such as 20240131; as seconds, all of these would be in 1970
        texts = [f"{cell:.0f}" for cell in cells]
        times = _parse(texts, "%Y%m%d")
        if times.notna().all():
            notes.append(f"Time stamps are read from column {shown}, as year, month and day.")
            return times
    unit = next(
        (unit for unit, top in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if magnitude < top), "ns"
    )
    notes.append(f"Time stamps are read from column {shown}, as numbers of {unit} since 1970.")
    return pd.to_datetime(pd.Index(cells), unit=unit, errors="coerce")


def _check_parsed(times: pd.DatetimeIndex, cells: Iterable, shown: str) -> None:
    """Raises `DataError` with the first row whose time stamp cannot be parsed."""
    invalid = np.flatnonzero(times.isna())
    if invalid.size:
        cell = list(cells)[invalid[0]]
        more = f" and {invalid.size - 1} more" if invalid.size > 1 else ""
        raise DataError(
            f"`path` must have a time stamp in every row. Received: {str(cell)!r} in column "
            f"{shown}, row {invalid[0] + 1} below the header{more}. "
            "Fix or delete those rows, or delete the column to keep rows in the file's order."
        )
