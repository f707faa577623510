"""A KerasTuner Oracle over a trial store: proposes hyperparameters and records results.

KerasTuner's own files are not written: it writes them in place, and a truncated file is unreadable.

The hyperparameters of a trial are a function of the search's seed, the trial's number, and the
trials that had finished when its population was proposed. They are sampled in a mirror of the study
in memory and then written at once. A sampler on the storage would write each parameter by itself.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import keras_tuner
import optuna
from keras_tuner.engine import trial as trial_module
from keras_tuner.engine.trial import TrialStatus
from optuna.trial import FrozenTrial, TrialState

from keras_seqzoo.tuning.study.storage import TrialStore
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.random import derive_seed

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
}
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_STATUS = {
    TrialState.COMPLETE: TrialStatus.COMPLETED,
    TrialState.PRUNED: TrialStatus.STOPPED,
    TrialState.FAIL: TrialStatus.FAILED,
}


class StudyOracle(keras_tuner.Oracle):
    """Proposes trials (`ask`) and records their results (`tell`).

    Args:
        trial_store: `TrialStore`.
        objective: a `keras_tuner.Objective` or a list of them.
        max_trials: int, total number of trials, finished ones included.
        seed: int, at least 0.
        sampler: one of `SAMPLERS`, or a function from a seed to an Optuna sampler.
        hyperparameters: `keras_tuner.HyperParameters` that override the search space, or None.
    """

    max_trials: int

    def __init__(
        self,
        trial_store: TrialStore,
        *,
        objective: keras_tuner.Objective | list[keras_tuner.Objective],
        max_trials: int,
        seed: int,
        sampler: str | Callable[[int], optuna.samplers.BaseSampler],
        hyperparameters: keras_tuner.HyperParameters | None = None,
    ):
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            seed=1,  # without a seed, or with 0, KerasTuner draws from the user's generator
            max_consecutive_failed_trials=sys.maxsize,  # failures in a row never end the search
        )
        self.trial_store, self.seed = trial_store, seed
        self._uses_history = sampler != "random"
        self.sampler = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        self.objectives = objective if isinstance(objective, list) else [objective]
        self._storage = optuna.storages.InMemoryStorage()
        self._mirror = optuna.create_study(
            storage=self._storage, directions=trial_store.study.directions
        )
        self._mirror_numbers: dict[int, int] = {}
        self._claimed: dict[int, FrozenTrial] = {}
        self.verbose = 0  # the search shows progress itself

    # Proposing trials.

    def ask(self, count: int, round_index: int) -> list[trial_module.Trial]:
        """Claim up to `count` trials for a round: queued ones first, then new ones."""
        if self.trial_store.shared:
            self.trial_store.requeue_stale_trials()
        claimed = []
        for trial in self.trial_store.queued():
            in_round = self.trial_store.shared or _round(trial) == round_index
            if len(claimed) < count and trial.number < self.max_trials and in_round:
                claimed += [trial] if self.trial_store.claim(trial) else []
        first = self.trial_store.count()
        last = min(first + count - len(claimed), self.max_trials) - 1
        if not self.trial_store.shared and self.last_round() >= round_index:
            # The round was proposed before an interruption, perhaps not completely.
            cohort = [trial for trial in self.trial_store.trials() if _round(trial) == round_index]
            last = max((trial.user_attrs["proposal"]["last"] for trial in cohort), default=-1)
        if first <= last:
            self._update_mirror()
        attributes = {"round": round_index, "last": last}
        proposals = [self._propose(number, attributes) for number in range(first, last + 1)]
        created = self.trial_store.create(proposals, self.max_trials)
        for trial, proposal in zip(created, proposals, strict=False):
            self._mirror_numbers[trial.number] = proposal.number
        claimed += created
        self._claimed |= {trial.number: trial for trial in claimed}
        return [self._running_trial(trial) for trial in claimed]

    def first_round(self) -> int:
        """The round in which a search continues: the interrupted one, else a new one."""
        queued = [trial for trial in self.trial_store.queued() if trial.number < self.max_trials]
        return min(map(_round, queued), default=self.last_round() + 1)

    def last_round(self) -> int:
        """The last round in which trials were proposed; -1 if there are no trials."""
        return max(map(_round, self.trial_store.trials()), default=-1)

    def cohort_end(self, trial: trial_module.Trial) -> int:
        """Number of the last trial that was proposed together with this one."""
        return self._claimed[int(trial.trial_id)].user_attrs["proposal"]["last"]

    def claimed_by_others(self) -> bool:
        """Whether trials that this worker has not claimed are running or queued."""
        unfinished = self.trial_store.trials(TrialState.RUNNING, TrialState.WAITING)
        return any(
            trial.number < self.max_trials and trial.number not in self._claimed
            for trial in unfinished
        )

    def _propose(self, number: int, attributes: Mapping[str, Any]) -> FrozenTrial:
        """Sample the hyperparameters of a trial; the first trial has the defaults."""
        if number == 0:
            self._mirror.sampler = FixedSampler(
                self._hyperparameters(lambda dimension: dimension.default)
            )
        else:
            purpose = (
                f"sampler of {self.trial_store.worker}" if self.trial_store.shared else "sampler"
            )
            self._mirror.sampler = self.sampler(derive_seed(self.seed, number, purpose))
        proposal = self._mirror.ask()
        values = self._hyperparameters(functools.partial(_suggest, proposal))
        proposal.set_user_attr("proposal", {"values": values, **attributes})
        return self._mirror.get_trials(deepcopy=False)[proposal.number]

    def _update_mirror(self) -> None:
        """Copy new trials and results to the mirror, unless the sampler ignores them."""
        if not self._uses_history:
            return
        for trial in self.trial_store.trials():
            finished = trial.state in _FINISHED
            if trial.number not in self._mirror_numbers:
                self._mirror_numbers[trial.number] = len(self._mirror.get_trials(deepcopy=False))
                self._mirror.add_trial(trial if finished else _as_running(trial))
            elif finished:
                self._finish_in_mirror(trial)

    def _finish_in_mirror(self, trial: FrozenTrial) -> None:
        mirrored = self._mirror.get_trials(deepcopy=False)[self._mirror_numbers[trial.number]]
        if not mirrored.state.is_finished():
            key = compat.trial_id(mirrored)
            for step, value in trial.intermediate_values.items():
                self._storage.set_trial_intermediate_value(key, step, value)
            self._storage.set_trial_state_values(key, trial.state, trial.values)

    def _hyperparameters(self, choose: Callable[[Any], Any]) -> dict[str, Any]:
        """Choose a value for every dimension that is active with the values before it."""
        hp = self.get_space()
        hp.values = {}
        for dimension in hp.space:
            if hp.is_active(dimension):
                hp.values[dimension.name] = choose(dimension)
        return hp.values

    # Recording results.

    def tell(
        self, trial: trial_module.Trial, state: TrialState, **result: Any
    ) -> trial_module.Trial:
        """Finish a trial and return KerasTuner's record of it.

        Args:
            trial: a trial that `ask` returned.
            state: complete, pruned or failed.
            **result: metrics, epoch, history, seconds and message, as far as there are any.
        """
        claimed = self._claimed.pop(int(trial.trial_id))
        values = None
        if state is TrialState.COMPLETE:
            values = [result["metrics"][objective.name] for objective in self.objectives]
        elif state is TrialState.PRUNED and len(self.objectives) == 1:
            curve = result["history"][self.objectives[0].name]
            values = curve[-1:]
            self.trial_store.report(claimed, len(curve), curve[-1])
        if self.trial_store.finish(claimed, state, values, result):
            return self._restore(claimed, state, result)
        self.refresh()  # another worker finished it
        return self.trials[trial.trial_id]

    def reload(self) -> None:
        """Queue stale trials and load finished ones from the trial store."""
        self.trial_store.requeue_stale_trials()
        self.refresh()

    def refresh(self) -> None:
        """Load the trials that have finished since, in other workers too."""
        for trial in self.finished():
            self._restore(trial, trial.state, trial.user_attrs["result"])

    def finished(self) -> list[FrozenTrial]:
        """Finished trials, sorted by number."""
        return self.trial_store.trials(*_FINISHED)

    def costs(self, history: Mapping[str, list[float]]) -> list[float]:
        """After each epoch the objective, or the sum of several, with the sign of minimization."""
        curves = [
            [sign * value for value in history[objective.name]]
            for sign, objective in zip(self.signs, self.objectives, strict=True)
        ]
        return [sum(values) for values in zip(*curves, strict=True)]

    @property
    def signs(self) -> list[float]:
        """For each objective the sign with which it is minimized."""
        return [-1.0 if objective.direction == "max" else 1.0 for objective in self.objectives]

    def score_trial(self, trial: trial_module.Trial) -> None:
        """Set the score: the objective, or the sum of several in the direction of minimization."""
        values = [trial.metrics.get_best_value(objective.name) for objective in self.objectives]
        signs = [1.0] if len(values) == 1 else self.signs
        trial.score = sum(sign * value for sign, value in zip(signs, values, strict=True))
        trial.best_step = trial.metrics.get_best_step(self.objectives[0].name)

    def save(self) -> None:
        """Do nothing: the study holds the state."""

    def _save_trial(self, trial) -> None:
        """Do nothing: the study holds the state."""

    def _running_trial(self, record: FrozenTrial) -> trial_module.Trial:
        """KerasTuner's record of a running trial."""
        hp = self.get_space()
        hp.values = dict(record.user_attrs["proposal"]["values"])
        return trial_module.Trial(hp, self.trial_id(record.number), TrialStatus.RUNNING)

    def _restore(
        self, record: FrozenTrial, state: TrialState, result: Mapping[str, Any]
    ) -> trial_module.Trial:
        """KerasTuner's record of a finished trial."""
        trial_id = self.trial_id(record.number)
        if trial_id not in self.trials:
            trial = self._running_trial(record)
            trial.status, trial.message = _STATUS[state], result.get("message")
            if state is TrialState.COMPLETE:
                register_metrics(trial, result["metrics"], self.objectives, result["epoch"])
                self.score_trial(trial)
            self.trials[trial_id] = trial
            self.start_order.append(trial_id)
            self.end_order.append(trial_id)
        return self.trials[trial_id]

    def trial_id(self, number: int) -> str:
        """KerasTuner's id of the trial with that number."""
        return f"{number:0{len(str(self.max_trials))}d}"


class FixedSampler(optuna.samplers.BaseSampler):
    """A sampler that returns fixed parameters, for one trial.

    Args:
        values: parameters by name.
    """

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def infer_relative_search_space(self, study, trial) -> dict:
        """No parameters are sampled jointly."""
        return {}

    def sample_relative(self, study, trial, search_space) -> dict:
        """No parameters are sampled jointly."""
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution) -> Any:
        """The fixed value."""
        return self.values[param_name]


def optuna_directions(
    objectives: list[keras_tuner.Objective],
) -> list[Literal["minimize", "maximize"]]:
    """Directions of KerasTuner objectives as Optuna writes them."""
    return ["maximize" if objective.direction == "max" else "minimize" for objective in objectives]


def register_metrics(trial, metrics: dict[str, float], objectives: list, step: int) -> None:
    """Write metrics into a KerasTuner trial, which would else guess their directions."""
    directions = {objective.name: objective.direction for objective in objectives}
    for name, value in metrics.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, directions.get(name, "min"))
        trial.metrics.update(name, value, step=step)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Turn off Optuna's log inside the context, and restore its global verbosity afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _round(trial: FrozenTrial) -> int:
    return trial.user_attrs["proposal"]["round"]


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
    )


def _suggest(trial: optuna.Trial, hp: Any) -> Any:
    """Sample one KerasTuner hyperparameter."""
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
