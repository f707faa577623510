"""Trials trained together: a population, one compiled program for each kind of model.

Trials whose models differ in nothing but weights, units, regularizers and learning rate share a
program. It trains several members at once, on a leading axis, over several epochs a call, with the
rows, the optimizer, the objectives and the choice of the best epoch inside; units are padded to
the next size of a few. A member ends where `model.fit` ends with the same batches.

Several calls run at the same time, each in a thread: a core has one then, and the small kernels of
a small model need not be spread over cores.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FailedTrialError

from keras_seqzoo.diagnostics import functions
from keras_seqzoo.tuning import training
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.measures import Measures
from keras_seqzoo.tuning.rows import Rows, targets
from keras_seqzoo.tuning.seeds import seeded
from keras_seqzoo.tuning.stacked import Stacked

# Measured by benchmarks/search.py: more members at once gain nothing on a CPU.
SEATS = 4
SIZES = (16, 32, 64, 128, 256, 512)  # units are padded to the next of these
# Dimensions in which members of one program may differ.
_FREE = ("units", "learning_rate", "recurrent_initializer")
_FREE_ENDS = ("_regularizer", "_strength", "_initializer")


@dataclasses.dataclass(frozen=True)
class Member:
    """A trial to be trained.

    Attributes:
        hp: its hyperparameters.
        seed: int, from which everything random in it follows.
    """

    hp: keras_tuner.HyperParameters
    seed: int


def pays(trials: int, steps: int) -> bool:
    """Whether so many trials of so many steps are faster together, compiling included.

    A program takes about five seconds to compile; a trial alone one and a half, and 3 ms a step.
    """
    return trials * (1.5 + 0.003 * steps) > 5


class Population:
    """Trains members in groups; programs are kept for the next population.

    Args:
        hypermodel: the entry.
        rows: training and validation rows.
        objectives: what the best epoch is chosen by; known figures of the identity family.
        epochs: int.
        batch_size: int.
        stopping: see `stopping_of`.
    """

    def __init__(
        self,
        hypermodel: ZooHyperModel,
        rows: Rows,
        *,
        objectives: list[keras_tuner.Objective],
        epochs: int,
        batch_size: int,
        stopping: keras.callbacks.EarlyStopping | None = None,
    ):
        self.hypermodel, self.rows, self.objectives = hypermodel, rows, objectives
        self.stopping = stopping
        self.epochs, self.batch_size = epochs, batch_size
        self._programs: dict[tuple, Program | None] = {}

    def train(
        self, members: Sequence[Member]
    ) -> Iterator[tuple[int, training.Trained | Exception | None]]:
        """Trains all; gives each one's place and what came of it, as soon as it is there.

        None stands for a member that no program can train.
        """
        groups: dict[tuple, list[int]] = {}
        for place, member in enumerate(members):
            groups.setdefault(self._kind(member.hp), []).append(place)
        calls = []
        for kind, places in groups.items():
            program = self._program(kind, members[places[0]].hp)
            if program is None:
                yield from ((place, None) for place in places)
                continue
            for start in range(0, len(places), SEATS):
                calls.append((program, places[start : start + SEATS]))
        # The widest first, so that no long one is left for the end.
        calls.sort(key=lambda call: -call[0].cost)
        with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
            waiting = {}
            for program, places in calls:
                built = {}
                for place in places:
                    try:
                        built[place] = self._build(members[place], program.model)
                    except Exception as error:  # its own failure, and no other's
                        yield place, error
                seeds = [members[place].seed for place in built]
                if built:
                    call = pool.submit(program.train, list(built.values()), seeds)
                    waiting[call] = list(built)
            for call in concurrent.futures.as_completed(waiting):
                places, error = waiting[call], call.exception()
                outcomes = call.result() if error is None else [error] * len(places)
                yield from zip(places, outcomes, strict=True)

    def _build(self, member: Member, like: keras.Model) -> keras.Model:
        with seeded(member.seed):
            model = self.hypermodel.build(member.hp)
        self.hypermodel.prepare_like(model, like)
        return model

    def _kind(self, hp: keras_tuner.HyperParameters) -> tuple:
        """What members of one program have in common."""
        values = self.hypermodel.sample(hp)
        fixed = {
            name: value
            for name, value in values.items()
            if name not in _FREE and not name.endswith(_FREE_ENDS)
        }
        units = values.get("units")
        size = None if units is None else min((n for n in SIZES if n >= units), default=units)
        return (size, *sorted(fixed.items()))

    def _program(self, kind: tuple, hp: keras_tuner.HyperParameters) -> Program | None:
        if kind not in self._programs:
            hp = hp.copy()
            if kind[0] is not None:
                hp.values["units"] = kind[0]
            self._programs[kind] = None
            try:
                with seeded(0):
                    model = self.hypermodel.build(hp)
            except Exception:  # each trial will say it for itself
                return None
            self.hypermodel.prepare(model, self.rows)
            if _obstacle(model, self.objectives) is None:
                self._programs[kind] = Program(
                    model,
                    self.rows,
                    objectives=self.objectives,
                    epochs=self.epochs,
                    batch_size=self.batch_size,
                    stopping=self.stopping,
                    block=self.hypermodel.block,
                )
        return self._programs[kind]


def _obstacle(model: keras.Model, objectives: list[keras_tuner.Objective]) -> str | None:
    """Why models like this one are trained one by one, or None."""
    if type(model.optimizer) is not keras.optimizers.Adam or model.optimizer.amsgrad:
        return "its optimizer is not Adam"
    clipping = (
        model.optimizer.clipnorm,
        model.optimizer.clipvalue,
        model.optimizer.global_clipnorm,
    )
    if any(clipping) or model.optimizer.use_ema or model.optimizer.weight_decay:
        return "its optimizer clips, averages or decays"
    if not isinstance(model.loss, keras.losses.Loss):
        return "its loss is not an object"
    if model.output_shape[-1] != model.input_shape[-1] or len(model.output_shape) < 2:
        return "it does not give its input back"
    unknown = {one.name for one in objectives} - set(LOGS)
    return f"nothing gives {', '.join(unknown)}" if unknown else Stacked.obstacle(model)


class Watched(NamedTuple):
    """What is known of each member between epochs; `(members,)` each, but for the weights."""

    best: list
    cost: tf.Tensor
    epoch: tf.Tensor
    monitored: tf.Tensor
    waited: tf.Tensor
    ran: tf.Tensor
    active: tf.Tensor


def stopping_of(
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.EarlyStopping | None:
    """The early stopping that a population can do itself.

    Raises:
        ValueError: for callbacks that need a model, and therefore trials one by one.
    """
    if not callbacks:
        return None
    (one,) = callbacks
    if type(one) is not keras.callbacks.EarlyStopping or one.baseline is not None:
        raise ValueError(f"{type(one).__name__} is not known.")
    if one.monitor not in LOGS or one.mode not in ("min", "max"):
        raise ValueError(f"Nothing is known of {one.monitor!r} with mode {one.mode!r}.")
    return one


LOGS = ("loss", "val_loss", "val_state_leakage", "val_identity_error", "val_identity_cost")


class Program:
    """The compiled training of `SEATS` members like `model`, which may have fewer units.

    Args:
        model: compiled, and prepared with the rows.
        rows: training and validation rows.
        objectives: see `training.BestEpoch`.
        epochs: int.
        batch_size: int.
        stopping: see `stopping_of`.
        block: int, windows that overlap one another.
    """

    def __init__(self, model, rows: Rows, *, objectives, epochs, batch_size, stopping, block):
        self.stacked = Stacked(model)
        self.model, self.objectives, self.epochs = model, objectives, epochs
        self.stopping = stopping
        self.cost = sum(int(np.prod(one.shape)) for one in self.stacked.variables)
        self.dtype = self.stacked.variables[0].dtype
        self.batch_size = min(batch_size, len(rows.x))
        self.measures = Measures.of(model, rows, block)
        sequences = len(model.output_shape) == 3
        self.data = {}
        for name, x, y in (("train", rows.x, rows.y), ("val", rows.x_val, rows.y_val)):
            mask = functions.find_mask(model, x) if sequences else None
            self.data[name] = (
                tf.constant(x, self.dtype),
                tf.constant(targets(model, x, y), self.dtype),
                None if mask is None else tf.constant(mask),
            )
        self._epochs = tf.function(self._run_epochs, jit_compile=True, autograph=False)

    def train(self, models: Sequence[keras.Model], seeds: Sequence[int]) -> list:
        """Trains models of this kind in place, each to its best epoch; empty seats are filled."""
        started = time.monotonic()
        seats = [*range(len(models)), *[0] * (SEATS - len(models))]
        orders = [training.orders(len(self.data["train"][0]), self.epochs, seed) for seed in seeds]
        orders = np.stack([orders[seat] for seat in seats], axis=1)  # (epochs, members, rows)
        steps = -(-orders.shape[-1] // self.batch_size)
        missing = steps * self.batch_size - orders.shape[-1]
        orders = np.pad(orders, ((0, 0), (0, 0), (0, missing)))
        orders = orders.reshape(*orders.shape[:2], steps, self.batch_size)
        padded = [
            self.stacked.pad([keras.ops.convert_to_numpy(one) for one in model.trainable_variables])
            for model in models
        ]
        weights = [np.stack([padded[seat][at] for seat in seats]) for at in range(len(padded[0]))]
        strengths = [self.stacked.strengths(model) for model in models]
        strengths = [
            np.array([strengths[seat][at] for seat in seats]) for at in range(len(padded[0]))
        ]
        rates = [
            float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) for model in models
        ]
        best, epoch, ran, logs = self._epochs(
            [tf.constant(one, self.dtype) for one in weights],
            [tf.constant(one, self.dtype) for one in strengths],
            tf.constant([rates[seat] for seat in seats], self.dtype),
            tf.constant(orders.astype(np.int32)),
        )
        best = [one.numpy() for one in best]
        epoch, ran = epoch.numpy(), ran.numpy()
        logs = {name: values.numpy().astype(float) for name, values in logs.items()}
        seconds = (time.monotonic() - started) / len(models)
        return [
            self._outcome(
                model,
                [one[seat] for one in best],
                int(epoch[seat]),
                {name: values[: ran[seat], seat].tolist() for name, values in logs.items()},
                seconds,
            )
            for seat, model in enumerate(models)
        ]

    def _outcome(self, model, weights, epoch: int, history: dict[str, list[float]], seconds):
        if epoch < 0:
            last = {name: values[-1] for name, values in history.items()}
            return FailedTrialError(training.diverged(self.objectives, last))
        for variable, value in zip(
            model.trainable_variables, self.stacked.cut(weights, model), strict=True
        ):
            variable.assign(value)
        model.optimizer.build(model.trainable_variables)
        metrics = {name: values[epoch] for name, values in history.items()}
        return training.Trained(model, metrics, epoch, history, seconds)

    # What is compiled.

    def _run_epochs(self, weights, strengths, rates, orders):
        """All epochs: the best weights, their epoch (-1 for none), how many ran, the curves."""
        epochs, members = orders.shape[:2]
        zeros = [tf.zeros_like(one) for one in weights]
        infinite = tf.fill((members,), tf.constant(np.inf, self.dtype))
        start = Watched(
            best=weights,
            cost=infinite,
            epoch=tf.fill((members,), -1),
            monitored=infinite,
            waited=tf.zeros((members,), tf.int32),
            ran=tf.zeros((members,), tf.int32),
            active=tf.ones((members,), tf.bool),
        )
        curves = {
            name: tf.TensorArray(self.dtype, epochs, element_shape=(members,)) for name in LOGS
        }

        def body(epoch, weights, first, second, watched, curves):
            weights, first, second, loss = self._run_steps(
                epoch * orders.shape[2], weights, first, second, strengths, rates, orders[epoch]
            )
            logs = {"loss": loss, "val_loss": self._validate(weights, strengths)}
            logs |= self.measures.figures(self.stacked, weights)
            curves = {name: curves[name].write(epoch, logs[name]) for name in curves}
            return (
                epoch + 1,
                weights,
                first,
                second,
                self._watch(watched, epoch, weights, logs),
                curves,
            )

        *_, watched, curves = tf.while_loop(
            lambda epoch, *rest: (epoch < epochs) & tf.reduce_any(rest[3].active),
            body,
            (0, weights, zeros, zeros, start, curves),
            maximum_iterations=epochs,
        )
        curves = {name: array.stack() for name, array in curves.items()}
        return watched.best, watched.epoch, watched.ran, curves

    def _watch(self, watched: Watched, epoch, weights, logs) -> Watched:
        """Keeps the best weights, as `training.BestEpoch`, and stops, as `EarlyStopping`."""
        active = watched.active
        cost = tf.add_n([logs[one.name] * _sign(one.direction) for one in self.objectives])
        better = active & (cost < watched.cost)  # never where it is nan
        waited, monitored, going = watched.waited, watched.monitored, active
        if self.stopping is not None:
            value = logs[self.stopping.monitor] * _sign(self.stopping.mode)
            counts = active & (epoch >= self.stopping.start_from_epoch)
            improved = counts & (value + self.stopping.min_delta < monitored)
            monitored = tf.where(improved, value, monitored)
            waited = tf.where(improved, 0, waited + tf.cast(counts, tf.int32))
            stop = counts & ~improved & (waited >= self.stopping.patience) & (epoch > 0)
            going = active & ~stop
        return Watched(
            best=[_where(better, *pair) for pair in zip(weights, watched.best, strict=True)],
            cost=tf.where(better, cost, watched.cost),
            epoch=tf.where(better, epoch, watched.epoch),
            monitored=monitored,
            waited=waited,
            ran=watched.ran + tf.cast(active, tf.int32),
            active=going,
        )

    def _run_steps(self, done, weights, first, second, strengths, rates, order):
        """One epoch of Adam (Kingma and Ba, 2015), as Keras computes it."""
        members, steps, batch = order.shape
        x, y, mask = self.data["train"]
        left = x.shape[0] - (steps - 1) * batch  # rows of the last batch
        beta_1, beta_2 = self.model.optimizer.beta_1, self.model.optimizer.beta_2
        epsilon = self.model.optimizer.epsilon

        def body(step, weights, first, second, total):
            rows = order[:, step]
            real = None if mask is None else tf.gather(mask, rows)
            count = tf.constant(batch)
            if left < batch:
                count = tf.where(step < steps - 1, batch, left)
                here = tf.range(batch) < count
                real = _filled(real, here, y)
            with tf.GradientTape() as tape:
                tape.watch(weights)
                given = self.stacked(weights, tf.gather(x, rows), training=True)
                loss = self._mean_loss(tf.gather(y, rows), given, real)
                loss += self.stacked.penalty(weights, strengths)
                together = tf.reduce_sum(loss)
            gradients = tape.gradient(together, weights)
            time = tf.cast(done + step + 1, self.dtype)
            powers = [keras.ops.cast(beta, self.dtype) ** time for beta in (beta_1, beta_2)]
            alpha = rates * tf.sqrt(1 - powers[1]) / (1 - powers[0])
            first = [m + (g - m) * (1 - beta_1) for m, g in zip(first, gradients, strict=True)]
            second = [
                v + (g * g - v) * (1 - beta_2) for v, g in zip(second, gradients, strict=True)
            ]
            weights = [
                w - m * _like(alpha, m) / (tf.sqrt(v) + epsilon)
                for w, m, v in zip(weights, first, second, strict=True)
            ]
            return step + 1, weights, first, second, total + loss * tf.cast(count, self.dtype)

        _, weights, first, second, total = tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (0, weights, first, second, tf.zeros((members,), self.dtype)),
            maximum_iterations=steps,
        )
        return weights, first, second, total / x.shape[0]

    def _validate(self, weights, strengths):
        """`val_loss`, over batches as `evaluate` takes them."""
        x, y, mask = self.data["val"]
        members = weights[0].shape[0]
        given = self.stacked(weights, tf.broadcast_to(x[None], (members, *x.shape)))
        target = tf.broadcast_to(y[None], (members, *y.shape))
        total = 0.0
        size = x.shape[0] if mask is None else self.batch_size  # else a batch's steps count equally
        for start in range(0, x.shape[0], size):
            rows = slice(start, min(start + size, x.shape[0]))
            real = None if mask is None else mask[None, rows]
            loss = self._mean_loss(target[:, rows], given[:, rows], real)
            total += (rows.stop - start) * loss
        return total / x.shape[0] + self.stacked.penalty(weights, strengths)

    def _mean_loss(self, y, given, real):
        """The mean of each member over its rows, and steps that count."""
        values = self.model.loss.call(y, given)
        axes = range(1, len(values.shape))
        if real is None:
            return tf.reduce_mean(values, axes)
        weight = tf.broadcast_to(tf.cast(real, values.dtype), tf.shape(values))
        values = tf.where(weight > 0, values, 0)
        return tf.math.divide_no_nan(tf.reduce_sum(values, axes), tf.reduce_sum(weight, axes))


def _where(condition, new, old):
    return tf.where(_like(condition, new), new, old)


def _sign(direction: str) -> float:
    return -1.0 if direction == "max" else 1.0


def _like(values, tensor):
    """`(members,)`, with axes of one behind as `tensor` has."""
    return tf.reshape(values, (-1, *[1] * (len(tensor.shape) - 1)))


def _filled(real, here, y):
    """The mask of a batch that is not full: `here` are its rows."""
    shape = (1, -1) if len(y.shape) == 2 else (1, -1, 1)
    here = tf.reshape(here, shape)
    return here if real is None else real & here
