"""Report of recoverability by lag and of memory capacity."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics.lags import geometric_lags
from keras_seqzoo.utils.figures import new_axes
from keras_seqzoo.utils.serialization import to_json_values


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value
class RecoverabilityReport:
    """Result of `recoverability`: memory capacity, rank and the profile by lag.

    `str(report)` is a summary with a table; `report.plot()` draws the profile.

    Attributes:
        capacity: float, the memory capacity: the sum of `by_feature`; nan if no input varies.
        interval: (low, high), 95 % bootstrap interval of the capacity. Like all intervals here it
            is that of the trained read-out on other rows. The loss from training on few steps
            (about `rank / steps` of the distance to 1) is in the estimate, not in the interval.
        standard_error: float, of the capacity, from the same bootstrap.
        rank: int, of the output on the training steps: singular values above float32's round-off.
            For independent inputs it is the largest capacity possible, up to sampling error.
        lags: int array, the lags tested; 0 is the present.
        by_lag: float array, held-out R^2 at each of `lags`, the mean over features.
        by_lag_interval: `(2, lags)`, 95 % bootstrap interval of each.
        by_feature: `(lags, features)`, held-out R^2 of each input feature; nan where it is
            constant.
        by_feature_interval: `(2, lags, features)`, 95 % bootstrap interval of each.
        degenerate: bool, whether an input feature is constant; constant features are left out.
        outputs: int, size of the output.
        rows: int, held-out rows.
        training_rows: int, rows that the read-out was trained on.
        layer: str, argument of `recoverability`.
        seed: int, argument of `recoverability`.
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
        """Plots held-out R^2 by lag with its 95 % interval, and each input feature as a thin line.

        Args:
            ax: matplotlib axes to draw into; default those of a new figure.

        Returns:
            The matplotlib axes.
        """
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
        """The report as plain data for JSON; nan and infinity become None."""
        return {key: to_json_values(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        if np.isnan(self.capacity):
            return "Recoverability: undefined, because the input is constant."
        low, high = self.interval
        source = "the output" if self.layer is None else f"the output of layer {self.layer!r}"
        lines = [
            f"Memory capacity: {self.capacity:.3g} (95 % interval {low:.3g} to {high:.3g}), over "
            f"{len(self.lags)} lags and {self.by_feature.shape[1]} features.",
            f"Rank of {source}: {self.rank} of {self.outputs}, the largest capacity possible for "
            "independent inputs.",
            "",
            "  lag   R^2 of a linear read-out",
        ]
        lags = [0, *geometric_lags(max(self.lags[-1], 1))]
        shown = np.unique(np.searchsorted(self.lags, np.minimum(lags, self.lags[-1])))
        lines += [f"  {self.lags[row]:>3}   {self.by_lag[row]:.3g}" for row in shown]
        if self.degenerate:
            lines.append("  Some input features are constant and left out.")
        if low > self.rank:
            lines.append(
                "  Capacity above the rank: the inputs are not independent, so that one predicts "
                "another."
            )
        return "\n".join(lines)
