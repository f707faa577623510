"""Trials trained together: a population, one compiled program for each kind of model.

Trials whose models differ in nothing but weights, units, regularizers and learning rate share a
program. It trains a few side by side (`packed`), over many epochs a call, with the rows, the
optimizer, the objectives and the choice of the best epoch inside. A trial ends where `model.fit`
ends with the same batches.

Several calls run at the same time, each in a thread: a core has one then, and the small products of
a small model need not be spread over cores.
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
from keras_seqzoo.tuning.trial import TrialResult, diverged
from keras_seqzoo.tuning.vectorized.packed_model import Packed
from keras_seqzoo.tuning.vectorized.train_loop import Moving, Program
from keras_seqzoo.utils.random import seeded

# Measured by benchmarks/search.py: on a CPU more units or members in a call gain nothing.
UNITS, SEATS, WIDTH = 64, 5, 128
_SECONDS = 10.0
# Dimensions in which members of one program may differ.
_FREE = ("units", "learning_rate", "global_clipnorm")
_FREE_ENDS = ("_regularizer", "_strength", "_initializer", "dropout")


@dataclasses.dataclass(frozen=True)
class Member:
    """A trial to be trained.

    Attributes:
        hp: its hyperparameters.
        seed: int, from which everything random in it follows.
    """

    hp: keras_tuner.HyperParameters
    seed: int


@dataclasses.dataclass
class Run:
    """A member in training.

    Attributes:
        model: of its true size; holds the best weights once `Population.finish` was called.
        program: what trains it.
        moving: what training changes.
        orders: gives the batches of rows, epoch by epoch.
        history: curves so far.
        seconds: float, its share of the time.
        error: what its last call raised.
    """

    model: keras.Model
    program: Program
    moving: Moving
    orders: Iterator[np.ndarray]
    history: dict[str, list[float]]
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def epochs(self) -> int:
        """How many ran."""
        return len(self.history["loss"])

    @property
    def continues(self) -> bool:
        """Whether it has neither stopped early nor failed."""
        return self.error is None and bool(self.moving.active)


def is_worthwhile(trials: int, steps: int) -> bool:
    """Whether so many trials of so many steps are faster together, compiling included.

    A program takes about six seconds to compile; a trial alone one, and 3 ms a step.
    """
    return trials * (1 + 0.003 * steps) > 6


def stopping_of(
    callbacks: Sequence[keras.callbacks.Callback], logs: Sequence[str]
) -> keras.callbacks.EarlyStopping | None:
    """The early stopping that a population with these logs can do itself.

    Raises:
        ValueError: for callbacks that need a model, and therefore trials one by one.
    """
    if not callbacks:
        return None
    (one,) = callbacks
    if type(one) is not keras.callbacks.EarlyStopping or one.baseline is not None:
        raise ValueError(f"{type(one).__name__} is not known.")
    if one.monitor not in logs or one.mode not in ("min", "max"):
        raise ValueError(f"Nothing is known of {one.monitor!r} with mode {one.mode!r}.")
    return one


class Population:
    """Starts, advances and finishes members; keeps its programs.

    Args:
        hypermodel: `ZooHyperModel`, its task bound to data.
        objectives: what the best epoch is chosen by; in the logs of the task's metrics.
        epochs: int, of a member in all.
        batch_size: int.
        stopping: see `stopping_of`.
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
        self._programs: dict[tuple, Program | None] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1)

    def start(self, member: Member) -> Run | None:
        """The member's run before its first epoch; None if no program can train it.

        Raises:
            Exception: whatever building its model raises.
        """
        program = self._program(member.hp)
        if program is None:
            return None
        with seeded(member.seed):
            model = self.hypermodel.build(member.hp)
        if not program.packed.covers(model):
            return None
        self.hypermodel.adapt_like(model, program.model)
        moving = Moving.before(
            [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables]
        )
        orders = self.hypermodel.task.batch_order(batch_size=self.batch_size, seed=member.seed)
        return Run(model, program, moving, orders, {name: [] for name in program.metrics.logs})

    def can_train(self, hp: keras_tuner.HyperParameters) -> bool:
        """Whether there is a program for such members."""
        return self._program(hp) is not None

    def advance(self, runs: Sequence[Run], until: Sequence[int]) -> Iterator[None]:
        """Trains each run until so many of its epochs are done, or it goes on no more.

        A generator: it comes back whenever some epochs are done, so that progress can be shown.
        Those that go together stay together meanwhile, whatever the time each call takes: where a
        member has its place decides on the last bit of some sums.
        """
        left = {id(run): until for run, until in zip(runs, until, strict=True)}
        waiting: set[concurrent.futures.Future] = set()
        ready = _bins([run for run in runs if run.continues and run.epochs < left[id(run)]], left)
        while ready or waiting:
            for together in ready:
                waiting.add(self._pool.submit(_advance, together, left[id(together[0])]))
            done, waiting = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            ready = [
                together
                for together in (call.result() for call in done)
                if any(run.continues and run.epochs < left[id(run)] for run in together)
            ]
            yield

    def finish(self, run: Run) -> TrialResult:
        """The trained model, with the weights of its best epoch.

        Raises:
            FailedTrialError: if no epoch had a finite objective, or training raised an error.
        """
        if run.error is not None:
            raise FailedTrialError("".join(traceback.format_exception(run.error)))
        epoch = int(run.moving.best_epoch)
        if epoch < 0:
            last = {name: values[-1] for name, values in run.history.items()}
            raise FailedTrialError(diverged(self.objectives, last))
        for variable, value in zip(run.model.trainable_variables, run.moving.best, strict=True):
            variable.assign(value)
        metrics = {name: values[epoch] for name, values in run.history.items()}
        return TrialResult(run.model, metrics, epoch, run.history, run.seconds)

    def _program(self, hp: keras_tuner.HyperParameters) -> Program | None:
        """The program for models of this kind, compiled once."""
        values = self.hypermodel.sample(hp)
        units = values.get("units")
        capacity = None
        if units is not None:
            capacity = UNITS
            while capacity < units:
                capacity *= 2
        same = {
            name: value
            for name, value in values.items()
            if name not in _FREE and not name.endswith(_FREE_ENDS)
        }
        kind = (capacity, *sorted(same.items()))
        if kind not in self._programs:
            self._programs[kind] = self._make(hp, units, capacity)
        return self._programs[kind]

    def _most(self, hp: keras_tuner.HyperParameters, units: int | None):
        """As `hp`, with so many units, and every regularizer and dropout that there can be."""
        hp = hp.copy()
        if units is not None:
            hp.values["units"] = units
        for name, dimension in self.hypermodel.dimensions.items():
            hp.values.setdefault(name, dimension.default)  # what depends on others may be missing
            if name.endswith("_regularizer"):
                hp.values[name] = next(one for one in dimension.values if one != "none")
            if name.endswith("dropout"):
                given = isinstance(dimension, Choice)
                hp.values[name] = max(dimension.values) if given else dimension.high
        return hp

    def _make(
        self, hp: keras_tuner.HyperParameters, units: int | None, capacity: int | None
    ) -> Program | None:
        if keras.backend.backend() != "tensorflow":
            return None
        try:
            with seeded(0):
                model = self.hypermodel.build(self._most(hp, units))
                wider = model
                if units is not None:
                    wider = self.hypermodel.build(self._most(hp, 2 * units))
            self.hypermodel.task.adapt(model)
        except SeqZooError:
            raise
        except Exception:  # each trial will say it for itself
            return None
        task = self.hypermodel.task
        kind = task.population_metrics
        obstacle = kind.obstacle(model, task) or _obstacle(model, wider)
        if obstacle is not None or {one.name for one in self.objectives} - {*kind.logs}:
            return None
        model_units = (0, 0) if units is None else (units, 2 * units)
        width = max(model.input_shape[-1], model.output_shape[-1])
        seats = max(min(SEATS, WIDTH // width), 2)
        if units is None:
            widest = max(weight.shape[0] for weight in model.trainable_variables)
            seats = max(min(seats, UNITS // widest), 1)
        elif capacity > UNITS:
            seats = 1
        return Program(
            Packed(model, wider, model_units, members=seats, units=capacity or 0),
            kind.of(model, task),
            objectives=self.objectives,
            epochs=self.epochs,
            batch_size=self.batch_size,
            stopping=self.stopping,
            pool=self._pool,
        )


def _bins(runs: Sequence[Run], until: dict[int, int]) -> list[list[Run]]:
    """Which runs go together: of one program, as far as one another, as many as fit."""
    kinds: dict[tuple, list[Run]] = {}
    for run in runs:
        kinds.setdefault((run.program, run.epochs, until[id(run)]), []).append(run)
    return [together for alike in kinds.values() for together in _fill(alike)]


def _fill(runs: list[Run]) -> list[list[Run]]:
    """Bins of one program, as few as there can be: the widest first, where most room is left."""
    packed = runs[0].program.packed
    units = {id(run): packed.units_of(run.model) for run in runs}
    runs = sorted(runs, key=lambda run: -units[id(run)])

    def room(together: list[Run]) -> int:
        return packed.units - sum(units[id(run)] for run in together)

    for count in range(1, len(runs) + 1):
        bins: list[list[Run]] = [[] for _ in range(count)]
        for run in runs:
            open_ = [one for one in bins if len(one) < packed.members]
            widest = max(open_, key=room, default=None)
            if widest is None or room(widest) < units[id(run)]:
                break
            widest.append(run)
        else:
            return bins
    raise AssertionError("a run fits into a bin of its own")


def _advance(runs: list[Run], until: int) -> list[Run]:
    started = time.monotonic()
    program, began = runs[0].program, max(run.epochs for run in runs)
    # Calls that take seconds: progress is to be seen, and an interruption to be heard.
    epochs = min(until - began, program.epochs_per_call, program.epochs_within(_SECONDS))
    try:
        moving, logs = program.advance(
            [run.model for run in runs],
            [run.moving for run in runs],
            [np.stack(list(itertools.islice(run.orders, epochs))) for run in runs],
            began=began,
        )
    except Exception as error:  # these trials', and no others'
        for run in runs:
            run.error = error
        return runs
    seconds = time.monotonic() - started
    program.seconds_per_epoch = seconds / epochs
    for run, after, curves in zip(runs, moving, logs, strict=True):
        run.moving = after
        run.seconds += seconds / len(runs)
        for name, values in curves.items():
            run.history[name] += values
    return runs


def _obstacle(model: keras.Model, wider: keras.Model) -> str | None:
    """Why models like this one are trained one by one, or None."""
    if type(model.optimizer) not in (keras.optimizers.Adam, Adam) or model.optimizer.amsgrad:
        return "its optimizer is not Adam"
    if model.optimizer.use_ema or model.optimizer.weight_decay:
        return "its optimizer averages or decays"
    if model.optimizer.clipnorm or model.optimizer.clipvalue:
        return "its optimizer clips otherwise than by the global norm"
    if not isinstance(model.loss, keras.losses.Loss):
        return "its loss is not an object"
    return Packed.obstacle(model, wider)
