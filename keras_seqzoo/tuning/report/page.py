"""`report.html`: a search as one self-contained page."""

from __future__ import annotations

import dataclasses
import datetime
import io
import platform
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.diagnostics import LeakageReport, anomaly_score, leakage
from keras_seqzoo.inspection import model_function
from keras_seqzoo.metrics import identity_error
from keras_seqzoo.tuning.results import ERROR, LEAKAGE, curves, importances

if TYPE_CHECKING:
    import keras

    from keras_seqzoo.tuning.tuner import Search

COLORS = {"none": "#8a8f98", "l1": "#1f77b4", "l2": "#d9822b", "l1_l2": "#2ca02c"}
CHOSEN = "#c0392b"
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
_STRETCH = 300  # readings shown side by side


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model's figures on rows that it was not trained on."""

    x: np.ndarray
    error: float
    leakage: LeakageReport
    score_leakage: LeakageReport | None  # None where no score per step exists


def measure(
    model: keras.Model,
    x: np.ndarray,
    x_train: np.ndarray,
    *,
    y: np.ndarray | None = None,
    block: int = 1,
) -> Measured:
    """Identity error, state leakage, and the leakage of the anomaly score on `x`."""
    score = None
    if model.output_shape == model.input_shape:
        score = leakage(
            anomaly_score(model, x_train),
            x,
            mask=model_function.resolve_mask(model, x),
            block=block,
        )
    return Measured(x, identity_error(model, x, y), leakage(model, x, block=block), score)


def render_report(
    search: Search,
    *,
    measured: dict[str, Measured] | None = None,
    columns: list[str] | None = None,
    command: str | None = None,
    notes: tuple[str, ...] = (),
) -> str:
    """The page as a string.

    Args:
        search: a search that has run.
        measured: figures of the chosen model by the name of the rows, such as "test".
        columns: list of str, names of the features.
        command: str that repeats the search.
        notes: sentences about the data.
    """
    model, results, rows = search.best_model, search.results, search.rows
    columns = columns or [f"feature {number}" for number in range(rows.x.shape[-1])]
    validation = measure(model, rows.x_val, rows.x, y=rows.y_val, block=search.hypermodel.block)
    measured = {"validation": validation, **(measured or {})}
    label, last = next(reversed(measured.items()))
    chosen = int(search.chosen.trial_id)
    with matplotlib.rc_context(STYLE):
        plots = {
            "front": svg(_front(results, chosen)),
            "units": svg(_scatter(results, chosen, "units", "units")),
            "strength": svg(_scatter(results, chosen, "recurrent_strength", "strength")),
            "curves": svg(objective_curves(search, chosen)),
            "importances": svg(importance_bars(search)),
            "profile": svg(_profile(measured)),
            "stretch": svg(_stretch(model, last.x, columns, label)),
        }
        if last.score_leakage is not None:
            plots["score"] = svg(_score(model, rows.x, last.x, label))
    return render(
        "report.html.j2",
        search,
        command or python_call(search),
        budget={key: value for key, value in search.budget.items() if value is not None},
        measured=measured,
        plots=plots,
        table=trial_table(results, "val_identity_cost", best_last=False),
        trained=rows.x.shape,
        validated=rows.x_val.shape,
        notes=notes,
    )


def render(template: str, search: Search, command: str, **details: Any) -> str:
    """A page about a search, with what every such page has."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_seqzoo", "tuning/report"), autoescape=True
    )
    results = search.results
    return environment.get_template(template).render(
        name=search.hypermodel.name,
        chosen=int(search.chosen.trial_id),
        hyperparameters=search.chosen.hyperparameters.values,
        failed=results[results["state"] == "failed"],
        total=len(results),
        command=command,
        versions=_versions(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **details,
    )


def _front(results: pd.DataFrame, chosen: int) -> Figure:
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    ax = figure.add_subplot()
    complete = results[results["state"] == "complete"]
    _dots(ax, complete, ERROR, LEAKAGE, chosen)
    front = complete[complete["pareto"]].sort_values(ERROR)
    ax.plot(front[ERROR], front[LEAKAGE], color="#333", linewidth=1, zorder=1, label="Pareto front")
    ax.set(xlabel="identity error (share of variance)", ylabel="state leakage", xscale="log")
    _leakage_axis(ax, complete[LEAKAGE])
    ax.legend(frameon=False, fontsize="small")
    return figure


def _scatter(results: pd.DataFrame, chosen: int, column: str, label: str) -> Figure | None:
    if column not in results or not results[column].notna().any():
        return None
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    complete = results[(results["state"] == "complete") & results[column].notna()]
    _dots(ax, complete, column, LEAKAGE, chosen)
    ax.set(xlabel=label, ylabel="state leakage", xscale="log")
    if column == "units":
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
    _leakage_axis(ax, complete[LEAKAGE])
    ax.legend(frameon=False, fontsize="small")
    return figure


def _dots(ax, complete: pd.DataFrame, x: str, y: str, chosen: int) -> None:
    kinds = complete.get("recurrent_regularizer", pd.Series("none", complete.index))
    for kind, group in complete.groupby(kinds):
        ax.scatter(group[x], group[y], s=36, color=COLORS.get(kind, "#555"), label=kind, zorder=2)
    best = complete[complete["trial"] == chosen]
    ax.scatter(
        best[x], best[y], s=150, facecolors="none", edgecolors=CHOSEN, linewidths=2, zorder=3,
        label="chosen",
    )  # fmt: skip


def _leakage_axis(ax, values: pd.Series) -> None:
    """Logarithmic where there is leakage, with room for an exact 0."""
    positive = values[values > 0]
    if len(positive):
        ax.set_yscale("symlog", linthresh=max(float(positive.min()), 1e-9))
        low = 0 if (values <= 0).any() else float(positive.min()) / 3
        ax.set_ylim(low, float(positive.max()) * 3)


def objective_curves(search: Search, chosen: int) -> Figure | None:
    """The objective after each epoch, of every trial."""
    names = [one.name for one in search.oracle.objectives]
    metric = names[0] if len(names) == 1 else "val_identity_cost"
    found = curves(search.oracle, metric)
    if not found:
        return None
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    looks = {
        "chosen": {"color": CHOSEN, "linewidth": 2, "zorder": 4},
        "complete": {"color": "#5b6570", "alpha": 0.6, "linewidth": 1, "zorder": 3},
        "pruned": {"color": "#9aa0a8", "alpha": 0.3, "linewidth": 0.8, "zorder": 2},
        "failed": {"color": "#9aa0a8", "alpha": 0.3, "linewidth": 0.8, "zorder": 2},
    }
    named = set()
    for trial, (state, values) in found.items():
        look = "chosen" if trial == chosen else state
        label = None if look in named else look
        named.add(look)
        ax.plot(
            range(1, len(values) + 1),
            values,
            label=label,
            marker="." if len(values) == 1 else None,
            **looks[look],
        )
    found = {trial: values for trial, (_, values) in found.items()}
    positive = [value for values in found.values() for value in values if value > 0]
    ax.set(xlabel="epoch", ylabel=metric.removeprefix("val_").replace("_", " "))
    ax.set_yscale("log" if positive and min(map(min, found.values())) > 0 else "linear")
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


def _profile(measured: dict[str, Measured]) -> Figure:
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for name, one in measured.items():
        report = one.leakage
        floor = 1e-12
        (line,) = ax.plot(report.lags, np.maximum(report.by_lag, floor), marker=".", label=name)
        low, high = np.maximum(report.by_lag_interval, floor)
        ax.fill_between(report.lags, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    ax.axhline(report.threshold, color="#888", linestyle="--", linewidth=1, label="threshold")
    ax.set(xlabel="newest steps kept", ylabel="state leakage", xscale="log", yscale="log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize="small")
    return figure


def _stretch(model: keras.Model, x: np.ndarray, columns: list[str], label: str) -> Figure:
    """Input against output where the readings move the most."""
    shown = min(len(columns), 6)
    figure = Figure(figsize=(12.8, 1.2 + 1.7 * shown), layout="constrained")
    axes = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    rows = _liveliest(x, max(_STRETCH // x.shape[1], 1))
    output = model_function.predict_in_batches(model_function.as_function(model), x[rows])
    last = output.ndim == 2
    given = x[rows][:, -1] if last else x[rows].reshape(-1, x.shape[-1])
    for number, ax in enumerate(axes):
        ax.plot(given[:, number], color="#9aa0a8", linewidth=3, label="input")
        came = output.reshape(-1, output.shape[-1])[:, number]
        ax.plot(came, color=CHOSEN, linewidth=1, label="output")
        ax.set_ylabel(columns[number])
    axes[0].legend(frameon=False, fontsize="small", ncols=2)
    axes[-1].set_xlabel(f"readings of {label} windows {rows.start} to {rows.stop - 1}")
    return figure


def _score(model: keras.Model, x_train: np.ndarray, x: np.ndarray, label: str) -> Figure:
    figure = Figure(figsize=(12.8, 2.6), layout="constrained")
    ax = figure.add_subplot()
    scores = anomaly_score(model, x_train)(x)
    mask = model_function.resolve_mask(model, x)
    ax.plot(np.where(True if mask is None else mask, scores, np.nan).ravel(), linewidth=0.8)
    ax.set(xlabel=f"reading of the {label} windows, in time order", ylabel="anomaly score")
    ax.set_yscale("log")
    return figure


def _liveliest(x: np.ndarray, length: int) -> slice:
    length = min(length, len(x))
    deviation = np.nan_to_num(x.std(axis=1) / (np.nanstd(x, axis=(0, 1)) + 1e-12)).mean(axis=-1)
    sums = np.convolve(deviation, np.ones(length), mode="valid")
    start = int(np.argmax(sums))
    return slice(start, start + length)


def svg(figure: Figure | None) -> markupsafe.Markup | None:
    """A figure as part of a page."""
    if figure is None:
        return None
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Without its own size the picture takes the width that the page gives it.
    return markupsafe.Markup(re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2))


def trial_table(results: pd.DataFrame, score: str, *, best_last: bool) -> dict[str, Any]:
    """The trials with the best score first."""
    columns = [
        column
        for column in results.columns
        if column not in ("message", "loss", "val_loss") and results[column].notna().any()
    ]
    known = score in results
    order = results.sort_values(score, ascending=not best_last) if known else results
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
            for key in ("epochs", "batch_size", "population", "pruning", "seed", "sampler", "block")
        },
        "objective": [name for name, _ in options["objective"]],
        **{key: value for key, value in search.budget.items() if value is not None},
        "directory": str(search.path),
        **search.hypermodel.fixed,
    }
    listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    data = "x, y" if getattr(search.rows, "of_arrays", False) else "x"
    return f"keras_seqzoo.search({search.hypermodel.name!r}, {data}, {listed})"


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras", "tensorflow", "keras-tuner", "optuna", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
