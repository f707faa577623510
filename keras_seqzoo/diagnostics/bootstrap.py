"""Circular block bootstrap of rows (Politis and Romano, 1992), as weights of the rows."""

from __future__ import annotations

import numpy as np

RESAMPLES = 200


def resampling_weights(
    order: np.ndarray, block: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """How often each row counts in the estimate and in each bootstrap resample.

    Args:
        order: int array `(batch,)`, rows in the order from which contiguous runs are drawn.
        block: int, rows that belong together; runs are at least four blocks long.
        resamples: int, bootstrap resamples.
        rng: generator.

    Returns:
        `(1 + resamples, batch)`: ones for the estimate, then the counts of each resample.
    """
    rows = len(order)
    length = min(max(4 * block, round(rows ** (1 / 3)), 1), max(rows // 2, 1))
    starts = rng.integers(0, rows, (resamples, -(-rows // length)))
    positions = (starts[..., None] + np.arange(length)) % rows
    samples = order[positions.reshape(resamples, starts.shape[1] * length)[:, :rows]]
    weights = np.ones((1 + resamples, rows))
    for weight, sample in zip(weights[1:], samples, strict=True):
        weight[:] = np.bincount(sample, minlength=rows)
    return weights
