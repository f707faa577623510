"""Figures of a search's report that every task has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.tasks.window_figures import CHOSEN
from keras_seqzoo.tuning.results import curves, importances

if TYPE_CHECKING:
    from keras_seqzoo.tuning.tuner import Search


def objective_curves(search: Search, chosen: int) -> Figure | None:
    """The objective after each epoch, of every trial."""
    names = [one.name for one in search.oracle.objectives]
    metric = names[0] if len(names) == 1 else "val_identity_cost"
    trials = curves(search.oracle, metric)
    if not trials:
        return None
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    styles = {
        "chosen": {"color": CHOSEN, "linewidth": 2, "zorder": 4},
        "complete": {"color": "#5b6570", "alpha": 0.6, "linewidth": 1, "zorder": 3},
        "pruned": {"color": "#9aa0a8", "alpha": 0.3, "linewidth": 0.8, "zorder": 2},
        "failed": {"color": "#9aa0a8", "alpha": 0.3, "linewidth": 0.8, "zorder": 2},
    }
    labeled = set()
    for trial, (state, values) in trials.items():
        style = "chosen" if trial == chosen else state
        label = None if style in labeled else style
        labeled.add(style)
        ax.plot(
            range(1, len(values) + 1),
            values,
            label=label,
            marker="." if len(values) == 1 else None,
            **styles[style],
        )
    finite = [value for _, values in trials.values() for value in values]
    ax.set(xlabel="epoch", ylabel=metric.removeprefix("val_").replace("_", " "))
    ax.set_yscale("log" if min(finite) > 0 else "linear")
    ax.legend(frameon=False, fontsize="small")
    return figure


def importance_bars(search: Search) -> Figure | None:
    """Which parameters tell the best trials from the others."""
    shares = importances(search.oracle)
    if not shares:
        return None
    figure = Figure(figsize=(6.2, 0.9 + 0.45 * len(shares)), layout="constrained")
    ax = figure.add_subplot()
    names = list(reversed(shares))
    ax.barh([name.replace("_", " ") for name in names], [shares[name] for name in names])
    ax.set(xlabel="share", xlim=(0, 1))
    return figure


def score_against(results: pd.DataFrame, chosen: int, name: str, score: str) -> Figure:
    """The score of every complete trial against one parameter."""
    figure = Figure(figsize=(6.2, 3.2), layout="constrained")
    ax = figure.add_subplot()
    complete = results[results["state"] == "complete"]
    values = complete[name]
    numeric = pd.api.types.is_numeric_dtype(values)
    ax.scatter(values, complete[score], s=36, color="#5b6570")
    best = complete["trial"] == chosen
    ax.scatter(
        values[best], complete[score][best], s=150, facecolors="none", edgecolors=CHOSEN,
        linewidths=2, label="chosen",
    )  # fmt: skip
    ax.set(xlabel=name.replace("_", " "), ylabel=score.removeprefix("val_"))
    if numeric and (values > 0).all() and values.max() / values.min() > 20:
        ax.set_xscale("log")
    ax.legend(frameon=False, fontsize="small")
    return figure
