"""Scoring of the Numenta Anomaly Benchmark, standard profile.

A detection inside a labeled window earns up to 1, more the earlier it is. A window without a
detection costs 1. A detection outside costs up to 0.11, less shortly after a window. The first rows
of a file are for training and are not scored.

Reference: [Lavin & Ahmad, 2015](https://doi.org/10.1109/ICMLA.2015.141)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

FALSE_POSITIVE = 0.11  # weight of a false alarm; a window found or missed has weight 1
TRAINING_SHARE, MOST_TRAINING = 0.15, 750

Window = tuple[int, int]  # first and last row, both included


@dataclasses.dataclass(frozen=True)
class LabeledRecord:
    """A univariate time series with timestamps and the windows of its anomalies."""

    name: str
    values: np.ndarray
    times: pd.DatetimeIndex
    windows: list[Window]

    @property
    def train(self) -> int:
        """Number of rows at the start that are for training and not scored."""
        return training_rows(len(self.values))


def training_rows(rows: int) -> int:
    """Number of rows at the start that are for training and not scored."""
    return min(int(TRAINING_SHARE * rows), MOST_TRAINING)


def sigma(x: float) -> float:
    """1 far before the end of a window, 0 at its end, -1 far behind it."""
    return 2 / (1 + np.exp(5 * x)) - 1


def score_file(detections: Iterable[int], windows: Sequence[Window], rows: int) -> float:
    """Raw score of a file: gains of detections minus costs; at most `len(windows)`.

    Args:
        detections: row numbers, from 0.
        windows: first and last row of each, in order, without overlap.
        rows: int, rows of the file.
    """
    scored = [row for row in sorted(detections) if row >= training_rows(rows)]
    earliest: dict[Window, int] = {}  # detection of each window
    total = 0.0
    for row in scored:
        window = next((pair for pair in windows if pair[0] <= row <= pair[1]), None)
        if window is None:
            total += FALSE_POSITIVE * _outside(row, windows)
        else:
            earliest.setdefault(window, row)
    for window in windows:
        total += _inside(earliest[window], window) if window in earliest else -1
    return float(total)


def normalized(total: float, windows: int) -> float:
    """0 for a detector without alarms, 100 for one that detects every window at its start."""
    return 100 * (total + windows) / (2 * windows)


def read(data: Path, name: str) -> LabeledRecord:
    """Read the file `data/NAME` in its row order, with its labeled windows as rows.

    Args:
        data: folder of the benchmark, with data/ and labels/.
        name: str, `folder/file.csv`.
    """
    table = pd.read_csv(data / "data" / name, parse_dates=["timestamp"])
    times = pd.DatetimeIndex(table["timestamp"])
    labels = json.loads((data / "labels" / "combined_windows.json").read_text())
    windows = [rows_between(times, first, last) for first, last in labels[name]]
    return LabeledRecord(Path(name).stem, table["value"].to_numpy(float), times, windows)


def rows_between(times: pd.DatetimeIndex, first: str, last: str) -> Window:
    """The first and last row between two timestamps, both included; timestamps may repeat."""
    rows = np.flatnonzero((times >= pd.Timestamp(first)) & (times <= pd.Timestamp(last)))
    return int(rows[0]), int(rows[-1])


def _inside(row: int, window: Window) -> float:
    left, right = window
    return sigma(-(right - row + 1) / (right - left + 1)) / sigma(-1)


def _outside(row: int, windows: Sequence[Window]) -> float:
    earlier = [window for window in windows if window[1] < row]
    if not earlier:
        return -1
    left, right = earlier[-1]
    x = (row - right) / max(right - left, 1)  # in units of the window's width - 1
    return -1 if x > 3 else sigma(x)
