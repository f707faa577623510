"""`report.html`: a search as one self-contained page."""

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

STYLE = {
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
    """Writes `report.html`, one self-contained file, into the directory of a search.

    Args:
        search: a search that has run.
        **details: of `render_report`.
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
    """The page as a string.

    Args:
        search: a search that has run.
        scores: scores of the chosen model by the name of the data, "validation" first; default
            those of the validation data.
        command: str that repeats the search.
        notes: sentences about the data.
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


def _trial_sections(search: Search, score: str) -> list[Section]:
    """Learning curves, importance of hyperparameters, and the score against each of them."""
    results, chosen = search.results, int(search.chosen.trial_id)
    sections = []
    for title, text, figure in (
        ("Learning curves", "The objective after each epoch of every trial.",
         plots.objective_curves(search, chosen)),
        ("Hyperparameter importance",
         "How well each hyperparameter separates the best trials from the others (PED-ANOVA). "
         "Hyperparameters that only some trials have are left out.",
         plots.importance_bars(search)),
    ):  # fmt: skip
        if figure is not None:
            sections.append(Section(title, text, (figure,)))
    metric = score if score in results else search.oracle.objectives[0].name
    for name, dimension in search.hypermodel.dimensions.items():
        if name in results and not dimension.when and results[name].nunique() > 1:
            label = name.replace("_", " ")
            figure = plots.score_against(results, chosen, name, metric)
            sections.append(Section(f"Objective against {label}", "Complete trials.", (figure,)))
    return sections


def svg(figure: Figure) -> markupsafe.Markup:
    """A figure as part of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Without its own size the picture takes the width that the page gives it.
    return markupsafe.Markup(re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2))


def trial_table(results: pd.DataFrame, score: str, *, maximize: bool) -> dict[str, Any]:
    """The trials with the best score first."""
    columns = [
        column
        for column in results.columns
        if column not in ("message", "loss", "val_loss") and results[column].notna().any()
    ]
    known = score in results
    order = results.sort_values(score, ascending=not maximize) if known else results
    rows = [
        {"pareto": bool(row.get("pareto", False)), "trial": int(row["trial"]),
         "cells": [_cell(row[column]) for column in columns]}
        for _, row in order.iterrows()
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
    """The call that repeats a search."""
    options = search.settings
    arguments = {
        "max_trials": search.oracle.max_trials,
        **{
            key: options[key]
            for key in ("epochs", "batch_size", "population", "pruning", "seed", "sampler")
        },
        "objective": [name for name, _ in options["objective"]],
        **{key: value for key, value in search.budget.items() if value is not None},
        "directory": str(search.path),
        "block": search.task.options["block"],
        **search.hypermodel.fixed,
    }
    listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"keras_seqzoo.search({search.hypermodel.name!r}, {search.task.python_data}, {listed})"


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "keras-tuner", "optuna", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
