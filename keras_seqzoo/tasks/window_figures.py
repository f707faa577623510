"""Figures of a search's report on windows of readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.diagnostics import anomaly_score
from keras_seqzoo.inspection import model_function
from keras_seqzoo.tasks.window_scores import WindowScores

ERROR, LEAKAGE = "val_identity_error", "val_state_leakage"
COLORS = {"none": "#8a8f98", "l1": "#1f77b4", "l2": "#d9822b", "l1_l2": "#2ca02c"}
CHOSEN = "#c0392b"
_SHOWN_STEPS = 300
_MAX_FEATURES = 6


def pareto_front(results: pd.DataFrame, chosen: int) -> Figure:
    """Normalized MSE against state leakage of every complete trial."""
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    ax = figure.add_subplot()
    complete = results.loc[results["state"] == "complete"]
    _scatter(ax, complete, ERROR, LEAKAGE, chosen)
    front = complete.loc[complete["pareto"]].sort_values(by=ERROR)
    ax.plot(front[ERROR], front[LEAKAGE], color="#333", linewidth=1, zorder=1, label="Pareto front")
    ax.set(xlabel="normalized MSE", ylabel="state leakage", xscale="log")
    _leakage_axis(ax, complete[LEAKAGE])
    ax.legend(frameon=False, fontsize="small")
    return figure


def leakage_against(results: pd.DataFrame, chosen: int, column: str, label: str) -> Figure | None:
    """State leakage against a hyperparameter; None where no trial has it."""
    if column not in results or not bool(results[column].notna().any()):
        return None
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    complete = results.loc[(results["state"] == "complete") & results[column].notna()]
    _scatter(ax, complete, column, LEAKAGE, chosen)
    ax.set(xlabel=label, ylabel="state leakage", xscale="log")
    if column == "units":
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
    _leakage_axis(ax, complete[LEAKAGE])
    ax.legend(frameon=False, fontsize="small")
    return figure


def leakage_profile(scores: Mapping[str, WindowScores]) -> Figure:
    """State leakage by the number of newest steps kept, of validation and test data."""
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    ax = figure.add_subplot()
    floor = 1e-12
    for name, score in scores.items():
        report = score.leakage
        if report is None:
            continue
        (line,) = ax.plot(report.lags, np.maximum(report.by_lag, floor), marker=".", label=name)
        low, high = np.maximum(report.by_lag_interval, floor)
        ax.fill_between(report.lags, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        ax.axhline(report.threshold, color="#888", linestyle="--", linewidth=1)
    ax.set(xlabel="newest steps kept", ylabel="state leakage", xscale="log", yscale="log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize="small")
    return figure


def input_and_output(model: keras.Model, x: np.ndarray, columns: Sequence[str]) -> Figure:
    """Input and output of the windows that vary the most."""
    shown = min(len(columns), _MAX_FEATURES)
    figure = Figure(figsize=(12.8, 1.2 + 1.7 * shown), layout="constrained")
    axes = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    rows = _most_varying(x, max(_SHOWN_STEPS // x.shape[1], 1))
    output = model_function.predict_in_batches(model_function.as_function(model), x[rows])
    inputs = x[rows][:, -1] if output.ndim == 2 else x[rows].reshape(-1, x.shape[-1])
    output = output.reshape(-1, output.shape[-1])
    for number, ax in enumerate(axes):
        ax.plot(inputs[:, number], color="#9aa0a8", linewidth=3, label="input")
        ax.plot(output[:, number], color=CHOSEN, linewidth=1, label="output")
        ax.set_ylabel(columns[number])
    axes[0].legend(frameon=False, fontsize="small", ncols=2)
    axes[-1].set_xlabel(f"readings of windows {rows.start} to {rows.stop - 1}")
    return figure


def anomaly_scores(model: keras.Model, x_train: np.ndarray, x: np.ndarray) -> Figure:
    """Anomaly score of every reading, in time order."""
    figure = Figure(figsize=(12.8, 2.6), layout="constrained")
    ax = figure.add_subplot()
    scores = anomaly_score(model, x_train)(x)
    mask = model_function.resolve_mask(model, x)
    ax.plot(np.where(True if mask is None else mask, scores, np.nan).ravel(), linewidth=0.8)
    ax.set(xlabel="reading, in time order", ylabel="anomaly score", yscale="log")
    return figure


def _scatter(ax: Any, complete: Any, x: str, y: str, chosen: int) -> None:
    kinds = complete.get("recurrent_regularizer", pd.Series("none", complete.index))
    for kind, group in complete.groupby(kinds):
        color = COLORS.get(str(kind), "#555")
        ax.scatter(group[x], group[y], s=36, color=color, label=kind, zorder=2)
    best = complete[complete["trial"] == chosen]
    ring = {"facecolors": "none", "edgecolors": CHOSEN, "linewidths": 2, "zorder": 3}
    ax.scatter(best[x], best[y], s=150, label="chosen", **ring)


def _leakage_axis(ax: Any, values: Any) -> None:
    """Logarithmic where there is leakage, with room for an exact 0."""
    positive = values[values > 0]
    if len(positive):
        ax.set_yscale("symlog", linthresh=max(float(positive.min()), 1e-9))
        low = 0 if (values <= 0).any() else float(positive.min()) / 3
        ax.set_ylim(low, float(positive.max()) * 3)


def _most_varying(x: np.ndarray, length: int) -> slice:
    """The consecutive windows with the largest standard deviation."""
    length = min(length, len(x))
    deviation = np.nan_to_num(x.std(axis=1) / (np.nanstd(x, axis=(0, 1)) + 1e-12)).mean(axis=-1)
    sums = np.convolve(deviation, np.ones(length), mode="valid")
    start = int(np.argmax(sums))
    return slice(start, start + length)
