"""Report of state leakage, the history dependence of the output.

State leakage is the share of the output's variance that is due to inputs before the present one
(total Sobol index of the past); nothing to do with train/test data leakage.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics.lags import geometric_lags
from keras_seqzoo.utils.figures import new_axes
from keras_seqzoo.utils.serialization import to_json_values


@dataclasses.dataclass(frozen=True)
class LeakageReport:
    """Result of `leakage`: index, profile by lag, memory horizon and look-ahead.

    State leakage is the history dependence of the output: the share of its variance that is due to
    inputs before the present one (total Sobol index of the past); nothing to do with train/test
    data leakage. `str(report)` is a summary with a table; `report.plot()` draws the profile.

    Attributes:
        index: float, state leakage with only the present step kept: leakage at lag 1. nan if no
            output varies. May exceed 1 on autocorrelated input.
        interval: (low, high), 95 % bootstrap interval of the index.
        standard_error: float, of the index, from the same bootstrap.
        lags: int array, the lags tested; lag k keeps the k newest steps.
        by_lag: float array, leakage at each of `lags`.
        by_lag_interval: `(2, lags)`, 95 % bootstrap interval of each.
        by_feature: float array, the index of each output feature; nan where it is constant.
        memory_horizon: int, the smallest tested k from which on leakage stays below `threshold`;
            None if the window ends first.
        look_ahead: float, the same measure for inputs after the present one; 0 for a causal model,
            None where it is not measured (last-step outputs).
        degenerate: bool, whether an output feature is constant; constant features are left out of
            the means.
        threshold: float, argument of `leakage`.
        method: str, argument of `leakage`.
        scale: str, argument of `leakage`.
        seed: int, argument of `leakage`.
        cuts: int tuple, first steps kept; empty for last-step outputs and for gradients.
        rows: int, rows that took part.
    """

    index: float
    interval: tuple[float, float]
    standard_error: float
    lags: np.ndarray
    by_lag: np.ndarray
    by_lag_interval: np.ndarray
    by_feature: np.ndarray
    memory_horizon: int | None
    look_ahead: float | None
    degenerate: bool
    threshold: float
    method: str
    scale: str
    seed: int
    cuts: tuple[int, ...]
    rows: int

    def plot(self, ax=None):
        """Plots leakage by lag with its 95 % interval, the threshold and the memory horizon.

        Args:
            ax: matplotlib axes to draw into; default those of a new figure.

        Returns:
            The matplotlib axes.
        """
        ax = new_axes() if ax is None else ax
        low, high = self.by_lag_interval
        ax.fill_between(self.lags, low, high, alpha=0.2, linewidth=0, label="95 % interval")
        ax.plot(self.lags, self.by_lag, marker=".", label="leakage")
        ax.axhline(self.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
        if self.memory_horizon is not None:
            ax.axvline(self.memory_horizon, color="0.5", linestyle=":", linewidth=1)
            ax.annotate(
                f" memory horizon {self.memory_horizon}",
                (self.memory_horizon, 1),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize="small",
            )
        ax.set_xlabel("newest steps kept")
        ax.set_ylabel("state leakage")
        ax.set_yscale("symlog", linthresh=1e-4)
        ax.set_ylim(bottom=0)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.legend(frameon=False, fontsize="small")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        if np.isnan(self.index):
            return "State leakage: undefined, because the output is constant."
        low, high = self.interval
        horizon = (
            f"{self.memory_horizon} steps"
            if self.memory_horizon is not None
            else f"more than {self.lags[-1]} steps"
        )
        lines = [
            f"State leakage: {self.index:.3g} (95 % interval {low:.3g} to {high:.3g}), the share "
            "of the output's variance due to inputs before the present one.",
            f"Memory horizon: {horizon} (leakage threshold {self.threshold:g}).",
            "",
            "  newest steps kept   leakage",
        ]
        shown = np.unique(np.searchsorted(self.lags, geometric_lags(self.lags[-1])))
        lines += [f"  {self.lags[row]:>17}   {self.by_lag[row]:.3g}" for row in shown]
        if self.look_ahead:
            lines.append(
                f"  Look-ahead: {self.look_ahead:.3g} of the output's variance is due to later "
                "inputs."
            )
        if self.degenerate:
            lines.append("  Some output features are constant and left out.")
        if self.index > 1 and not low <= 1:  # nan without resamples
            lines.append(
                "  Above 1: on autocorrelated input, exchanging the past can change the output by "
                "more than its own variance."
            )
        return "\n".join(lines)
