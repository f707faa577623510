"""Time stamps: which column holds them, and how they read."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from keras_seqzoo.data.io.ordering import steps_back
from keras_seqzoo.data.io.table import Columns
from keras_seqzoo.errors import DataError

_EPOCHS = ("timestamp", "datetime", "date", "time")  # the best name first
_SUGGESTS = re.compile(r"time|date|stamp|^ts$|^when$", re.IGNORECASE)
_OFFSET = re.compile(r"\d:\d\d(:\d\d)?(\.\d+)?\s?(Z|[+-]\d\d:?\d\d)$")
# What pandas does not guess: unpadded days, and hours with AM or PM.
_FORMATS = tuple(
    day + hour
    for day in ("%m/%d/%Y", "%d/%m/%Y")
    for hour in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
_SAMPLE = 200


def take_times(
    columns: Columns, notes: list[str]
) -> tuple[pd.DatetimeIndex | None, Columns, list[str]]:
    """Finds the time stamps and takes them out of the columns; adds to `notes`.

    Returns:
        the stamps in the order of the file, or None; the columns that are left; and the names
        of the columns that were taken.

    Raises:
        DataError: if a column holds stamps, but not in every row.
    """
    columns = dict(columns)
    names, cells = _candidate(columns)
    if not names:
        notes.append("No time stamps were found: rows are taken in the order of the file.")
        return None, columns, []
    for name in names:
        del columns[name]
    shown = " and ".join(map(repr, names))
    times = _parsed(cells, shown, notes)
    _refuse_bad(times, cells, shown)
    return times, columns, names


def _candidate(columns: Columns) -> tuple[list[str], pd.Series | list[str] | np.ndarray | None]:
    """The names of the columns with the stamps, and their cells; no names if there are none."""
    for name in _likely_first(columns):
        if isinstance(columns[name], pd.Series):  # datetimes by dtype
            return [name], columns[name]
    texts = {name: cells for name, cells in columns.items() if isinstance(cells, list)}
    lower = {name.lower(): name for name in texts}
    if {"date", "time"} <= set(lower):
        names = [lower["date"], lower["time"]]
        joined = [" ".join(pair) for pair in zip(*(texts[name] for name in names), strict=True)]
        if _share(joined) >= 0.5:
            return names, joined
    for name in _likely_first(texts):
        suggested = bool(_SUGGESTS.search(name))
        # A name is a promise that a bad stamp breaks; a mere position must convince.
        if suggested and _share(texts[name]) >= 0.5:
            return [name], texts[name]
        if name == next(iter(columns)) and _share(texts[name]) >= 0.9:
            return [name], texts[name]
    for epoch in _EPOCHS:
        for name, cells in columns.items():
            if name.lower() == epoch and isinstance(cells, np.ndarray):
                return [name], cells
    return [], None


def _likely_first(names: Columns) -> list[str]:
    """Names in the order of how likely they hold the stamps; ties in the order of the file."""

    def rank(name: str) -> int:
        if name.lower() in _EPOCHS:
            return _EPOCHS.index(name.lower())
        return len(_EPOCHS) if _SUGGESTS.search(name) else len(_EPOCHS) + 1

    return sorted(names, key=rank)


def _share(cells: list[str]) -> float:
    """The share of cells, of a sample, that read as stamps with a date.

    Hours without a day never do: they step back every midnight and cannot be sorted.
    """
    sample = cells[:: max(1, len(cells) // _SAMPLE)]
    return max(_read(sample, form).notna().mean() for form in _formats(sample))


def _parsed(
    cells: pd.Series | list[str] | np.ndarray, shown: str, notes: list[str]
) -> pd.DatetimeIndex:
    """Cells as stamps without a time zone, NaT where one cannot be read."""
    if isinstance(cells, np.ndarray):
        return _epochs(cells, shown, notes)
    notes.append(f"Time stamps are read from column {shown}.")
    if isinstance(cells, list):
        times = _texts(cells, shown, notes)
        zoned = any(_OFFSET.search(cell) for cell in cells)
    else:
        times = pd.DatetimeIndex(cells)
        zoned = times.tz is not None
        times = times.tz_convert("UTC").tz_localize(None) if zoned else times
    if zoned:
        notes.append("Stamps with a time zone are given in UTC.")
    return times.rename(None)


def _texts(cells: list[str], shown: str, notes: list[str]) -> pd.DatetimeIndex:
    """Texts as stamps, by the format that reads the most and steps back the least."""
    sample = cells[:: max(1, len(cells) // _SAMPLE)]
    read = {form: int(_read(sample, form).notna().sum()) for form in _formats(sample)}
    best = [form for form, count in read.items() if count == max(read.values())]
    times = {form: _read(cells, form) for form in best}
    chosen = max(best, key=lambda form: (times[form].notna().sum(), -steps_back(times[form])))
    whole = [form for form in best if times[form].notna().all()]
    if any(not times[form].equals(times[chosen]) for form in whole):
        notes.append(
            f"Day and month of {shown} can be read two ways; {cells[0]!r} was read as "
            f"{times[chosen][0]}."
        )
    return times[chosen]


def _formats(sample: list[str]) -> list[str]:
    """Formats that the sample may be in."""
    guesses: list[str | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns that it guessed; a note says so instead
        for dayfirst in (False, True):
            found = (guess_datetime_format(cell, dayfirst=dayfirst) for cell in sample[:20])
            guesses.append(next((guess for guess in found if guess), None))
    if guesses[0] and guesses[0].startswith("%Y"):
        guesses[1] = None  # nobody writes year, day, month
    return list(dict.fromkeys(["ISO8601", *filter(None, guesses), *_FORMATS]))


def _read(cells: list[str], form: str) -> pd.DatetimeIndex:
    """Cells read in one format, NaT where they are not in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            times = pd.to_datetime(pd.Index(cells), format=form, utc=True, errors="coerce")
        except (ValueError, OverflowError):  # a guess that pandas itself refuses
            return pd.DatetimeIndex([pd.NaT] * len(cells))
    return times.tz_localize(None)


def _epochs(cells: np.ndarray, shown: str, notes: list[str]) -> pd.DatetimeIndex:
    """Numbers as stamps since 1970, in the unit that their size suggests."""
    cells = np.where(np.isfinite(cells), cells, np.nan)
    size = np.nanmax(np.abs(cells)) if np.isfinite(cells).any() else 0
    days = (cells >= 1e7) & (cells < 1e8) & (cells == np.floor(cells))
    if days.all():  # 20240131; as seconds these would all be in 1970
        texts = [f"{cell:.0f}" for cell in cells]
        times = _read(texts, "%Y%m%d")
        if times.notna().all():
            notes.append(f"Time stamps are read from column {shown}, as year, month and day.")
            return times
    unit = next(
        (unit for unit, top in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if size < top), "ns"
    )
    notes.append(f"Time stamps are read from column {shown}, as numbers of {unit} since 1970.")
    return pd.to_datetime(pd.Index(cells), unit=unit, errors="coerce")


def _refuse_bad(times: pd.DatetimeIndex, cells: object, shown: str) -> None:
    """Raises `DataError` that names the first row whose stamp cannot be read."""
    bad = np.flatnonzero(times.isna())
    if bad.size:
        cell = list(cells)[bad[0]]  # type: ignore[call-overload]
        more = f" and {bad.size - 1} more" if bad.size > 1 else ""
        raise DataError(
            f"`path` must have a time stamp in every row. Received: {str(cell)!r} in column "
            f"{shown}, row {bad[0] + 1} below the header{more}. "
            "Mend or delete those rows, or delete the column to take rows in the file's order."
        )
