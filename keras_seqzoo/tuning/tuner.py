"""The search: a `keras_tuner.Tuner` over an Optuna study.

A search runs in rounds. A round proposes trials (`StudyOracle.ask`), trains them to their next rung
(`Population`, or `run_trial` for models that cannot train together), decides which of them continue
(`successive_halving`), and records the finished ones (`StudyOracle.tell`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import keras
import keras_tuner
import numpy as np
import optuna
import pandas as pd
import sqlalchemy.exc
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from optuna.trial import TrialState

from keras_seqzoo import errors
from keras_seqzoo.tuning import results
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.progress import SearchProgress, quiet_tensorflow
from keras_seqzoo.tuning.study.oracle import SAMPLERS, StudyOracle, optuna_directions, quiet_optuna
from keras_seqzoo.tuning.study.storage import TrialStore, sqlite_url
from keras_seqzoo.tuning.study.successive_halving import is_promoted, rung_epochs
from keras_seqzoo.tuning.trial import TrialResult, free_memory, run_trial
from keras_seqzoo.tuning.vectorized.population import (
    Member,
    Population,
    TrainingRun,
    is_worthwhile,
    supported_early_stopping,
)
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_instances,
    check_positive,
    check_seed,
)
from keras_seqzoo.utils.random import derive_seed, preserved_random_state

_STORAGE_ERRORS = (
    OSError,
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.DatabaseError,
)
_TRIALS_PER_CLEANUP = 128
_POLL_INTERVAL = 1.0  # seconds between queries for trials of other workers
STUDY, TRIALS, BEST, REPORT, LOCK = "study.db", "trials", "best.keras", "report.html", ".lock"


@dataclasses.dataclass(frozen=True)
class _RunningTrial:
    """A trial that trains in a population.

    Attributes:
        trial: KerasTuner's record.
        population: the population.
        run: its state in the population.
        cohort_end: number of the last trial that it is compared with.
    """

    trial: Trial
    population: Population
    run: TrainingRun
    cohort_end: int

    @property
    def number(self) -> int:
        return int(self.trial.trial_id)


class Search(keras_tuner.Tuner):
    """A hyperparameter search. `keras_seqzoo.search` builds, runs and returns it.

    `results_summary()`, `get_best_models()` and `get_best_hyperparameters()` are KerasTuner's.

    Attributes:
        results: `pandas.DataFrame`, one row per trial, the Pareto front marked.
        chosen: the trial with the best objective, or the best one within the budget.
        best_model: the trained model of that trial.
        path: `pathlib.Path`, the directory.
    """

    oracle: StudyOracle
    hypermodel: ZooHyperModel

    def __init__(
        self,
        hypermodel: ZooHyperModel,
        *,
        objective: Any,
        max_trials: int,
        epochs: int,
        batch_size: int,
        population: int,
        pruning: bool,
        sampler: Any,
        storage: str | None,
        directory: str | os.PathLike,
        overwrite: bool,
        seed: int,
        callbacks: Sequence[keras.callbacks.Callback],
        hyperparameters: keras_tuner.HyperParameters | None,
        budget: Mapping[str, float | None],
        verbose: int,
    ):
        check_positive(
            max_trials=max_trials, epochs=epochs, batch_size=batch_size, population=population
        )
        check_seed(seed)
        check_bool(overwrite=overwrite, pruning=pruning)
        check_instances(keras.callbacks.Callback, callbacks=callbacks)
        if overwrite and storage is not None:
            raise errors.ArgumentError(
                "`overwrite` must be False with `storage`, which other processes may be using. "
                "Received: both. Choose another directory, which names another study, or delete "
                "the study: optuna delete-study."
            )
        is_factory = callable(sampler)
        if not is_factory:
            check_choice("sampler", sampler, SAMPLERS)
        objective = _objectives(objective, hypermodel.task.objectives)
        self.budget = results.check_budget(budget)
        self.task, self.epochs, self.batch_size = hypermodel.task, epochs, batch_size
        self.population, self.pruning = population, pruning
        self.seed, self.callbacks, self.verbose = seed, list(callbacks), verbose
        self.path = _make_directory(directory)
        self._lock = _lock(self.path) if storage is None else None
        try:
            if overwrite:
                _delete_outputs(self.path)
            if storage is None:
                _delete_temporary_files(self.path)
            hypermodel.declare_hyperparameters(keras_tuner.HyperParameters())  # or raises
            self.settings = self._describe_settings(hypermodel, objective, sampler, hyperparameters)
            with quiet_optuna():
                oracle = StudyOracle(
                    self._open_trial_store(objective, storage),
                    objective=objective,
                    max_trials=max_trials,
                    seed=seed,
                    sampler=sampler,
                    hyperparameters=hyperparameters,
                )
            super().__init__(
                oracle, hypermodel, directory=str(self.path.parent), project_name=self.path.name
            )
            oracle.reload()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _describe_settings(
        self,
        hypermodel: ZooHyperModel,
        objective: Any,
        sampler: Any,
        hyperparameters: keras_tuner.HyperParameters | None,
    ) -> dict[str, Any]:
        """The settings that must be the same when a search is resumed."""
        return {
            "model": hypermodel.name,
            "fixed arguments": {key: _describe(value) for key, value in hypermodel.fixed.items()},
            "space": {
                "dimensions": {key: str(value) for key, value in hypermodel.dimensions.items()},
                "hyperparameters": _describe_space(hyperparameters),
            },
            "objective": [[item.name, item.direction] for item in _as_list(objective)],
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "population": self.population,
            "pruning": self.pruning,
            "sampler": sampler if isinstance(sampler, str) else _describe(sampler),
            "seed": self.seed,
            **{option: str(value) for option, value in self.task.options.items()},
            "dtype policy": keras.config.dtype_policy().name,
            "data": self.task.fingerprint(),
        }

    def _open_trial_store(self, objective: Any, storage: str | None) -> TrialStore:
        """The study in `storage`, or in a file in the directory."""
        return TrialStore(
            sqlite_url(self.path / STUDY) if storage is None else storage,
            "search" if storage is None else self.path.name,
            optuna_directions(_as_list(objective)),
            self.settings,
            shared=storage is not None,
        )

    # Running the search.

    def search(self) -> None:
        """Run the remaining trials, then save the chosen model.

        Raises:
            SearchError: if every trial failed.
        """
        finished, max_trials = len(self.oracle.trials), self.oracle.max_trials
        if self._lock is not None and not self._lock.is_locked:
            self._lock = _lock(self.path)
        try:
            capacity = 1
            if finished < max_trials:
                capacity = self._capacity  # starts compiling in a thread
                self._smoke_test()
            with (
                quiet_optuna(),
                quiet_tensorflow(),
                self.oracle.trial_store.heartbeat(),
                SearchProgress(finished, max_trials, verbose=self.verbose) as self.progress,
            ):
                if finished:
                    self.progress.print(f"Resuming the search after {finished} finished trials.")
                self._run_rounds(capacity)
            self.oracle.refresh()
            with self.writer_lock("model") as is_writer:
                if is_writer:
                    self._finish()
        except _STORAGE_ERRORS as error:  # the trial did not fail; it runs again on resume
            raise errors.SearchError(
                f"The search in '{self.path}' had to stop: {error}. Nothing that was finished is "
                "lost: fix the cause and repeat the call to resume."
            ) from error
        finally:
            self.oracle.trial_store.close()
            if self._lock is not None:
                self._lock.release(force=True)

    def _smoke_test(self) -> None:
        """Build one model first, so that a wrong argument raises at once, not in every trial."""
        try:
            with preserved_random_state():
                model = self.hypermodel.build(self.oracle.get_space())
            self.task.adapt(model)
            self.task.smoke_test(model)
        except errors.SeqZooError:
            raise
        except Exception:  # other hyperparameters may work
            return

    def _run_rounds(self, capacity: int) -> None:
        """Run rounds until no trial is left.

        In each round the running trials train to their next rung, and some of them end. A round
        depends on the results of earlier rounds, not on their duration. So a resumed search, whose
        interrupted trials start again, ends with the same results as an uninterrupted one.

        Args:
            capacity: int, number of trials that run at once.
        """
        round_index = self.oracle.first_round()
        running: list[_RunningTrial] = []
        built = 0
        while True:
            if built >= _TRIALS_PER_CLEANUP:
                free_memory(clear_kernels=self._population is None)
                built = 0
            trials = self.oracle.ask(capacity - len(running), round_index)
            built += len(trials)
            running = sorted(running + self._start(trials), key=lambda trial: trial.number)
            if running:
                self._advance(running)
                running = self._finish_rung(running)
            elif (
                not trials
                and not self._wait_for_others()
                and round_index >= self.oracle.last_round()
            ):
                return
            round_index += 1

    def _start(self, trials: list[Trial]) -> list[_RunningTrial]:
        """Start trials in the population; train those that it cannot train one by one."""
        running = []
        for trial in trials:
            population, run = self._population, None
            if population is not None:
                try:
                    run = population.start(Member(trial.hyperparameters, self._seed(trial)))
                except Exception as error:  # only this trial fails
                    self._record(trial, error)
                    continue
            if population is None or run is None:
                self._record(trial, self._train_alone(trial))
            else:
                cohort_end = self.oracle.cohort_end(trial)
                running.append(_RunningTrial(trial, population, run, cohort_end))
        return running

    def _advance(self, running: list[_RunningTrial]) -> None:
        """Train all running trials to their next rungs."""
        runs = [trial.run for trial in running]
        until = [next(rung for rung in self._rungs if rung > run.epochs) for run in runs]
        started = sum(run.epochs for run in runs)
        total = sum(until) - started
        for _ in running[0].population.advance(runs, until):
            trained = sum(run.epochs for run in runs) - started
            self.progress.on_epochs_end(len(runs), trained / total)

    def _finish_rung(self, running: list[_RunningTrial]) -> list[_RunningTrial]:
        """Record trials that are complete, failed or pruned; return those that continue."""
        costs = {
            trial.number: self.oracle.costs(trial.user_attrs["result"]["history"])
            for trial in (self.oracle.finished() if len(self._rungs) > 1 else ())
            if trial.state is not TrialState.FAIL
        }
        costs |= {trial.number: self.oracle.costs(trial.run.history) for trial in running}
        promoted = []
        for trial in running:
            complete = trial.run.epochs == self._rungs[-1] or not trial.run.continues
            cohort = [values for number, values in costs.items() if number <= trial.cohort_end]
            if not complete and is_promoted(costs[trial.number], cohort):
                promoted.append(trial)
                continue
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
            try:
                self._record(trial.trial, trial.population.finish(trial.run), state)
            except FailedTrialError as error:
                self._record(trial.trial, error, history=trial.run.history)
        return promoted

    def _wait_for_others(self) -> bool:
        """Wait a moment if other workers have claimed trials, which may become stale."""
        if not self.oracle.claimed_by_others():
            return False
        time.sleep(_POLL_INTERVAL)
        self.oracle.reload()
        return True

    @functools.cached_property
    def _population(self) -> Population | None:
        """The population, or None if trials are to train one by one or must do so."""
        size = min(self.population, self.oracle.max_trials)
        steps = self.epochs * -(-self.task.size // self.batch_size)
        if keras.backend.backend() != "tensorflow":
            return None
        if size == 1 or not is_worthwhile(size, steps):
            return None
        metrics = self.task.population_metrics
        if metrics is None:
            return None
        try:
            stopping = supported_early_stopping(self.callbacks, metrics.logs)
        except ValueError:
            return None
        population = Population(
            self.hypermodel,
            objectives=self.oracle.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stopping=stopping,
        )
        return population if population.can_train(self.oracle.get_space()) else None

    @functools.cached_property
    def _capacity(self) -> int:
        """Number of trials that run at once."""
        return 1 if self._population is None else self.population

    @functools.cached_property
    def _rungs(self) -> list[int]:
        return rung_epochs(self.epochs) if self.pruning else [self.epochs]

    def _train_alone(self, trial: Trial) -> TrialResult | Exception:
        """Train one trial; return its result, or the error by which it failed."""
        try:
            return run_trial(
                self.hypermodel,
                trial.hyperparameters,
                objectives=self.oracle.objectives,
                epochs=self.epochs,
                batch_size=self.batch_size,
                callbacks=self.callbacks,
                seed=self._seed(trial),
            )
        except keras_tuner.errors.FatalError as error:
            raise errors.SearchError(str(error)) from error
        except Exception as error:  # a failed trial does not end the search
            return error

    def _seed(self, trial: Trial) -> int:
        return derive_seed(self.seed, int(trial.trial_id), "training")

    def _record(
        self,
        trial: Trial,
        result: TrialResult | Exception,
        state: TrialState = TrialState.COMPLETE,
        *,
        history: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Save the weights of a trial, record its result, and show it.

        An error while saving ends the search.

        Args:
            trial: KerasTuner's record.
            result: the trained model, or the error by which training failed.
            state: complete or pruned, of a trained model.
            history: logs of a failed trial up to its failure.
        """
        if isinstance(result, TrialResult):
            if state is TrialState.COMPLETE:
                with files.replacing(self._weights_path(trial)) as temporary:
                    _write_weights(temporary, result.model)
            record = self.oracle.tell(
                trial,
                state,
                metrics=result.metrics,
                epoch=result.epoch,
                seconds=result.seconds,
                history=result.history,
            )
        else:
            message = str(result)
            if not isinstance(result, FailedTrialError):
                message = "".join(traceback.format_exception(result))
            record = self.oracle.tell(
                trial, TrialState.FAIL, message=message, history=dict(history or {})
            )
        if record.message:
            text = f"failed: {record.message.strip().splitlines()[-1]}"
        else:
            text = results.format_metrics(record) if record.score is not None else "pruned"
        ranked = self.oracle.get_best_trials()
        best = "none yet"
        if ranked and ranked[0].score is not None:
            best = results.format_metrics(ranked[0])
        self.progress.on_trial_end(int(trial.trial_id), text, best)

    @contextlib.contextmanager
    def writer_lock(self, output: str) -> Iterator[bool]:
        """Context that yields whether this worker is to write an output of the finished search.

        The first of the workers that share a study writes it; the others wait until it is written.

        Args:
            output: str, name of the output, such as "report".
        """
        if self._lock is not None:
            yield True
            return
        with filelock.FileLock(self.path / LOCK):
            study, trials = self.oracle.trial_store.study, len(self.oracle.trials)
            key = f"{output} written after trials"
            is_writer = study.user_attrs.get(key) != trials
            yield is_writer
            if is_writer:
                study.set_user_attr(key, trials)

    def _finish(self) -> None:
        """Save the chosen model; raise if every trial failed."""
        completed = [trial for trial in self.oracle.trials.values() if trial.score is not None]
        if not completed:
            message = next(iter(self.oracle.trials.values())).message or ""
            raise errors.SearchError(
                f"All {len(self.oracle.trials)} trials failed. The first one failed with: "
                f"{message.strip().splitlines()[-1]} (the study has the traceback)."
            )
        try:
            self._save(self.chosen)
        except errors.SearchError as error:  # no trial is within the budget
            self._save(self.oracle.get_best_trials()[0])
            raise errors.SearchError(
                f"{error} {BEST} is now the model with the best objective."
            ) from error

    def _save(self, trial: Trial) -> None:
        with files.replacing(self.path / BEST) as temporary:
            self.load_model(trial).save(temporary)

    # Results.

    @property
    def results(self) -> pd.DataFrame:
        """One row per trial: hyperparameters, metrics, epochs, seconds, state, Pareto front."""
        return results.results_table(self.oracle)

    @property
    def chosen(self) -> Trial:
        """The trial with the best objective, or the best one within the budget."""
        if any(value is not None for value in self.budget.values()):
            return results.within_budget(self.oracle, **self.budget)
        return self.oracle.get_best_trials()[0]

    @property
    def choice(self) -> str:
        """One sentence: which trial is chosen, and why."""
        trial = f"Trial {int(self.chosen.trial_id)} is chosen"
        for name, limit in self.budget.items():
            if limit is not None:
                metrics = ["state leakage", "normalized MSE"]
                limited, minimized = metrics if name == "max_leakage" else reversed(metrics)
                return (
                    f"{trial}: it has the lowest {minimized} on validation data among the trials "
                    f"whose {limited} is at most {limit:g}."
                )
        names = " + ".join(_describe_metric(objective.name) for objective in self.oracle.objectives)
        best = "highest" if self.oracle.objectives[0].direction == "max" else "lowest"
        return f"{trial}: of all trials, its best epoch has the {best} {names}."

    @property
    def best_model(self) -> keras.Model:
        """The trained model of the chosen trial."""
        return self.load_model(self.chosen)

    def select(
        self, *, max_leakage: float | None = None, max_error: float | None = None
    ) -> keras.Model:
        """The trained model of the best trial within a budget.

        Args:
            max_leakage: float, at least 0. Select the trial with the lowest identity error among
                those with at most this state leakage.
            max_error: float, at least 0. Select the trial with the lowest state leakage among
                those with at most this identity error.

        Raises:
            SearchError: if no trial is within the budget; the message has the lowest value reached.
        """
        budget = results.check_budget({"max_leakage": max_leakage, "max_error": max_error})
        return self.load_model(results.within_budget(self.oracle, **budget))

    def load_model(self, trial: Trial) -> keras.Model:
        """The trained model of any trial. Keras's global random state does not change."""
        with preserved_random_state():
            model = self.hypermodel.build(trial.hyperparameters)
        self.task.adapt(model)
        model.optimizer.build(
            model.trainable_variables
        )  # so that the saved model can be trained further
        path = self._weights_path(trial)
        try:
            _read_weights(path, model)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise errors.SearchError(
                f"The weights of trial {trial.trial_id} cannot be read from '{path}': {error}"
            ) from error
        return self.task.finalize(model)

    def _weights_path(self, trial: Trial) -> Path:
        return self.path / TRIALS / f"{int(trial.trial_id):04d}.npz"

    def _populate_initial_space(self) -> None:
        """Declare the search space. KerasTuner would build models to discover it."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def save(self) -> None:
        """Do nothing: the study holds the state."""

    def reload(self) -> None:
        """Do nothing: the oracle reads the study."""


def _objectives(objective: Any, directions: Mapping[str, str]) -> Any:
    """The objectives as KerasTuner objectives; `directions` has those of the task's metrics."""
    if isinstance(objective, (list, tuple)):
        if not objective:
            raise errors.ArgumentError(
                argument_message("objective", "the name of a metric, or a list of names", objective)
            )
        objectives = [_objectives(item, directions) for item in objective]
        return objectives if len(objectives) > 1 else objectives[0]
    if isinstance(objective, keras_tuner.Objective):
        return objective
    if not isinstance(objective, str):
        raise errors.ArgumentError(
            argument_message("objective", "the name of a metric, or a list of names", objective)
        )
    if objective in directions:
        return keras_tuner.Objective(objective, directions[objective])
    if objective in ("val_loss", "loss"):
        warnings.warn(
            f"Keras adds the regularizer's penalty to {objective!r}: trials with a strong "
            "regularizer score worse than their predictions. The default objective has no penalty.",
            stacklevel=4,
        )
        return keras_tuner.Objective(objective, "min")
    raise errors.ArgumentError(
        argument_message(
            "objective",
            f"one of {', '.join(directions)}, or a keras_tuner.Objective with its direction",
            objective,
            f"For instance keras_tuner.Objective({str(objective)!r}, 'max').",
        )
    )


def _as_list(objective: Any) -> list:
    return objective if isinstance(objective, list) else [objective]


def _describe(value: Any) -> str:
    """A description without memory addresses, which is the same in every process."""
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "get_config"):
        return f"{type(value).__name__}({value.get_config()})"
    return repr(value)


def _describe_space(hyperparameters: keras_tuner.HyperParameters | None) -> list[str]:
    return (
        [] if hyperparameters is None else [repr(hp.get_config()) for hp in hyperparameters.space]
    )


def _write_weights(path: Path, model: keras.Model) -> None:
    """Write weights in the order of `get_weights`. `save_weights` is as slow as a small trial."""
    with path.open("wb") as file:
        np.savez(file, *model.get_weights())


def _read_weights(path: Path, model: keras.Model) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])


def _lock(path: Path) -> filelock.FileLock:
    """Lock the directory for this process; the system releases the lock when the process ends."""
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise errors.SearchError(
            f"Another process is searching in '{path}'. Wait for it, or choose another directory."
        ) from error
    return lock


def _make_directory(directory: str | os.PathLike) -> Path:
    """Create the directory of a search and return its absolute path."""
    path = files.as_path("directory", directory).resolve()
    if path.exists() and not path.is_dir():
        raise errors.ExistsError(
            f"`directory` must be a folder. Received: '{path}', which is a file."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def _delete_temporary_files(path: Path) -> None:
    """Delete unfinished weight files of a killed process."""
    for temporary in (path / TRIALS).glob(".*"):
        temporary.unlink()


def _delete_outputs(path: Path) -> None:
    """Delete the files that a search writes, and no others."""
    for name in (STUDY, STUDY + "-journal", BEST, REPORT):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / TRIALS, ignore_errors=True)


def _describe_metric(key: str) -> str:
    """A key of the logs in words."""
    if key == "val_identity_cost":
        return "sum of normalized MSE and state leakage on validation data"
    on_validation_data = " on validation data" if key.startswith("val_") else ""
    return key.removeprefix("val_").replace("_", " ") + on_validation_data
