"""What is compiled: the training of a few members side by side, over several epochs."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from keras_seqzoo.layers.rnn import bptt
from keras_seqzoo.tasks.vectorized_metrics import Data, VectorizedMetrics, repeat_for_members
from keras_seqzoo.tuning.vectorized.packed_model import Dropping, Pack, Packed

_ORDERS = 2**22  # numbers of rows that go with a call, at most


class Moving(NamedTuple):
    """What training changes: of one member as arrays, of a pack as tensors.

    Attributes:
        weights: the trainable ones.
        first: Adam's first moments.
        second: Adam's second moments.
        best: weights of the best epoch.
        best_epoch: its number, -1 for none.
        cost: its objective, or the sum of several.
        monitored: the best that early stopping saw.
        waited: epochs since.
        active: whether it goes on.
        sound: whether every number has been finite so far.
    """

    weights: Any
    first: Any
    second: Any
    best: Any
    best_epoch: Any
    cost: Any
    monitored: Any
    waited: Any
    active: Any
    sound: Any

    @classmethod
    def before(cls, weights: list[np.ndarray]) -> Moving:
        """A member before its first step."""
        zeros = [np.zeros_like(weight) for weight in weights]
        return cls(weights, zeros, zeros, weights, -1, np.inf, np.inf, 0, True, True)


class Given(NamedTuple):
    """What stays during a call.

    Attributes:
        rows: of `Pack`.
        columns: of `Pack`.
        strengths: of regularizers, `(weights, members, 2)`.
        rates: learning rates, `(members,)`.
        dropping: rates and seeds of `Dropping`.
        clips: largest global norms of a gradient, `(members,)`; infinite for any.
    """

    rows: Any
    columns: Any
    strengths: Any
    rates: Any
    dropping: Any
    clips: Any


class Batch(NamedTuple):
    """What all members see in a step.

    Attributes:
        x: `(batch, time, members, features)`.
        y: `(batch, [time,] members, ...)`.
        real: what counts, `(batch, [time,] members)`, time or members 1 where all are alike; None
            for all.
        times: of `Dropping`.
    """

    x: Any
    y: Any
    real: Any
    times: Any


class Program:
    """Trains members of one kind, `packed.members` at a time.

    Args:
        packed: of a model that is compiled, and prepared with the rows.
        metrics: what they learn from and are measured by.
        objectives: see `training.BestEpoch`.
        epochs: int, of a member in all.
        batch_size: int.
        stopping: see `population.stopping_of`.
        pool: where it is compiled, meanwhile.
    """

    def __init__(
        self,
        packed: Packed,
        metrics: VectorizedMetrics,
        *,
        objectives: list[keras_tuner.Objective],
        epochs: int,
        batch_size: int,
        stopping: keras.callbacks.EarlyStopping | None,
        pool: concurrent.futures.Executor,
    ):
        self.packed, self.model = packed, packed.model
        self.objectives, self.stopping = objectives, stopping
        self.dtype = packed.variables[0].dtype
        self.metrics = metrics
        self.rows = metrics.train.x.shape[0]
        self.batch_size = min(batch_size, self.rows)
        self.steps = -(-self.rows // self.batch_size)
        self._per_step = len(self.model.output_shape) == 3  # or one answer for all steps
        per_epoch = packed.members * self.rows
        self.epochs_per_call = min(epochs, max(_ORDERS // per_epoch, 1))
        self.seconds_per_epoch = 0.0  # of the last call; unknown before the first
        self._run = tf.function(self._run_epochs, jit_compile=True, autograph=False)
        self._compiled = pool.submit(self._compile)

    def epochs_within(self, seconds: float) -> int:
        """How many epochs a call may have to take about so long, as far as is known."""
        return max(int(seconds / self.seconds_per_epoch), 1) if self.seconds_per_epoch else 1

    def advance(
        self,
        models: Sequence[keras.Model],
        moving: Sequence[Moving],
        orders: Sequence[np.ndarray],
        *,
        began: int,
    ) -> tuple[list[Moving], list[dict[str, list[float]]]]:
        """Trains members from epoch `began` on; gives what they are then, and their logs.

        `orders`, `(epochs, batches, batch_size)` each, are the rows of their batches.
        """
        self._compiled.result()
        epochs = len(orders[0])
        taken = np.zeros(self._orders_shape, np.int32)
        for seat, order in enumerate(orders):
            taken[:epochs, seat] = order
        pack = self.packed.pack([member.weights for member in moving])
        moved, ran, logs = self._run(
            self._together(moving, pack),
            self._given(models, pack),
            tf.constant(began),
            tf.constant(epochs),
            tf.constant(taken),
        )
        moved = tf.nest.map_structure(lambda one: one.numpy(), moved)
        ran = ran.numpy()
        logs = {name: values.numpy().astype(float) for name, values in logs.items()}
        curves = [
            {name: values[: ran[seat], seat].tolist() for name, values in logs.items()}
            for seat in range(len(models))
        ]
        return self._apart(moved, moving), curves

    def _compile(self) -> None:
        """Runs no epoch."""
        member = Moving.before([weight.numpy() for weight in self.packed.variables])
        pack = self.packed.pack([member.weights])
        given = self._given([self.model], pack)
        zero = tf.constant(0)
        orders = tf.zeros(self._orders_shape, tf.int32)
        self._run(self._together([member], pack), given, zero, zero, orders)

    @property
    def _orders_shape(self) -> tuple[int, ...]:
        return self.epochs_per_call, self.packed.members, self.steps, self.batch_size

    def _together(self, moving: Sequence[Moving], pack: Pack) -> Moving:
        empty = self.packed.members - len(moving)
        beside = {}
        for name, filler in (
            ("best_epoch", -1), ("cost", np.inf), ("monitored", np.inf), ("waited", 0),
            ("active", False), ("sound", True),
        ):  # fmt: skip
            values = np.array([getattr(member, name) for member in moving] + [filler] * empty)
            dtype = {"f": self.dtype, "i": tf.int32, "b": tf.bool}[values.dtype.kind]
            beside[name] = tf.constant(values, dtype)
        packs = {"weights": pack.weights} | {
            name: self.packed.pack([getattr(member, name) for member in moving]).weights
            for name in ("first", "second", "best")
        }
        return Moving(
            **{name: list(map(tf.constant, one)) for name, one in packs.items()}, **beside
        )

    def _apart(self, moved: Moving, before: Sequence[Moving]) -> list[Moving]:
        shapes = [member.weights for member in before]
        apart = {
            name: self.packed.unpack(getattr(moved, name), shapes)
            for name in ("weights", "first", "second", "best")
        }
        rest = [name for name in Moving._fields if name not in apart]
        return [
            Moving(
                **{name: values[seat] for name, values in apart.items()},
                **{name: getattr(moved, name)[seat] for name in rest},
            )
            for seat in range(len(before))
        ]

    def _given(self, models: Sequence[keras.Model], pack: Pack) -> Given:
        empty = self.packed.members - len(models)
        strengths = [self.packed.strengths(model) for model in models]
        strengths += [np.zeros_like(strengths[0])] * empty
        dropping = [self.packed.dropping(model) for model in (*models, *[models[0]] * empty)]
        drop_rates, drop_seeds = (np.stack(one, axis=1) for one in zip(*dropping, strict=True))
        optimizers = [model.optimizer for model in models]
        rates = [float(keras.ops.convert_to_numpy(one.learning_rate)) for one in optimizers]
        clips = [one.global_clipnorm or np.inf for one in optimizers]
        return Given(
            list(map(tf.constant, pack.rows)),
            list(map(tf.constant, pack.columns)),
            tf.constant(np.stack(strengths, axis=1), self.dtype),
            tf.constant(rates + [0.0] * empty, self.dtype),
            (tf.constant(drop_rates, self.dtype), tf.constant(drop_seeds, tf.int32)),
            tf.constant(clips + [np.inf] * empty, self.dtype),
        )

    # What is compiled.

    def _run_epochs(self, moving: Moving, given: Given, began, epochs, orders):
        """So many epochs: what moved, how many ran for each member, and their curves."""
        curves = {
            name: tf.TensorArray(self.dtype, orders.shape[0], element_shape=(self.packed.members,))
            for name in self.metrics.logs
        }
        own = self.packed.own(given, self.dtype)

        def body(epoch, moving, ran, curves):
            started = moving.active
            moving, loss = self._run_steps(began + epoch, moving, given, own, orders[epoch])
            logs = {"loss": loss, **self._validate(moving.weights, given)}
            logs = {name: tf.where(moving.sound, value, np.nan) for name, value in logs.items()}
            curves = {name: curves[name].write(epoch, logs[name]) for name in curves}
            moving = self._watch(moving, began + epoch, logs, given)
            return epoch + 1, moving, ran + tf.cast(started, tf.int32), curves

        _, moving, ran, curves = tf.while_loop(
            lambda epoch, moving, *_: (epoch < epochs) & tf.reduce_any(moving.active),
            body,
            (0, moving, tf.zeros((self.packed.members,), tf.int32), curves),
            maximum_iterations=orders.shape[0],
        )
        return moving, ran, {name: array.stack() for name, array in curves.items()}

    def _watch(self, moving: Moving, epoch, logs, given: Given) -> Moving:
        """Keeps the best weights, as `training.BestEpoch`, and stops, as `EarlyStopping`."""
        active = moving.active
        cost = tf.add_n([logs[one.name] * _sign(one.direction) for one in self.objectives])
        better = active & (cost < moving.cost)  # never where it is nan
        waited, monitored, going = moving.waited, moving.monitored, active
        if self.stopping is not None:
            value = logs[self.stopping.monitor] * _sign(self.stopping.mode)
            counts = active & (epoch >= self.stopping.start_from_epoch)
            improved = counts & (value + self.stopping.min_delta < monitored)
            monitored = tf.where(improved, value, monitored)
            waited = tf.where(improved, 0, waited + tf.cast(counts, tf.int32))
            going = active & ~(
                counts & ~improved & (waited >= self.stopping.patience) & (epoch > 0)
            )
        best = [
            tf.where(self.packed.by_column(better, columns), *pair)
            for columns, *pair in zip(given.columns, moving.weights, moving.best, strict=True)
        ]
        return moving._replace(
            best=best,
            best_epoch=tf.where(better, epoch, moving.best_epoch),
            cost=tf.where(better, cost, moving.cost),
            monitored=monitored,
            waited=waited,
            active=going,
        )

    def _step(self, number, moving: Moving, bad: list, given: Given, own: list, batch: Batch):
        """One step of Adam (Kingma and Ba, 2015), as Keras computes it.

        Gives what moved, where numbers have been bad so far, and the loss of each member.
        """
        optimizer, packed, columns = self.model.optimizer, self.packed, given.columns
        with tf.GradientTape() as tape:
            tape.watch(moving.weights)
            dropping = Dropping(*given.dropping, number, batch.times)
            output = packed(moving.weights, columns, batch.x, dropping=dropping)
            loss = self._mean_loss(batch.y, output, batch.real)
            loss += packed.penalty(moving.weights, columns, given.strengths)
            total = tf.reduce_sum(loss)
        gradients = tape.gradient(total, moving.weights)
        gradients = [
            tf.where(mine > 0, bptt.replace_overflow(gradient, bptt.LARGEST_GRADIENT), 0)
            for gradient, mine in zip(gradients, own, strict=True)
        ]
        bad = [
            before | (tf.abs(gradient) >= bptt.LARGEST_GRADIENT)
            for before, gradient in zip(bad, gradients, strict=True)
        ]
        if optimizer.global_clipnorm:
            gradients = self._clip(gradients, given)
        time = tf.cast(number + 1, self.dtype)
        powers = [
            keras.ops.cast(beta, self.dtype) ** time
            for beta in (optimizer.beta_1, optimizer.beta_2)
        ]
        rates = given.rates * tf.sqrt(1 - powers[1]) / (1 - powers[0])
        first = [
            m + (g - m) * (1 - optimizer.beta_1)
            for m, g in zip(moving.first, gradients, strict=True)
        ]
        second = [
            v + (g * g - v) * (1 - optimizer.beta_2)
            for v, g in zip(moving.second, gradients, strict=True)
        ]
        weights = [
            w - m * packed.by_column(rates, place) / (tf.sqrt(v) + optimizer.epsilon)
            for w, m, v, place in zip(moving.weights, first, second, columns, strict=True)
        ]
        fine = [tf.abs(weight) < bptt.LARGEST_STATE for weight in weights]
        bad = [before | ~now for before, now in zip(bad, fine, strict=True)]
        weights = [tf.where(*pair, 0) for pair in zip(fine, weights, strict=True)]
        return moving._replace(weights=weights, first=first, second=second), bad, loss

    def _clip(self, gradients: list, given: Given) -> list:
        """Each member's by its own global norm (Pascanu et al., 2013), as Keras does."""
        squares = [
            self.packed.by_member(gradient**2, columns)
            for gradient, columns in zip(gradients, given.columns, strict=True)
        ]
        norm = tf.sqrt(tf.add_n(squares))
        scale = given.clips * tf.minimum(1 / norm, 1 / given.clips)
        scale = tf.where(tf.math.is_inf(given.clips), tf.ones_like(scale), scale)
        return [
            gradient * self.packed.by_column(scale, columns)
            for gradient, columns in zip(gradients, given.columns, strict=True)
        ]

    def _run_steps(self, epoch, moving: Moving, given: Given, own: list, orders):
        """One epoch, and the mean loss of each member."""
        members, steps, _ = orders.shape

        def body(number, moving, bad, total):
            batch, count = self._batch(orders[:, number])
            moving, bad, loss = self._step(epoch * steps + number, moving, bad, given, own, batch)
            return number + 1, moving, bad, total + loss * count

        bad = [tf.zeros(weight.shape, tf.bool) for weight in moving.weights]
        _, moving, bad, total = tf.while_loop(
            lambda number, *_: number < steps,
            body,
            (0, moving, bad, tf.zeros((members,), self.dtype)),
            maximum_iterations=steps,
        )
        count = [
            self.packed.by_member(tf.cast(one, self.dtype), place)
            for one, place in zip(bad, given.columns, strict=True)
        ]
        sound = moving.sound & (tf.add_n(count) == 0)
        return moving._replace(sound=sound), total / self.rows

    def _batch(self, rows):
        """The rows `(members, batch)`, -1 for none; and how many each member has."""
        data, rows = self.metrics.train, tf.transpose(rows)
        here = rows >= 0
        rows = tf.maximum(rows, 0)
        real, times = None, None
        if data.mask is not None:
            real = _time_second(tf.gather(data.mask, rows))
        if self.rows % self.batch_size:
            present = here[:, None] if self._per_step else here
            real = present if real is None else real & present
        if data.lengths is not None:
            times = tf.reduce_max(tf.where(here, tf.gather(data.lengths, rows), 0), 0)
        y = tf.gather(data.y, rows)
        if self._per_step:
            y = _time_second(y)
        x = _time_second(tf.gather(data.x, rows))
        return Batch(x, y, real, times), tf.reduce_sum(tf.cast(here, self.dtype), 0)

    def _validate(self, weights, given: Given) -> dict:
        """What the logs have of validation rows."""
        data, record = self.metrics.validation, None
        if self.metrics.uses_states:
            record = {}
        x = repeat_for_members(data.x, self.packed.members)
        output = self.packed(weights, given.columns, x, record=record)
        figures = self.metrics.compute(self.packed, weights, given.columns, output, record)
        if "val_loss" in self.metrics.logs:
            penalty = self.packed.penalty(weights, given.columns, given.strengths)
            figures["val_loss"] = self._validation_loss(data, output) + penalty
        return figures

    def _validation_loss(self, data: Data, output):
        """Over batches as `evaluate` takes them."""
        count, total = data.x.shape[0], 0.0
        target = repeat_for_members(data.y, self.packed.members)
        size = count if data.mask is None else self.batch_size  # else a batch's steps count equally
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            real = None if data.mask is None else data.mask[rows, :, None]
            loss = self._mean_loss(target[rows], output[rows], real)
            total += (rows.stop - start) * loss
        return total / count

    def _mean_loss(self, y, output, real):
        """The mean of each member over its rows, and steps that count; members last but one."""
        values = self.model.loss.call(y, output)  # (batch, [time,] members)
        axes = range(len(values.shape) - 1)
        if real is None:
            return tf.reduce_mean(values, axes)
        weight = tf.broadcast_to(tf.cast(real, values.dtype), tf.shape(values))
        values = tf.where(weight > 0, values, 0)
        return tf.math.divide_no_nan(tf.reduce_sum(values, axes), tf.reduce_sum(weight, axes))


def _sign(direction: str) -> float:
    return -1.0 if direction == "max" else 1.0


def _time_second(values):
    """`(batch, members, time, ...)` -> `(batch, time, members, ...)`."""
    return tf.transpose(values, (0, 2, 1, *range(3, len(values.shape))))
