"""Rows of a batch, or the two directions, as independent parts of one loop.

A step's product is too small for two cores, so large layers run the rows of a batch as two
independent halves in one loop, which XLA and TensorFlow then compute side by side. Of a
bidirectional layer the two directions are these halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_seqzoo.layers.export_scope import in_export_scope
from keras_seqzoo.layers.rnn.cells import Cell

# From here on, one core alone is slower. Measured by benchmarks/recurrent.py.
SPLIT_FROM = 128  # units * gates, in training


SPLIT_INFERENCE_FROM = 2**14  # units * units * gates, elsewhere


PARTS = 2


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def count_directions(kernel) -> int:
    """How many directions there are, 1 or 2."""
    return 1 if len(kernel.shape) == 2 else 2


def parts_of(cell: Cell, inputs, keep: bool, ways: int = 1) -> int:
    """How many run side by side: both directions, or parts of the rows."""
    if ways > 1:
        return ways
    batch, width = inputs.shape[0], cell.units * cell.gates
    small = width < SPLIT_FROM or (batch is not None and batch < 2 * PARTS)
    small |= not keep and cell.units * width < SPLIT_INFERENCE_FROM
    return 1 if small or on_gpu() or in_export_scope() else PARTS


def rows_of(tensor):
    """How many there are, an int where that is known."""
    return tf.shape(tensor)[0] if tensor.shape[0] is None else tensor.shape[0]


def weights_of_parts(weight, parts: int, ways: int) -> list:
    """The weight of each part: each direction's own, or one for all rows."""
    return tf.unstack(weight) if ways > 1 else [weight] * parts


def split_states(state, parts: int, ways: int) -> list:
    return tf.unstack(state) if ways > 1 else split(state, parts)


def join_states(states: Sequence, rows, ways: int):
    return tf.stack(states) if ways > 1 else join(states, rows)


def split_steps(steps, parts: int, ways: int = 1, *, apart: bool = False) -> list:
    """`(batch, time, width)` as `(time, rows, width)` of each part.

    The second of two directions sees the steps from the last one on, and, with `apart`, the second
    half of the width.
    """
    if ways == 1:
        return [swap_batch_and_time(part) for part in split(steps, parts)]
    steps = swap_batch_and_time(steps)
    first, second = tf.split(steps, 2, -1) if apart else (steps, steps)
    return [first, tf.reverse(second, [0])]


def join_steps(parts: Sequence, rows, ways: int = 1, *, add: bool = False):
    """What `split_steps` split; both directions side by side, or their sum with `add`."""
    if ways == 1:
        return join([swap_batch_and_time(part) for part in parts], rows)
    first, second = parts
    second = tf.reverse(second, [0])
    return swap_batch_and_time(first + second if add else tf.concat((first, second), -1))


def split(tensor, parts: int) -> list:
    """Parts of as many rows each, after rows of zeros where there are too few."""
    if parts == 1:
        return [tensor]
    rows = tensor.shape[0]
    if rows is None or rows % parts:
        paddings = [[0, 0]] * len(tensor.shape)
        paddings[0] = [0, -rows_of(tensor) % parts]
        tensor = tf.pad(tensor, paddings)
    return tf.split(tensor, parts)


def join(parts: Sequence, rows, axis: int = 0):
    """What `split` split, along this axis, without the rows added."""
    if len(parts) == 1:
        return parts[0]
    joined = tf.concat(parts, axis)
    return joined[:rows] if axis == 0 else joined[:, :rows]


def swap_batch_and_time(tensor):
    """Batch first to time first, and back."""
    return tf.transpose(tensor, (1, 0, 2))
