"""The search: a `keras_tuner.Tuner` over an Optuna study.

Proposing (`StudyOracle.populate_space`), training (`training.train`) and recording
(`StudyOracle.end_trial`) know nothing of one another; this file joins them.
"""

from __future__ import annotations

import os
import shutil
import traceback
import warnings
from collections.abc import Mapping, Sequence
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
        sampler: Any,
        directory: str | os.PathLike,
        overwrite: bool,
        seed: int,
        callbacks: Sequence[keras.callbacks.Callback],
        hyperparameters: keras_tuner.HyperParameters | None,
        budget: Mapping[str, float | None],
        verbose: int,
    ):
        errors.check_positive(max_trials=max_trials, epochs=epochs, batch_size=batch_size)
        errors.check_seed(seed)
        errors.check_bool(overwrite=overwrite)
        if not callable(sampler):
            errors.check_choice("sampler", sampler, SAMPLERS)
        objective = _objectives(objective)
        self.budget = results.check_budget(budget)
        self.rows, self.epochs, self.batch_size = rows, epochs, batch_size
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
                super().search()
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

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains one trial, keeps what came of it, and gives its figures."""
        trained = self._train(trial)
        self._keep(trial, trained)
        return trained.metrics

    def _train(self, trial: Trial) -> training.Trained:
        return training.train(
            self.hypermodel,
            trial.hyperparameters,
            self.rows,
            objectives=self.oracle.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            callbacks=self.callbacks,
            seed=derive(self.seed, int(trial.trial_id), "training"),
        )

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

    def _try_run_and_update_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> None:
        """Like KerasTuner's, but only training may fail: what cannot be kept stops the search."""
        try:
            trained = self._train(trial)
        except keras_tuner.errors.FatalError as error:
            raise errors.SearchError(str(error)) from error
        except FailedTrialError as error:
            trial.status, trial.message = TrialStatus.FAILED, str(error)
        except Exception:  # one trial must not end the search
            trial.status, trial.message = TrialStatus.FAILED, traceback.format_exc()
        else:
            self._keep(trial, trained)
            trial.status = TrialStatus.COMPLETED

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
