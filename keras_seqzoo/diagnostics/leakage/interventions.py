"""State leakage by intervention: a row keeps its newest steps and takes another row's past.

One rotation of the rows serves every cut: `order` lists blocks of consecutive rows in random
order, and each row's donor stands one block further along. The blocks' squared differences then
form a sequence that depends on itself only next door (a row is receiver once and donor once), so
that resampling stretches of `order` gives honest intervals (circular block bootstrap, Politis and
Romano, 1992). Resampling single rows would miss the covariance between receiver and donor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from keras_seqzoo.utils.masks import last_real_step


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward pass: rows `swapped` have taken the steps before `cut` from `donor`."""

    x: np.ndarray
    donor: np.ndarray  # (batch,), the row itself where nothing is swapped
    swapped: np.ndarray  # (batch,) bool
    cut: np.ndarray  # (batch,) first step kept


@dataclasses.dataclass(frozen=True)
class Moments:
    """Weighted counts and variances of outputs over the rows that are scored.

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
    def of(cls, y: np.ndarray, scored: np.ndarray | None, weights: np.ndarray) -> Moments:
        """The moments of `y`, `(batch, columns, outputs)`."""
        if scored is None:
            count = np.full((len(weights), y.shape[1], 1), float(len(y)))
            centre = y.mean(axis=0)
        else:
            count = (weights @ scored.astype(float))[..., None]
            seen = np.maximum(scored.sum(axis=0), 1)[:, None]
            centre = (y * scored[..., None]).sum(axis=0) / seen
        found = cls(weights, scored, count, np.zeros((len(weights), *y.shape[1:])))
        y = y - centre  # keeps E[y^2] - E[y]^2 from cancelling
        biased = np.maximum(found.mean(y**2) - found.mean(y) ** 2, 0.0)
        return dataclasses.replace(found, variance=biased * count / np.maximum(count - 1, 1))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted means over the rows, `(1 + resamples, columns, outputs)`."""
        if self.scored is not None:
            values = np.where(self.scored[..., None], values, 0.0)
        total = self.weights @ values.reshape(len(values), -1)
        return total.reshape(-1, *values.shape[1:]) / np.maximum(self.count, 1)

    def columns(self, part: slice) -> Moments:
        """Those of some columns."""
        scored = None if self.scored is None else self.scored[:, part]
        return Moments(self.weights, scored, self.count[:, part], self.variance[:, part])

    def estimate(self) -> Moments:
        """Those of the rows as they are, without the resamples."""
        return Moments(self.weights[:1], self.scored, self.count[:1], self.variance[:1])


@dataclasses.dataclass
class Sums:
    """Numerators and denominators of the ratio, `(1 + resamples, lags, outputs)`.

    Row 0 is the estimate, the others are bootstrap resamples.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    tested: np.ndarray  # (lags,) bool, whether anything was measured at this lag

    @classmethod
    def zeros(cls, resamples: int, lags: int, outputs: int) -> Sums:
        """Nothing added yet."""
        shape = (1 + resamples, lags, outputs)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(lags, bool))

    def add(self, lags: slice, difference: np.ndarray, moments: Moments) -> None:
        """Adds means of `difference` and twice the variances of what was scored.

        Args:
            lags: which lags the columns stand for.
            difference: `(batch, columns, outputs)`, squared differences.
            moments: of the outputs in the same columns.
        """
        measured = moments.count > 1
        mean = moments.mean(difference)
        self.numerator[:, lags] += np.where(measured, mean, 0.0)
        self.denominator[:, lags] += np.where(measured, 2 * moments.variance, 0.0)
        self.tested[lags] |= measured[0, :, 0]

    def leakage(self, floor: np.ndarray, scale: str) -> np.ndarray:
        """`(1 + resamples, lags)`; outputs whose variance is under `floor` explain nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if scale == "none":
                total = self.denominator.sum(axis=-1)
                return np.where(total > floor.sum(), self.numerator.sum(axis=-1) / total, np.nan)
            ratio = np.where(self.denominator > floor, self.numerator / self.denominator, np.nan)
        known = ~np.isnan(ratio)
        return np.where(
            known.any(axis=-1),
            np.where(known, ratio, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1),
            np.nan,
        )


def rotation(rows: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """Rows as blocks of `block` consecutive ones, the blocks in random order."""
    starts = rng.permutation(np.arange(0, rows, block))
    return np.concatenate([np.arange(start, min(start + block, rows)) for start in starts])


def resampling_weights(
    order: np.ndarray, block: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """`(1 + resamples, batch)`: ones, then how often each row is drawn in stretches of `order`."""
    rows = len(order)
    stretch = min(max(4 * block, round(rows ** (1 / 3)), 1), max(rows // 2, 1))
    starts = rng.integers(0, rows, (resamples, -(-rows // stretch)))
    drawn = (starts[..., None] + np.arange(stretch)) % rows
    drawn = order[drawn.reshape(resamples, starts.shape[1] * stretch)[:, :rows]]
    weights = np.ones((1 + resamples, rows))
    for weight, sample in zip(weights[1:], drawn, strict=True):
        weight[:] = np.bincount(sample, minlength=rows)
    return weights


def sequence_passes(x, mask, cuts, order, block) -> Iterator[Pass]:
    """One pass per cut; a row real on both sides of it takes the past of one with the same mask."""
    for cut in cuts:
        eligible = np.ones(len(x), bool) if mask is None else mask[:, cut - 1] & mask[:, cut]
        past = None if mask is None else mask[:, :cut]
        yield _swap(x, np.full(len(x), cut), eligible, past, order, block)


def last_step_passes(x, mask, lags, order, block) -> Iterator[Pass]:
    """One pass per lag, counted from each row's own last real step, between equal masks."""
    steps = x.shape[1]
    last = np.full(len(x), steps - 1) if mask is None else last_real_step(mask)
    for lag in lags:
        cut = last - lag + 1
        eligible = cut >= 1
        if mask is not None:
            rows = np.arange(len(x))
            eligible &= mask[rows, np.maximum(cut, 1) - 1] & mask[rows, np.maximum(cut, 0)]
        yield _swap(x, cut, eligible, mask, order, block)


def _swap(x, cut, eligible, pattern, order, block) -> Pass:
    donor = np.arange(len(x))
    if pattern is None:
        groups = [order[eligible[order]]]
    else:
        _, kind = np.unique(pattern, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        members = order[eligible[order]]
        by_kind = members[np.argsort(kind[members], kind="stable")]
        boundaries = np.flatnonzero(np.diff(kind[by_kind])) + 1
        groups = np.split(by_kind, boundaries)
    for group in groups:
        if len(group) > 1:
            donor[group] = np.roll(group, -(block if block < len(group) else 1))
    swapped = donor != np.arange(len(x))
    changed = x[donor]
    if len(set(cut)) == 1:
        changed[:, cut[0] :] = x[:, cut[0] :]
    else:
        kept = np.arange(x.shape[1]) >= cut[:, None]
        changed[kept] = x[kept]
    return Pass(changed, donor, swapped, cut)
