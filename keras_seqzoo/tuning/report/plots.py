"""Figures of a search report that do not depend on the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.tasks.window_figures import CHOSEN
from keras_seqzoo.tuning.results import learning_curves, param_importances

if TYPE_CHECKING:
    from keras_seqzoo.tuning.tuner import Search


def learning_curve_figure(search: Search, chosen: int) -> Figure | None:
    """Objective of every trial against the epoch; None if no trial has a finite value."""
    names = [objective.name for objective in search.oracle.objectives]
    metric = names[0] if len(names) == 1 else "val_identity_cost"
    curves = learning_curves(search.oracle, metric)
    if not curves:
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
    for trial, (state, values) in curves.items():
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
    finite = [value for _, values in curves.values() for value in values]
    ax.set(xlabel="epoch", ylabel=metric.removeprefix("val_").replace("_", " "))
    ax.set_yscale("log" if min(finite) > 0 else "linear")
    ax.legend(frameon=False, fontsize="small")
    return figure


def importance_figure(search: Search) -> Figure | None:
    """Bars of the importance of each hyperparameter; None if there are too few trials."""
    importances = param_importances(search.oracle)
    if not importances:
        return None
    figure = Figure(figsize=(6.2, 0.9 + 0.45 * len(importances)), layout="constrained")
    ax = figure.add_subplot()
    names = list(reversed(importances))
    ax.barh([name.replace("_", " ") for name in names], [importances[name] for name in names])
    ax.set(xlabel="importance", xlim=(0, 1))
    return figure


def slice_figure(results: pd.DataFrame, chosen: int, name: str, metric: str) -> Figure:
    """A metric of every complete trial against one hyperparameter."""
    figure = Figure(figsize=(6.2, 3.2), layout="constrained")
    ax = figure.add_subplot()
    complete = results.loc[results["state"] == "complete"]
    values = complete[name].to_numpy()
    scores = complete[metric].to_numpy()
    ax.scatter(values, scores, s=36, color="#5b6570")
    is_chosen = complete["trial"].to_numpy() == chosen
    ax.scatter(
        values[is_chosen], scores[is_chosen], s=150, facecolors="none", edgecolors=CHOSEN,
        linewidths=2, label="chosen",
    )  # fmt: skip
    ax.set(xlabel=name.replace("_", " "), ylabel=metric.removeprefix("val_").replace("_", " "))
    if (
        pd.api.types.is_numeric_dtype(values)
        and values.min() > 0
        and values.max() / values.min() > 20
    ):
        ax.set_xscale("log")
    ax.legend(frameon=False, fontsize="small")
    return figure
