"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_seqzoo.diagnostics.anomaly.report import AnomalyReport
    from keras_seqzoo.diagnostics.leakage.report import LeakageReport
    from keras_seqzoo.diagnostics.recoverability.report import RecoverabilityReport


def plot_leakage(report: LeakageReport, ax=None):
    """Leakage against the number of newest steps kept, with its 95 % interval and the threshold."""
    ax = _axes() if ax is None else ax
    low, high = report.by_lag_interval
    ax.fill_between(report.lags, low, high, alpha=0.2, linewidth=0, label="95 % interval")
    ax.plot(report.lags, report.by_lag, marker=".", label="leakage")
    ax.axhline(report.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
    if report.memory_horizon is not None:
        ax.axvline(report.memory_horizon, color="0.5", linestyle=":", linewidth=1)
        ax.annotate(
            f" memory horizon {report.memory_horizon}",
            (report.memory_horizon, 1),
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


def plot_anomaly(report: AnomalyReport, ax=None, labels: Sequence[tuple[Any, Any]] = ()):
    """Scores over time, broken at gaps, with threshold, flagged readings and labeled windows."""
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(9, 3), layout="constrained").add_subplot()
    index, flagged = report.index.to_numpy(), report.flagged
    for number, (first, last) in enumerate(labels):
        name = None if number else "labeled"
        ax.axvspan(
            _place(report, first), _place(report, last), color="tab:orange", alpha=0.25, label=name
        )
    for number, (first, last) in enumerate(pairwise([*report.starts, len(index)])):
        name = None if number else "score"
        ax.plot(index[first:last], report.scores[first:last], "C0", linewidth=0.7, label=name)
    ax.plot(index[flagged], report.scores[flagged], "C3.", markersize=4, label="flagged")
    ax.axhline(report.threshold, color="0.5", linestyle="--", linewidth=1, label="threshold")
    ax.set_xlabel(report.index.name)
    ax.set_ylabel("anomaly score")
    if report.threshold > 0:  # as it is up to the threshold, by its logarithm above
        ax.set_yscale("symlog", linthresh=report.threshold)
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def _place(report: AnomalyReport, where: Any) -> Any:
    """A row number as its place on the time axis; a stamp is one."""
    if isinstance(where, (int, np.integer)):
        return report.index.to_numpy()[where]
    return np.datetime64(where)


def plot_recoverability(report: RecoverabilityReport, ax=None):
    """Held-out R^2 by lag with its 95 % interval: the mean over features, and each where several.

    Args:
        report: what `recoverability` found.
        ax: matplotlib axes; default those of a new figure.
    """
    ax = _axes() if ax is None else ax
    low, high = report.by_lag_interval
    ax.fill_between(report.lags, low, high, alpha=0.2, linewidth=0, label="95 % interval")
    ax.plot(report.lags, report.by_lag, marker=".", label="recoverability")
    if report.by_feature.shape[1] > 1:
        ax.plot(report.lags, report.by_feature, color="0.6", linewidth=0.7, zorder=1)
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set_title(
        f"memory capacity {report.capacity:.3g}, rank {report.rank}", loc="left", fontsize="medium"
    )
    ax.set_xlabel("lag")
    ax.set_ylabel("$R^2$ of a linear read-out")
    ax.set_ylim(top=1.02)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _axes():
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 3.5), layout="constrained").add_subplot()
