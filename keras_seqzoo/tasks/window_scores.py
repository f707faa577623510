"""Scores of models of windows."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_seqzoo.diagnostics import LeakageReport
from keras_seqzoo.errors import DataError
from keras_seqzoo.metrics.figure import Figure


@dataclasses.dataclass(frozen=True)
class WindowScores:
    """Scores of a model of windows.

    Attributes:
        normalized_mse: float, mean over features of the mean squared error divided by the variance:
            0 is perfect, 1 what the mean as a constant prediction scores.
        leakage: `LeakageReport` of the output; None with fewer than 2 windows.
        score_leakage: `LeakageReport` of the anomaly score; None without training windows or where
            the output has no value for each step.
    """

    normalized_mse: float
    leakage: LeakageReport | None
    score_leakage: LeakageReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        reports = {"leakage": self.leakage, "score_leakage": self.score_leakage}
        return {"normalized_mse": self.normalized_mse} | {
            name: report.to_dict() for name, report in reports.items() if report is not None
        }

    def figures(self) -> list[Figure]:
        """Labeled numbers, for a table or a report."""
        figures = [Figure("normalized MSE", f"{self.normalized_mse:.2g}", "0 is perfect")]
        if self.leakage is not None:
            figures.append(_leakage_figure("state leakage", self.leakage))
            horizon = self.leakage.memory_horizon
            figures.append(
                Figure(
                    "memory horizon",
                    "beyond the window" if horizon is None else str(horizon),
                    f"steps, threshold {self.leakage.threshold}",
                )
            )
        if self.score_leakage is not None:
            figures.append(
                _leakage_figure("state leakage of the anomaly score", self.score_leakage)
            )
        return figures

    def plot(self, ax=None):
        """Draws the leakage profile; returns the matplotlib axes."""
        if self.leakage is None:
            raise DataError("`plot` must have at least 2 windows. Received: 1.")
        return self.leakage.plot(ax)

    def __str__(self) -> str:
        head = f"Normalized MSE {self.normalized_mse:.3g} (0 is perfect)."
        return head if self.leakage is None else f"{head} {self.leakage}"


def _leakage_figure(label: str, report: LeakageReport) -> Figure:
    low, high = report.interval
    return Figure(label, f"{report.index:.2g}", f"95 % interval {low:.2g} to {high:.2g}")
