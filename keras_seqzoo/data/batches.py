"""Sequences of unequal length, a batch of similar lengths at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo.errors import DataError, check_bool, check_positive, check_seed

# Of how many batches the sequences are sorted by length: enough that a batch holds similar lengths,
# few enough that it holds others in the next epoch.
_POOL = 64


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
        multiple: int, at least 1; lengths are rounded up to multiples of it, so that a compiled
            program (`jit_compile=True`) sees few shapes.
        padding: number at padded steps of inputs: 0 for tokens, the model's `mask_value`.

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
        padding: float = 0,
    ):
        super().__init__()
        check_positive(batch_size=batch_size, multiple=multiple)
        check_bool(shuffle=shuffle)
        check_seed(seed)
        self.inputs = inputs
        self.targets, self.weights = targets, weights
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.multiple, self.padding = multiple, padding
        self._epoch = 0
        self.lengths = self._checked_lengths()
        self.plan = self._plan()

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        return len(self.plan)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        rows = self.plan[index]
        time = self._time(index)
        # Keras takes the first two batches for a sample and fixes every size that they share.
        if index == 1 and time == self._time(0):
            time += self.multiple
        if isinstance(self.inputs, dict):
            inputs = {
                name: self._padded([values[row] for row in rows], time, self.padding, index)
                for name, values in self.inputs.items()
            }
        else:
            inputs = self._padded([self.inputs[row] for row in rows], time, self.padding, index)
        item = [inputs]
        for values in (self.targets, self.weights):
            if values is not None:
                item.append(self._padded([values[row] for row in rows], time, 0, index))
        return tuple(item)

    def on_epoch_end(self) -> None:
        """Draws the batches of the next epoch."""
        self._epoch += 1
        if self.shuffle:
            self.plan = self._plan()

    def _time(self, index: int) -> int:
        longest = max(1, max(self.lengths[row] for row in self.plan[index]))
        return -(-longest // self.multiple) * self.multiple

    def _plan(self) -> list[np.ndarray]:
        """Which rows each batch of this epoch holds."""
        rows = np.arange(len(self.lengths))
        if not self.shuffle:
            return self._cut(rows[np.argsort(self.lengths, kind="stable")])
        rng = np.random.default_rng((self.seed, self._epoch))
        rows = rng.permutation(rows)
        pool = self.batch_size * _POOL
        plan = []
        for start in range(0, len(rows), pool):
            some = rows[start : start + pool]
            plan += self._cut(some[np.argsort(self.lengths[some], kind="stable")])
        return [plan[index] for index in rng.permutation(len(plan))]

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return [
            rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)
        ]

    def _padded(self, values: list, time: int, padding: float, index: int) -> np.ndarray:
        values = [np.asarray(value) for value in values]
        if values[0].ndim == 0:
            return np.array(values)
        inner = np.max([value.shape[1:] for value in values], axis=0).astype(int)
        if values[0].ndim == 2 and len({value.shape[1] for value in values}) > 1:
            inner += index == 1  # as above: characters differ from word to word
        padded = np.full((len(values), time, *inner), padding, values[0].dtype)
        for row, value in zip(padded, values, strict=True):
            row[tuple(map(slice, value.shape))] = value
        return padded

    def _checked_lengths(self) -> np.ndarray:
        lists = self.inputs if isinstance(self.inputs, dict) else {"inputs": self.inputs}
        first, *others = (np.array([len(each) for each in values]) for values in lists.values())
        if not len(first):
            raise DataError("`inputs` must have at least one sequence. Received: none.")
        for name, lengths in zip(list(lists)[1:], others, strict=True):
            if not np.array_equal(lengths, first):
                raise DataError(f"`inputs[{name!r}]` must have as many steps as the others.")
        for name, values in (("targets", self.targets), ("weights", self.weights)):
            if values is None:
                continue
            if len(values) != len(first):
                raise DataError(
                    f"`{name}` must be one per sequence, {len(first)} in all. Received: "
                    f"{len(values)}."
                )
            for row, value in enumerate(values):
                if np.ndim(value) and len(value) != first[row]:
                    raise DataError(
                        f"`{name}` must have as many steps as the inputs. Received: {len(value)} "
                        f"for the {first[row]} steps of sequence {row}."
                    )
        return first
