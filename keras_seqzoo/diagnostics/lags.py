"""Lags and cuts: ints chosen by the caller, and a geometric selection of them for tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_seqzoo.utils.argument_validation import is_int


def geometric_lags(longest: int) -> np.ndarray:
    """The lags 1, 2, 4, ... and `longest`, in ascending order."""
    longest = int(longest)
    return np.unique([min(2**power, longest) for power in range(longest.bit_length() + 1)])


def distinct_ints(values: Any, low: int, high: int) -> np.ndarray | None:
    """The distinct ints of `values` in ascending order.

    Args:
        values: a collection, or anything else.
        low: int, the smallest value allowed.
        high: int, the largest value allowed.

    Returns:
        An int array, or None if `values` is empty, is no collection, or holds anything but ints in
        `[low, high]`.
    """
    try:
        allowed = sorted({int(value) for value in values if is_int(value) and low <= value <= high})
        valid = bool(allowed) and len(allowed) == len(set(values))
    except TypeError:
        valid, allowed = False, []
    return np.array(allowed) if valid else None
