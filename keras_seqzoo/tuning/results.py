"""Results of a search: table of trials, Pareto front, best trial within a budget."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping

import numpy as np
import optuna
import pandas as pd
from keras_tuner.engine.trial import Trial
from optuna.trial import TrialState

from keras_seqzoo import errors
from keras_seqzoo.tuning.study.oracle import StudyOracle
from keras_seqzoo.utils.argument_validation import check_not_negative

ERROR, LEAKAGE = "val_identity_error", "val_state_leakage"
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def results_table(oracle: StudyOracle) -> pd.DataFrame:
    """One row per trial: hyperparameters, metrics, epochs, seconds, state, Pareto front."""
    rows = []
    for trial in oracle.finished():
        result = trial.user_attrs["result"]
        history = result.get("history", {})
        rows.append(
            {
                "trial": trial.number,
                **trial.user_attrs["proposal"]["values"],
                **result.get("metrics", {}),
                "best_epoch": result.get("epoch"),
                "epochs": max(map(len, history.values()), default=0),
                "seconds": result.get("seconds"),
                "state": _STATES[trial.state],
                "message": result.get("message"),
            }
        )
    table = pd.DataFrame(rows)
    names, signs = [ERROR, LEAKAGE], [1.0, 1.0]
    if len(oracle.objectives) > 1:
        names = [objective.name for objective in oracle.objectives]
        signs = oracle.signs
    if set(names) <= set(table.columns):
        costs = table[names].to_numpy(float) * signs
        costs[table["state"] != "complete"] = np.nan
        table["pareto"] = pareto_front(costs)
    return table


def learning_curves(oracle: StudyOracle, metric: str) -> dict[int, tuple[str, list[float]]]:
    """State and learning curve of each trial, by its number.

    A curve ends before the first value that is not finite. Trials with an empty curve are left out.
    """
    curves = {}
    for trial in oracle.finished():
        values = trial.user_attrs["result"].get("history", {}).get(metric, [])
        finite = list(itertools.takewhile(np.isfinite, values))
        if finite:
            curves[trial.number] = (_STATES[trial.state], finite)
    return curves


def param_importances(oracle: StudyOracle) -> dict[str, float]:
    """Importance of each hyperparameter; importances sum to 1.

    Hyperparameters that some trials lack are left out. The result is empty if fewer than 8 trials
    are complete or nothing varies.

    Reference: PED-ANOVA, [Watanabe et al., 2023](https://doi.org/10.24963/ijcai.2023/488)
    """
    complete = [trial for trial in oracle.finished() if trial.state == TrialState.COMPLETE]
    if len(complete) < 8:
        return {}

    def cost(trial) -> float:
        return sum(sign * value for sign, value in zip(oracle.signs, trial.values, strict=True))

    try:
        with warnings.catch_warnings():  # Optuna warns that low values must be good; costs are
            warnings.simplefilter("ignore", UserWarning)
            return optuna.importance.get_param_importances(oracle.trial_store.study, target=cost)
    except (ValueError, RuntimeError):  # no common hyperparameter, or equal trials
        return {}


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """True for rows that no other row dominates.

    A row dominates another if it is at most as high in all columns and lower in one. Rows that are
    not finite are never on the front.
    """
    finite: np.ndarray = np.all(np.isfinite(costs), axis=1)
    with np.errstate(invalid="ignore"):
        no_worse = np.all(costs[None] <= costs[:, None], axis=-1)
        better = np.any(costs[None] < costs[:, None], axis=-1)
    return finite & ~np.any(no_worse & better & finite[None], axis=1)


def check_budget(budget: Mapping[str, float | None]) -> dict[str, float | None]:
    """Check that at most one of `max_leakage` and `max_error` is set, and that it is at least 0."""
    limits = {name: value for name, value in budget.items() if value is not None}
    check_not_negative(**limits)
    if len(limits) > 1:
        raise errors.ArgumentError(
            "`max_leakage` and `max_error` must not be given together. Received: both. Give "
            "one; the other metric is minimized."
        )
    return dict(budget)


def within_budget(
    oracle: StudyOracle, *, max_leakage: float | None = None, max_error: float | None = None
) -> Trial:
    """The trial with the lowest error within `max_leakage`, or lowest leakage within `max_error`.

    Raises:
        ArgumentError: if neither is given.
        SearchError: if no trial is within the budget.
    """
    if max_leakage is not None:
        limited, limit, minimized = LEAKAGE, max_leakage, ERROR
    elif max_error is not None:
        limited, limit, minimized = ERROR, max_error, LEAKAGE
    else:
        raise errors.ArgumentError("`max_leakage` or `max_error` must be given. Received: neither.")
    trials = [trial for trial in oracle.trials.values() if trial.score is not None]
    within = [trial for trial in trials if metric_value(trial, limited) <= limit]
    if not within:
        least = min((metric_value(trial, limited) for trial in trials), default=float("nan"))
        raise errors.SearchError(
            f"No trial has {limited} within {limit:g}; the least is {least:.3g}. Raise the budget, "
            "or continue the search with a higher max_trials."
        )
    return min(within, key=lambda trial: metric_value(trial, minimized))


def metric_value(trial: Trial, metric: str) -> float:
    """A metric of a complete trial; NaN if it has no such metric."""
    return trial.metrics.get_best_value(metric) if trial.metrics.exists(metric) else float("nan")


def format_metrics(trial: Trial) -> str:
    """Error and leakage of a trial, or F1 and accuracy, or its score, as text."""
    for labels, form in (
        ({"error": ERROR, "leakage": LEAKAGE}, ".2g"),
        ({"F1": "val_f1", "accuracy": "val_accuracy"}, ".4f"),
    ):
        if all(trial.metrics.exists(metric) for metric in labels.values()):
            return ", ".join(
                f"{label} {metric_value(trial, metric):{form}}" for label, metric in labels.items()
            )
    return f"score {trial.score:.4g}"
