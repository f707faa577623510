"""Scores of classes for all members of a population, in the compiled graph."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from keras_seqzoo.tuning.vectorized.measures import Data, Measures
from keras_seqzoo.tuning.vectorized.packed_model import Packed

if TYPE_CHECKING:
    from keras_seqzoo.tuning.sequences import SequenceRows


@dataclasses.dataclass(frozen=True)
class ClassMeasures(Measures):
    """Accuracy, and precision, recall and F1 as means over classes, as `SequenceMetrics` gives them.

    Attributes:
        train: readings, padded to the longest, and the numbers of classes.
        validation: the same.
    """

    logs = ("loss", "val_f1", "val_precision", "val_recall", "val_accuracy")

    train: Data
    validation: Data

    @staticmethod
    def obstacle(model: keras.Model, rows: SequenceRows) -> str | None:
        """Arrays hold the rows without waste, and classes are scored one by one."""
        return rows.obstacle

    @classmethod
    def of(cls, model: keras.Model, rows: SequenceRows, block: int) -> ClassMeasures:
        """Of the rows as arrays."""
        dtype = model.trainable_variables[0].dtype
        sets = []
        for examples in (rows.examples, rows.validation):
            x, y, real, lengths = rows.arrays(examples)
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

    def figures(self, packed: Packed, weights, columns, output, record) -> dict:
        """Of `(rows, [time,] members, classes)`."""
        y, mask, classes = self.validation.y, self.validation.mask, output.shape[-1]
        true = tf.one_hot(tf.reshape(y, (-1,)), classes, dtype=output.dtype)  # (steps, classes)
        if mask is not None:
            true = true * tf.cast(tf.reshape(mask, (-1, 1)), output.dtype)
        answers = tf.argmax(output, -1, output_type=tf.int32)
        answers = tf.one_hot(
            tf.reshape(answers, (-1, packed.members)), classes, dtype=output.dtype
        )  # (steps, members, classes)
        counted = tf.reduce_sum(true, -1)  # (steps,)
        hits = tf.einsum("smc,sc->mc", answers, true)
        predicted = tf.einsum("smc,s->mc", answers, counted)
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
