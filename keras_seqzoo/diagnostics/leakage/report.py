"""What a measurement of state leakage says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo.utils.figures import new_axes
from keras_seqzoo.utils.serialization import to_json_values


@dataclasses.dataclass(frozen=True)
class LeakageReport:
    """What `leakage` found. `str(report)` is a sentence and a table; `report.plot()` the profile.

    Attributes:
        index: float, what the output owes to all inputs before the present one, as a share of its
            variance; nan if no output varies. May exceed 1 on autocorrelated input.
        interval: (low, high), 95 % bootstrap interval of the index.
        standard_error: float, of the index, from the same bootstrap.
        lags: int array, the lags tested; lag k keeps the k newest steps.
        by_lag: float array, leakage at each of `lags`.
        by_lag_interval: `(2, lags)`, 95 % bootstrap interval of each.
        by_feature: float array, the index of each output feature; nan where it is constant.
        memory_horizon: int, the smallest tested k from which on leakage stays under `threshold`;
            None if the window ends first.
        look_ahead: float, what later inputs do to the present output; 0 for a causal model, None
            where it cannot be told (last-step outputs).
        degenerate: bool, whether an output feature is constant; those are left out of the means.
        threshold, method, scale, seed: as asked for.
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
        """Draws the profile by lag with its interval; returns the matplotlib axes."""
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
        """The report as plain data, for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        if np.isnan(self.index):
            return (
                "State leakage is undefined: the output is constant and owes nothing to any input."
            )
        low, high = self.interval
        horizon = (
            f"memory horizon {self.memory_horizon} steps"
            if self.memory_horizon is not None
            else f"memory horizon beyond {self.lags[-1]} steps"
        )
        lines = [
            f"The output owes {self.index:.3g} of its variance to inputs before the present one "
            f"(95 % interval {low:.3g} to {high:.3g}); {horizon} (threshold {self.threshold:g}).",
            "",
            "  newest steps kept   leakage",
        ]
        shown = [int(at) for at in np.unique(np.searchsorted(self.lags, geometric(self.lags[-1])))]
        lines += [f"  {self.lags[at]:>17}   {self.by_lag[at]:.3g}" for at in shown]
        if self.look_ahead:
            lines.append(
                f"  Look-ahead: {self.look_ahead:.3g} of its variance is due to later inputs."
            )
        if self.degenerate:
            lines.append("  Some output features are constant; they are left out.")
        if self.index > 1 and not low <= 1:  # nan without resamples
            lines.append(
                "  Above 1: on autocorrelated input, another past than the true one moves the "
                "output more than it varies by itself."
            )
        return "\n".join(lines)


def geometric(highest: int) -> np.ndarray:
    """1, 2, 4, ... and `highest`."""
    return np.unique([min(2**power, highest) for power in range(int(highest).bit_length() + 1)])
