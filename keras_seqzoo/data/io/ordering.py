"""Time order: rows sorted by their stamps, one row for each, and the gaps between them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def sort_by_time(
    values: np.ndarray, times: pd.DatetimeIndex, notes: list[str]
) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Sorts rows by time; rows with the same stamp keep their order."""
    back = steps_back(times)
    if not back:
        return values, times
    order = np.argsort(times.to_numpy(), kind="stable")
    notes.append(f"Stamps step back {_times(back)}; the rows were sorted by time.")
    return values[order], times[order]


def merge_repeats(
    values: np.ndarray, times: pd.DatetimeIndex, repeats: str, notes: list[str]
) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Leaves one row per stamp: the mean of those that share it, the first or the last."""
    extra = times.duplicated(keep="last" if repeats == "last" else "first")
    if not extra.any():
        return values, times
    kept = {"mean": "their mean was taken"}.get(repeats, f"the {repeats} was kept")
    notes.append(f"{_rows(int(extra.sum()))} repeated the stamp of another; {kept}.")
    if extra.mean() > 0.5:
        notes.append(
            "Most stamps repeat: if the file holds several machines one below the other, "
            "make one file for each."
        )
    if repeats == "mean":
        values = _means(values, times)
    return values[~extra], times[~extra]


def gaps(times: pd.DatetimeIndex, notes: list[str]) -> np.ndarray:
    """Tells for each row whether it comes after a gap, bool `(steps,)`; adds to `notes`.

    A gap is a step above 1.5 times the median step. It is looked for only where the stamps are
    mostly regular: where most steps are within half of the median.
    """
    after = np.zeros(len(times), dtype=bool)
    if len(times) < 3:
        return after
    seconds = np.diff(times.to_numpy()) / np.timedelta64(1, "s")
    median = float(np.median(seconds))
    if np.mean(np.abs(seconds - median) <= median / 2) <= 0.5:
        notes.append("The time between readings varies, so no gaps were looked for.")
        return after
    after[1:] = seconds > 1.5 * median
    notes.append(f"Readings are {median:g} s apart (median).")
    if after.any():
        count = int(after.sum())
        what = "1 gap was" if count == 1 else f"{count} gaps were"
        notes.append(
            f"{what} found, the longest {seconds.max():g} s; a new stretch begins after each."
        )
    return after


def steps_back(times: pd.DatetimeIndex) -> int:
    """How many stamps are earlier than the one before them."""
    stamps = times.to_numpy()
    return int((stamps[1:] < stamps[:-1]).sum())


def _means(values: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
    """Rows that share a stamp get the mean of their values; missing ones do not count."""
    shared = times.duplicated(keep=False)  # other rows stay as they are, to the last bit
    values = values.copy()
    groups = pd.DataFrame(values[shared]).groupby(times[shared])
    values[shared] = groups.transform("mean").to_numpy()
    return values


def _times(count: int) -> str:
    """A count of events in words."""
    return "once" if count == 1 else f"{count} times"


def _rows(count: int) -> str:
    """A count of rows in words."""
    return "1 row" if count == 1 else f"{count} rows"
