"""The report of a search: one self-contained HTML page."""

from __future__ import annotations

import datetime
import io
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.tasks import Section
from keras_seqzoo.tuning.progress import quiet_tensorflow
from keras_seqzoo.tuning.report import plots
from keras_seqzoo.tuning.tuner import REPORT, Search
from keras_seqzoo.utils import files

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "keras-seqzoo",
}


def write_report(search: Search, **details: Any) -> Path:
    """Write `report.html` into the directory of a search and return its path.

    Args:
        search: a search that has run.
        **details: arguments of `render_report`.
    """
    with quiet_tensorflow():
        text = render_report(search, **details)
    return files.write_text(search.path / REPORT, text)


def render_report(
    search: Search,
    *,
    scores: Mapping[str, Any] | None = None,
    command: str | None = None,
    notes: tuple[str, ...] = (),
) -> str:
    """The report as HTML.

    Args:
        search: a search that has run.
        scores: scores of the chosen model by the name of the data, "validation" first; default
            scores on the validation data.
        command: str, command that repeats the search; default the call in Python.
        notes: tuple of str, sentences about the data.
    """
    task, results, chosen = search.task, search.results, int(search.chosen.trial_id)
    scores = scores or {"validation": task.validation_scores(search.best_model)}
    objective = search.oracle.objectives[0]
    name, maximize = objective.name, objective.direction == "max"
    if len(search.oracle.objectives) > 1:
        name, maximize = "val_identity_cost", False
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_seqzoo", "tuning/report"), autoescape=True
    )
    environment.filters["svg"] = svg
    environment.filters["html"] = markupsafe.Markup
    with matplotlib.rc_context(STYLE):
        sections = [*task.report_sections(search, scores), *_trial_sections(search, name)]
        return environment.get_template("page.html.j2").render(
            name=search.hypermodel.name,
            data=task.describe_data(),
            choice=search.choice,
            hyperparameters=search.chosen.hyperparameters.values,
            scores=scores,
            sections=sections,
            glossary=task.glossary(),
            chosen=chosen,
            table=trial_table(results, name, maximize=maximize),
            failed=results[results["state"] == "failed"],
            total=len(results),
            notes=notes,
            command=command or python_call(search),
            versions=_versions(),
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )


def _trial_sections(search: Search, metric: str) -> list[Section]:
    """Learning curves, hyperparameter importances, and a metric against each hyperparameter."""
    results, chosen = search.results, int(search.chosen.trial_id)
    sections = []
    for title, text, figure in (
        ("Learning curves", "Objective of every trial after each epoch.",
         plots.learning_curve_figure(search, chosen)),
        ("Hyperparameter importance",
         "How well each hyperparameter separates the best trials from the others (PED-ANOVA); the "
         "importances sum to 1. Hyperparameters that only some trials have are left out.",
         plots.importance_figure(search)),
    ):  # fmt: skip
        if figure is not None:
            sections.append(Section(title, text, (figure,)))
    if metric not in results:
        metric = search.oracle.objectives[0].name
    for name, dimension in search.hypermodel.dimensions.items():
        if name in results and not dimension.when and len(results[name].dropna().unique()) > 1:
            label = name.replace("_", " ")
            figure = plots.slice_figure(results, chosen, name, metric)
            text = "Objective of every complete trial; the chosen trial is circled."
            sections.append(Section(f"Objective against {label}", text, (figure,)))
    return sections


def svg(figure: Figure) -> markupsafe.Markup:
    """A figure as inline SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Without a size of its own, the figure fills the width of its section.
    return markupsafe.Markup(re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2))


def trial_table(results: pd.DataFrame, metric: str, *, maximize: bool) -> dict[str, Any]:
    """Columns and rows of the table of trials, sorted by a metric, the best trial first."""
    columns = [
        column
        for column in results.columns
        if column not in ("message", "loss", "val_loss")
        and not results[column].isna().to_numpy().all()
    ]
    if metric in results:
        results = results.sort_values(metric, ascending=not maximize)
    rows = [
        {"pareto": bool(row.get("pareto", False)), "trial": int(row["trial"]),
         "cells": [_cell(row[column]) for column in columns]}
        for row in results.to_dict("records")
    ]  # fmt: skip
    return {
        "columns": [column.replace("val_", "").replace("_", " ") for column in columns],
        "rows": rows,
    }


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else ""
    if isinstance(value, float):
        if np.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return str(value)


def python_call(search: Search) -> str:
    """The Python call that repeats a search."""
    settings = search.settings
    arguments = {
        "max_trials": search.oracle.max_trials,
        **{
            key: settings[key]
            for key in ("epochs", "batch_size", "population", "pruning", "seed", "sampler")
        },
        "objective": [name for name, _ in settings["objective"]],
        **{key: value for key, value in search.budget.items() if value is not None},
        "directory": str(search.path),
        "block": search.task.options["block"],
        **search.hypermodel.fixed,
    }
    keywords = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"keras_seqzoo.search({search.hypermodel.name!r}, {search.task.python_data}, {keywords})"


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "keras-tuner", "optuna", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
