"""Interventions on the past: each row keeps its newest steps and takes another row's past.

They measure state leakage, the history dependence of the output: the share of its variance that is
due to inputs before the present one (total Sobol index of the past); nothing to do with train/test
data leakage.

One order of the rows serves every cut. It lists blocks of consecutive rows in random order, and
the donor of each row stands one block further along. Each row is receiver once and donor once, so
that the squared differences of a block correlate with those of the neighboring blocks alone. A
circular block bootstrap over this order (Politis and Romano, 1992) therefore gives valid intervals.
Resampling single rows would miss the covariance between receiver and donor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from keras_seqzoo.utils.masks import last_real_step


@dataclasses.dataclass(frozen=True)
class SwappedRows:
    """Rows that have taken the steps before a cut from other rows.

    Attributes:
        x: `(batch, time, ...)`, the rows after the swap.
        donor: int `(batch,)`, the row that the past comes from; the row itself where not swapped.
        swapped: bool `(batch,)`.
        cut: int `(batch,)`, first step kept.
    """

    x: np.ndarray
    donor: np.ndarray
    swapped: np.ndarray
    cut: np.ndarray


@dataclasses.dataclass(frozen=True)
class Moments:
    """Weighted counts and variances of outputs over the scored rows.

    Attributes:
        weights: `(1 + resamples, batch)`, how often each row counts.
        scored: `(batch, columns)` bool, or None for all.
        count: `(1 + resamples, columns, 1)`.
        variance: `(1 + resamples, columns, outputs)`, unbiased.
    """

    weights: np.ndarray
    scored: np.ndarray | None
    count: np.ndarray
    variance: np.ndarray

    @classmethod
    def from_outputs(cls, y: np.ndarray, scored: np.ndarray | None, weights: np.ndarray) -> Moments:
        """The moments of `y`, `(batch, columns, outputs)`."""
        if scored is None:
            count = np.full((len(weights), y.shape[1], 1), float(len(y)))
            center = y.mean(axis=0)
        else:
            count = (weights @ scored.astype(float))[..., None]
            rows = np.maximum(scored.sum(axis=0), 1)[:, None]
            center = (y * scored[..., None]).sum(axis=0) / rows
        moments = cls(weights, scored, count, np.zeros((len(weights), *y.shape[1:])))
        y = y - center  # keeps E[y^2] - E[y]^2 from cancelling
        biased = np.maximum(moments.mean(y**2) - moments.mean(y) ** 2, 0.0)
        return dataclasses.replace(moments, variance=biased * count / np.maximum(count - 1, 1))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted means over the rows, `(1 + resamples, columns, outputs)`."""
        if self.scored is not None:
            values = np.where(self.scored[..., None], values, 0.0)
        total = self.weights @ values.reshape(len(values), -1)
        return total.reshape(-1, *values.shape[1:]) / np.maximum(self.count, 1)

    def columns(self, part: slice) -> Moments:
        """The moments of some columns."""
        scored = None if self.scored is None else self.scored[:, part]
        return Moments(self.weights, scored, self.count[:, part], self.variance[:, part])

    def without_resamples(self) -> Moments:
        """The moments of the estimate alone."""
        return Moments(self.weights[:1], self.scored, self.count[:1], self.variance[:1])


@dataclasses.dataclass
class RatioSums:
    """Numerators and denominators of leakage by lag, summed over cuts.

    Row 0 is the estimate, the others are bootstrap resamples.

    Attributes:
        numerator: `(1 + resamples, lags, outputs)`, sums of mean squared changes.
        denominator: `(1 + resamples, lags, outputs)`, sums of twice the variance.
        tested: `(lags,)` bool, whether anything was measured at this lag.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    tested: np.ndarray

    @classmethod
    def zeros(cls, resamples: int, lags: int, outputs: int) -> RatioSums:
        """Empty sums."""
        shape = (1 + resamples, lags, outputs)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(lags, bool))

    def add(self, lags: slice, squared_change: np.ndarray, moments: Moments) -> None:
        """Adds mean squared changes and twice the variances of the scored outputs.

        Args:
            lags: the lags of the columns.
            squared_change: `(batch, columns, outputs)`.
            moments: of the outputs in the same columns.
        """
        measured = moments.count > 1
        mean = moments.mean(squared_change)
        self.numerator[:, lags] += np.where(measured, mean, 0.0)
        self.denominator[:, lags] += np.where(measured, 2 * moments.variance, 0.0)
        self.tested[lags] |= measured[0, :, 0]

    def leakage(self, floor: np.ndarray, scale: str) -> np.ndarray:
        """Leakage `(1 + resamples, lags)`; nan where no output has a variance above `floor`.

        Args:
            floor: `(outputs,)`, denominators up to this count as constant outputs.
            scale: "feature" for the mean over output features, "none" to pool them.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            if scale == "none":
                total = self.denominator.sum(axis=-1)
                return np.where(total > floor.sum(), self.numerator.sum(axis=-1) / total, np.nan)
            ratio = np.where(self.denominator > floor, self.numerator / self.denominator, np.nan)
        defined = ~np.isnan(ratio)
        return np.where(
            defined.any(axis=-1),
            np.where(defined, ratio, 0.0).sum(axis=-1) / np.maximum(defined.sum(axis=-1), 1),
            np.nan,
        )


def shuffled_blocks(rows: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Row indices as blocks of `block` consecutive rows, the blocks in random order."""
    starts = rng.permutation(np.arange(0, rows, block))
    return np.concatenate([np.arange(start, min(start + block, rows)) for start in starts])


def sequence_swaps(
    x: np.ndarray, mask: np.ndarray | None, cuts: Iterable[int], order: np.ndarray, block: int
) -> Iterator[SwappedRows]:
    """One swap per cut, for sequence outputs.

    A row that is real on both sides of the cut takes the past of a row with the same past mask.
    """
    for cut in cuts:
        eligible = np.ones(len(x), bool) if mask is None else mask[:, cut - 1] & mask[:, cut]
        past = None if mask is None else mask[:, :cut]
        yield _swap(x, np.full(len(x), cut), eligible, past, order, block)


def last_step_swaps(
    x: np.ndarray, mask: np.ndarray | None, lags: Iterable[int], order: np.ndarray, block: int
) -> Iterator[SwappedRows]:
    """One swap per lag, for last-step outputs.

    Lags count from each row's own last real step. Rows swap with rows of the same mask.
    """
    steps = x.shape[1]
    last = np.full(len(x), steps - 1) if mask is None else last_real_step(mask)
    for lag in lags:
        cut = last - lag + 1
        eligible = cut >= 1
        if mask is not None:
            rows = np.arange(len(x))
            eligible &= mask[rows, np.maximum(cut, 1) - 1] & mask[rows, np.maximum(cut, 0)]
        yield _swap(x, cut, eligible, mask, order, block)


def _swap(x, cut, eligible, pattern, order, block: int) -> SwappedRows:
    """Swaps the steps before `cut` among eligible rows with the same `pattern`."""
    donor = np.arange(len(x))
    candidates = order[eligible[order]]
    groups = [candidates]
    if pattern is not None:
        _, group_ids = np.unique(pattern, axis=0, return_inverse=True)
        group_ids = group_ids.reshape(-1)
        grouped = candidates[np.argsort(group_ids[candidates], kind="stable")]
        groups = np.split(grouped, np.flatnonzero(np.diff(group_ids[grouped])) + 1)
    for group in groups:
        if len(group) > 1:
            donor[group] = np.roll(group, -(block if block < len(group) else 1))
    swapped = donor != np.arange(len(x))
    mixed = x[donor]
    if len(set(cut)) == 1:
        mixed[:, cut[0] :] = x[:, cut[0] :]
    else:
        kept = np.arange(x.shape[1]) >= cut[:, None]
        mixed[kept] = x[kept]
    return SwappedRows(mixed, donor, swapped, cut)
