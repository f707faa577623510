"""Validation metrics of all trials of a population, inside the compiled program."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_seqzoo.callbacks import StateLeakage
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.estimators import ROUND_OFF
from keras_seqzoo.diagnostics.leakage.leakage import first_cut, spread_cuts
from keras_seqzoo.inspection import model_function
from keras_seqzoo.tasks.window_data import aligned_targets

CUTS = 8


class PackedModel(Protocol):
    """Models of several trials that run as one."""

    members: int

    def __call__(self, weights: Any, columns: Any, x: Any, *, states: Any = None) -> Any:
        """Outputs of all members, with the members on the axis before the last."""


class Data(NamedTuple):
    """Rows as tensors.

    Attributes:
        x: `(rows, time, features)`.
        y: targets, `(rows, [time,] ...)`.
        mask: `(rows, time)`, the steps that count; None for all.
        lengths: int `(rows,)`, how long a batch of just this row is for a trial alone; None where
            all are as long as they are here.
    """

    x: Any
    y: Any
    mask: Any = None
    lengths: Any = None


class VectorizedMetrics(abc.ABC):
    """Training and validation data as tensors, and the metrics of all members of a population.

    Attributes:
        logs: keys of the logs of an epoch.
        uses_states: whether `compute` needs the recurrent states.
        train: `Data` to train on.
        validation: `Data` to compute the metrics on.
    """

    logs: ClassVar[tuple[str, ...]]
    uses_states: ClassVar[bool] = False
    train: Data
    validation: Data

    @classmethod
    @abc.abstractmethod
    def of(cls, model: keras.Model, task: Any) -> VectorizedMetrics:
        """The data and metrics of a task, for models with the inputs and outputs of this one."""

    @staticmethod
    @abc.abstractmethod
    def obstacle(model: keras.Model, task: Any) -> str | None:
        """Why models like this one cannot be measured together, or None."""

    @abc.abstractmethod
    def compute(self, packed: PackedModel, weights, columns, output, record) -> dict:
        """Metrics by key, `(members,)` each; the losses are computed elsewhere.

        Args:
            packed: models of the members as one.
            weights: weights of the packed model.
            columns: columns of each member in the packed weights.
            output: outputs for all validation rows.
            record: states of all steps by recurrent layer, with `uses_states`.
        """


@dataclasses.dataclass(frozen=True)
class IdentityMetrics(VectorizedMetrics):
    """Identity error, state leakage and their sum, as the callback `StateLeakage` computes them.

    They cost a fraction of the callback's: the output at a cut depends on another row's past
    through the recurrent states alone. One pass over the rows records all states, and one step from
    another row's states gives all swapped outputs.

    Attributes:
        train: training data.
        validation: validation data.
        chosen: `(batch,)`, the validation rows that are measured; None for all.
        present: `(cuts * batch, 1, features)`, the step that each row keeps.
        y: the aligned target, `(batch, time, features)`, or `(batch, features)` of the last step.
        real: `(batch, time)` bool, or `(batch,)` of the last step.
        varies: `(features,)` bool, targets with a variance above round-off.
        step: `(cuts, batch)`, the first step that a row keeps, at which it is scored.
        donor: `(cuts, batch)`, the row whose past it takes.
        scored: `(cuts, batch)` bool, whether the row is scored.
    """

    logs = ("loss", "val_loss", "val_state_leakage", "val_identity_error", "val_identity_cost")
    uses_states = True

    train: Data
    validation: Data
    chosen: np.ndarray | None
    present: tf.Tensor
    y: tf.Tensor
    real: np.ndarray
    varies: Any
    step: np.ndarray
    donor: np.ndarray
    scored: np.ndarray

    @staticmethod
    def obstacle(model: keras.Model, task: Any) -> str | None:
        """The output must have the features of the input, and be causal."""
        if model.output_shape[-1] != model.input_shape[-1] or len(model.output_shape) < 2:
            return "its output does not have the features of its input"
        if any(isinstance(layer, keras.layers.Bidirectional) for layer in model.layers):
            return "it is bidirectional"
        return None

    @classmethod
    def of(cls, model: keras.Model, task: Any) -> IdentityMetrics:
        """The same rows and swaps as the callback `StateLeakage`."""
        rows = task.bound_windows
        chosen = StateLeakage(rows.x_val, rows.y_val, block=task.options["block"])
        x, block = chosen.x, chosen.options["block"]
        mask = model_function.resolve_mask(model, x)
        last = len(model.output_shape) == 2
        y = aligned_targets(model, x, chosen.y)
        real = np.ones(x.shape[:2], bool) if mask is None else mask
        order = interventions.shuffled_blocks(len(x), block, np.random.default_rng(0))
        if last:
            passes = interventions.last_step_swaps(x, mask, np.array([1]), order, block)
            real = real.any(axis=1)
        else:
            first = first_cut(None, x.shape[1])
            cuts = spread_cuts(CUTS, first, x.shape[1])
            passes = interventions.sequence_swaps(x, mask, cuts, order, block)
        passes = [(one.cut, one.donor, one.swapped) for one in passes]
        step, donor, swapped = map(np.stack, zip(*passes, strict=True))
        scored = np.ones_like(swapped) if mask is None and not last else swapped
        seen = y[real].astype(np.float64)
        tiny = (np.finfo(np.float32).eps * np.abs(seen).max(axis=0, initial=0)) ** 2
        varies = seen.var(axis=0) > tiny
        step = np.clip(step, 0, x.shape[1] - 1)
        present = x[np.tile(np.arange(len(x)), len(step)), step.reshape(-1)][:, None]
        # Tensors already, or they would be constants of the program, and folded for minutes.
        dtype = model.trainable_variables[0].dtype
        rows_measured = None if len(chosen.rows) == len(rows.x_val) else chosen.rows
        return cls(
            train=_data(model, rows.x, rows.y),
            validation=_data(model, rows.x_val, rows.y_val),
            chosen=rows_measured,
            present=tf.constant(present, dtype),
            y=tf.constant(y, dtype),
            real=np.asarray(real),
            varies=varies,
            step=step,
            donor=donor,
            scored=scored,
        )

    def compute(self, packed: PackedModel, weights, columns, output, record) -> dict:
        """Identity error, state leakage and their sum."""
        y = output
        if self.chosen is not None:
            y = tf.gather(y, self.chosen)
            record = {
                layer: [tf.gather(states, self.chosen, axis=1) for states in one]
                for layer, one in record.items()
            }
        cuts, batch = self.step.shape
        step, row = self.step.reshape(-1), np.tile(np.arange(batch), cuts)
        donors = np.stack((step, self.donor.reshape(-1)), -1)
        before = {
            layer: [tf.gather_nd(states, donors) for states in histories]
            for layer, histories in record.items()
        }
        present = repeat_for_members(self.present, packed.members)
        swapped = packed(weights, columns, present, states=before)
        shape = (cuts, batch, *y.shape[-2:])
        # Of the last step alone there is one cut.
        kept = y if len(y.shape) == 3 else tf.gather_nd(y, np.stack((row, step), -1))
        leakage = _leakage(
            tf.reshape(kept, shape), tf.reshape(swapped, shape), self.scored, _noise(y, self.real)
        )
        error = _identity_error(y, self.y, self.real, self.varies)
        return {
            "val_identity_cost": error + leakage,
            "val_identity_error": error,
            "val_state_leakage": leakage,
        }


def _data(model: keras.Model, x: np.ndarray, y: np.ndarray | None) -> Data:
    mask = model_function.resolve_mask(model, x) if len(model.output_shape) == 3 else None
    dtype = model.trainable_variables[0].dtype
    return Data(
        tf.constant(x, dtype),
        tf.constant(aligned_targets(model, x, y), dtype),
        None if mask is None else tf.constant(mask),
    )


def _leakage(kept, swapped, scored: np.ndarray, floor):
    """`leakage(1)`: `(cuts, batch, members, outputs)` twice -> `(members,)`."""
    dtype = kept.dtype
    count = scored.sum(axis=1)  # (cuts,)
    weight = np.where(count > 1, 1.0, 0.0)[:, None] * scored / np.maximum(count, 1)[:, None]
    weight = tf.constant(weight[..., None, None], dtype)  # of a mean over the rows
    bessel = tf.constant((count / np.maximum(count - 1, 1))[:, None, None], dtype)
    change = tf.reduce_sum(weight * (kept - swapped) ** 2, (0, 1))
    deviation = kept - tf.reduce_sum(weight * kept, 1, keepdims=True)
    variance = tf.reduce_sum(weight * deviation**2, 1) * bessel
    total = tf.reduce_sum(2 * variance, 0)  # (members, outputs)
    known = total > floor
    ratio = tf.where(known, change, 0) / tf.where(known, total, 1)
    known = tf.reduce_sum(tf.cast(known, dtype), -1)
    index = tf.reduce_sum(ratio, -1) / known  # 0 / 0 is nan: nothing varies
    finite = tf.reduce_all(tf.math.is_finite(kept) & tf.math.is_finite(swapped), (0, 1, 3))
    return tf.where(finite, index, np.nan)


def _identity_error(y, target, real: np.ndarray, varies: np.ndarray):
    """`(batch, [time,] members, features)` against the target -> `(members,)`."""
    axes = list(range(len(y.shape) - 2))
    real = real[..., None, None]
    weight = tf.constant(real / real.sum(), y.dtype)
    target = tf.where(real, target[..., None, :], 0)
    centred = target - tf.reduce_sum(weight * target, axes)
    variance = tf.reduce_sum(weight * centred**2, axes)
    squared = tf.where(real, (y - target) ** 2, 0)
    error = tf.reduce_sum(weight * squared, axes)  # (members, features)
    share = tf.where(varies, error / tf.where(varies, variance, 1), 0)
    return tf.reduce_sum(share, -1) / varies.sum()


def _noise(y, real: np.ndarray):
    """Variance under which an output counts as constant, `(members, outputs)`."""
    axes = list(range(len(y.shape) - 2))
    largest = tf.reduce_max(tf.where(real[..., None, None], tf.abs(y), 0), axes)
    return (ROUND_OFF * largest) ** 2 + np.finfo(y.dtype.as_numpy_dtype).tiny


def repeat_for_members(rows, members: int):
    """`(batch, time, features)` -> `(batch, time, members, features)`."""
    shape = rows.shape
    return tf.broadcast_to(rows[..., None, :], (*shape[:-1], members, shape[-1]))


@dataclasses.dataclass(frozen=True)
class ClassMetrics(VectorizedMetrics):
    """Accuracy, and precision, recall and F1 as means over classes, as in `SequenceMetrics`.

    Attributes:
        train: readings, padded to the longest, and the numbers of classes.
        validation: the same.
    """

    logs = ("loss", "val_f1", "val_precision", "val_recall", "val_accuracy")

    train: Data
    validation: Data

    @staticmethod
    def obstacle(model: keras.Model, task: Any) -> str | None:
        """Little padding, and metrics of single steps or sequences."""
        return task.population_obstacle

    @classmethod
    def of(cls, model: keras.Model, task: Any) -> ClassMetrics:
        """Training and validation sequences as padded arrays."""
        dtype = model.trainable_variables[0].dtype
        sets = []
        for examples in task.examples:
            x, y, real, lengths = task.padded_arrays(examples)
            unequal = not real.all()
            sets.append(
                Data(
                    tf.constant(x, dtype),
                    tf.constant(y),
                    tf.constant(real) if unequal and y.ndim == 2 else None,
                    tf.constant(lengths) if unequal else None,
                )
            )
        return cls(*sets)

    def compute(self, packed: PackedModel, weights, columns, output, record) -> dict:
        """Scores of outputs `(rows, [time,] members, classes)`."""
        y, mask, classes = self.validation.y, self.validation.mask, output.shape[-1]
        true = tf.one_hot(tf.reshape(y, (-1,)), classes, dtype=output.dtype)  # (steps, classes)
        if mask is not None:
            true = true * tf.cast(tf.reshape(mask, (-1, 1)), output.dtype)
        predictions = tf.argmax(output, -1, output_type=tf.int32)
        predictions = tf.one_hot(
            tf.reshape(predictions, (-1, packed.members)), classes, dtype=output.dtype
        )  # (steps, members, classes)
        counted = tf.reduce_sum(true, -1)  # (steps,)
        hits = tf.einsum("smc,sc->mc", predictions, true)
        predicted = tf.einsum("smc,s->mc", predictions, counted)
        support = tf.reduce_sum(true, 0)
        occurs = tf.cast(predicted + support > 0, output.dtype)

        def mean(hits, over):
            share = tf.math.divide_no_nan(hits, over)
            return tf.reduce_sum(share * occurs, -1) / tf.reduce_sum(occurs, -1)

        return {
            "val_f1": mean(2 * hits, predicted + support),
            "val_precision": mean(hits, predicted),
            "val_recall": mean(hits, support),
            "val_accuracy": tf.reduce_sum(hits, -1) / tf.reduce_sum(support),
        }
