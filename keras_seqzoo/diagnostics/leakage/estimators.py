"""From a function and its rows to sums by lag: by cuts, by lags of a last step, by gradients."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.gradient import sensitivities
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.utils.masks import last_real_step

ROUND_OFF = 32 * float(np.finfo(np.float32).eps)


@dataclasses.dataclass
class Plan:
    """What every method works on."""

    x: np.ndarray
    y: np.ndarray  # (batch, time, outputs), or (batch, outputs) if last
    mask: np.ndarray | None
    real: np.ndarray
    last: bool
    output_step: int | None
    block: int
    order: np.ndarray
    rng: np.random.Generator
    resamples: int

    def weights(self) -> np.ndarray:
        return interventions.resampling_weights(self.order, self.block, self.resamples, self.rng)

    def noise(self) -> np.ndarray:
        """Variance under which an output feature counts as constant, `(outputs,)`."""
        largest = np.abs(self.scored()).max(axis=0, initial=0.0)
        return (ROUND_OFF * largest) ** 2 + np.finfo(np.float64).tiny

    def scored(self) -> np.ndarray:
        """The output at all real steps, `(steps, outputs)`."""
        if self.mask is None or self.last:
            return self.y.reshape(-1, self.y.shape[-1])
        return self.y[self.mask]


@dataclasses.dataclass
class Found:
    """Sums by lag and for the other side of the cut, from one method."""

    sums: interventions.Sums
    lags: np.ndarray
    floor: np.ndarray  # (outputs,), denominators under it have no variance to explain
    ahead: interventions.Sums | None
    cuts: tuple[int, ...]
    rows: int


def by_cuts(function, plan: Plan, cuts: np.ndarray, batch_size: int) -> Found:
    """Sequence outputs: one pass per cut gives the whole profile, and the look-ahead with it."""
    steps, outputs = plan.y.shape[1:]
    lags = np.arange(1, steps - cuts[0] + 1)
    weights = plan.weights()
    sums = interventions.Sums.zeros(plan.resamples, len(lags), outputs)
    ahead = interventions.Sums.zeros(0, 1, outputs)
    took_part = np.zeros(len(plan.x), bool)
    # Without padding every row is scored at every cut, and the moments are the same for all.
    whole = interventions.Moments.of(plan.y, None, weights) if plan.mask is None else None
    passes = interventions.sequence_passes(plan.x, plan.mask, cuts, plan.order, plan.block)
    for one, y in _answers(function, passes, plan, batch_size):
        cut = int(one.cut[0])
        kept, edge = slice(cut, None), slice(cut - 1, cut)
        # Seen from the donor, the same pass kept its past and present and changed its future.
        present = plan.y[one.donor, edge]
        if whole is None:
            scored = plan.real[:, kept] & one.swapped[:, None]
            moments = interventions.Moments.of(plan.y[:, kept], scored, weights)
            before = interventions.Moments.of(present, one.swapped[:, None], weights[:1])
        else:
            moments, before = whole.columns(kept), whole.columns(edge).estimate()
        sums.add(slice(0, steps - cut), (plan.y[:, kept] - y[:, kept]) ** 2, moments)
        ahead.add(slice(0, 1), _without_round_off(y[:, edge] - present, present) ** 2, before)
        took_part |= one.swapped
    return Found(sums, lags, plan.noise(), ahead, tuple(map(int, cuts)), int(took_part.sum()))


def by_lags(function, plan: Plan, lags: np.ndarray, batch_size: int) -> Found:
    """Last-step outputs: one pass per lag."""
    weights = plan.weights()
    y = plan.y[:, None]  # (batch, 1, outputs)
    sums = interventions.Sums.zeros(plan.resamples, len(lags), plan.y.shape[-1])
    took_part = np.zeros(len(plan.x), bool)
    passes = interventions.last_step_passes(plan.x, plan.mask, lags, plan.order, plan.block)
    for at, (one, changed) in enumerate(_answers(function, passes, plan, batch_size)):
        difference = (y - changed[:, None]) ** 2
        moments = interventions.Moments.of(y, one.swapped[:, None], weights)
        sums.add(slice(at, at + 1), difference, moments)
        took_part |= one.swapped
    return Found(sums, lags, plan.noise(), None, (), int(took_part.sum()))


def by_gradient(model, plan: Plan, first: int, probes: int, batch_size: int) -> Found:
    """Gradients: the rows' squared sensitivities, summed from the past inwards."""
    steps = plan.x.shape[1]
    if plan.output_step is not None:
        raise errors.ArgumentError(
            argument_message("output_step", "None with method='gradient'", plan.output_step)
        )
    if plan.last:
        last = last_real_step(plan.real)
        choices = [np.array([step]) for step in last]
    else:
        later = plan.real & (np.arange(steps) >= first)
        choices = [np.flatnonzero(row) for row in np.where(later.any(1)[:, None], later, plan.real)]
    keep = np.array([len(choice) > 0 and choice[0] >= 0 for choice in choices])
    if not keep.any():
        raise errors.DataError("`x` must have a row with real steps. Received: padding alone.")
    variance = plan.x[plan.real].astype(np.float64).var(axis=0)
    outputs = plan.y.shape[-1]
    squares, step, feature = sensitivities(
        model,
        plan.x[keep],
        variance,
        [choice for choice, kept in zip(choices, keep, strict=True) if kept],
        outputs,
        last=plan.last,
        probes=probes,
        batch_size=batch_size,
        rng=plan.rng,
    )
    # Column j of `tails`: what inputs at least j steps old do to the output asked about.
    by_age = np.zeros_like(squares)
    age = step[:, None] - np.arange(steps)
    row, column = np.nonzero(age >= 0)
    by_age[row, age[row, column]] = squares[row, column]
    tails = np.cumsum(by_age[:, ::-1], axis=1)[:, ::-1]
    total = squares.sum(axis=1)
    future = np.where(age < 0, squares, 0.0).sum(axis=1)

    lags = np.arange(1, max(int(step.max()), 1) + 1)
    weights = interventions.resampling_weights(
        interventions.rotation(int(keep.sum()), plan.block, plan.rng),
        plan.block,
        plan.resamples,
        plan.rng,
    )
    weights = np.tile(weights, probes)  # a row's probes are drawn together
    reached = step[:, None] >= lags
    sums = interventions.Sums.zeros(plan.resamples, len(lags), outputs)
    ahead = interventions.Sums.zeros(0, 1, outputs)
    for output in np.unique(feature):
        asked = feature == output
        sums.numerator[..., output] = weights[:, asked] @ (tails[:, lags] * reached)[asked]
        sums.denominator[..., output] = weights[:, asked] @ (total[:, None] * reached)[asked]
        sums.tested |= reached[asked].any(axis=0)
        ahead.numerator[..., output] = future[asked].sum()
        ahead.denominator[..., output] = total[asked].sum()
    constant = plan.y.reshape(-1, outputs).var(axis=0) <= plan.noise()
    floor = np.where(constant, np.inf, 0.0)
    return Found(sums, lags, floor, None if plan.last else ahead, (), int(keep.sum()))


def _answers(function, passes, plan: Plan, batch_size: int):
    """Runs several passes per call as long as they fit: a loop over time costs little more."""
    together = max(batch_size // len(plan.x), 1)
    passes = list(passes) if together > 1 else passes
    if together == 1:
        for one in passes:
            yield one, _answer(function, one.x, plan, batch_size)
        return
    for start in range(0, len(passes), together):
        group = passes[start : start + together]
        y = _answer(function, np.concatenate([one.x for one in group]), plan, batch_size)
        yield from zip(group, np.split(y, len(group)), strict=True)


def _answer(function, x: np.ndarray, plan: Plan, batch_size: int) -> np.ndarray:
    y = model_function.predict_in_batches(function, x, batch_size)
    if plan.output_step is not None:
        y = y[:, plan.output_step]
    if y[:1].size != plan.y[:1].size:
        raise errors.DataError(
            "The output must have the same shape for every batch. Received: "
            f"{y.shape[1:]} for {len(x)} rows, another for {len(plan.x)}."
        )
    return y.reshape(len(y), *plan.y.shape[1:])


def _without_round_off(change: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`change`, with what a matrix product owes to a row's place in the batch set to 0."""
    scale = np.abs(y).max(axis=(0, 1), initial=0.0)
    return np.where(np.abs(change) <= ROUND_OFF * scale, 0.0, change)
