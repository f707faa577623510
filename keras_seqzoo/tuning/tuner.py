"""The search: a `keras_tuner.Tuner` over an Optuna study.

Proposing (`StudyOracle.ask`), training (`Population`, or `run_trial` for what cannot be
trained together), choosing what goes on (`halving`) and recording (`StudyOracle.tell`) know nothing
of one another; this file joins them, round by round.
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
import sqlalchemy
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from optuna.trial import TrialState

from keras_seqzoo import errors
from keras_seqzoo.tuning import results
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.progress import SearchProgress, quiet_tensorflow
from keras_seqzoo.tuning.study.oracle import SAMPLERS, StudyOracle, directions, quiet_optuna
from keras_seqzoo.tuning.study.storage import TrialStore, sqlite
from keras_seqzoo.tuning.study.successive_halving import rungs, survives
from keras_seqzoo.tuning.trial import TrialResult, release, run_trial
from keras_seqzoo.tuning.vectorized.population import (
    Member,
    Population,
    Run,
    is_worthwhile,
    stopping_of,
)
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_positive,
    check_seed,
)
from keras_seqzoo.utils.random import derive_seed, preserved_random_state

_CANNOT_KEEP = (
    OSError,
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.DatabaseError,
)
_RELEASE = 128  # trials
_PATIENCE = 1.0  # seconds between looks at what other workers hold
STUDY, TRIALS, BEST, REPORT, LOCK = "study.db", "trials", "best.keras", "report.html", ".lock"


@dataclasses.dataclass(frozen=True)
class _RunningTrial:
    """A trial in a population; `rivals` is the last trial that it is compared with."""

    trial: Trial
    run: Run
    rivals: int

    @property
    def number(self) -> int:
        return int(self.trial.trial_id)


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
        if overwrite and storage is not None:
            raise errors.ArgumentError(
                "`overwrite` must be False with `storage`, where others may be at work. Received: "
                "both. Choose another directory, whose name is the study's, or delete the study: "
                "optuna delete-study."
            )
        if not callable(sampler):
            check_choice("sampler", sampler, SAMPLERS)
        objective = _objectives(objective, hypermodel.task.objectives)
        self.budget = results.check_budget(budget)
        self.task, self.epochs, self.batch_size = hypermodel.task, epochs, batch_size
        self.population, self.pruning = population, pruning
        self.seed, self.callbacks, self.verbose = seed, list(callbacks), verbose
        self.path = files.as_path("directory", directory).resolve()
        if self.path.exists() and not self.path.is_dir():
            raise errors.ExistsError(
                f"`directory` must be a folder. Received: '{self.path}', which is a file."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path) if storage is None else None
        try:
            if overwrite:
                _clear(self.path)
            if storage is None:
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
                "pruning": pruning,
                "sampler": sampler if isinstance(sampler, str) else _stable(sampler),
                "seed": seed,
                "options": {key: str(value) for key, value in self.task.options.items()},
                "dtype policy": keras.config.dtype_policy().name,
                "data": self.task.fingerprint(),
            }
            with quiet_optuna():
                trial_store = TrialStore(
                    sqlite(self.path / STUDY) if storage is None else storage,
                    "search" if storage is None else self.path.name,
                    directions(_list(objective)),
                    self.settings,
                    shared=storage is not None,
                )
                oracle = StudyOracle(
                    trial_store,
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

    # The search, in KerasTuner's terms.

    def search(self) -> None:
        """Runs the trials that are left, then saves the chosen model.

        Raises:
            SearchError: if every trial failed.
        """
        done = len(self.oracle.trials)
        if self._lock is not None and not self._lock.is_locked:
            self._lock = _lock(self.path)
        try:
            places = 1
            if done < self.oracle.max_trials:
                places = self._places  # what is compiled is so while the model is tried out
                self._smoke_test()
            with (
                quiet_optuna(),
                quiet_tensorflow(),
                self.oracle.trial_store.heartbeat(),
                SearchProgress(done, self.oracle.max_trials, verbose=self.verbose) as self.progress,
            ):
                if done:
                    self.progress.say(f"{done} trials are done; the search goes on from there.")
                self._search(places)
            self.oracle.refresh()
            with self.once("model") as mine:
                if mine:
                    self._finish()
        except _CANNOT_KEEP as error:  # not a trial's fault: it is repeated when the search goes on
            raise errors.SearchError(
                f"The search in '{self.path}' had to stop: {error}. Nothing that was finished is "
                "lost: mend the cause and repeat the call to go on."
            ) from error
        finally:
            self.oracle.trial_store.close()
            if self._lock is not None:
                self._lock.release(force=True)

    def _smoke_test(self) -> None:
        """Builds one model first: a wrong argument is to be told at once, not trial by trial."""
        try:
            with preserved_random_state():
                model = self.hypermodel.build(self.oracle.get_space())
            self.task.adapt(model)
            self.task.smoke_test(model)
        except errors.SeqZooError:
            raise
        except Exception:  # what fails with these values may not with others
            return

    def _search(self, places: int) -> None:
        """Round after round: what is under way trains to its next rung, and some of it ends.

        What a round does follows from what earlier rounds did, not from the time they took. So a
        search that goes on, whose interrupted trials start over, ends as it would have.
        """
        round_ = self.oracle.first_round()
        running: list[_RunningTrial] = []
        built = 0
        while True:
            if built >= _RELEASE:
                release(kernels=self._population is None)
                built = 0
            trials = self.oracle.ask(places - len(running), round_)
            built += len(trials)
            running = sorted(running + self._start(trials), key=lambda one: one.number)
            if running:
                self._advance(running)
                running = self._finish_rung(running)
            elif not trials and not self._others_running() and round_ >= self.oracle.last_round():
                return
            round_ += 1

    def _start(self, trials: list[Trial]) -> list[_RunningTrial]:
        """What trains together is under way then; the others are done, one by one."""
        running = []
        for trial in trials:
            try:
                run = self._population and self._population.start(
                    Member(trial.hyperparameters, self._seed(trial))
                )
            except Exception as error:  # its own failure, and no other's
                self._record(trial, error)
                continue
            if run is None:
                self._record(trial, self._train_alone(trial))
            else:
                running.append(_RunningTrial(trial, run, self.oracle.cohort_end(trial)))
        return running

    def _advance(self, running: list[_RunningTrial]) -> None:
        """Trains all to their next rungs."""
        until = [next(rung for rung in self._rungs if rung > one.run.epochs) for one in running]
        started = sum(one.run.epochs for one in running)
        total = sum(until) - started
        for _ in self._population.advance([one.run for one in running], until):
            done = sum(one.run.epochs for one in running) - started
            self.progress.advanced(len(running), done / total)

    def _finish_rung(self, running: list[_RunningTrial]) -> list[_RunningTrial]:
        """Ends what is complete, has failed or is behind; gives what goes on."""
        known = {
            trial.number: self.oracle.costs(trial.user_attrs["outcome"]["history"])
            for trial in (self.oracle.finished() if len(self._rungs) > 1 else ())
            if trial.state is not TrialState.FAIL
        }
        known |= {one.number: self.oracle.costs(one.run.history) for one in running}
        going = []
        for one in running:
            ended = one.run.epochs == self._rungs[-1] or not one.run.continues
            rivals = [costs for number, costs in known.items() if number <= one.rivals]
            if not ended and survives(known[one.number], rivals):
                going.append(one)
                continue
            try:
                trained = self._population.finish(one.run)
                self._record(
                    one.trial, trained, TrialState.COMPLETE if ended else TrialState.PRUNED
                )
            except FailedTrialError as error:
                self._record(one.trial, error, history=one.run.history)
        return going

    def _others_running(self) -> bool:
        """Whether other workers hold trials, that may come back; waits a little then."""
        if not self.oracle.claimed_by_others():
            return False
        time.sleep(_PATIENCE)
        self.oracle.reload()
        return True

    @functools.cached_property
    def _population(self) -> Population | None:
        """None where trials are wanted one by one, or callbacks need them so."""
        together = min(self.population, self.oracle.max_trials)
        steps = self.epochs * -(-self.task.size // self.batch_size)
        if keras.backend.backend() != "tensorflow":
            return None
        if together == 1 or not is_worthwhile(together, steps):
            return None
        metrics = self.task.population_metrics
        if metrics is None:
            return None
        try:
            stopping = stopping_of(self.callbacks, metrics.logs)
        except ValueError:
            return None
        found = Population(
            self.hypermodel,
            objectives=self.oracle.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stopping=stopping,
        )
        return found if found.can_train(self.oracle.get_space()) else None

    @functools.cached_property
    def _places(self) -> int:
        return 1 if self._population is None else self.population

    @functools.cached_property
    def _rungs(self) -> list[int]:
        return rungs(self.epochs) if self.pruning else [self.epochs]

    def _train_alone(self, trial: Trial) -> TrialResult | Exception:
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
        except Exception as error:  # one trial must not end the search
            return error

    def _seed(self, trial: Trial) -> int:
        return derive_seed(self.seed, int(trial.trial_id), "training")

    def _record(
        self,
        trial: Trial,
        outcome: TrialResult | Exception,
        state: TrialState = TrialState.COMPLETE,
        *,
        history: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Puts weights into the directory and the rest into the trial store, and shows it.

        `history` are the curves of what failed, as far as known.

        What cannot be kept stops the search; what could not be trained does not.
        """
        if isinstance(outcome, TrialResult):
            if state is TrialState.COMPLETE:
                with files.replacing(self._weights(trial)) as temporary:
                    _write_weights(temporary, outcome.model)
            ended = self.oracle.tell(
                trial,
                state,
                metrics=outcome.metrics,
                epoch=outcome.epoch,
                seconds=outcome.seconds,
                history=outcome.history,
            )
        else:
            message = str(outcome)
            if not isinstance(outcome, FailedTrialError):
                message = "".join(traceback.format_exception(outcome))
            ended = self.oracle.tell(
                trial, TrialState.FAIL, message=message, history=dict(history or {})
            )
        if ended.message:
            text = f"failed: {ended.message.strip().splitlines()[-1]}"
        else:
            text = results.figures(ended) if ended.score is not None else "pruned"
        best = self.oracle.get_best_trials()
        best = results.figures(best[0]) if best and best[0].score is not None else "none yet"
        self.progress.trial_ended(int(trial.trial_id), text, best)

    @contextlib.contextmanager
    def once(self, what: str) -> Iterator[bool]:
        """Whether this worker is to write what the directory holds in the end.

        Of several that share a study the first one is; the others wait, and find it done.
        """
        if self._lock is not None:
            yield True
            return
        with filelock.FileLock(self.path / LOCK):
            study, count = self.oracle.trial_store.study, len(self.oracle.trials)
            mine = study.user_attrs.get(f"wrote {what}") != count
            yield mine
            if mine:
                study.set_user_attr(f"wrote {what}", count)

    def _finish(self) -> None:
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
    def choice(self) -> str:
        """How the chosen trial was chosen, in one sentence."""
        number = f"Trial {int(self.chosen.trial_id)}"
        for limit, value in self.budget.items():
            if value is not None:
                least = "normalized MSE" if limit == "max_leakage" else "state leakage"
                return (
                    f"{number} has the lowest {least} with {limit}={value:g}, on validation data."
                )
        names = " + ".join(objective.name for objective in self.oracle.objectives)
        best = "highest" if self.oracle.objectives[0].direction == "max" else "lowest"
        return f"{number} has the {best} {names} of its best epoch, on validation data."

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
        with preserved_random_state():
            model = self.hypermodel.build(trial.hyperparameters)
        self.task.adapt(model)
        model.optimizer.build(model.trainable_variables)  # saved, it goes on training
        path = self._weights(trial)
        try:
            _read_weights(path, model)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise errors.SearchError(
                f"The weights of trial {trial.trial_id} cannot be read from '{path}': {error}"
            ) from error
        return self.task.finalize(model)

    def _weights(self, trial: Trial) -> Path:
        return self.path / TRIALS / f"{int(trial.trial_id):04d}.npz"

    def _populate_initial_space(self) -> None:
        """The hypermodel declares its whole space; KerasTuner would build models to find it."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def save(self) -> None:
        """Nothing: the study is the state."""

    def reload(self) -> None:
        """Nothing: the oracle reads the study."""


def _objectives(objective: Any, directions: Mapping[str, str]) -> Any:
    """KerasTuner objectives; the direction of the task's own metrics is known."""
    if isinstance(objective, (list, tuple)):
        if not objective:
            raise errors.ArgumentError(
                argument_message("objective", "a name or several", objective)
            )
        if len(objective) > 1:
            return [_objectives(name, directions) for name in objective]
        return _objectives(objective[0], directions)
    if isinstance(objective, keras_tuner.Objective):
        return objective
    if not isinstance(objective, str):
        raise errors.ArgumentError(argument_message("objective", "a name or several", objective))
    if objective in directions:
        return keras_tuner.Objective(objective, directions[objective])
    if objective in ("val_loss", "loss"):
        warnings.warn(
            f"Keras adds the regularizer's penalty to {objective!r}: trials with a strong "
            "regularizer will look worse than they are. The default objective has no penalty.",
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


def _write_weights(path: Path, model: keras.Model) -> None:
    """In the order of `get_weights`; writing them Keras's way takes as long as a small trial."""
    with path.open("wb") as file:
        np.savez(file, *model.get_weights())


def _read_weights(path: Path, model: keras.Model) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])


def _lock(path: Path) -> filelock.FileLock:
    """Takes the directory for this process; the system gives it back however the process ends."""
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
