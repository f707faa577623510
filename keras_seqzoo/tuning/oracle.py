"""KerasTuner's Oracle with an Optuna study as its memory.

The study holds all state. KerasTuner's own files, which are written in place and are unreadable
when cut short, are not written at all.

A trial has an index, 0, 1, 2, ...; its parameters follow from the search's seed, that index and
the trials that had finished when its population was asked for. A process that dies leaves running
trials behind: the next one marks them as interrupted and runs the same indices again, with the
parameters they had.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import optuna
import sqlalchemy
from keras_tuner.engine import trial as trial_module
from optuna.trial import TrialState

from keras_seqzoo import errors
from keras_seqzoo.tuning.seeds import derive

Status = trial_module.TrialStatus
SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
}


class StudyOracle(keras_tuner.Oracle):
    """Asks an Optuna study for parameters and tells it results.

    Args:
        storage: path of the SQLite file that holds the study.
        objective: a `keras_tuner.Objective` or a list of them.
        max_trials: int, trials in all, finished ones included.
        seed: int, at least 0.
        sampler: one of `SAMPLERS`, or a function from a seed to an Optuna sampler.
        settings: mapping of what must not change between runs; compared when resuming.
        hyperparameters: `keras_tuner.HyperParameters` that override the space, or None.
    """

    def __init__(
        self, storage: Path, *, objective, max_trials, seed, sampler, settings, hyperparameters=None
    ):
        # KerasTuner gives up after so many failures in a row; here all must fail.
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            seed=1,  # without one, or with 0, KerasTuner draws from the user's generator
            max_consecutive_failed_trials=math.inf,
        )
        self.seed = seed
        self.sampler = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        self.objectives = objective if isinstance(objective, list) else [objective]
        self.study = _open_study(storage, self.objectives, settings)
        self._running: dict[str, optuna.Trial] = {}
        self._interrupted: dict[int, dict[str, Any]] = {}
        self.verbose = 0  # progress is shown by the search itself

    def reload(self) -> None:
        """Takes up what the study knows: finished trials, and those that were interrupted."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.study.tell(trial.number, state=TrialState.FAIL)
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.FAIL]):
            if "values" in trial.user_attrs and "message" not in trial.user_attrs:
                self._interrupted[trial.user_attrs["index"]] = trial.params
        for trial in self.finished():
            self._restore(trial)

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that ended by themselves, in order."""
        trials = self.study.get_trials(
            deepcopy=False, states=[TrialState.COMPLETE, TrialState.FAIL]
        )
        # A trial that failed by itself has a message; without one it was interrupted.
        ended = [
            trial
            for trial in trials
            if trial.state == TrialState.COMPLETE or "message" in trial.user_attrs
        ]
        return sorted(ended, key=lambda trial: trial.user_attrs["index"])

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Parameters for the next trial: the defaults first, then what the sampler says."""
        index = len(self.trials)
        given = self._interrupted.get(index, self._defaults() if index == 0 else None)
        if given is not None:
            self.study.sampler = Given(given)
        else:
            self.study.sampler = self.sampler(derive(self.seed, index, "sampler"))
        asked = self.study.ask()
        hp = self.get_space()
        hp.values = {}
        for dimension in hp.space:
            if hp.is_active(dimension):
                hp.values[dimension.name] = _suggest(asked, dimension)
        asked.set_user_attr("index", index)
        asked.set_user_attr("values", hp.values)
        self._running[trial_id] = asked
        return {"status": Status.RUNNING, "values": hp.values}

    def score_trial(self, trial: trial_module.Trial) -> None:
        """The objective; of several, the sum in the direction of minimization."""
        values = [trial.metrics.get_best_value(one.name) for one in self.objectives]
        signs = [1.0] if len(values) == 1 else [
            -1.0 if one.direction == "max" else 1.0 for one in self.objectives
        ]  # fmt: skip
        trial.score = sum(sign * value for sign, value in zip(signs, values, strict=True))
        trial.best_step = trial.metrics.get_best_step(self.objectives[0].name)

    def end_trial(self, trial: trial_module.Trial) -> None:
        """Ends the trial for KerasTuner, then tells the study, in one step that counts."""
        super().end_trial(trial)
        trial = self.trials[trial.trial_id]
        asked = self._running.pop(trial.trial_id)
        if trial.status == Status.COMPLETED:
            values = [trial.metrics.get_best_value(one.name) for one in self.objectives]
            self.study.tell(asked, values)
        else:
            asked.set_user_attr("message", trial.message)
            self.study.tell(asked, state=TrialState.FAIL)

    def note(self, trial_id: str, **attributes: Any) -> None:
        """Keeps figures of a running trial in the study."""
        for key, value in attributes.items():
            self._running[trial_id].set_user_attr(key, value)

    def save(self) -> None:
        """Nothing: the study is the state."""

    def _save_trial(self, trial) -> None:
        """Nothing: the study is the state."""

    def _defaults(self) -> dict[str, Any]:
        hp = self.get_space()
        hp.values = {}
        for dimension in hp.space:
            if hp.is_active(dimension):
                hp.values[dimension.name] = dimension.default
        return hp.values

    def _restore(self, found: optuna.trial.FrozenTrial) -> None:
        attributes = found.user_attrs
        hp = self.get_space()
        hp.values = dict(attributes["values"])
        trial = trial_module.Trial(hp, self.trial_id(attributes["index"]), Status.FAILED)
        if found.state == TrialState.COMPLETE:
            trial.status = Status.COMPLETED
            register_metrics(trial, attributes["metrics"], self.objectives, attributes["epoch"])
            self.score_trial(trial)
        trial.message = attributes.get("message")
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self.end_order.append(trial.trial_id)
        self._record_values(trial)

    def trial_id(self, index: int) -> str:
        """KerasTuner's name for the trial of that index."""
        return f"{index:0{len(str(self.max_trials))}d}"


class Given(optuna.samplers.BaseSampler):
    """A sampler of one trial whose parameters are known.

    Args:
        values: parameters by name.
    """

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def infer_relative_search_space(self, study, trial) -> dict:
        """Nothing is sampled together."""
        return {}

    def sample_relative(self, study, trial, search_space) -> dict:
        """Nothing is sampled together."""
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution) -> Any:
        """The known value."""
        return self.values[param_name]


def register_metrics(trial, metrics: dict[str, float], objectives: list, step: int) -> None:
    """Writes metrics into a KerasTuner trial without letting it guess their direction."""
    directions = {one.name: one.direction for one in objectives}
    for name, value in metrics.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, directions.get(name, "min"))
        trial.metrics.update(name, value, step=step)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own log lines off inside; its verbosity is global."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _open_study(path: Path, objectives: list, settings: dict[str, Any]) -> optuna.Study:
    url = sqlalchemy.URL.create("sqlite", database=os.path.abspath(path))
    try:
        with quiet_optuna():
            study = optuna.create_study(
                storage=url.render_as_string(hide_password=False),
                study_name="search",
                directions=[
                    "maximize" if one.direction == "max" else "minimize" for one in objectives
                ],
                load_if_exists=True,
            )
        _check_settings(study, settings, path)
    except (sqlalchemy.exc.DatabaseError, json.JSONDecodeError) as error:
        raise errors.SearchError(
            f"The study in '{path}' cannot be read: {error}. Search in another directory, or start "
            "over with overwrite=True (--overwrite)."
        ) from error
    return study


def _check_settings(study: optuna.Study, settings: dict[str, Any], path: Path) -> None:
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", settings)
        return
    changed = [key for key in settings if known.get(key) != json.loads(json.dumps(settings[key]))]
    if changed:
        raise errors.SearchError(
            f"The search in '{path.parent}' was started with another {' and '.join(changed)}. "
            "Repeat the first call to resume it, search in another directory, or start over with "
            "overwrite=True (--overwrite)."
        )


def _suggest(trial: optuna.Trial, hp: Any) -> Any:
    """Asks for one KerasTuner hyperparameter."""
    kind = type(hp).__name__
    if kind == "Fixed":
        return hp.value
    if kind == "Boolean":
        return trial.suggest_categorical(hp.name, [False, True])
    if kind == "Choice":
        return trial.suggest_categorical(hp.name, list(hp.values))
    log = hp.sampling in ("log", "reverse_log")
    suggest = trial.suggest_int if kind == "Int" else trial.suggest_float
    step = {} if log or hp.step is None else {"step": hp.step}
    return suggest(hp.name, hp.min_value, hp.max_value, log=log, **step)
