"""Report of anomaly scores: flagged readings, episodes, and the state leakage of the score.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.utils.serialization import to_json_values

MAX_EPISODES_SHOWN = 10


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class AnomalyReport:
    """Result of `anomaly`: scores, threshold and flagged readings.

    `str(report)` is a summary with a table of episodes; `report.plot()` draws the scores over time.

    Attributes:
        scores: float array `(steps,)`, at least 0, about 1 where residuals are as in training; NaN
            where the model has no output for a reading.
        threshold: float, the `quantile` of the training scores.
        quantile: float in (0, 1), argument of `anomaly`.
        residuals: float array `(steps, features)`, reading minus output, in units of the feature's
            root mean squared residual in training: they show which feature deviates, and its sign.
        train_scores: float array, the scores that the threshold was chosen on.
        leakage: `LeakageReport`, state leakage of the score: its history dependence, the share of
            its variance that is due to readings before the present one (total Sobol index of the
            past); nothing to do with train/test data leakage. None with fewer than two whole
            windows.
        kind: str, argument of `anomaly`, or the task of the model.
        sequence_length: int, steps in a window.
        sequence_stride: int, steps between windows.
        combine: str, how overlapping windows were combined, "longest" or "mean".
        starts: int tuple, first row of each segment.
        times: `pandas.DatetimeIndex` of `steps` timestamps, or None.
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
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        return [(int(first), int(last)) for first, last in zip(starts, ends, strict=True)]

    def plot(self, ax=None, *, labels: Sequence[tuple[Any, Any]] = ()):
        """Plots the scores over time with the threshold, flagged readings and labeled anomalies.

        Args:
            ax: matplotlib axes to draw into; default those of a new figure.
            labels: known anomalies, each its first and last reading, as row numbers or timestamps.

        Returns:
            The matplotlib axes.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(9, 3), layout="constrained").add_subplot()
        index, flagged = self.index.to_numpy(), self.flagged
        for number, (first, last) in enumerate(labels):
            legend = None if number else "labeled"
            start, end = _position(self, first), _position(self, last)
            ax.axvspan(start, end, color="tab:orange", alpha=0.25, label=legend)
        for number, (first, last) in enumerate(pairwise([*self.starts, len(index)])):
            legend = None if number else "score"
            ax.plot(index[first:last], self.scores[first:last], "C0", linewidth=0.7, label=legend)
        ax.plot(index[flagged], self.scores[flagged], "C3.", markersize=4, label="flagged")
        ax.axhline(self.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
        ax.set_xlabel(str(self.index.name))
        ax.set_ylabel("anomaly score")
        if self.threshold > 0:  # linear up to the threshold, logarithmic above
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
        """Timestamps, or row numbers where there are none."""
        if self.times is not None:
            return pd.DatetimeIndex(self.times, name="time")
        return pd.RangeIndex(len(self.scores), name="reading")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; nan becomes None, timestamps become str."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["leakage"] = self.leakage and self.leakage.to_dict()
        fields["times"] = None if self.times is None else [str(time) for time in self.times]
        fields["flagged"] = np.flatnonzero(self.flagged)
        return {key: to_json_values(value) for key, value in fields.items()}

    def __str__(self) -> str:
        episodes, flagged = self.episodes, int(self.flagged.sum())
        train_count = int((~np.isnan(self.train_scores)).sum())
        plural = "" if len(episodes) == 1 else "s"
        lines = [
            f"Flagged: {flagged} of {len(self.scores)} readings, in {len(episodes)} "
            f"episode{plural}.",
            f"Threshold: {self.threshold:.4g}, the {self.quantile:g} quantile of {train_count} "
            f"training readings (kind {self.kind}; a score of 1 is the root mean square of "
            "training).",
        ]
        missing = int(np.isnan(self.scores).sum())
        if missing:
            lines.append(f"No score: {missing} readings for which the model has no output.")
        lines.append(f"State leakage of the score: {self._leakage_summary()}")
        if episodes:
            lines += ["", *self._table(episodes)]
        return "\n".join(lines)

    def _leakage_summary(self) -> str:
        if self.leakage is None:
            return "not measured, because there are fewer than two whole windows."
        if np.isnan(self.leakage.index):
            return "undefined, because the score is constant."
        low, high = self.leakage.interval
        return (
            f"{self.leakage.index:.3g} (95 % interval {low:.3g} to {high:.3g}), the share of its "
            "variance due to earlier readings."
        )

    def _table(self, episodes: list[tuple[int, int]]) -> list[str]:
        highest = [float(self.scores[first : last + 1].max()) for first, last in episodes]
        shown = sorted(np.argsort(highest)[::-1][:MAX_EPISODES_SHOWN])
        rows = [["first", "last", "highest score", "largest residual"]]
        for number in shown:
            first, last = episodes[number]
            row = first + int(np.argmax(self.scores[first : last + 1]))
            column = self.columns[int(np.argmax(np.abs(self.residuals[row])))]
            bounds = [str(self.index[first]), str(self.index[last])]
            rows.append([*bounds, f"{highest[number]:.4g}", column])
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  "
            + "  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in rows
        ]
        if len(episodes) > MAX_EPISODES_SHOWN:
            lines.append(f"  The {MAX_EPISODES_SHOWN} highest of {len(episodes)}.")
        return lines


def _position(report: AnomalyReport, label: Any) -> Any:
    """Position of a row number or a timestamp on the time axis."""
    if isinstance(label, (int, np.integer)):
        return report.index.to_numpy()[label]
    return np.datetime64(label)
