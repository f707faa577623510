"""`report.html` of a search of classifiers or taggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import markupsafe
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.callbacks import SequenceMetrics
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.metrics import LabelScores
from keras_seqzoo.tasks import Memory, measure_memory
from keras_seqzoo.tuning.report import page
from keras_seqzoo.tuning.report.page import CHOSEN, STYLE
from keras_seqzoo.wrapping import inner_model

if TYPE_CHECKING:
    from keras_seqzoo.tuning.tuner import Search


def render_report(
    search: Search,
    *,
    measured: dict[str, LabelScores] | None = None,
    command: str | None = None,
    notes: tuple[str, ...] = (),
) -> str:
    """The page as a string.

    Args:
        search: a search on examples that has run.
        measured: scores of the chosen model by the name of the examples, such as "test".
        command: str that repeats the search.
        notes: sentences about the data.
    """
    model, results, rows = search.best_model, search.results, search.rows
    network = inner_model(model) if rows.named else model
    scores = SequenceMetrics(rows.preprocessor, rows.validation).measure(network)
    memory = measure_memory(network, rows.preprocessor, rows.validation)
    objective = search.oracle.objectives[0]
    with matplotlib.rc_context(STYLE):
        plots = plots_of_trials(search) | {"memory": page.svg(_memory(memory))}
        figure = Figure(figsize=(9, 8), layout="constrained")
        scores.plot(figure.add_subplot())
        plots["confusion"] = page.svg(figure)
    return page.render(
        "sequence_report.html.j2",
        search,
        command or page.python_call(search),
        measured={"validation": scores, **(measured or {})},
        memory=memory,
        horizon=_horizon,
        plots=plots,
        classes=markupsafe.Markup(scores.table.to_html(float_format="{:.3f}".format, border=0)),
        table=page.trial_table(results, objective.name, best_last=objective.direction == "max"),
        trained=len(rows.examples),
        validated=len(rows.validation),
        notes=notes,
    )


def plots_of_trials(search: Search) -> dict[str, Any]:
    """Learning curves, what mattered, and the score against each parameter.

    Args:
        search: a search that has run.
    """
    results, chosen = search.results, int(search.chosen.trial_id)
    score = search.oracle.objectives[0].name
    return {
        "curves": page.svg(page.objective_curves(search, chosen)),
        "importances": page.svg(page.importance_bars(search)),
        "parameters": {
            name.replace("_", " "): page.svg(_against(results, chosen, name, score))
            for name, dimension in search.hypermodel.dimensions.items()
            if name in results and not dimension.when and results[name].nunique() > 1
        },
    }


def _against(results: pd.DataFrame, chosen: int, name: str, score: str) -> Figure:
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


def _memory(memory: Memory) -> Figure:
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for label, one in (("earlier steps", memory.past), ("later steps", memory.future)):
        if one is not None:
            ax.plot(one.lags, np.maximum(one.by_lag, 1e-12), marker=".", label=label)
    ax.axhline(memory.past.threshold, color="#888", linestyle="--", linewidth=1, label="threshold")
    ax.set(xlabel="nearest steps kept", ylabel="share of variance", yscale="log")
    ax.legend(frameon=False, fontsize="small")
    return figure


def _horizon(found: LeakageReport) -> str:
    return "beyond" if found.memory_horizon is None else str(found.memory_horizon)
