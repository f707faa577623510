"""Masks of padded sequences as NumPy arrays."""

from __future__ import annotations

import numpy as np


def last_real_step(mask: np.ndarray) -> np.ndarray:
    """Return the index of the last real step of each row, -1 for a row of padding.

    Shapes: bool `(batch, time)` -> int `(batch,)`.

    Example:

    >>> last_real_step(np.array([[True, True, False], [False, False, False]])).tolist()
    [1, -1]
    """
    steps = mask.shape[1]
    return np.where(mask.any(axis=1), steps - 1 - np.argmax(mask[:, ::-1], axis=1), -1)
