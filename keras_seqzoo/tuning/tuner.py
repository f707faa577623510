"""The search: a `keras_tuner.Tuner` over an Optuna study.

Proposing (`StudyOracle.populate_space`), training (`Population.train`, or `training.train` for what
cannot be trained together) and recording (`StudyOracle.end_trial`) know nothing of one another;
this file joins them, a population at a time.
"""

from __future__ import annotations

import functools
import os
import shutil
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import keras
import keras_tuner
import optuna
import pandas as pd
import sqlalchemy
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError

from keras_seqzoo import errors, files
from keras_seqzoo.diagnostics import StateLeakage
from keras_seqzoo.tuning import results, training
from keras_seqzoo.tuning.hypermodel import OBJECTIVES, ZooHyperModel
from keras_seqzoo.tuning.oracle import SAMPLERS, StudyOracle, quiet_optuna, register_metrics
from keras_seqzoo.tuning.population import Member, Population, pays, stopping_of
from keras_seqzoo.tuning.progress import SearchProgress, quiet_tensorflow
from keras_seqzoo.tuning.rows import Rows
from keras_seqzoo.tuning.seeds import derive, preserved

_CANNOT_KEEP = (
    OSError,
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.DatabaseError,
)
STUDY, TRIALS, BEST, REPORT, LOCK = "study.db", "trials", "best.keras", "report.html", ".lock"


class Search(keras_tuner.Tuner):
    """A search on given rows. `keras_seqzoo.search` builds it, runs it and returns it.

    `results_summary()`, `get_best_models()` and `get_best_hyperparameters()` are KerasTuner's.

    Attributes:
        results: `pandas.DataFrame`, one row per trial, the Pareto front marked.
        chosen: the trial with the best objective, or within the budget that was asked for.
        best_model: the trained model of that trial.
        path: `pathlib.Path`, the directory.
    """

    def __init__(
        self,
        hypermodel: ZooHyperModel,
        rows: Rows,
        *,
        objective: Any,
        max_trials: int,
        epochs: int,
        batch_size: int,
        population: int,
        sampler: Any,
        directory: str | os.PathLike,
        overwrite: bool,
        seed: int,
        callbacks: Sequence[keras.callbacks.Callback],
        hyperparameters: keras_tuner.HyperParameters | None,
        budget: Mapping[str, float | None],
        verbose: int,
    ):
        errors.check_positive(
            max_trials=max_trials, epochs=epochs, batch_size=batch_size, population=population
        )
        errors.check_seed(seed)
        errors.check_bool(overwrite=overwrite)
        if not callable(sampler):
            errors.check_choice("sampler", sampler, SAMPLERS)
        objective = _objectives(objective)
        self.budget = results.check_budget(budget)
        self.rows, self.epochs, self.batch_size = rows, epochs, batch_size
        self.population = population
        self.seed, self.callbacks, self.verbose = seed, list(callbacks), verbose
        self.path = files.as_path("directory", directory).resolve()
        if self.path.exists() and not self.path.is_dir():
            raise errors.ExistsError(
                f"`directory` must be a folder. Received: '{self.path}', which is a file."
            )
        self._lock = _lock(self.path)
        try:
            if overwrite:
                _clear(self.path)
            for unfinished in (self.path / TRIALS).glob(".*"):  # a killed process left it
                unfinished.unlink()
            hp = keras_tuner.HyperParameters()
            hypermodel.declare_hyperparameters(hp)
            self.settings = {
                "model": hypermodel.name,
                "fixed arguments": {key: _stable(value) for key, value in hypermodel.fixed.items()},
                "space": {
                    "own": {key: str(value) for key, value in hypermodel.dimensions.items()},
                    "given": _describe_space(hyperparameters),
                },
                "objective": [[one.name, one.direction] for one in _list(objective)],
                "epochs": epochs,
                "batch_size": batch_size,
                "population": population,
                "sampler": sampler if isinstance(sampler, str) else _stable(sampler),
                "seed": seed,
                "block": hypermodel.block,
                "dtype policy": keras.config.dtype_policy().name,
                "data": rows.fingerprint(),
            }
            oracle = StudyOracle(
                self.path / STUDY,
                objective=objective,
                max_trials=max_trials,
                seed=seed,
                sampler=sampler,
                settings=self.settings,
                hyperparameters=hyperparameters,
            )
            super().__init__(
                oracle, hypermodel, directory=str(self.path.parent), project_name=self.path.name
            )
            oracle.reload()
        except BaseException:
            self._lock.release()
            raise

    # The search, in KerasTuner's terms.

    def search(self) -> None:
        """Runs the trials that are left, then saves the chosen model.

        Raises:
            SearchError: if every trial failed.
        """
        done = len(self.oracle.trials)
        if not self._lock.is_locked:
            self._lock = _lock(self.path)
        try:
            self._try_out()
            with (
                quiet_optuna(),
                quiet_tensorflow(),
                SearchProgress(done, self.oracle.max_trials, verbose=self.verbose) as self.progress,
            ):
                if done:
                    self.progress.say(f"{done} trials are done; the search goes on from there.")
                self._search()
        except _CANNOT_KEEP as error:  # not a trial's fault: it is repeated when the search goes on
            raise errors.SearchError(
                f"The search in '{self.path}' had to stop: {error}. Nothing that was finished is "
                "lost: mend the cause and repeat the call to go on."
            ) from error
        finally:
            self._lock.release(force=True)

    def _try_out(self) -> None:
        """Builds one model first: a wrong argument is to be told at once, not trial by trial."""
        try:
            with preserved():
                model = self.hypermodel.build(self.oracle.get_space())
            self.hypermodel.prepare(model, self.rows)
            measured = StateLeakage(self.rows.x_val, self.rows.y_val, block=self.hypermodel.block)
            measured.set_model(model)
            measured.measure()
        except errors.SeqZooError:
            raise
        except Exception:  # what fails with these values may not with others
            return

    def _search(self) -> None:
        """KerasTuner's loop, with a population where it has a trial."""
        self.on_search_begin()
        while trials := self._ask():
            for trial in trials:
                self.on_trial_begin(trial)
            ready: dict[int, training.Trained | Exception] = {}
            done = 0
            for place, outcome in self._train_all(trials):
                ready[place] = outcome
                while done in ready:  # in their order: what is finished is then without gaps
                    self._record(trials[done], ready.pop(done))
                    self.on_trial_end(trials[done])
                    done += 1
        self.on_search_end()

    def _ask(self) -> list[Trial]:
        """The trials of the next population, or those that are left of an interrupted one."""
        trials: list[Trial] = []
        while not trials or int(trials[-1].trial_id) % self.population != self.population - 1:
            trial = self.oracle.create_trial(f"{self.tuner_id}-{len(trials)}")
            if trial.status == TrialStatus.STOPPED:
                break
            trials.append(trial)
        return trials

    def _train_all(self, trials: list[Trial]) -> Iterator[tuple[int, training.Trained | Exception]]:
        """Trains together what can be, the others one by one."""
        alone = list(range(len(trials)))
        if self._population is not None:
            alone = []
            members = [Member(trial.hyperparameters, self._seed(trial)) for trial in trials]
            for place, outcome in self._population.train(members):
                if outcome is None:
                    alone.append(place)
                else:
                    yield place, outcome
        for place in sorted(alone):
            yield place, self._train_alone(trials[place])

    @functools.cached_property
    def _population(self) -> Population | None:
        """None where trials are wanted one by one, or callbacks need them so."""
        try:
            stopping = stopping_of(self.callbacks)
        except ValueError:
            return None
        together = min(self.population, self.oracle.max_trials)
        steps = self.epochs * -(-len(self.rows.x) // self.batch_size)
        if together == 1 or not pays(together, steps):
            return None
        return Population(
            self.hypermodel,
            self.rows,
            objectives=self.oracle.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stopping=stopping,
        )

    def _train_alone(self, trial: Trial) -> training.Trained | Exception:
        try:
            return training.train(
                self.hypermodel,
                trial.hyperparameters,
                self.rows,
                objectives=self.oracle.objectives,
                epochs=self.epochs,
                batch_size=self.batch_size,
                callbacks=self.callbacks,
                seed=self._seed(trial),
            )
        except keras_tuner.errors.FatalError as error:
            raise errors.SearchError(str(error)) from error
        except Exception as error:  # one trial must not end the search
            return error

    def _seed(self, trial: Trial) -> int:
        return derive(self.seed, int(trial.trial_id), "training")

    def _record(self, trial: Trial, outcome: training.Trained | Exception) -> None:
        """What cannot be kept stops the search; what could not be trained does not."""
        if isinstance(outcome, training.Trained):
            self._keep(trial, outcome)
            trial.status = TrialStatus.COMPLETED
            return
        trial.status, trial.message = TrialStatus.FAILED, str(outcome)
        if not isinstance(outcome, FailedTrialError):
            trial.message = "".join(traceback.format_exception(outcome))

    def _keep(self, trial: Trial, trained: training.Trained) -> None:
        """Puts the weights into the directory and the figures into the study."""
        with files.replacing(self._weights(trial)) as temporary:
            trained.model.save_weights(temporary)
        self.oracle.note(
            trial.trial_id,
            metrics=trained.metrics,
            epoch=trained.epoch,
            seconds=trained.seconds,
            history=trained.history,
        )
        register_metrics(trial, trained.metrics, self.oracle.objectives, trained.epoch)

    def on_trial_end(self, trial: Trial) -> None:
        """Records the trial and shows it."""
        super().on_trial_end(trial)
        ended = self.oracle.trials[trial.trial_id]
        text = f"failed: {ended.message.strip().splitlines()[-1]}" if ended.message else (
            results.figures(ended)
        )  # fmt: skip
        best = self.oracle.get_best_trials()[0]
        best = results.figures(best) if best.score is not None else "none yet"
        self.progress.trial_ended(int(trial.trial_id), text, best)

    def on_search_end(self) -> None:
        """Saves the chosen model, or raises if there is none."""
        completed = [trial for trial in self.oracle.trials.values() if trial.score is not None]
        if not completed:
            message = next(iter(self.oracle.trials.values())).message
            raise errors.SearchError(
                f"All {len(self.oracle.trials)} trials failed. The first one says: "
                f"{message.strip().splitlines()[-1]} (the study keeps the traceback)."
            )
        try:
            self._save(self.chosen)
        except errors.SearchError as error:  # nothing within the budget
            self._save(self.oracle.get_best_trials()[0])
            raise errors.SearchError(
                f"{error} Until then {BEST} is the trial with the best objective."
            ) from error

    def _save(self, trial: Trial) -> None:
        with files.replacing(self.path / BEST) as temporary:
            self.load_model(trial).save(temporary)

    # What was found.

    @property
    def results(self) -> pd.DataFrame:
        """One row per trial: hyperparameters, figures, epochs, seconds, state, Pareto front."""
        return results.table(self.oracle)

    @property
    def chosen(self) -> Trial:
        """The trial with the best objective, or within the budget the search was given."""
        if any(value is not None for value in self.budget.values()):
            return results.within_budget(self.oracle, **self.budget)
        return self.oracle.get_best_trials()[0]

    @property
    def best_model(self) -> keras.Model:
        """The trained model of the chosen trial."""
        return self.load_model(self.chosen)

    def select(
        self, *, max_leakage: float | None = None, max_error: float | None = None
    ) -> keras.Model:
        """The trained model that is best within a budget.

        Args:
            max_leakage: float, at least 0: the least identity error within this state leakage.
            max_error: float, at least 0: the least state leakage within this identity error.

        Raises:
            SearchError: if no trial is within the budget; the message says what is within reach.
        """
        budget = results.check_budget({"max_leakage": max_leakage, "max_error": max_error})
        return self.load_model(results.within_budget(self.oracle, **budget))

    def load_model(self, trial: Trial) -> keras.Model:
        """The trained model of any trial. Keras's global state is left alone."""
        with preserved():
            model = self.hypermodel.build(trial.hyperparameters)
        self.hypermodel.prepare(model, self.rows)
        model.optimizer.build(model.trainable_variables)
        path = self._weights(trial)
        try:
            model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise errors.SearchError(
                f"The weights of trial {trial.trial_id} cannot be read from '{path}': {error}"
            ) from error
        return model

    def write_report(self, **details: Any) -> Path:
        """Writes `report.html`, one self-contained file, into the directory.

        Args:
            **details: of `report.render_report`: measured, columns, command, notes.
        """
        from keras_seqzoo.tuning.report import render_report

        return files.write_text(self.path / REPORT, render_report(self, **details))

    def _weights(self, trial: Trial) -> Path:
        return self.path / TRIALS / f"{int(trial.trial_id):04d}.weights.h5"

    def _populate_initial_space(self) -> None:
        """The hypermodel declares its whole space; KerasTuner would build models to find it."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def save(self) -> None:
        """Nothing: the study is the state."""

    def reload(self) -> None:
        """Nothing: the oracle reads the study."""


def _objectives(given: Any) -> Any:
    """KerasTuner objectives; the direction is known for ours and must be stated for others."""
    if isinstance(given, (list, tuple)):
        if not given:
            raise errors.ArgumentError(errors.sentence("objective", "a name or several", given))
        return [_objectives(one) for one in given] if len(given) > 1 else _objectives(given[0])
    if isinstance(given, keras_tuner.Objective):
        return given
    if given in OBJECTIVES:
        return keras_tuner.Objective(given, "min")
    if given in ("val_loss", "loss"):
        warnings.warn(
            f"Keras adds the regularizer's penalty to {given!r}: trials with a strong regularizer "
            "will look worse than they are. The default objective has no penalty in it.",
            stacklevel=4,
        )
        return keras_tuner.Objective(given, "min")
    raise errors.ArgumentError(
        errors.sentence(
            "objective",
            f"one of {', '.join(OBJECTIVES)}, or a keras_tuner.Objective with its direction",
            given,
            f"For instance keras_tuner.Objective({str(given)!r}, 'max').",
        )
    )


def _list(objective: Any) -> list:
    return objective if isinstance(objective, list) else [objective]


def _stable(value: Any) -> str:
    """A description that is the same in every process: no address in memory."""
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "get_config"):
        return f"{type(value).__name__}({value.get_config()})"
    return repr(value)


def _describe_space(hyperparameters: keras_tuner.HyperParameters | None) -> list[str]:
    return (
        [] if hyperparameters is None else [repr(hp.get_config()) for hp in hyperparameters.space]
    )


def _lock(path: Path) -> filelock.FileLock:
    """Takes the directory for this process; the system gives it back however the process ends."""
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise errors.SearchError(
            f"Another process is searching in '{path}'. Wait for it, or choose another directory."
        ) from error
    return lock


def _clear(path: Path) -> None:
    """Removes what a search writes, and nothing else that is there."""
    for name in (STUDY, STUDY + "-journal", BEST, REPORT):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / TRIALS, ignore_errors=True)
