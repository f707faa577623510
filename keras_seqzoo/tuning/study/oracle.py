"""KerasTuner's Oracle over a trial store: proposes parameters, and keeps what came of them.

KerasTuner's own files, which are written in place and are unreadable when cut short, are not
written at all.

The parameters of a trial follow from the search's seed, the trial's number, and the trials that had
ended when its population was asked for. They are sampled in a mirror of the study in memory, and
then written at once: a sampler that works in the storage writes each parameter by itself.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_STATUS = {
    TrialState.COMPLETE: TrialStatus.COMPLETED,
    TrialState.PRUNED: TrialStatus.STOPPED,
    TrialState.FAIL: TrialStatus.FAILED,
}


class StudyOracle(keras_tuner.Oracle):
    """Asks for trials and tells what came of them.

    Args:
        trial_store: where trials are.
        objective: a `keras_tuner.Objective` or a list of them.
        max_trials: int, trials in all, finished ones included.
        seed: int, at least 0.
        sampler: one of `SAMPLERS`, or a function from a seed to an Optuna sampler.
        hyperparameters: `keras_tuner.HyperParameters` that override the space, or None.
    """

    def __init__(
        self, trial_store: TrialStore, *, objective, max_trials, seed, sampler, hyperparameters=None
    ):
        # KerasTuner gives up after so many failures in a row; here all must fail.
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            seed=1,  # without one, or with 0, KerasTuner draws from the user's generator
            max_consecutive_failed_trials=math.inf,
        )
        self.trial_store, self.seed = trial_store, seed
        self._learns = sampler != "random"
        self.sampler = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        self.objectives = objective if isinstance(objective, list) else [objective]
        self._storage = optuna.storages.InMemoryStorage()
        self._mirror = optuna.create_study(
            storage=self._storage, directions=trial_store.study.directions
        )
        self._mirrored: dict[int, int] = {}
        self._held: dict[int, FrozenTrial] = {}
        self.verbose = 0  # progress is shown by the search itself

    # Asking.

    def ask(self, count: int, round_: int) -> list[trial_module.Trial]:
        """Up to so many trials to run in that round: those that wait for it, then new ones."""
        if self.trial_store.shared:
            self.trial_store.requeue_stale_trials()
        taken = []
        for trial in self.trial_store.waiting():
            mine = self.trial_store.shared or _round(trial) == round_
            if len(taken) < count and trial.number < self.max_trials and mine:
                taken += [trial] if self.trial_store.take(trial) else []
        first = self.trial_store.count()
        last = min(first + count - len(taken), self.max_trials) - 1
        if not self.trial_store.shared and self.last_round() >= round_:
            # Proposed before an interruption, maybe not to the end.
            same = [trial for trial in self.trial_store.trials() if _round(trial) == round_]
            last = max((trial.user_attrs["asked"]["last"] for trial in same), default=-1)
        if first <= last:
            self._mirror_all()
        attributes = {"round": round_, "last": last}
        proposed = [self._propose(number, attributes) for number in range(first, last + 1)]
        made = self.trial_store.create(proposed, self.max_trials)
        for trial, mirrored in zip(made, proposed, strict=False):
            self._mirrored[trial.number] = mirrored.number
        taken += made
        self._held |= {trial.number: trial for trial in taken}
        return [self._trial(trial) for trial in taken]

    def first_round(self) -> int:
        """Where a search goes on: with what was interrupted, or after all that ended."""
        waiting = [trial for trial in self.trial_store.waiting() if trial.number < self.max_trials]
        return min(map(_round, waiting), default=self.last_round() + 1)

    def last_round(self) -> int:
        """The last one that trials were proposed in, -1 for none."""
        return max(map(_round, self.trial_store.trials()), default=-1)

    def cohort_end(self, trial: trial_module.Trial) -> int:
        """The last trial that was proposed together with this one."""
        return self._held[int(trial.trial_id)].user_attrs["asked"]["last"]

    def claimed_by_others(self) -> bool:
        """Whether trials run, or wait, that this worker does not hold."""
        unfinished = self.trial_store.trials(TrialState.RUNNING, TrialState.WAITING)
        return any(
            trial.number < self.max_trials and trial.number not in self._held
            for trial in unfinished
        )

    def _propose(self, number: int, attributes: Mapping[str, Any]) -> FrozenTrial:
        """The defaults first, then what the sampler says."""
        if number == 0:
            self._mirror.sampler = Given(self._values(lambda dimension: dimension.default))
        else:
            purpose = (
                f"sampler of {self.trial_store.worker}" if self.trial_store.shared else "sampler"
            )
            self._mirror.sampler = self.sampler(derive_seed(self.seed, number, purpose))
        asked = self._mirror.ask()
        values = self._values(functools.partial(_suggest, asked))
        asked.set_user_attr("asked", {"values": values, **attributes})
        return self._mirror.get_trials(deepcopy=False)[asked.number]

    def _mirror_all(self) -> None:
        """Brings the mirror to what is known of trials by now, unless the sampler ignores it."""
        if not self._learns:
            return
        for trial in self.trial_store.trials():
            ended = trial.state in _ENDED
            if trial.number not in self._mirrored:
                self._mirrored[trial.number] = len(self._mirror.get_trials(deepcopy=False))
                self._mirror.add_trial(trial if ended else _running(trial))
            elif ended:
                self._end_mirrored(trial)

    def _end_mirrored(self, trial: FrozenTrial) -> None:
        mirrored = self._mirror.get_trials(deepcopy=False)[self._mirrored[trial.number]]
        if not mirrored.state.is_finished():
            key = compat.trial_id(mirrored)
            for step, value in trial.intermediate_values.items():
                self._storage.set_trial_intermediate_value(key, step, value)
            self._storage.set_trial_state_values(key, trial.state, trial.values)

    def _values(self, choose: Callable[[Any], Any]) -> dict[str, Any]:
        """A value for every dimension that is active with those before it."""
        hp = self.get_space()
        hp.values = {}
        for dimension in hp.space:
            if hp.is_active(dimension):
                hp.values[dimension.name] = choose(dimension)
        return hp.values

    # Telling.

    def tell(
        self, trial: trial_module.Trial, state: TrialState, **outcome: Any
    ) -> trial_module.Trial:
        """Ends a trial; `outcome` is metrics, epoch, history, seconds, message, as far as known."""
        held = self._held.pop(int(trial.trial_id))
        values = None
        if state is TrialState.COMPLETE:
            values = [outcome["metrics"][one.name] for one in self.objectives]
        elif state is TrialState.PRUNED and len(self.objectives) == 1:
            curve = outcome["history"][self.objectives[0].name]
            values = curve[-1:]
            self.trial_store.report(held, len(curve), curve[-1])
        if self.trial_store.end(held, state, values, outcome):
            return self._restore(held, state, outcome)
        self.refresh()  # another worker ended it
        return self.trials[trial.trial_id]

    def reload(self) -> None:
        """Takes up what the trial store knows, and lets trials wait again that nobody runs."""
        self.trial_store.requeue_stale_trials()
        self.refresh()

    def refresh(self) -> None:
        """Takes up what other workers ended meanwhile."""
        for trial in self.finished():
            self._restore(trial, trial.state, trial.user_attrs["outcome"])

    def finished(self) -> list[FrozenTrial]:
        """Trials that ended, in order."""
        return self.trial_store.trials(*_ENDED)

    def costs(self, history: Mapping[str, list[float]]) -> list[float]:
        """After each epoch what is minimized: the objective, or the sum of several."""
        curves = [
            [sign * value for value in history[one.name]]
            for sign, one in zip(self.signs, self.objectives, strict=True)
        ]
        return [sum(values) for values in zip(*curves, strict=True)]

    @property
    def signs(self) -> list[float]:
        """Of each objective, what makes it one to minimize."""
        return [-1.0 if one.direction == "max" else 1.0 for one in self.objectives]

    def score_trial(self, trial: trial_module.Trial) -> None:
        """The objective; of several, the sum in the direction of minimization."""
        values = [trial.metrics.get_best_value(one.name) for one in self.objectives]
        signs = [1.0] if len(values) == 1 else self.signs
        trial.score = sum(sign * value for sign, value in zip(signs, values, strict=True))
        trial.best_step = trial.metrics.get_best_step(self.objectives[0].name)

    def save(self) -> None:
        """Nothing: the study is the state."""

    def _save_trial(self, trial) -> None:
        """Nothing: the study is the state."""

    def _trial(self, found: FrozenTrial) -> trial_module.Trial:
        hp = self.get_space()
        hp.values = dict(found.user_attrs["asked"]["values"])
        return trial_module.Trial(hp, self.trial_id(found.number), TrialStatus.RUNNING)

    def _restore(self, found: FrozenTrial, state: TrialState, outcome: Mapping[str, Any]):
        """KerasTuner's record of a trial that ended."""
        trial_id = self.trial_id(found.number)
        if trial_id not in self.trials:
            trial = self._trial(found)
            trial.status, trial.message = _STATUS[state], outcome.get("message")
            if state is TrialState.COMPLETE:
                register_metrics(trial, outcome["metrics"], self.objectives, outcome["epoch"])
                self.score_trial(trial)
            self.trials[trial_id] = trial
            self.start_order.append(trial_id)
            self.end_order.append(trial_id)
        return self.trials[trial_id]

    def trial_id(self, number: int) -> str:
        """KerasTuner's name for the trial of that number."""
        return f"{number:0{len(str(self.max_trials))}d}"


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


def directions(objectives: list[keras_tuner.Objective]) -> list[str]:
    """Optuna's words for them."""
    return ["maximize" if one.direction == "max" else "minimize" for one in objectives]


def register_metrics(trial, metrics: dict[str, float], objectives: list, step: int) -> None:
    """Writes metrics into a KerasTuner trial without letting it guess their direction."""
    known = {one.name: one.direction for one in objectives}
    for name, value in metrics.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, known.get(name, "min"))
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


def _round(trial: FrozenTrial) -> int:
    return trial.user_attrs["asked"]["round"]


def _running(trial: FrozenTrial) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
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
