"""Trials as a table, their Pareto front, and the best within a budget."""

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


def table(oracle: StudyOracle) -> pd.DataFrame:
    """One row per trial: hyperparameters, figures, epochs, seconds, state, Pareto front."""
    rows = []
    for trial in oracle.finished():
        outcome = trial.user_attrs["outcome"]
        history = outcome.get("history", {})
        rows.append(
            {
                "trial": trial.number,
                **trial.user_attrs["asked"]["values"],
                **outcome.get("metrics", {}),
                "best_epoch": outcome.get("epoch"),
                "epochs": max(map(len, history.values()), default=0),
                "seconds": outcome.get("seconds"),
                "state": _STATES[trial.state],
                "message": outcome.get("message"),
            }
        )
    found = pd.DataFrame(rows)
    names, signs = [ERROR, LEAKAGE], [1.0, 1.0]
    if len(oracle.objectives) > 1:
        names = [one.name for one in oracle.objectives]
        signs = oracle.signs
    if set(names) <= set(found.columns):
        costs = found[names].to_numpy(float) * signs
        costs[found["state"] != "complete"] = np.nan
        found["pareto"] = pareto_front(costs)
    return found


def curves(oracle: StudyOracle, metric: str) -> dict[int, tuple[str, list[float]]]:
    """State of each trial, and a figure after each of its epochs, up to the first that is not
    finite; trials without are left out.
    """
    found = {}
    for trial in oracle.finished():
        curve = trial.user_attrs["outcome"].get("history", {}).get(metric, [])
        finite = itertools.takewhile(np.isfinite, curve)
        found[trial.number] = (_STATES[trial.state], list(finite))
    return {number: one for number, one in found.items() if one[1]}


def importances(oracle: StudyOracle) -> dict[str, float]:
    """Which parameters tell the best trials from the others, in shares that sum to 1.

    Empty where too few trials are complete, or nothing varies. Parameters that some trials lack are
    left out. By PED-ANOVA, Watanabe et al., 2023, https://doi.org/10.24963/ijcai.2023/488.
    """
    complete = [trial for trial in oracle.finished() if trial.state == TrialState.COMPLETE]
    if len(complete) < 8:
        return {}

    def cost(trial) -> float:
        return sum(sign * value for sign, value in zip(oracle.signs, trial.values, strict=True))

    try:
        with warnings.catch_warnings():  # Optuna asks whether low is good; of costs it is
            warnings.simplefilter("ignore", UserWarning)
            return optuna.importance.get_param_importances(oracle.trial_store.study, target=cost)
    except (ValueError, RuntimeError):  # nothing in common, or all the same
        return {}


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """True for rows that no other row matches or betters in all columns and betters in one.

    Rows that are not finite are never on the front.
    """
    finite = np.isfinite(costs).all(axis=1)
    with np.errstate(invalid="ignore"):
        no_worse = (costs[None] <= costs[:, None]).all(axis=-1)
        better = (costs[None] < costs[:, None]).any(axis=-1)
    return finite & ~(no_worse & better & finite[None]).any(axis=1)


def check_budget(budget: Mapping[str, float | None]) -> dict[str, float | None]:
    """At most one of `max_leakage` and `max_error`, at least 0."""
    given = {name: value for name, value in budget.items() if value is not None}
    check_not_negative(**given)
    if len(given) > 1:
        raise errors.ArgumentError(
            "`max_leakage` and `max_error` must not be given together. Received: both. Choose the "
            "one that is fixed; the other is made as small as possible."
        )
    return dict(budget)


def within_budget(
    oracle: StudyOracle, *, max_leakage: float | None = None, max_error: float | None = None
) -> Trial:
    """The trial with the least error within `max_leakage`, or the least leakage in `max_error`.

    Raises:
        ArgumentError: if neither is given.
        SearchError: if no trial is within the budget.
    """
    if max_leakage is None and max_error is None:
        raise errors.ArgumentError("`max_leakage` or `max_error` must be given. Received: neither.")
    limited, limit, wanted = (
        (LEAKAGE, max_leakage, ERROR) if max_leakage is not None else (ERROR, max_error, LEAKAGE)
    )
    trials = [trial for trial in oracle.trials.values() if trial.score is not None]
    within = [trial for trial in trials if value(trial, limited) <= limit]
    if not within:
        least = min((value(trial, limited) for trial in trials), default=float("nan"))
        raise errors.SearchError(
            f"No trial has {limited} within {limit:g}; the least is {least:.3g}. Raise the budget, "
            "or search on with a higher max_trials."
        )
    return min(within, key=lambda trial: value(trial, wanted))


def value(trial: Trial, metric: str) -> float:
    """A figure of a completed trial."""
    return trial.metrics.get_best_value(metric) if trial.metrics.exists(metric) else float("nan")


def figures(trial: Trial) -> str:
    """Error and leakage of a trial in a few words, or F1 and accuracy, or its score."""
    for known, form in (
        ({"error": ERROR, "leakage": LEAKAGE}, ".2g"),
        ({"F1": "val_f1", "accuracy": "val_accuracy"}, ".4f"),
    ):
        if all(trial.metrics.exists(metric) for metric in known.values()):
            return ", ".join(f"{word} {value(trial, one):{form}}" for word, one in known.items())
    return f"score {trial.score:.4g}"
