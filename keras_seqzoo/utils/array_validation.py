"""Checks of arrays of rows that all speak the same sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import check_mask_value


def as_array(name: str, values: Any) -> np.ndarray:
    """`values` as one array.

    Raises:
        DataError: if its rows have different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"`{name}` must be one array; pad rows to one length. NumPy says: {error}"
        ) from error


def as_windows(name: str, values: Any) -> np.ndarray:
    """Windows of readings in float32, `(batch, time, features)`; NaN may mark padding.

    Raises:
        DataError: if they have another rank, fewer than 2 steps, or are no real numbers.
    """
    windows = as_array(name, values)
    if windows.ndim != 3 or 0 in windows.shape or windows.shape[1] < 2:
        raise DataError(
            f"`{name}` must be windows of shape (batch, time, features) of at least 2 steps. "
            f"Received: shape {windows.shape}. Cut a time series with "
            "keras_seqzoo.data.make_windows (--sequence-length)."
        )
    if windows.dtype.kind not in "iuf":
        raise DataError(f"`{name}` must be real numbers. Received: dtype {windows.dtype}.")
    with np.errstate(over="ignore"):
        return windows.astype(np.float32)


def as_numbers(name: str, values: Any, count: int, hint: str = "") -> np.ndarray:
    """`values` as one array of ints from 0 to `count - 1`.

    Raises:
        DataError: if it holds anything else; `hint` says what to do.
    """
    numbers = as_array(name, values)
    if not numbers.size and numbers.dtype.kind == "f":  # of an empty list
        return numbers.astype(np.int64)
    whole = numbers.dtype.kind in "iu"
    if not whole or (numbers.size and (numbers.min() < 0 or numbers.max() >= count)):
        bounds = f", from {numbers.min()} to {numbers.max()}" if whole else ""
        raise DataError(
            f"`{name}` must be ints from 0 to {count - 1}. Received: shape {numbers.shape}, dtype "
            f"{numbers.dtype}{bounds}.{hint}"
        )
    return numbers


def as_tokens(name: str, values: Any, count: int) -> np.ndarray:
    """Tokens as one array of ints from 0 to `count - 1`, which may come as whole floats.

    Raises:
        DataError: if it holds anything else.
    """
    tokens = as_array(name, values)
    if tokens.dtype.kind == "f" and (np.isfinite(tokens) & (tokens == np.floor(tokens))).all():
        tokens = tokens.astype(np.int64)
    return as_numbers(
        name, tokens, count, " They are numbers of tokens; does the vocabulary fit the model?"
    )


def as_indices(name: str, values: Any, count: int) -> np.ndarray:
    """`as_numbers` along one axis.

    Raises:
        DataError: if it has another rank, or holds anything else.
    """
    numbers = as_numbers(name, values, count)
    if numbers.ndim != 1:
        raise DataError(f"`{name}` must have one axis. Received: shape {numbers.shape}.")
    return numbers


def as_mask_value(mask_value: Any) -> float | None:
    """`mask_value` once it is checked; every NaN as the one object, which equals itself in a tuple.

    Raises:
        ArgumentError: if it is neither None nor a number.
    """
    check_mask_value(mask_value)
    return math.nan if mask_value is not None and math.isnan(mask_value) else mask_value


def as_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`mask` as a bool array of shape `(batch, time)`, which is `shape`.

    Raises:
        DataError: if it is another.
    """
    mask = as_array("mask", mask)
    if mask.dtype != bool or mask.shape != shape:
        raise DataError(
            f"`mask` must be a bool array of shape (batch, time) = {shape}. Received: shape "
            f"{mask.shape}, dtype {mask.dtype}."
        )
    return mask


def check_finite(x: np.ndarray, mask: np.ndarray | None) -> None:
    """Raises `DataError` unless every real step of `x`, `(batch, time, ...)`, is finite."""
    bad = ~np.isfinite(x).all(axis=tuple(range(2, x.ndim)))
    bad &= True if mask is None else mask
    if bad.any():
        row, step = np.argwhere(bad)[0]
        raise DataError(
            "`x` must be finite in its real steps. Received: "
            f"{bad.sum()} steps with NaN or infinity, the first at row {row}, step {step}. Leave "
            "those rows out, or mark padding: mask= here, mask_value= in the model."
        )
