"""Splitting of a batch into parts that one loop runs side by side.

The matrix product of one step is too small for two CPU cores. Large layers therefore run a batch
as two independent halves in one loop, which XLA and TensorFlow compute in parallel. The two
directions of a bidirectional layer are the two parts of its loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_seqzoo.layers.export_scope import in_export_scope
from keras_seqzoo.layers.rnn.cells import Cell

NUM_PARTS = 2
# Smaller layers are faster on one core. Measured by benchmarks/recurrent.py.
MIN_TRAINING_WIDTH = 128  # units * num_gates
MIN_INFERENCE_SIZE = 2**14  # units * units * num_gates


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def count_directions(kernel) -> int:
    """The number of directions that a kernel has weights for, 1 or 2."""
    return 1 if len(kernel.shape) == 2 else 2


def count_parts(cell: Cell, inputs, keep_residuals: bool, directions: int = 1) -> int:
    """The number of parts that run side by side: two directions, or halves of a batch."""
    if directions > 1:
        return directions
    batch, width = inputs.shape[0], cell.units * cell.num_gates
    small = width < MIN_TRAINING_WIDTH or (batch is not None and batch < 2 * NUM_PARTS)
    small |= not keep_residuals and cell.units * width < MIN_INFERENCE_SIZE
    return 1 if small or on_gpu() or in_export_scope() else NUM_PARTS


def batch_size(tensor) -> Any:
    """The size of the first axis: an int where it is known, else a tensor."""
    return tf.shape(tensor)[0] if tensor.shape[0] is None else tensor.shape[0]


def split_weight(weight, parts: int, directions: int) -> list:
    """The weight of each part: that of its direction, or the same for all parts of a batch."""
    return tf.unstack(weight) if directions > 1 else [weight] * parts


def split_state(state, parts: int, directions: int) -> list:
    """The state of each part: `(directions, batch, units)` or `(batch, units)` -> list."""
    return tf.unstack(state) if directions > 1 else split(state, parts)


def join_state(parts: Sequence, batch, directions: int):
    """The inverse of `split_state`."""
    return tf.stack(parts) if directions > 1 else join(parts, batch)


def split_steps(steps, parts: int, directions: int = 1, *, split_features: bool = False) -> list:
    """`(batch, time, features)` -> `(time, batch, features)` of each part.

    The second of two directions gets the steps in reverse order. With `split_features` the first
    direction gets the first half of the features and the second direction the other half.
    """
    if directions == 1:
        return [swap_batch_and_time(part) for part in split(steps, parts)]
    steps = swap_batch_and_time(steps)
    first, second = tf.split(steps, 2, -1) if split_features else (steps, steps)
    return [first, tf.reverse(second, [0])]


def join_steps(parts: Sequence, batch, directions: int = 1, *, add: bool = False):
    """The inverse of `split_steps`; two directions are concatenated, or summed with `add`."""
    if directions == 1:
        return join([swap_batch_and_time(part) for part in parts], batch)
    first, second = parts
    second = tf.reverse(second, [0])
    return swap_batch_and_time(first + second if add else tf.concat((first, second), -1))


def split(tensor, parts: int) -> list:
    """Parts of equal size along the batch axis, which is padded with zeros if necessary."""
    if parts == 1:
        return [tensor]
    batch = tensor.shape[0]
    if batch is None or batch % parts:
        paddings = [[0, 0]] * len(tensor.shape)
        paddings[0] = [0, -batch_size(tensor) % parts]
        tensor = tf.pad(tensor, paddings)
    return tf.split(tensor, parts)


def join(parts: Sequence, batch, axis: int = 0):
    """The inverse of `split` along an axis, 0 or 1, without the padding."""
    if len(parts) == 1:
        return parts[0]
    joined = tf.concat(parts, axis)
    return joined[:batch] if axis == 0 else joined[:, :batch]


def swap_batch_and_time(tensor):
    """`(batch, time, features)` <-> `(time, batch, features)`."""
    return tf.transpose(tensor, (1, 0, 2))
