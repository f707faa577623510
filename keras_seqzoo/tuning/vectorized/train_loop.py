"""The compiled training loop of a few members of a population, over several epochs."""

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
from keras_seqzoo.tuning.vectorized.packed_model import (
    DropoutInputs,
    PackedModel,
    PackedWeights,
)

_MAX_ROW_INDICES = 2**22  # largest number of row indices that are passed to one call


class TrainState(NamedTuple):
    """Training state: of one member as arrays, of all members of a call as packed tensors.

    Attributes:
        weights: trainable weights.
        momentums: Adam's first moments.
        velocities: Adam's second moments.
        best: weights of the best epoch.
        best_epoch: number of the best epoch, -1 for none.
        cost: objective of the best epoch, or the sum of several.
        monitored: best value of the metric that early stopping monitors.
        wait: number of epochs without improvement, as in `keras.callbacks.EarlyStopping`.
        active: whether training continues.
        finite: whether all gradients and weights have been finite.
    """

    weights: Any
    momentums: Any
    velocities: Any
    best: Any
    best_epoch: Any
    cost: Any
    monitored: Any
    wait: Any
    active: Any
    finite: Any

    @classmethod
    def initial(cls, weights: list[np.ndarray]) -> TrainState:
        """The state of a member before its first step."""
        zeros = [np.zeros_like(weight) for weight in weights]
        return cls(weights, zeros, zeros, weights, -1, np.inf, np.inf, 0, True, True)


class CallInputs(NamedTuple):
    """Values that do not change during a call.

    Attributes:
        rows: `PackedWeights.rows`.
        columns: `PackedWeights.columns`.
        strengths: L1 and L2 strengths of the regularizers, `(weights, members, 2)`.
        learning_rates: `(members,)`.
        dropout: rates and seeds of `DropoutInputs`.
        clipnorms: `global_clipnorm` of each member, `(members,)`; infinite without clipping.
    """

    rows: Any
    columns: Any
    strengths: Any
    learning_rates: Any
    dropout: Any
    clipnorms: Any


class Batch(NamedTuple):
    """The batches of all members in a training step.

    Attributes:
        x: `(batch, time, members, features)`.
        y: `(batch, [time,] members, ...)`.
        real: bool mask of the loss, `(batch, [time,] members)`, or an axis of size 1 where all are
            equal; None if everything counts.
        times: `DropoutInputs.times`.
    """

    x: Any
    y: Any
    real: Any
    times: Any


class TrainLoop:
    """Trains members of one kind, at most `packed.members` in a call.

    Args:
        packed: `PackedModel` of a model that is compiled and adapted to the training data.
        metrics: training data, validation data and validation metrics.
        objectives: `keras_tuner.Objective`s by which the best epoch is chosen, as in `BestEpoch`.
        epochs: int, total number of epochs of a member.
        batch_size: int.
        stopping: result of `population.supported_early_stopping`.
        pool: executor in which the loop compiles.
    """

    def __init__(
        self,
        packed: PackedModel,
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
        self._per_step = len(self.model.output_shape) == 3  # else one output per sequence
        per_epoch = packed.members * self.rows
        self.epochs_per_call = min(epochs, max(_MAX_ROW_INDICES // per_epoch, 1))
        self.seconds_per_epoch = 0.0  # of the last call; 0 before the first
        self._compiled_epochs = tf.function(self._run_epochs, jit_compile=True, autograph=False)
        self._compilation = pool.submit(self._compile)

    def epochs_within(self, seconds: float) -> int:
        """Number of epochs that take about so long, estimated from the last call."""
        return max(int(seconds / self.seconds_per_epoch), 1) if self.seconds_per_epoch else 1

    def advance(
        self,
        models: Sequence[keras.Model],
        states: Sequence[TrainState],
        orders: Sequence[np.ndarray],
        *,
        first_epoch: int,
    ) -> tuple[list[TrainState], list[dict[str, list[float]]]]:
        """Train members for some epochs; return their new states and their logs.

        Args:
            models: models of the members, for their optimizers, regularizers and dropout.
            states: states of the members.
            orders: for each member the rows of its batches, `(epochs, batches, batch_size)`.
            first_epoch: int, number of the first epoch.
        """
        self._compilation.result()
        epochs = len(orders[0])
        padded_orders = np.zeros(self._orders_shape, np.int32)
        for position, order in enumerate(orders):
            padded_orders[:epochs, position] = order
        pack = self.packed.pack([state.weights for state in states])
        packed_state, epochs_run, logs = self._compiled_epochs(
            self._stack_states(states, pack),
            self._make_inputs(models, pack),
            tf.constant(first_epoch),
            tf.constant(epochs),
            tf.constant(padded_orders),
        )
        packed_state = tf.nest.map_structure(lambda tensor: tensor.numpy(), packed_state)
        epochs_run = epochs_run.numpy()
        logs = {name: values.numpy().astype(float) for name, values in logs.items()}
        curves = [
            {name: values[: epochs_run[position], position].tolist()
             for name, values in logs.items()}
            for position in range(len(models))
        ]  # fmt: skip
        return self._split_states(packed_state, states), curves

    def _compile(self) -> None:
        """Compile the loop by a call without epochs."""
        state = TrainState.initial([weight.numpy() for weight in self.packed.variables])
        pack = self.packed.pack([state.weights])
        inputs = self._make_inputs([self.model], pack)
        zero = tf.constant(0)
        orders = tf.zeros(self._orders_shape, tf.int32)
        self._compiled_epochs(self._stack_states([state], pack), inputs, zero, zero, orders)

    @property
    def _orders_shape(self) -> tuple[int, ...]:
        return self.epochs_per_call, self.packed.members, self.steps, self.batch_size

    def _stack_states(self, states: Sequence[TrainState], pack: PackedWeights) -> TrainState:
        """Pack the states of members into one; unused positions are inactive."""
        unused = self.packed.members - len(states)
        scalars = {}
        for name, filler in (
            ("best_epoch", -1), ("cost", np.inf), ("monitored", np.inf), ("wait", 0),
            ("active", False), ("finite", True),
        ):  # fmt: skip
            values = np.array([getattr(state, name) for state in states] + [filler] * unused)
            dtype = {"f": self.dtype, "i": tf.int32, "b": tf.bool}[values.dtype.kind]
            scalars[name] = tf.constant(values, dtype)
        weights = {"weights": pack.weights} | {
            name: self.packed.pack([getattr(state, name) for state in states]).weights
            for name in ("momentums", "velocities", "best")
        }
        return TrainState(
            **{name: list(map(tf.constant, arrays)) for name, arrays in weights.items()}, **scalars
        )

    def _split_states(self, packed: TrainState, before: Sequence[TrainState]) -> list[TrainState]:
        """Inverse of `_stack_states`; `before` has the shapes."""
        shapes = [state.weights for state in before]
        weights = {
            name: self.packed.unpack(getattr(packed, name), shapes)
            for name in ("weights", "momentums", "velocities", "best")
        }
        scalars = [name for name in TrainState._fields if name not in weights]
        return [
            TrainState(
                **{name: values[position] for name, values in weights.items()},
                **{name: getattr(packed, name)[position] for name in scalars},
            )
            for position in range(len(before))
        ]

    def _make_inputs(self, models: Sequence[keras.Model], pack: PackedWeights) -> CallInputs:
        """The hyperparameters of members as tensors; unused positions have a learning rate of 0."""
        unused = self.packed.members - len(models)
        strengths = [self.packed.regularizer_strengths(model) for model in models]
        strengths += [np.zeros_like(strengths[0])] * unused
        dropout = [
            self.packed.dropout_settings(model) for model in (*models, *[models[0]] * unused)
        ]
        rates, seeds = (np.stack(values, axis=1) for values in zip(*dropout, strict=True))
        optimizers: list[Any] = [model.optimizer for model in models]
        learning_rates = [
            float(keras.ops.convert_to_numpy(optimizer.learning_rate)) for optimizer in optimizers
        ]
        clipnorms = [optimizer.global_clipnorm or np.inf for optimizer in optimizers]
        return CallInputs(
            list(map(tf.constant, pack.rows)),
            list(map(tf.constant, pack.columns)),
            tf.constant(np.stack(strengths, axis=1), self.dtype),
            tf.constant(learning_rates + [0.0] * unused, self.dtype),
            (tf.constant(rates, self.dtype), tf.constant(seeds, tf.int32)),
            tf.constant(clipnorms + [np.inf] * unused, self.dtype),
        )

    # Compiled.

    def _run_epochs(self, state: TrainState, inputs: CallInputs, first_epoch, epochs, orders):
        """Train some epochs; return state, number of epochs of each member, and logs."""
        curves = {
            name: tf.TensorArray(self.dtype, orders.shape[0], element_shape=(self.packed.members,))
            for name in self.metrics.logs
        }
        block_masks = self.packed.block_masks(inputs.rows, inputs.columns, self.dtype)

        def body(epoch, state, epochs_run, curves):
            started = state.active
            state, loss = self._train_epoch(
                first_epoch + epoch, state, inputs, block_masks, orders[epoch]
            )
            logs = {"loss": loss, **self._validate(state.weights, inputs)}
            logs = {name: tf.where(state.finite, value, np.nan) for name, value in logs.items()}
            curves = {name: curves[name].write(epoch, logs[name]) for name in curves}
            state = self._update_best(state, first_epoch + epoch, logs, inputs)
            return epoch + 1, state, epochs_run + tf.cast(started, tf.int32), curves

        _, state, epochs_run, curves = tf.while_loop(
            lambda epoch, state, *_: (epoch < epochs) & tf.reduce_any(state.active),
            body,
            (0, state, tf.zeros((self.packed.members,), tf.int32), curves),
            maximum_iterations=orders.shape[0],
        )
        return state, epochs_run, {name: array.stack() for name, array in curves.items()}

    def _update_best(self, state: TrainState, epoch, logs, inputs: CallInputs) -> TrainState:
        """Keep the best weights, as `trial.BestEpoch`, and stop early, as `EarlyStopping`."""
        active = state.active
        cost = tf.add_n(
            [logs[objective.name] * _sign(objective.direction) for objective in self.objectives]
        )
        better = active & (cost < state.cost)  # false for NaN
        wait, monitored, continues = state.wait, state.monitored, active
        if self.stopping is not None:
            value = logs[self.stopping.monitor] * _sign(self.stopping.mode)
            counts = active & (epoch >= self.stopping.start_from_epoch)
            improved = counts & (value + self.stopping.min_delta < monitored)
            monitored = tf.where(improved, value, monitored)
            wait = tf.where(improved, 0, wait + tf.cast(counts, tf.int32))
            continues = active & ~(
                counts & ~improved & (wait >= self.stopping.patience) & (epoch > 0)
            )
        best = [
            tf.where(self.packed.expand_to_columns(better, columns), *pair)
            for columns, *pair in zip(inputs.columns, state.weights, state.best, strict=True)
        ]
        return state._replace(
            best=best,
            best_epoch=tf.where(better, epoch, state.best_epoch),
            cost=tf.where(better, cost, state.cost),
            monitored=monitored,
            wait=wait,
            active=continues,
        )

    def _train_step(
        self,
        step,
        state: TrainState,
        overflowed: list,
        inputs: CallInputs,
        block_masks: list,
        batch: Batch,
    ):
        """One training step of all members: Adam (Kingma and Ba, 2015), as in Keras.

        Values that overflow are replaced, since they would make other members non-finite.

        Returns:
            The new state, masks of the weights where a value has overflowed so far, and the loss
            of each member.
        """
        packed, columns = self.packed, inputs.columns
        optimizer: Any = self.model.optimizer
        with tf.GradientTape() as tape:
            tape.watch(state.weights)
            rates, seeds = inputs.dropout
            dropout = DropoutInputs(rates, seeds, step, batch.times)
            output = packed(state.weights, columns, batch.x, dropout=dropout)
            loss = self._mean_loss(batch.y, output, batch.real)
            loss += packed.penalty(state.weights, columns, inputs.strengths)
            total = tf.reduce_sum(loss)
        gradients = tape.gradient(total, state.weights)
        gradients = [
            tf.where(mask > 0, bptt.replace_overflow(gradient, bptt.LARGEST_GRADIENT), 0)
            for gradient, mask in zip(gradients, block_masks, strict=True)
        ]
        overflowed = [
            before | (tf.abs(gradient) >= bptt.LARGEST_GRADIENT)
            for before, gradient in zip(overflowed, gradients, strict=True)
        ]
        if optimizer.global_clipnorm:
            gradients = self._clip(gradients, inputs)
        time = tf.cast(step + 1, self.dtype)
        powers = [
            keras.ops.cast(beta, self.dtype) ** time
            for beta in (optimizer.beta_1, optimizer.beta_2)
        ]
        learning_rates = inputs.learning_rates * tf.sqrt(1 - powers[1]) / (1 - powers[0])
        momentums = [
            m + (g - m) * (1 - optimizer.beta_1)
            for m, g in zip(state.momentums, gradients, strict=True)
        ]
        velocities = [
            v + (g * g - v) * (1 - optimizer.beta_2)
            for v, g in zip(state.velocities, gradients, strict=True)
        ]
        weights = [
            w - m * packed.expand_to_columns(learning_rates, c) / (tf.sqrt(v) + optimizer.epsilon)
            for w, m, v, c in zip(state.weights, momentums, velocities, columns, strict=True)
        ]
        bounded = [tf.abs(weight) < bptt.LARGEST_STATE for weight in weights]
        overflowed = [before | ~now for before, now in zip(overflowed, bounded, strict=True)]
        weights = [tf.where(*pair, 0) for pair in zip(bounded, weights, strict=True)]
        return (
            state._replace(weights=weights, momentums=momentums, velocities=velocities),
            overflowed,
            loss,
        )

    def _clip(self, gradients: list, inputs: CallInputs) -> list:
        """Clip the gradient of each member by its global norm (Pascanu et al., 2013), as Keras."""
        squares = [
            self.packed.sum_by_member(gradient**2, columns)
            for gradient, columns in zip(gradients, inputs.columns, strict=True)
        ]
        norm = tf.sqrt(tf.add_n(squares))
        scale = inputs.clipnorms * tf.minimum(1 / norm, 1 / inputs.clipnorms)
        scale = tf.where(tf.math.is_inf(inputs.clipnorms), tf.ones_like(scale), scale)
        return [
            gradient * self.packed.expand_to_columns(scale, columns)
            for gradient, columns in zip(gradients, inputs.columns, strict=True)
        ]

    def _train_epoch(self, epoch, state: TrainState, inputs: CallInputs, block_masks: list, orders):
        """Train one epoch; return the state and the mean loss of each member."""
        members, steps, _ = orders.shape

        def body(step, state, overflowed, total):
            batch, count = self._batch(orders[:, step])
            state, overflowed, loss = self._train_step(
                epoch * steps + step, state, overflowed, inputs, block_masks, batch
            )
            return step + 1, state, overflowed, total + loss * count

        overflowed = [tf.zeros(weight.shape, tf.bool) for weight in state.weights]
        _, state, overflowed, total = tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (0, state, overflowed, tf.zeros((members,), self.dtype)),
            maximum_iterations=steps,
        )
        count = [
            self.packed.sum_by_member(tf.cast(mask, self.dtype), columns)
            for mask, columns in zip(overflowed, inputs.columns, strict=True)
        ]
        finite = state.finite & (tf.add_n(count) == 0)
        return state._replace(finite=finite), total / self.rows

    def _batch(self, rows):
        """The batch of rows `(members, batch)`, -1 for none, and its size for each member."""
        data, rows = self.metrics.train, tf.transpose(rows)
        exists = rows >= 0
        rows = tf.maximum(rows, 0)
        real, times = None, None
        if data.mask is not None:
            real = _members_after_time(tf.gather(data.mask, rows))
        if self.rows % self.batch_size:
            present = exists[:, None] if self._per_step else exists
            real = present if real is None else real & present
        if data.lengths is not None:
            times = tf.reduce_max(tf.where(exists, tf.gather(data.lengths, rows), 0), 0)
        y = tf.gather(data.y, rows)
        if self._per_step:
            y = _members_after_time(y)
        x = _members_after_time(tf.gather(data.x, rows))
        return Batch(x, y, real, times), tf.reduce_sum(tf.cast(exists, self.dtype), 0)

    def _validate(self, weights, inputs: CallInputs) -> dict:
        """Validation metrics, and the validation loss where it is logged."""
        data, record = self.metrics.validation, None
        if self.metrics.uses_states:
            record = {}
        x = repeat_for_members(data.x, self.packed.members)
        output = self.packed(weights, inputs.columns, x, record=record)
        figures = self.metrics.compute(self.packed, weights, inputs.columns, output, record)
        if "val_loss" in self.metrics.logs:
            penalty = self.packed.penalty(weights, inputs.columns, inputs.strengths)
            figures["val_loss"] = self._validation_loss(data, output) + penalty
        return figures

    def _validation_loss(self, data: Data, output):
        """The mean loss over batches, as `Model.evaluate` computes it."""
        count, total = data.x.shape[0], 0.0
        target = repeat_for_members(data.y, self.packed.members)
        size = (
            count if data.mask is None else self.batch_size
        )  # with a mask, Keras averages over the steps of a batch
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            real = None if data.mask is None else data.mask[rows, :, None]
            loss = self._mean_loss(target[rows], output[rows], real)
            total += (rows.stop - start) * loss
        return total / count

    def _mean_loss(self, y, output, real):
        """Mean loss of each member over its real steps; members are on the axis before the last."""
        values = self.model.loss.call(y, output)  # (batch, [time,] members)
        axes = range(len(values.shape) - 1)
        if real is None:
            return tf.reduce_mean(values, axes)
        weight = tf.broadcast_to(tf.cast(real, values.dtype), tf.shape(values))
        values = tf.where(weight > 0, values, 0)
        return tf.math.divide_no_nan(tf.reduce_sum(values, axes), tf.reduce_sum(weight, axes))


def _sign(direction: str) -> float:
    return -1.0 if direction == "max" else 1.0


def _members_after_time(values):
    """`(batch, members, time, ...)` -> `(batch, time, members, ...)`."""
    return tf.transpose(values, (0, 2, 1, *range(3, len(values.shape))))
