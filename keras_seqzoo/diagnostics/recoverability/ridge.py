"""Ridge read-outs of earlier inputs from an output: one eigendecomposition serves every target.

The outputs are standardized and projected onto their principal components on the training steps.
There the ridge regression of any target is a matrix product and a shrinkage of each component, so
that all lags, features and strengths cost little more than one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Ridge strengths, in units of the variance of a standardized output. The smallest is plain least
# squares, the largest predicts the mean.
STRENGTHS = np.logspace(-12, 6, 37)


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Outputs as principal components of unit variance on the training steps.

    Attributes:
        train: `(steps, rank)`.
        held_out: `(steps, rank)`.
        variance: `(rank,)`, of the standardized outputs along each component.
        rank: int, components with a standard deviation above round-off of the largest one.
    """

    train: np.ndarray
    held_out: np.ndarray
    variance: np.ndarray
    rank: int

    @classmethod
    def fit(cls, train: np.ndarray, held_out: np.ndarray, round_off: float) -> PrincipalComponents:
        """Fits the components on `train`, `(steps, outputs)`, and projects both arrays onto them.

        Args:
            train: `(steps, outputs)`.
            held_out: `(steps, outputs)`.
            round_off: float, relative standard deviation up to which a component is round-off.
        """
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        varies = deviation > round_off * np.abs(train).max(axis=0)
        scale = np.where(varies, deviation, np.inf)  # drops constant outputs
        train, held_out = (train - mean) / scale, (held_out - mean) / scale
        variance, vectors = np.linalg.eigh(train.T @ train / len(train))
        # Components below float32's round-off carry no memory, though float64 could read them.
        kept = (variance > round_off**2 * variance.max(initial=0.0)) & (variance > 0)
        variance, vectors = variance[kept], vectors[:, kept] / np.sqrt(variance[kept])
        return cls(train @ vectors, held_out @ vectors, variance, int(kept.sum()))

    def predict(self, target: np.ndarray) -> np.ndarray:
        """Ridge predictions of targets on the held-out steps.

        Each target gets its own strength, by generalized cross-validation on the training steps.

        Args:
            target: `(training steps, targets)`.

        Returns:
            `(held-out steps, targets)`.
        """
        mean = target.mean(axis=0)
        target = target - mean
        coefficients = self.train.T @ target / len(target)  # (rank, targets), least squares
        shrinkage = self.variance / (self.variance + STRENGTHS[:, None])  # (strengths, rank)
        total = (target**2).mean(axis=0)
        residual = total - (shrinkage * (2 - shrinkage)) @ coefficients**2  # (strengths, targets)
        free = 1 - (1 + shrinkage.sum(axis=1)) / len(target)  # share of degrees of freedom left
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(free > 0, 1 / free**2, np.inf)[:, None] * np.maximum(residual, 0)
        # Of equal scores the smallest strength, so that an exact read-out stays exact.
        best = np.argmin(np.where(np.isnan(score), np.inf, score), axis=0)
        return mean + self.held_out @ (shrinkage[best].T * coefficients)
