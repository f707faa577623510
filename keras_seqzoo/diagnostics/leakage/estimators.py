"""Estimators of state leakage: by cuts, by lags of a last-step output, by gradients.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.bootstrap import resampling_weights
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.gradient import squared_sensitivities
from keras_seqzoo.diagnostics.leakage.interventions import Moments, RatioSums, SwappedRows
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.utils.masks import last_real_step

ROUND_OFF = 32 * float(np.finfo(np.float32).eps)


@dataclasses.dataclass
class LeakageInputs:
    """Rows, outputs and bootstrap settings of a leakage measurement.

    Attributes:
        x: `(batch, time, ...)`.
        y: `(batch, time, outputs)`, or `(batch, outputs)` with `last_only`.
        mask: `(batch, time)` bool, or None.
        real: `(batch, time)` bool, the mask, or True everywhere.
        last_only: bool, whether the output has no time axis.
        output_step: int, argument of `leakage`.
        block: int, argument of `leakage`.
        order: int `(batch,)`, rows as shuffled blocks.
        rng: generator.
        resamples: int, bootstrap resamples.
    """

    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray | None
    real: np.ndarray
    last_only: bool
    output_step: int | None
    block: int
    order: np.ndarray
    rng: np.random.Generator
    resamples: int

    def weights(self) -> np.ndarray:
        """Bootstrap weights `(1 + resamples, batch)`; each call draws new ones."""
        return resampling_weights(self.order, self.block, self.resamples, self.rng)

    def noise(self) -> np.ndarray:
        """Variance up to which an output feature counts as constant, `(outputs,)`."""
        largest = np.abs(self.scored()).max(axis=0, initial=0.0)
        return (ROUND_OFF * largest) ** 2 + np.finfo(np.float64).tiny

    def scored(self) -> np.ndarray:
        """The output at all real steps, `(steps, outputs)`."""
        if self.mask is None or self.last_only:
            return self.y.reshape(-1, self.y.shape[-1])
        return self.y[self.mask]


@dataclasses.dataclass
class LeakageEstimate:
    """Sums by lag and for look-ahead, from one estimator.

    Attributes:
        sums: `RatioSums` by lag.
        lags: int `(lags,)`.
        floor: `(outputs,)`, denominators up to this count as constant outputs.
        look_ahead: `RatioSums` of later inputs, or None where not measured.
        cuts: int tuple, the cuts of sequence outputs.
        rows: int, rows that took part.
    """

    sums: RatioSums
    lags: np.ndarray
    floor: np.ndarray
    look_ahead: RatioSums | None
    cuts: tuple[int, ...]
    rows: int


def estimate_by_cuts(
    function: Callable, inputs: LeakageInputs, cuts: np.ndarray, batch_size: int
) -> LeakageEstimate:
    """Leakage of sequence outputs: one swap per cut gives the whole profile and the look-ahead."""
    steps, outputs = inputs.y.shape[1:]
    lags = np.arange(1, steps - cuts[0] + 1)
    weights = inputs.weights()
    sums = RatioSums.zeros(inputs.resamples, len(lags), outputs)
    ahead = RatioSums.zeros(0, 1, outputs)
    took_part = np.zeros(len(inputs.x), bool)
    # Without padding every row is scored at every cut, so that the moments are always the same.
    all_moments = None
    if inputs.mask is None:
        all_moments = Moments.from_outputs(inputs.y, None, weights)
    swaps = interventions.sequence_swaps(inputs.x, inputs.mask, cuts, inputs.order, inputs.block)
    for rows, y in _outputs(function, swaps, inputs, batch_size):
        cut = int(rows.cut[0])
        kept, edge = slice(cut, None), slice(cut - 1, cut)
        # For the donor, the same swap keeps past and present and changes the future.
        present = inputs.y[rows.donor, edge]
        if all_moments is None:
            scored = inputs.real[:, kept] & rows.swapped[:, None]
            moments = Moments.from_outputs(inputs.y[:, kept], scored, weights)
            present_moments = Moments.from_outputs(present, rows.swapped[:, None], weights[:1])
        else:
            moments = all_moments.columns(kept)
            present_moments = all_moments.columns(edge).without_resamples()
        sums.add(slice(0, steps - cut), (inputs.y[:, kept] - y[:, kept]) ** 2, moments)
        change = _without_round_off(y[:, edge] - present, present)
        ahead.add(slice(0, 1), change**2, present_moments)
        took_part |= rows.swapped
    return LeakageEstimate(
        sums, lags, inputs.noise(), ahead, tuple(map(int, cuts)), int(took_part.sum())
    )


def estimate_by_lags(
    function: Callable, inputs: LeakageInputs, lags: np.ndarray, batch_size: int
) -> LeakageEstimate:
    """Leakage of last-step outputs: one swap per lag."""
    weights = inputs.weights()
    y = inputs.y[:, None]  # (batch, 1, outputs)
    sums = RatioSums.zeros(inputs.resamples, len(lags), inputs.y.shape[-1])
    took_part = np.zeros(len(inputs.x), bool)
    swaps = interventions.last_step_swaps(inputs.x, inputs.mask, lags, inputs.order, inputs.block)
    for column, (rows, swapped_y) in enumerate(_outputs(function, swaps, inputs, batch_size)):
        moments = Moments.from_outputs(y, rows.swapped[:, None], weights)
        sums.add(slice(column, column + 1), (y - swapped_y[:, None]) ** 2, moments)
        took_part |= rows.swapped
    return LeakageEstimate(sums, lags, inputs.noise(), None, (), int(took_part.sum()))


def estimate_by_gradient(
    model: Any, inputs: LeakageInputs, first: int, probes: int, batch_size: int
) -> LeakageEstimate:
    """Leakage from squared gradients, summed over inputs at least `lag` steps old."""
    steps, outputs = inputs.x.shape[1], inputs.y.shape[-1]
    kept, probe_steps = _probe_steps(inputs, first)
    squares, step, feature = squared_sensitivities(
        model,
        inputs.x[kept],
        inputs.x[inputs.real].astype(np.float64).var(axis=0),
        probe_steps,
        outputs,
        last_only=inputs.last_only,
        probes=probes,
        batch_size=batch_size,
        rng=inputs.rng,
    )
    # Column j of `tails`: effect of the inputs at least j steps old on the probed output.
    by_age = np.zeros_like(squares)
    age = step[:, None] - np.arange(steps)
    row, column = np.nonzero(age >= 0)
    by_age[row, age[row, column]] = squares[row, column]
    tails = np.cumsum(by_age[:, ::-1], axis=1)[:, ::-1]
    total = squares.sum(axis=1)
    future = np.where(age < 0, squares, 0.0).sum(axis=1)

    lags = np.arange(1, max(int(step.max()), 1) + 1)
    order = interventions.shuffled_blocks(int(kept.sum()), inputs.block, inputs.rng)
    weights = resampling_weights(order, inputs.block, inputs.resamples, inputs.rng)
    weights = np.tile(weights, probes)  # the probes of a row are resampled together
    reached = step[:, None] >= lags
    sums = RatioSums.zeros(inputs.resamples, len(lags), outputs)
    ahead = RatioSums.zeros(0, 1, outputs)
    for output in np.unique(feature):
        probed = feature == output
        sums.numerator[..., output] = weights[:, probed] @ (tails[:, lags] * reached)[probed]
        sums.denominator[..., output] = weights[:, probed] @ (total[:, None] * reached)[probed]
        sums.tested |= reached[probed].any(axis=0)
        ahead.numerator[..., output] = future[probed].sum()
        ahead.denominator[..., output] = total[probed].sum()
    constant = inputs.y.reshape(-1, outputs).var(axis=0) <= inputs.noise()
    floor = np.where(constant, np.inf, 0.0)
    look_ahead = None if inputs.last_only else ahead
    return LeakageEstimate(sums, lags, floor, look_ahead, (), int(kept.sum()))


def _probe_steps(inputs: LeakageInputs, first: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows with real steps `(batch,)` bool, and the output steps that probes of each may pick."""
    if inputs.output_step is not None:
        raise errors.ArgumentError(
            argument_message("output_step", "None with method='gradient'", inputs.output_step)
        )
    if inputs.last_only:
        choices = [np.array([step]) for step in last_real_step(inputs.real)]
    else:
        later = inputs.real & (np.arange(inputs.x.shape[1]) >= first)
        allowed = np.where(later.any(1)[:, None], later, inputs.real)
        choices = [np.flatnonzero(row) for row in allowed]
    kept = np.array([len(choice) > 0 and choice[0] >= 0 for choice in choices])
    if not kept.any():
        raise errors.DataError("`x` must have a row with real steps. Received: padding alone.")
    return kept, [choice for choice, keep in zip(choices, kept, strict=True) if keep]


def _outputs(
    function: Callable, swaps: Iterable[SwappedRows], inputs: LeakageInputs, batch_size: int
) -> Iterator[tuple[SwappedRows, np.ndarray]]:
    """Outputs of each swap; as many swaps per call as fit, since long batches cost little more."""
    together = max(batch_size // len(inputs.x), 1)
    if together == 1:
        for rows in swaps:
            yield rows, _run(function, rows.x, inputs, batch_size)
        return
    swaps = list(swaps)
    for start in range(0, len(swaps), together):
        group = swaps[start : start + together]
        y = _run(function, np.concatenate([rows.x for rows in group]), inputs, batch_size)
        yield from zip(group, np.split(y, len(group)), strict=True)


def _run(function: Callable, x: np.ndarray, inputs: LeakageInputs, batch_size: int) -> np.ndarray:
    y = model_function.predict_in_batches(function, x, batch_size)
    if inputs.output_step is not None:
        y = y[:, inputs.output_step]
    if y[:1].size != inputs.y[:1].size:
        raise errors.DataError(
            "The output must have the same shape for every batch. Received: "
            f"{y.shape[1:]} for {len(x)} rows, another for {len(inputs.x)}."
        )
    return y.reshape(len(y), *inputs.y.shape[1:])


def _without_round_off(change: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`change`, set to 0 where it is within round-off: matrix products round by batch position."""
    scale = np.abs(y).max(axis=(0, 1), initial=0.0)
    return np.where(np.abs(change) <= ROUND_OFF * scale, 0.0, change)
