"""Pictures of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_seqzoo.diagnostics.report import LeakageReport


def plot_leakage(report: LeakageReport, ax=None):
    """Leakage against the number of newest steps kept, with its 95 % interval and the threshold."""
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6, 3.5), layout="constrained").add_subplot()
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
