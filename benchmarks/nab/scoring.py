"""The scoring rule of the Numenta Anomaly Benchmark, standard profile.

A detection inside a labeled window earns up to 1, the earlier the more; a window without any costs
1; a detection outside costs up to 0.11, less where it comes shortly after a window. The first rows
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

FALSE_POSITIVE = 0.11  # its weight, against 1 for a window found or missed
TRAINING_SHARE, MOST_TRAINING = 0.15, 750

Window = tuple[int, int]  # first and last row, both included


@dataclasses.dataclass(frozen=True)
class Labeled:
    """A record, its stamps, and the windows of its anomalies."""

    name: str
    values: np.ndarray
    times: pd.DatetimeIndex
    windows: list[Window]

    @property
    def train(self) -> int:
        """How many rows at the start are for training and unscored."""
        return training_rows(len(self.values))


def training_rows(rows: int) -> int:
    """How many rows at the start are for training and unscored."""
    return min(int(TRAINING_SHARE * rows), MOST_TRAINING)


def sigma(x: float) -> float:
    """1 far before the end of a window, 0 at its end, -1 far behind it."""
    return 2 / (1 + np.exp(5 * x)) - 1


def score_file(detections: Iterable[int], windows: Sequence[Window], rows: int) -> float:
    """What detections earn and windows without any cost, summed; at most `len(windows)`.

    Args:
        detections: row numbers, from 0.
        windows: first and last row of each, in order, apart from each other.
        rows: int, rows of the file.
    """
    counted = [row for row in sorted(detections) if row >= training_rows(rows)]
    found: dict[Window, int] = {}  # the earliest detection of each
    total = 0.0
    for row in counted:
        window = next((one for one in windows if one[0] <= row <= one[1]), None)
        if window is None:
            total += FALSE_POSITIVE * _outside(row, windows)
        else:
            found.setdefault(window, row)
    for window in windows:
        total += _inside(found[window], window) if window in found else -1
    return float(total)


def normalized(total: float, windows: int) -> float:
    """0 for a detector that says nothing, 100 for one that finds every window at its start."""
    return 100 * (total + windows) / (2 * windows)


def read(data: Path, name: str) -> Labeled:
    """The file `data/NAME`, rows in its order, with its windows: labels are by stamp.

    Args:
        data: folder with data/ and labels/, as the benchmark comes.
        name: str, `folder/file.csv`.
    """
    table = pd.read_csv(data / "data" / name, parse_dates=["timestamp"])
    times = pd.DatetimeIndex(table["timestamp"])
    labels = json.loads((data / "labels" / "combined_windows.json").read_text())
    windows = [rows_between(times, first, last) for first, last in labels[name]]
    return Labeled(Path(name).stem, table["value"].to_numpy(float), times, windows)


def rows_between(times: pd.DatetimeIndex, first: str, last: str) -> Window:
    """The first and the last row between two stamps, both included; stamps may repeat."""
    rows = np.flatnonzero((times >= pd.Timestamp(first)) & (times <= pd.Timestamp(last)))
    return int(rows[0]), int(rows[-1])


def _inside(row: int, window: Window) -> float:
    left, right = window
    return sigma(-(right - row + 1) / (right - left + 1)) / sigma(-1)


def _outside(row: int, windows: Sequence[Window]) -> float:
    before = [one for one in windows if one[1] < row]
    if not before:
        return -1
    left, right = before[-1]
    x = (row - right) / max(right - left, 1)  # a window's width - 1
    return -1 if x > 3 else sigma(x)
