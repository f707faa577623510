"""Populations: trials that train together, in one compiled training loop per kind of model.

Trials whose models differ only in weights, units, regularizers, dropout and learning rate share a
training loop. One call trains a few of them side by side (`PackedModel`) for many epochs. Data,
optimizer, validation metrics and the choice of the best epoch are inside the compiled program. A
trial ends with the same weights as `model.fit` with the same batches.

Several calls run in parallel, one thread each. One call per core is faster than spreading the small
matrix products of one call over all cores.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
import time
import traceback
from collections.abc import Iterator, Sequence

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError

from keras_seqzoo.errors import SeqZooError
from keras_seqzoo.optimizers import Adam
from keras_seqzoo.registry.search_space import Choice
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.trial import TrialResult, divergence_message
from keras_seqzoo.tuning.vectorized.packed_model import PackedModel
from keras_seqzoo.tuning.vectorized.train_loop import TrainLoop, TrainState
from keras_seqzoo.utils.random import seeded

# Largest number of members, of their units in all, and of members * features in one call. On a CPU
# larger calls are not faster (benchmarks/search.py).
MAX_UNITS, MAX_MEMBERS, MAX_WIDTH = 64, 5, 128
_CALL_SECONDS = 10.0  # target duration of a call, after which progress is shown
# Search space dimensions in which the members of one training loop may differ.
_FREE_DIMENSIONS = ("units", "learning_rate", "global_clipnorm")
_FREE_SUFFIXES = ("_regularizer", "_strength", "_initializer", "dropout")


@dataclasses.dataclass(frozen=True)
class Member:
    """A trial of a population.

    Attributes:
        hp: its hyperparameters.
        seed: int, from which all its random numbers are derived.
    """

    hp: keras_tuner.HyperParameters
    seed: int


@dataclasses.dataclass
class TrainingRun:
    """Training of one member.

    Attributes:
        model: its model. `Population.finish` sets the weights of the best epoch.
        train_loop: the compiled loop that trains it.
        state: weights, optimizer state and early stopping.
        orders: iterator over epochs that yields the rows of the batches.
        history: logs of the epochs so far.
        seconds: float, its share of the training time.
        error: the error that its last call raised.
    """

    model: keras.Model
    train_loop: TrainLoop
    state: TrainState
    orders: Iterator[np.ndarray]
    history: dict[str, list[float]]
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs so far."""
        return len(self.history["loss"])

    @property
    def continues(self) -> bool:
        """Whether it has neither stopped early nor failed."""
        return self.error is None and bool(self.state.active)


def is_worthwhile(trials: int, steps: int) -> bool:
    """Whether trials are faster together than one by one, with compilation included.

    A training loop takes about 6 s to compile. A single trial takes about 1 s, and 3 ms per step.

    Args:
        trials: int, number of trials.
        steps: int, number of training steps of a trial.
    """
    return trials * (1 + 0.003 * steps) > 6


def supported_early_stopping(
    callbacks: Sequence[keras.callbacks.Callback], logs: Sequence[str]
) -> keras.callbacks.EarlyStopping | None:
    """The `EarlyStopping` among the callbacks, which a population implements itself.

    Args:
        callbacks: Keras callbacks.
        logs: keys of the logs of the population.

    Raises:
        ValueError: for other callbacks. They need a model, so that trials must train one by one.
    """
    if not callbacks:
        return None
    (callback,) = callbacks
    if type(callback) is not keras.callbacks.EarlyStopping or callback.baseline is not None:
        raise ValueError(f"{type(callback).__name__} needs trials that train one by one.")
    if callback.monitor not in logs or callback.mode not in ("min", "max"):
        raise ValueError(f"{callback.monitor!r} with mode {callback.mode!r} is not supported.")
    return callback


class Population:
    """Starts, trains and finishes members, and holds their compiled training loops.

    Args:
        hypermodel: `ZooHyperModel` whose task is bound to data.
        objectives: `keras_tuner.Objective`s by which the best epoch is chosen.
        epochs: int, total number of epochs of a member.
        batch_size: int.
        stopping: result of `supported_early_stopping`.
    """

    def __init__(
        self,
        hypermodel: ZooHyperModel,
        *,
        objectives: list[keras_tuner.Objective],
        epochs: int,
        batch_size: int,
        stopping: keras.callbacks.EarlyStopping | None = None,
    ):
        self.hypermodel, self.objectives = hypermodel, objectives
        self.stopping = stopping
        self.epochs, self.batch_size = epochs, batch_size
        self._train_loops: dict[tuple, TrainLoop | None] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1)

    def start(self, member: Member) -> TrainingRun | None:
        """Start a member; None if it cannot train in a population.

        Raises:
            Exception: any error of building its model.
        """
        train_loop = self._train_loop_of(member.hp)
        if train_loop is None:
            return None
        with seeded(member.seed):
            model = self.hypermodel.build(member.hp)
        if not train_loop.packed.covers(model):
            return None
        self.hypermodel.adapt_like(model, train_loop.model)
        state = TrainState.initial(
            [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables]
        )
        orders = self.hypermodel.task.batch_order(batch_size=self.batch_size, seed=member.seed)
        return TrainingRun(
            model, train_loop, state, orders, {name: [] for name in train_loop.metrics.logs}
        )

    def can_train(self, hp: keras_tuner.HyperParameters) -> bool:
        """Whether members with such hyperparameters can train in a population."""
        return self._train_loop_of(hp) is not None

    def advance(self, runs: Sequence[TrainingRun], until: Sequence[int]) -> Iterator[None]:
        """Train each run until its epoch in `until`, or until it stops early.

        A generator that yields whenever a call has finished, so that progress can be shown. The
        groups do not change in between: the position of a member in a group decides the last bit
        of some sums, and must not depend on how long each call takes.
        """
        last_epochs = {id(run): epoch for run, epoch in zip(runs, until, strict=True)}
        waiting: set[concurrent.futures.Future] = set()
        ready = _group_runs(
            [run for run in runs if run.continues and run.epochs < last_epochs[id(run)]],
            last_epochs,
        )
        while ready or waiting:
            for group in ready:
                waiting.add(self._pool.submit(_train_group, group, last_epochs[id(group[0])]))
            done, waiting = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            ready = [
                group
                for group in (call.result() for call in done)
                if any(run.continues and run.epochs < last_epochs[id(run)] for run in group)
            ]
            yield

    def finish(self, run: TrainingRun) -> TrialResult:
        """Return the trained model with the weights of its best epoch.

        Raises:
            FailedTrialError: if no epoch had a finite objective, or training raised an error.
        """
        if run.error is not None:
            raise FailedTrialError("".join(traceback.format_exception(run.error)))
        epoch = int(run.state.best_epoch)
        if epoch < 0:
            last = {name: values[-1] for name, values in run.history.items()}
            raise FailedTrialError(divergence_message(self.objectives, last))
        for variable, value in zip(run.model.trainable_variables, run.state.best, strict=True):
            variable.assign(value)
        metrics = {name: values[epoch] for name, values in run.history.items()}
        return TrialResult(run.model, metrics, epoch, run.history, run.seconds)

    def _train_loop_of(self, hp: keras_tuner.HyperParameters) -> TrainLoop | None:
        """The training loop for models of this kind, compiled once; None if there can be none."""
        values = self.hypermodel.sample(hp)
        units = values.get("units")
        capacity = None
        if units is not None:
            capacity = MAX_UNITS
            while capacity < units:
                capacity *= 2
        shared = {
            name: value
            for name, value in values.items()
            if name not in _FREE_DIMENSIONS and not name.endswith(_FREE_SUFFIXES)
        }
        kind = (capacity, *sorted(shared.items()))
        if kind not in self._train_loops:
            self._train_loops[kind] = self._make_train_loop(hp, units, capacity)
        return self._train_loops[kind]

    def _largest(self, hp: keras_tuner.HyperParameters, units: int | None):
        """A copy of `hp` with that number of units and every regularizer and dropout active."""
        hp = hp.copy()
        if units is not None:
            hp.values["units"] = units
        for name, dimension in self.hypermodel.dimensions.items():
            hp.values.setdefault(name, dimension.default)  # inactive dimensions have no value
            if name.endswith("_regularizer") and isinstance(dimension, Choice):
                hp.values[name] = next(kind for kind in dimension.values if kind != "none")
            if name.endswith("dropout"):
                is_choice = isinstance(dimension, Choice)
                hp.values[name] = max(dimension.values) if is_choice else dimension.high
        return hp

    def _make_train_loop(
        self, hp: keras_tuner.HyperParameters, units: int | None, capacity: int | None
    ) -> TrainLoop | None:
        """A training loop for models like that of `hp`; it compiles in a thread.

        Args:
            hp: hyperparameters of one of the models.
            units: int, its number of units; None if all models have the same.
            capacity: int, number of units of all members in a call.
        """
        task = self.hypermodel.task
        metrics = task.population_metrics
        if keras.backend.backend() != "tensorflow" or metrics is None:
            return None
        try:
            with seeded(0):
                model = self.hypermodel.build(self._largest(hp, units))
                wider_model = model
                if units is not None:
                    wider_model = self.hypermodel.build(self._largest(hp, 2 * units))
            task.adapt(model)
        except SeqZooError:
            raise
        except Exception:  # each trial will raise it
            return None
        obstacle = metrics.obstacle(model, task) or _obstacle(model, wider_model)
        names = {objective.name for objective in self.objectives}
        if obstacle is not None or names - {*metrics.logs}:
            return None
        model_units = (0, 0) if units is None else (units, 2 * units)
        width = max(model.input_shape[-1], model.output_shape[-1])
        max_members = max(min(MAX_MEMBERS, MAX_WIDTH // width), 2)
        if units is None or capacity is None:
            widest = max(weight.shape[0] for weight in model.trainable_variables)
            max_members = max(min(max_members, MAX_UNITS // widest), 1)
        elif capacity > MAX_UNITS:
            max_members = 1
        return TrainLoop(
            PackedModel(model, wider_model, model_units, members=max_members, units=capacity or 0),
            metrics.of(model, task),
            objectives=self.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stopping=self.stopping,
            pool=self._pool,
        )


def _group_runs(runs: Sequence[TrainingRun], until: dict[int, int]) -> list[list[TrainingRun]]:
    """Groups of runs for one call each: runs of one loop with the same first and last epoch."""
    kinds: dict[tuple, list[TrainingRun]] = {}
    for run in runs:
        kinds.setdefault((run.train_loop, run.epochs, until[id(run)]), []).append(run)
    return [group for same_kind in kinds.values() for group in _pack_runs(same_kind)]


def _pack_runs(runs: list[TrainingRun]) -> list[list[TrainingRun]]:
    """Bin packing of runs of one loop: the fewest groups for which worst-fit decreasing works."""
    packed = runs[0].train_loop.packed
    units = {id(run): packed.units_of(run.model) for run in runs}
    runs = sorted(runs, key=lambda run: -units[id(run)])

    def free_units(group: list[TrainingRun]) -> int:
        return packed.units - sum(units[id(run)] for run in group)

    for count in range(1, len(runs) + 1):
        groups: list[list[TrainingRun]] = [[] for _ in range(count)]
        for run in runs:
            candidates = [group for group in groups if len(group) < packed.members]
            emptiest = max(candidates, key=free_units, default=None)
            if emptiest is None or free_units(emptiest) < units[id(run)]:
                break
            emptiest.append(run)
        else:
            return groups
    raise AssertionError("each run fits into a group of its own")


def _train_group(runs: list[TrainingRun], until: int) -> list[TrainingRun]:
    """Train a group for one call, up to the epoch `until`; return it."""
    started = time.monotonic()
    train_loop, first_epoch = runs[0].train_loop, max(run.epochs for run in runs)
    # Short calls show progress and react to an interruption.
    epochs = min(
        until - first_epoch, train_loop.epochs_per_call, train_loop.epochs_within(_CALL_SECONDS)
    )
    try:
        states, logs = train_loop.advance(
            [run.model for run in runs],
            [run.state for run in runs],
            [np.stack(list(itertools.islice(run.orders, epochs))) for run in runs],
            first_epoch=first_epoch,
        )
    except Exception as error:  # only the trials of this group fail
        for run in runs:
            run.error = error
        return runs
    seconds = time.monotonic() - started
    train_loop.seconds_per_epoch = seconds / epochs
    for run, state, curves in zip(runs, states, logs, strict=True):
        run.state = state
        run.seconds += seconds / len(runs)
        for name, values in curves.items():
            run.history[name] += values
    return runs


def _obstacle(model: keras.Model, wider_model: keras.Model) -> str | None:
    """Why models like this one must train one by one, or None."""
    if type(model.optimizer) not in (keras.optimizers.Adam, Adam) or model.optimizer.amsgrad:
        return "its optimizer is not Adam"
    if model.optimizer.use_ema or model.optimizer.weight_decay:
        return "its optimizer uses weight decay or a moving average"
    if model.optimizer.clipnorm or model.optimizer.clipvalue:
        return "its optimizer clips gradients, but not by the global norm"
    if not isinstance(model.loss, keras.losses.Loss):
        return "its loss is not a keras.losses.Loss"
    return PackedModel.obstacle(model, wider_model)
