"""Sequences of unequal length, a batch of similar lengths at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import (
    check_bool,
    check_choice,
    check_positive,
    check_seed,
    check_sequence,
)
from keras_seqzoo.utils.array_validation import as_array

# Of how many batches sequences are sorted by length: enough that a batch holds similar lengths, few
# enough that it holds others in the next epoch.
POOL = 64
_BESIDE = ("targets", "weights")


class Batches(keras.utils.PyDataset):
    """Batches for `fit`, `evaluate` and `predict`: sequences of similar length, padded to the
    longest of each batch, drawn anew in each epoch.

    Shapes: an input is `(batch, time, ...)`; an item is `(inputs,)`, `(inputs, targets)` or
        `(inputs, targets, weights)`, targets and weights `(batch,)` or `(batch, time)`.
    Masking: padded steps of inputs are `padding`, of targets and weights 0.

    Args:
        inputs: list of arrays `(time, ...)`, one per sequence; or dict of such lists, by the names
            of the model's inputs.
        targets: list of scalars or of arrays `(time, ...)`, or None.
        weights: list of floats or of arrays `(time,)`, or None.
        batch_size: int, at least 1.
        shuffle: bool, whether to draw batches anew in each epoch; if not, they run from the
            shortest sequences to the longest.
        seed: int, the same batches for the same seed.
        multiple: int, at least 1; lengths that differ are rounded up to multiples of it, so that a
            compiled program (`jit_compile=True`) sees few shapes.
        padding: number at padded steps of inputs: 0 for tokens, the model's `mask_value`; or dict
            of them, by the names of the inputs.
        pool: int, at least 1, of how many batches, drawn at random, sequences are sorted by length;
            1 leaves them as they are drawn, with more padding.
        along: str, the input whose steps are those of targets and weights, where each input has
            steps of its own; None where all have the same.

    Raises:
        ArgumentError: if an option is out of range.
        DataError: if inputs, targets and weights do not belong together.

    Example:

    >>> from keras_seqzoo.data import Batches
    >>> batches = Batches([np.array([5]), np.array([7, 8])], [0, 1], batch_size=2, shuffle=False)
    >>> batches[0][0].tolist()
    [[5, 0], [7, 8]]
    """

    def __init__(
        self,
        inputs: Any,
        targets: Sequence | None = None,
        *,
        weights: Sequence | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        multiple: int = 1,
        padding: float | Mapping[str, float] = 0,
        pool: int = POOL,
        along: str | None = None,
    ):
        super().__init__()
        check_positive(batch_size=batch_size, multiple=multiple, pool=pool)
        check_bool(shuffle=shuffle)
        check_seed(seed)
        self.inputs = inputs
        self.targets, self.weights = targets, weights
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.multiple, self.padding, self.along = multiple, padding, along
        self.pool, self._epoch = pool, 0
        self._values = self._checked_values()
        self._varies = {name: _varying(values) for name, values in self._values.items()}
        self.lengths = np.array([len(one) for one in next(iter(self._values.values()))])
        self.plan = self._plan()

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        return len(self.plan)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        return self._item({name: self._padded(name, index) for name in self._values})

    def dataset(self):
        """The same batches as a `tf.data.Dataset`, gathered and padded outside of Python.

        For `fit` on TensorFlow, where it saves a third of the time of small models; each pass over
        it is an epoch.
        """
        import tensorflow as tf

        held = {name: _ragged(values) for name, values in self._values.items()}

        def epoch():
            yield from (rows.astype(np.int64) for rows in self.plan)
            self.on_epoch_end()

        def batch(rows):
            return self._item(
                {name: self._gathered(name, values, rows) for name, values in held.items()}
            )

        rows = tf.data.Dataset.from_generator(
            epoch, output_signature=tf.TensorSpec((None,), tf.int64)
        )
        rows = rows.apply(tf.data.experimental.assert_cardinality(self.num_batches))
        # Tuning itself, it would keep each epoch waiting for up to five seconds at its end.
        options = tf.data.Options()
        options.autotune.enabled = False
        return rows.map(batch).prefetch(2).with_options(options)

    def _item(self, arrays: dict[str, Any]) -> tuple:
        """The arrays of a batch as Keras takes them."""
        inputs = {name: array for name, array in arrays.items() if name not in _BESIDE}
        first = inputs if isinstance(self.inputs, dict) else inputs["inputs"]
        return (first, *(arrays[name] for name in _BESIDE if name in arrays))

    def _gathered(self, name: str, values, rows):
        import tensorflow as tf

        found = tf.gather(values, rows)
        if not isinstance(values, tf.RaggedTensor):
            return found
        padding = self._padding(name)
        found = found.to_tensor(tf.cast(padding, values.dtype))
        steps = tf.shape(found)[1]
        short = -steps % self._multiple(name) + tf.cast(steps == 0, tf.int32)
        paddings = [[0, 0]] * len(found.shape)
        paddings[1] = [0, short]
        return tf.pad(found, paddings, constant_values=tf.cast(padding, values.dtype))

    def on_epoch_end(self) -> None:
        """Draws the batches of the next epoch."""
        self._epoch += 1
        if self.shuffle:
            self.plan = self._plan()

    def _plan(self) -> list[np.ndarray]:
        """Which rows each batch of this epoch holds."""
        if self.shuffle:
            return plan(self.lengths, self.batch_size, self.seed, self._epoch, self.pool)
        return _cut(np.argsort(self.lengths, kind="stable"), self.batch_size)

    def _padded(self, name: str, index: int) -> np.ndarray:
        """One array of a batch, every value at the start of its row."""
        values = [self._values[name][row] for row in self.plan[index]]
        if values[0].ndim == 0:
            return np.array(values)
        shape = self._shape(name, index)
        if index == 1:
            # Keras takes the first two batches for a sample and fixes every size that they share.
            same = np.equal(shape, self._shape(name, 0)) & self._varies[name]
            shape = np.where(same, shape + self._steps(name, shape), shape)
        padding = self._padding(name)
        padded = np.full((len(values), *shape), padding, values[0].dtype)
        for row, value in zip(padded, values, strict=True):
            row[tuple(map(slice, value.shape))] = value
        return padded

    def _padding(self, name: str) -> float:
        if name in _BESIDE:
            return 0
        return self.padding.get(name, 0) if isinstance(self.padding, Mapping) else self.padding

    def _shape(self, name: str, index: int) -> np.ndarray:
        """What holds every value of a batch: time, rounded up, and what comes after it."""
        shapes = [self._values[name][row].shape for row in self.plan[index]]
        longest = np.maximum(np.max(shapes, axis=0), 1)
        steps = self._steps(name, longest)
        return -(-longest // steps) * steps

    def _steps(self, name: str, shape: np.ndarray) -> np.ndarray:
        """In what steps each size grows."""
        return np.array([self._multiple(name), *[1] * (len(shape) - 1)])

    def _multiple(self, name: str) -> int:
        return self.multiple if self._varies[name][:1].any() else 1

    def _checked_values(self) -> dict[str, list[np.ndarray]]:
        """All arrays by name: the inputs', and targets and weights where they are given."""
        values = dict(self.inputs) if isinstance(self.inputs, dict) else {"inputs": self.inputs}
        given = {"targets": self.targets, "weights": self.weights}
        check_sequence(**values, **{key: one for key, one in given.items() if one is not None})
        count = len(next(iter(values.values()), ()))
        if not count:
            raise DataError("`inputs` must have at least one sequence. Received: none.")
        for name, given in zip(_BESIDE, (self.targets, self.weights), strict=True):
            if given is not None:
                values[name] = given
        values = {name: [as_array(name, one) for one in given] for name, given in values.items()}
        for name, given in values.items():
            ranks = sorted({one.ndim for one in given})
            if len(ranks) > 1 or any(one.dtype.kind == "O" for one in given):
                raise DataError(
                    f"`{name}` must be arrays of numbers with as many axes each. Received: "
                    f"{', '.join(map(str, ranks))} axes, {given[0].dtype}."
                )
        if self.along is not None:
            check_choice("along", self.along, [name for name in values if name not in _BESIDE])
        first = next(iter(values)) if self.along is None else self.along
        for name, given in values.items():
            if len(given) != count:
                raise DataError(
                    f"`{name}` must be one per sequence, {count} in all. Received: {len(given)}."
                )
            if self.along is not None and name not in _BESIDE:
                continue
            for row, (one, other) in enumerate(zip(given, values[first], strict=True)):
                if not other.ndim:
                    raise DataError(
                        f"`{first}` must be sequences. Received: {other!r} as number {row}."
                    )
                if (one.ndim or name not in _BESIDE) and len(one) != len(other):
                    raise DataError(
                        f"`{name}` must have as many steps as the inputs. Received: {len(one)} "
                        f"for the {len(other)} steps of sequence {row}."
                    )
        return values


def plan(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, pool: int = POOL
) -> list[np.ndarray]:
    """Which rows each batch of an epoch holds: of similar lengths, drawn from (seed, epoch)."""
    rng = np.random.default_rng((seed, epoch))
    rows = rng.permutation(len(lengths))
    pool *= batch_size
    found = []
    for start in range(0, len(rows), pool):
        some = rows[start : start + pool]
        found += _cut(some[np.argsort(lengths[some], kind="stable")], batch_size)
    return [found[index] for index in rng.permutation(len(found))]


def _cut(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of sorted rows; what is left over are the shortest, whose length is the same in
    every epoch, so that no program is compiled for their number again.
    """
    left = len(rows) % batch_size
    whole = [rows[start : start + batch_size] for start in range(left, len(rows), batch_size)]
    return [rows[:left], *whole] if left else whole


def _varying(values: list[np.ndarray]) -> np.ndarray:
    """Which sizes differ from sequence to sequence."""
    shapes = np.array([value.shape for value in values])
    return (shapes != shapes[:1]).any(axis=0)


def _ragged(values: list[np.ndarray]):
    """All values as one tensor, rows of their own lengths."""
    import tensorflow as tf

    if values[0].ndim == 0:
        return tf.constant(np.array(values))
    inner = np.max([value.shape[1:] for value in values], axis=0).astype(int)
    steps = np.zeros((sum(map(len, values)), *inner), values[0].dtype)
    start = 0
    for value in values:
        steps[(slice(start, start + len(value)), *map(slice, value.shape[1:]))] = value
        start += len(value)
    return tf.RaggedTensor.from_row_lengths(steps, [len(value) for value in values])
