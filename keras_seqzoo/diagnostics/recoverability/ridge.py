"""Linear read-outs of earlier inputs from an output: one decomposition serves every target.

The outputs are standardized and turned into their principal directions on the training steps.
There the ridge regression of any target is a matrix product and a shrinkage by direction, so that
all lags, features and strengths cost little more than one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Ridge strengths tried, in units of the variance of a standardized output. The smallest leaves the
# least squares as they are, the largest predicts the mean.
STRENGTHS = np.logspace(-12, 6, 37)


@dataclasses.dataclass(frozen=True)
class Directions:
    """Outputs as their principal directions of unit variance on the training steps.

    Attributes:
        train, held_out: `(steps, rank)`.
        variance: `(rank,)`, of the standardized outputs along each direction.
        rank: int, directions whose deviation is above round-off of the largest one.
    """

    train: np.ndarray
    held_out: np.ndarray
    variance: np.ndarray
    rank: int

    @classmethod
    def of(cls, train: np.ndarray, held_out: np.ndarray, round_off: float) -> Directions:
        """The directions of `train`, `(steps, outputs)`, and `held_out` seen along them."""
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        varies = deviation > round_off * np.abs(train).max(axis=0)
        scale = np.where(varies, deviation, np.inf)  # a constant output tells nothing
        train, held_out = (train - mean) / scale, (held_out - mean) / scale
        variance, turn = np.linalg.eigh(train.T @ train / len(train))
        # What is under round-off is no memory, though float64 could read it out.
        kept = (variance > round_off**2 * variance.max(initial=0.0)) & (variance > 0)
        variance, turn = variance[kept], turn[:, kept] / np.sqrt(variance[kept])
        return cls(train @ turn, held_out @ turn, variance, int(kept.sum()))

    def predict(self, target: np.ndarray) -> np.ndarray:
        """Held-out predictions of targets whose training steps are given, `(steps, targets)`.

        Each target has a strength of its own, by generalized cross-validation on training steps.
        """
        mean = target.mean(axis=0)
        target = target - mean
        found = self.train.T @ target / len(target)  # (rank, targets), least squares
        shrink = self.variance / (self.variance + STRENGTHS[:, None])  # (strengths, rank)
        total = (target**2).mean(axis=0)
        residual = total - (shrink * (2 - shrink)) @ found**2  # (strengths, targets)
        free = 1 - (1 + shrink.sum(axis=1)) / len(target)  # share of the steps not used up
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(free > 0, 1 / free**2, np.inf)[:, None] * np.maximum(residual, 0)
        # Of equal scores the least strength, so that an exact answer stays exact.
        chosen = np.argmin(np.where(np.isnan(score), np.inf, score), axis=0)
        return mean + self.held_out @ (shrink[chosen].T * found)
