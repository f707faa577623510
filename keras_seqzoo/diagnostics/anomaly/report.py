"""What an anomaly score says of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.utils.serialization import to_json_values

SHOWN = 10  # episodes


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class AnomalyReport:
    """What `anomaly` found. `str(report)` is a sentence and a table of episodes.

    Attributes:
        scores: float array `(steps,)`, at least 0, about 1 is usual; NaN where the model says
            nothing of a reading.
        threshold: float, the `quantile` of the training scores.
        quantile: float in (0, 1), as asked for.
        residuals: float array `(steps, features)`, reading minus what the model says, in units of
            the feature's root mean squared residual in training: which feature, and which way.
        train_scores: float array, the scores that the threshold was chosen on.
        leakage: `LeakageReport` of the score itself: what it owes to earlier readings. None where
            the record has no two whole windows.
        kind, window, stride, combine: how the record was seen.
        starts: int tuple, the rows at which unbroken stretches begin.
        times: `pandas.DatetimeIndex` of `steps` stamps, or None.
        columns: tuple of str, one name per feature.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.r_[np.tile([0.0, 1.0], 200), 5.0, 6.0]
    >>> report = zoo.anomaly(lambda x: 0.9 * x, x[300:], x[:300], kind="identity")
    >>> report.episodes
    [(100, 101)]
    >>> report.to_frame().columns.tolist()
    ['score', 'flagged', 'residual_feature 0']
    """

    scores: np.ndarray
    threshold: float
    quantile: float
    residuals: np.ndarray
    train_scores: np.ndarray
    leakage: LeakageReport | None
    kind: str
    sequence_length: int
    sequence_stride: int
    combine: str
    starts: tuple[int, ...]
    times: pd.DatetimeIndex | None
    columns: tuple[str, ...]

    @property
    def flagged(self) -> np.ndarray:
        """Whether each reading scores above the threshold, bool array `(steps,)`."""
        return self.scores > self.threshold  # NaN is not above

    @property
    def episodes(self) -> list[tuple[int, int]]:
        """First and last row of each run of flagged readings."""
        edges = np.diff(np.r_[False, self.flagged, False].astype(int))
        begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        return [(int(first), int(last)) for first, last in zip(begins, ends, strict=True)]

    def plot(self, ax=None, *, labels: Sequence[tuple[Any, Any]] = ()):
        """Draws the scores over time with the threshold; returns the matplotlib axes.

        Args:
            ax: matplotlib axes; default those of a new figure.
            labels: known anomalies, each its first and last reading, as row numbers or as stamps.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(9, 3), layout="constrained").add_subplot()
        index, flagged = self.index.to_numpy(), self.flagged
        for number, (first, last) in enumerate(labels):
            name = None if number else "labeled"
            ax.axvspan(
                _place(self, first), _place(self, last), color="tab:orange", alpha=0.25, label=name
            )
        for number, (first, last) in enumerate(pairwise([*self.starts, len(index)])):
            name = None if number else "score"
            ax.plot(index[first:last], self.scores[first:last], "C0", linewidth=0.7, label=name)
        ax.plot(index[flagged], self.scores[flagged], "C3.", markersize=4, label="flagged")
        ax.axhline(self.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
        ax.set_xlabel(self.index.name)
        ax.set_ylabel("anomaly score")
        if self.threshold > 0:  # as it is up to the threshold, by its logarithm above
            ax.set_yscale("symlog", linthresh=self.threshold)
            ax.yaxis.set_major_formatter("{x:g}")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
        return ax

    def to_frame(self) -> pd.DataFrame:
        """A row per reading: score, whether it is flagged, and the residual of each feature."""
        frame = pd.DataFrame({"score": self.scores, "flagged": self.flagged}, index=self.index)
        for number, column in enumerate(self.columns):
            frame[f"residual_{column}"] = self.residuals[:, number]
        return frame

    @property
    def index(self) -> pd.Index:
        """Stamps, or row numbers where there are none."""
        if self.times is not None:
            return pd.DatetimeIndex(self.times, name="time")
        return pd.RangeIndex(len(self.scores), name="reading")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; nan becomes None and stamps text."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts["leakage"] = self.leakage and self.leakage.to_dict()
        parts["times"] = None if self.times is None else [str(time) for time in self.times]
        parts["flagged"] = np.flatnonzero(self.flagged)
        return {key: to_json_values(value) for key, value in parts.items()}

    def __str__(self) -> str:
        episodes, flagged = self.episodes, int(self.flagged.sum())
        known = int((~np.isnan(self.train_scores)).sum())
        lines = [
            f"{flagged} of {len(self.scores)} readings are flagged, in {_count(episodes)}: they "
            f"score above {self.threshold:.4g}, the {self.quantile:g} quantile of {known} training "
            f"readings (kind {self.kind}; 1 is usual)."
        ]
        unsaid = int(np.isnan(self.scores).sum())
        if unsaid:
            lines.append(f"  The model says nothing of {unsaid} readings; they have no score.")
        lines.append(f"  {self._owed()}")
        if episodes:
            lines += ["", *self._table(episodes)]
        return "\n".join(lines)

    def _owed(self) -> str:
        if self.leakage is None:
            return "Too few whole windows to measure what the score owes to earlier readings."
        if np.isnan(self.leakage.index):
            return "The score is constant and owes nothing to any reading."
        low, high = self.leakage.interval
        return (
            f"The score owes {self.leakage.index:.3g} of its variance to earlier readings "
            f"(95 % interval {low:.3g} to {high:.3g})."
        )

    def _table(self, episodes: list[tuple[int, int]]) -> list[str]:
        highest = [float(self.scores[first : last + 1].max()) for first, last in episodes]
        shown = sorted(np.argsort(highest)[::-1][:SHOWN])
        rows = [["first", "last", "highest score", "mostly"]]
        for number in shown:
            first, last = episodes[number]
            row = first + int(np.argmax(self.scores[first : last + 1]))
            mostly = self.columns[int(np.argmax(np.abs(self.residuals[row])))]
            stamps = [str(self.index[first]), str(self.index[last])]
            rows.append([*stamps, f"{highest[number]:.4g}", mostly])
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  "
            + "  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in rows
        ]
        if len(episodes) > SHOWN:
            lines.append(f"  The {SHOWN} highest of {len(episodes)}.")
        return lines


def _count(episodes: list) -> str:
    return "1 episode" if len(episodes) == 1 else f"{len(episodes)} episodes"


def _place(report: AnomalyReport, where: Any) -> Any:
    """A row number as its place on the time axis; a stamp is one."""
    if isinstance(where, (int, np.integer)):
        return report.index.to_numpy()[where]
    return np.datetime64(where)
