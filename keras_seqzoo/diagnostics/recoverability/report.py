"""What a measurement of recoverability says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics.leakage.report import geometric
from keras_seqzoo.utils.figures import new_axes
from keras_seqzoo.utils.serialization import to_json_values


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class RecoverabilityReport:
    """What `recoverability` found. `str(report)` is a sentence and a table; `plot()` the profile.

    Attributes:
        capacity: float, the memory capacity: the sum of `by_feature`; nan if no input varies.
        interval: (low, high), 95 % bootstrap interval of the capacity. Like all of them it is that
            of the read-out learned, on other rows; what learning on few steps costs (about
            `rank / steps` of what is missing to 1) is in the figure, not in its interval.
        standard_error: float, of the capacity, from the same bootstrap.
        rank: int, of the output on the training steps, by singular values above float32's
            round-off: the most the capacity can be for independent inputs, up to sampling error.
        lags: int array, the lags tested; 0 is the present.
        by_lag: float array, held-out R^2 at each of `lags`, the mean over features.
        by_lag_interval: `(2, lags)`, 95 % bootstrap interval of each.
        by_feature: `(lags, features)`, held-out R^2 of each input feature; nan where it is
            constant.
        by_feature_interval: `(2, lags, features)`, 95 % bootstrap interval of each.
        degenerate: bool, whether an input feature is constant; those are left out.
        outputs: int, size of the output that was read.
        rows, training_rows: int, held-out rows, and rows that the read-out was learned on.
        layer, seed: as asked for.
    """

    capacity: float
    interval: tuple[float, float]
    standard_error: float
    rank: int
    lags: np.ndarray
    by_lag: np.ndarray
    by_lag_interval: np.ndarray
    by_feature: np.ndarray
    by_feature_interval: np.ndarray
    degenerate: bool
    outputs: int
    rows: int
    training_rows: int
    layer: str | None
    seed: int

    def plot(self, ax=None):
        """Draws the profile by lag with its interval; returns the matplotlib axes."""
        ax = new_axes() if ax is None else ax
        low, high = self.by_lag_interval
        ax.fill_between(self.lags, low, high, alpha=0.2, linewidth=0, label="95 % interval")
        ax.plot(self.lags, self.by_lag, marker=".", label="recoverability")
        if self.by_feature.shape[1] > 1:
            ax.plot(self.lags, self.by_feature, color="0.6", linewidth=0.7, zorder=1)
        ax.axhline(0, color="0.5", linewidth=1)
        ax.set_title(
            f"memory capacity {self.capacity:.3g}, rank {self.rank}", loc="left", fontsize="medium"
        )
        ax.set_xlabel("lag")
        ax.set_ylabel("$R^2$ of a linear read-out")
        ax.set_ylim(top=1.02)
        ax.legend(frameon=False, fontsize="small")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        if np.isnan(self.capacity):
            return "Recoverability is undefined: the input is constant."
        low, high = self.interval
        where = "output" if self.layer is None else f"output of {self.layer!r}"
        lines = [
            f"Memory capacity {self.capacity:.3g} (95 % interval {low:.3g} to {high:.3g}) over "
            f"{len(self.lags)} lags and {self.by_feature.shape[1]} features; rank of the {where} "
            f"{self.rank} of {self.outputs}, the most there can be for independent inputs.",
            "",
            "  lag   R^2 of a linear read-out",
        ]
        asked = [0, *geometric(max(self.lags[-1], 1))]
        shown = np.unique(np.searchsorted(self.lags, np.minimum(asked, self.lags[-1])))
        lines += [f"  {self.lags[at]:>3}   {self.by_lag[at]:.3g}" for at in shown]
        if self.degenerate:
            lines.append("  Some input features are constant; they are left out.")
        if low > self.rank:
            lines.append(
                "  Above the rank: the inputs are not independent, so that one tells of another."
            )
        return "\n".join(lines)
