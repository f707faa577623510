"""Time order of readings: sorting, duplicate time stamps and gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_seqzoo.data.io.text_lines import plural


def sort_by_time(
    values: np.ndarray, times: pd.DatetimeIndex, notes: list[str]
) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Sort rows by time; rows with the same time stamp keep their order."""
    decreases = count_decreases(times)
    if not decreases:
        return values, times
    order = np.argsort(times.to_numpy(), kind="stable")
    times_text = "once" if decreases == 1 else f"{decreases} times"
    notes.append(f"Time stamps decrease {times_text}; the rows were sorted by time.")
    return values[order], times[order]


def merge_duplicates(
    values: np.ndarray, times: pd.DatetimeIndex, duplicates: str, notes: list[str]
) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Keep one row per time stamp: the mean of the rows that share it, the first or the last."""
    extra = times.duplicated(keep="last" if duplicates == "last" else "first")
    if not extra.any():
        return values, times
    kept = {"mean": "their mean was taken"}.get(duplicates, f"the {duplicates} was kept")
    rows = plural(int(extra.sum()), "row")
    notes.append(f"{rows} repeated the time stamp of another; {kept}.")
    if extra.mean() > 0.5:
        notes.append(
            "Most time stamps are duplicates: if the file has the readings of several machines, "
            "make one file for each."
        )
    if duplicates == "mean":
        values = _means(values, times)
    return values[~extra], times[~extra]


def find_gaps(times: pd.DatetimeIndex, notes: list[str]) -> np.ndarray:
    """Whether each row follows a gap, bool `(steps,)`; adds to `notes`.

    A gap is a time step above 1.5 times the median. Irregular time stamps have no gaps: they are
    regular where most time steps are within half of the median.
    """
    after = np.zeros(len(times), dtype=bool)
    if len(times) < 3:
        return after
    seconds = np.diff(times.to_numpy()) / np.timedelta64(1, "s")
    median = float(np.median(seconds))
    if np.mean(np.abs(seconds - median) <= median / 2) <= 0.5:
        notes.append("The time between readings varies, so gaps were not detected.")
        return after
    after[1:] = seconds > 1.5 * median
    notes.append(f"Readings are {median:g} s apart (median).")
    if after.any():
        count = int(after.sum())
        found = "1 gap was" if count == 1 else f"{count} gaps were"
        notes.append(
            f"{found} found, the longest {seconds.max():g} s; a new segment begins after each."
        )
    return after


def count_decreases(times: pd.DatetimeIndex) -> int:
    """The number of time stamps that are earlier than the one before them."""
    values = times.to_numpy()
    return int((values[1:] < values[:-1]).sum())


def _means(values: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
    """Values where rows that share a time stamp have their mean, missing values left out."""
    shared = times.duplicated(keep=False)  # other rows must not change by round-off
    values = values.copy()
    groups = pd.DataFrame(values[shared]).groupby(times[shared])
    values[shared] = groups.transform("mean").to_numpy()
    return values
