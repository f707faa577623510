"""Array validation with uniform error messages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_mask_value


def as_array(name: str, values: Any) -> np.ndarray:
    """Convert `values` to a NumPy array.

    Raises:
        DataError: if rows have different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"`{name}` must be one array; pad rows to one length. NumPy reports: {error}"
        ) from error


def as_windows(name: str, values: Any) -> np.ndarray:
    """Convert `values` to windows of readings in float32, `(batch, time, features)`.

    NaN is valid, since it may mark padding.

    Raises:
        DataError: if the rank is not 3, an axis is empty, there are fewer than 2 steps, or the
            dtype is neither integer nor floating.
    """
    windows = as_array(name, values)
    if windows.ndim != 3 or 0 in windows.shape or windows.shape[1] < 2:
        raise DataError(
            f"`{name}` must be windows of shape (batch, time, features) with at least 2 steps. "
            f"Received: shape {windows.shape}. Cut a time series into windows with "
            "keras_seqzoo.data.make_windows (--sequence-length)."
        )
    if windows.dtype.kind not in "iuf":
        raise DataError(f"`{name}` must be real numbers. Received: dtype {windows.dtype}.")
    with np.errstate(over="ignore"):
        return windows.astype(np.float32)


def as_ids(name: str, values: Any, count: int, hint: str = "") -> np.ndarray:
    """Convert `values` to an array of ids, ints from 0 to `count - 1`.

    Args:
        name: str, the argument in error messages.
        values: array or nested lists of ints.
        count: int, number of ids.
        hint: str, appended to the error message.

    Raises:
        DataError: if a value is not an int, or out of range.
    """
    ids = as_array(name, values)
    if not ids.size and ids.dtype.kind == "f":  # NumPy makes float64 of an empty list
        return ids.astype(np.int64)
    integer = ids.dtype.kind in "iu"
    if not integer or (ids.size and (ids.min() < 0 or ids.max() >= count)):
        bounds = f", from {ids.min()} to {ids.max()}" if integer else ""
        raise DataError(
            f"`{name}` must be ints from 0 to {count - 1}. Received: shape {ids.shape}, dtype "
            f"{ids.dtype}{bounds}.{hint}"
        )
    return ids


def as_tokens(name: str, values: Any, count: int) -> np.ndarray:
    """Convert `values` to an array of token ids; floats without a fraction are accepted.

    Raises:
        DataError: if a value is not an integer from 0 to `count - 1`.
    """
    tokens = as_array(name, values)
    if tokens.dtype.kind == "f" and (np.isfinite(tokens) & (tokens == np.floor(tokens))).all():
        tokens = tokens.astype(np.int64)
    return as_ids(
        name,
        tokens,
        count,
        " These are token ids. Use the vocabulary that the model was built with.",
    )


def as_indices(name: str, values: Any, count: int) -> np.ndarray:
    """Convert `values` to indices into a sequence of length `count`, `(indices,)`.

    Raises:
        DataError: if the rank is not 1, or a value is not an int from 0 to `count - 1`.
    """
    indices = as_ids(name, values, count)
    if indices.ndim != 1:
        raise DataError(f"`{name}` must have one axis. Received: shape {indices.shape}.")
    return indices


def as_mask_value(mask_value: Any) -> float | None:
    """Check `mask_value` and replace any NaN with `math.nan`.

    Tuples and dicts compare items by identity first, so that settings with the same NaN are equal.

    Raises:
        ArgumentError: if `mask_value` is neither None nor a number.
    """
    check_mask_value(mask_value)
    return math.nan if mask_value is not None and math.isnan(mask_value) else mask_value


def as_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Convert `mask` to a bool array, `(batch, time)`; True marks real steps.

    Raises:
        DataError: if the dtype is not bool, or the shape is not `shape`.
    """
    mask = as_array("mask", mask)
    if mask.dtype != bool or mask.shape != shape:
        raise DataError(
            f"`mask` must be a bool array of shape (batch, time) = {shape}. Received: shape "
            f"{mask.shape}, dtype {mask.dtype}."
        )
    return mask


def check_finite(x: np.ndarray, mask: np.ndarray | None) -> None:
    """Raise `DataError` unless `x`, `(batch, time, ...)`, is finite at every real step."""
    bad = ~np.isfinite(x).all(axis=tuple(range(2, x.ndim)))
    bad &= True if mask is None else mask
    if bad.any():
        row, step = np.argwhere(bad)[0]
        raise DataError(
            "`x` must be finite at every real step. Received: "
            f"{bad.sum()} steps with NaN or infinity, the first at row {row}, step {step}. Remove "
            "those rows, or mark padding with mask= here, or with mask_value= in the model."
        )
