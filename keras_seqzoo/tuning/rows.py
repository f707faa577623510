"""Training and validation rows: split by time order, checked, and given their targets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import argument_message, check_fraction, is_real
from keras_seqzoo.utils.array_validation import as_array, as_windows
from keras_seqzoo.utils.masks import last_real_step


class Rows(NamedTuple):
    """Arrays of a search; the targets are None where the input itself is the target."""

    x: np.ndarray
    y: np.ndarray | None
    x_val: np.ndarray
    y_val: np.ndarray | None

    @property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.x)

    def orders(self, seed: int, batch_size: int) -> Iterator[np.ndarray]:
        """The batches of each epoch: rows `(batches, batch_size)`, -1 where one is not full."""
        generator = np.random.default_rng(seed)
        while True:
            rows = generator.permutation(self.count)
            yield full([rows[at : at + batch_size] for at in range(0, len(rows), batch_size)])

    def fingerprint(self) -> str:
        """Hash of everything in it, shapes and types included."""
        digest = hashlib.blake2b(digest_size=16)
        for array in self:
            if array is None:
                digest.update(b"none")
            else:
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def full(batches: Sequence[np.ndarray]) -> np.ndarray:
    """Batches of rows as one array, -1 where one holds fewer than others."""
    size = max(map(len, batches))
    found = np.full((len(batches), size), -1)
    for batch, rows in zip(found, batches, strict=True):
        batch[: len(rows)] = rows
    return found


def split_rows(x: Any, y: Any, validation_data: Any, validation_split: float) -> Rows:
    """Takes the validation rows as given, or else the last rows: they are in time order.

    Raises:
        ArgumentError: without validation rows, or with targets for one part only.
        DataError: if arrays do not fit one another or hold too few rows.
    """
    x = as_windows("x", x)
    y = _targets("y", y, x)
    if validation_data is not None:
        x_val, y_val = _pair(validation_data)
        if (y is None) != (y_val is None):
            raise ArgumentError(
                "`y` and the targets in `validation_data` must be given both or not at all. "
                f"Received: {'no y' if y is None else 'y'}, validation_data "
                f"{'without' if y_val is None else 'with'} targets. Pass validation_data=(x, y)."
            )
        if x_val.shape[2:] != x.shape[2:]:
            raise DataError(
                "`validation_data` must have the features of `x`. Received: shapes "
                f"{x_val.shape} and {x.shape}."
            )
        return Rows(x, y, x_val, y_val)
    if is_real(validation_split) and validation_split == 0:
        raise ArgumentError(
            "`validation_data` or `validation_split` must be given: the objectives are measured on "
            "rows that were not trained on. Received: neither."
        )
    check_fraction(validation_split=validation_split)
    kept = len(x) - round(len(x) * validation_split)
    if kept < 1 or len(x) - kept < 2:
        raise DataError(
            "`x` must have enough rows for at least 1 to train and 2 to validate. Received: "
            f"{len(x)} rows, validation_split={validation_split}. Use shorter windows or a stride."
        )
    return Rows(
        x[:kept], None if y is None else y[:kept], x[kept:], None if y is None else y[kept:]
    )


def targets(model: keras.Model, x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """`y`, or `x` itself: every step, or the last real one where only that comes out.

    NaN that marks padding becomes 0: the loss multiplies it by 0, which leaves NaN.
    """
    if y is not None:
        return y
    if len(model.output_shape) == 2:
        mask = model_function.resolve_mask(model, x)
        real = np.ones(x.shape[:2], bool) if mask is None else mask
        x = x[np.arange(len(x)), last_real_step(real)]
    return np.nan_to_num(x)


def _pair(validation_data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(validation_data, (tuple, list)) and len(validation_data) == 2:
        x_val, y_val = validation_data
    elif hasattr(validation_data, "shape"):
        x_val, y_val = validation_data, None
    else:
        raise ArgumentError(
            argument_message("validation_data", "an array, or a pair (x, y)", type(validation_data))
        )
    x_val = as_windows("validation_data", x_val)
    if len(x_val) < 2:
        raise DataError(f"`validation_data` must have at least 2 rows. Received: {len(x_val)}.")
    return x_val, _targets("validation_data", y_val, x_val)


def _targets(name: str, y: Any, x: np.ndarray) -> np.ndarray | None:
    """Targets as an array of numbers, one row for each of `x`; None stays None."""
    if y is None:
        return None
    y = as_array(name, y)
    if y.ndim < 1 or len(y) != len(x) or y.dtype.kind not in "biuf":
        raise DataError(
            f"`{name}` must hold numeric targets, as many rows as `x`. Received: shape {y.shape}, "
            f"dtype {y.dtype}, for {len(x)} rows."
        )
    return y
