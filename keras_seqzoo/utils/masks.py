"""Masks of padded sequences, as NumPy arrays."""

from __future__ import annotations

import numpy as np


def last_real_step(mask: np.ndarray) -> np.ndarray:
    """Index of each row's last real step, `(batch,)`; -1 where a row has none."""
    steps = mask.shape[1]
    return np.where(mask.any(axis=1), steps - 1 - np.argmax(mask[:, ::-1], axis=1), -1)
