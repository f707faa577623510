"""State leakage: how much an output owes to earlier inputs, normalized by its variance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics import functions, swap
from keras_seqzoo.diagnostics.gradient import sensitivities

THRESHOLD = 0.01
RESAMPLES = 200
_ROUND_OFF = 32 * float(np.finfo(np.float32).eps)


@dataclasses.dataclass(frozen=True)
class LeakageReport:
    """What `leakage` found. `str(report)` is a sentence and a table; `report.plot()` the profile.

    Attributes:
        index: float, what the output owes to all inputs before the present one, as a share of its
            variance; nan if no output varies. May exceed 1 on autocorrelated input.
        interval: (low, high), 95 % bootstrap interval of the index.
        standard_error: float, of the index, from the same bootstrap.
        lags: int array, the lags tested; lag k keeps the k newest steps.
        by_lag: float array, leakage at each of `lags`.
        by_lag_interval: `(2, lags)`, 95 % bootstrap interval of each.
        by_feature: float array, the index of each output feature; nan where it is constant.
        memory_horizon: int, the smallest tested k from which on leakage stays under `threshold`;
            None if the window ends first.
        look_ahead: float, what later inputs do to the present output; 0 for a causal model, None
            where it cannot be told (last-step outputs).
        degenerate: bool, whether an output feature is constant; those are left out of the means.
        threshold, method, scale, seed: as asked for.
        cuts: int tuple, first steps kept; empty for last-step outputs and for gradients.
        rows: int, rows that took part.
    """

    index: float
    interval: tuple[float, float]
    standard_error: float
    lags: np.ndarray
    by_lag: np.ndarray
    by_lag_interval: np.ndarray
    by_feature: np.ndarray
    memory_horizon: int | None
    look_ahead: float | None
    degenerate: bool
    threshold: float
    method: str
    scale: str
    seed: int
    cuts: tuple[int, ...]
    rows: int

    def plot(self, ax=None):
        """Draws the profile by lag with its interval; returns the matplotlib axes."""
        from keras_seqzoo.diagnostics.plots import plot_leakage

        return plot_leakage(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; nan and infinity become None."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        if np.isnan(self.index):
            return "State leakage is undefined: the output is constant and owes nothing to any input."
        low, high = self.interval
        horizon = (
            f"memory horizon {self.memory_horizon} steps"
            if self.memory_horizon is not None
            else f"memory horizon beyond {self.lags[-1]} steps"
        )
        lines = [
            f"The output owes {self.index:.3g} of its variance to inputs before the present one "
            f"(95 % interval {low:.3g} to {high:.3g}); {horizon} (threshold {self.threshold:g}).",
            "",
            "  newest steps kept   leakage",
        ]
        shown = [int(at) for at in np.unique(np.searchsorted(self.lags, _geometric(self.lags[-1])))]
        lines += [f"  {self.lags[at]:>17}   {self.by_lag[at]:.3g}" for at in shown]
        if self.look_ahead:
            lines.append(f"  Look-ahead: {self.look_ahead:.3g} of its variance is due to later inputs.")
        if self.degenerate:
            lines.append("  Some output features are constant; they are left out.")
        if self.index > 1 and not low <= 1:  # nan without resamples
            lines.append(
                "  Above 1: on autocorrelated input, another past than the true one moves the output "
                "more than it varies by itself."
            )
        return "\n".join(lines)


def leakage(
    model: Any,
    x: Any,
    *,
    method: str = "swap",
    cuts: int | Sequence[int] = 8,
    burn_in: int | None = None,
    mask: Any = None,
    output_step: int | None = None,
    scale: str = "feature",
    threshold: float = THRESHOLD,
    block: int = 1,
    probes: int = 16,
    resamples: int = RESAMPLES,
    batch_size: int = functions.BATCH_SIZE,
    seed: int = 0,
) -> LeakageReport:
    """Measures how much the output at a step depends on inputs before that step.

    A row keeps its newest steps and takes another row's past; what the output changes by, over
    twice its variance, is the leakage. For rows that are independent, with a past independent of
    what is kept, it is the total Sobol index of the past, between 0 and 1. On autocorrelated
    readings it is the normalized effect of an intervention (what if the past had been another) and
    may exceed 1: for `y = x_t - x_(t-1)` on slow input it is huge, rightly. It is never clipped.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for tokens. The output is
        `(batch, time, outputs)`, or `(batch, time)` for one score per step, or `(batch, outputs)`
        for the last step alone. A callable that gives `(batch, time)` is taken to score steps.
    Masking: padded rows are swapped only where they are real on both sides of the cut and with
        rows of the same past mask, each row keeps its own mask, and real steps alone are scored.
    State: none; stateful models are refused.

    Args:
        model: any Keras model of one input and one output, a loaded SavedModel, or a function from
            array to array.
        x: the rows. At least 2 rows and 2 steps.
        method: "swap", which needs nothing but the function, or "gradient", its local form: the
            share of the squared derivatives at earlier steps, with inputs weighted by their
            variance.
        cuts: int, how many cuts to spread over the window, or the cuts themselves, each in
            `[1, time - 1]`. For last-step outputs: how many lags to test (1, 2, 4, ... and the
            longest), or the cuts.
        burn_in: int, first cut allowed; default a quarter of the window, at least 1.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own.
        output_step: int, which output step to look at when the output is not aligned with the
            input's time, as an encoder-decoder's is not; all input before the last step is past.
        scale: "feature" takes the mean over output features, so that units of measurement do not
            matter; "none" pools them.
        threshold: float in (0, 1), for the memory horizon.
        block: int, rows that belong together: 1 for independent rows, `ceil(length / stride)` for
            overlapping windows of one series. The bootstrap keeps them together, and none takes
            its past from its own block.
        probes: int, backward passes of method "gradient".
        resamples: int, bootstrap resamples; 0 for no interval.
        batch_size: int, rows per call of the model.
        seed: int, at least 0. The same seed gives the same report.

    Returns:
        A `LeakageReport`.

    Raises:
        DataError: if `x`, the mask or the output has a shape, type or value that cannot be used.
        ArgumentError: if another argument cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(256, 40, 1))
    >>> print(round(zoo.leakage(lambda x: np.cumsum(x, axis=1), x).index, 1))
    1.0

    Reference: the total index is that of
    [Homma & Saltelli, 1996](https://doi.org/10.1016/0951-8320(96)00002-6).
    """
    errors.check_choice("method", method, ("swap", "gradient"))
    errors.check_choice("scale", scale, ("feature", "none"))
    errors.check_fraction(threshold=threshold)
    errors.check_positive(block=block, probes=probes)
    errors.check_seed(seed)
    if not errors.is_int(resamples) or resamples < 0:
        raise errors.ArgumentError(errors.sentence("resamples", "an int of at least 0", resamples))
    x, mask = functions.read_rows(model, x, mask, rows=2, steps=2)
    if isinstance(model, keras.Model) and np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    function = functions.as_function(model)
    answer = functions.run(function, x, batch_size)
    y, last = align(model, answer, x.shape[1], output_step)
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    _check_output(y, None if last else real)
    rng = np.random.default_rng(seed)
    plan = _Plan(
        x, y, mask, real, last, output_step, block, swap.rotation(len(x), block, rng), rng, resamples
    )
    first = _burn_in(burn_in, x.shape[1])
    if method == "gradient":
        found = _by_gradient(model, plan, first, probes, batch_size)
    elif last:
        found = _by_lags(function, plan, _lags(cuts, x.shape[1]), batch_size)
    else:
        found = _by_cuts(function, plan, _cuts(cuts, first, x.shape[1]), batch_size)
    return _report(found, method, scale, threshold, seed)


@dataclasses.dataclass
class _Plan:
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
        return swap.resampling_weights(self.order, self.block, self.resamples, self.rng)

    def noise(self) -> np.ndarray:
        """Variance under which an output feature counts as constant, `(outputs,)`."""
        scored = self.y if self.last else self.y[self.real]
        return (_ROUND_OFF * np.abs(scored).max(axis=0, initial=0.0)) ** 2 + np.finfo(np.float64).tiny


@dataclasses.dataclass
class _Found:
    """Sums by lag and for the other side of the cut, from one method."""

    sums: swap.Sums
    lags: np.ndarray
    floor: np.ndarray  # (outputs,), denominators under it have no variance to explain
    ahead: swap.Sums | None
    cuts: tuple[int, ...]
    rows: int


def _by_cuts(function, plan: _Plan, cuts: np.ndarray, batch_size: int) -> _Found:
    """Sequence outputs: one pass per cut gives the whole profile, and the look-ahead for nothing."""
    steps, outputs = plan.y.shape[1:]
    lags = np.arange(1, steps - cuts[0] + 1)
    weights = plan.weights()
    sums = swap.Sums.zeros(plan.resamples, len(lags), outputs)
    ahead = swap.Sums.zeros(0, 1, outputs)
    took_part = np.zeros(len(plan.x), bool)
    passes = swap.sequence_passes(plan.x, plan.mask, cuts, plan.order, plan.block)
    for one, y in _answers(function, passes, plan, batch_size):
        cut = int(one.cut[0])
        scored = plan.real[:, cut:] & one.swapped[:, None]
        sums.add(
            slice(0, steps - cut), (plan.y[:, cut:] - y[:, cut:]) ** 2, plan.y[:, cut:], scored,
            weights,
        )  # fmt: skip
        # Seen from the donor, the same pass kept its past and present and changed its future.
        present = plan.y[one.donor, cut - 1 : cut]
        change = _without_round_off(y[:, cut - 1 : cut] - present, present)
        ahead.add(
            slice(0, 1), change**2, present, one.swapped[:, None], np.ones((1, len(plan.x)))
        )
        took_part |= one.swapped
    return _Found(sums, lags, plan.noise(), ahead, tuple(map(int, cuts)), int(took_part.sum()))


def _by_lags(function, plan: _Plan, lags: np.ndarray, batch_size: int) -> _Found:
    """Last-step outputs: one pass per lag."""
    weights = plan.weights()
    y = plan.y[:, None]  # (batch, 1, outputs)
    sums = swap.Sums.zeros(plan.resamples, len(lags), plan.y.shape[-1])
    took_part = np.zeros(len(plan.x), bool)
    passes = swap.last_step_passes(plan.x, plan.mask, lags, plan.order, plan.block)
    for at, (one, changed) in enumerate(_answers(function, passes, plan, batch_size)):
        difference = (y - changed[:, None]) ** 2
        sums.add(slice(at, at + 1), difference, y, one.swapped[:, None], weights)
        took_part |= one.swapped
    return _Found(sums, lags, plan.noise(), None, (), int(took_part.sum()))


def _by_gradient(model, plan: _Plan, first: int, probes: int, batch_size: int) -> _Found:
    """Gradients: the rows' squared sensitivities, summed from the past inwards."""
    rows, steps = plan.x.shape[:2]
    if plan.output_step is not None:
        raise errors.ArgumentError(
            errors.sentence("output_step", "None with method='gradient'", plan.output_step)
        )
    if plan.last:
        last = swap.last_real_step(plan.real)
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
    weights = swap.resampling_weights(
        swap.rotation(int(keep.sum()), plan.block, plan.rng), plan.block, plan.resamples, plan.rng
    )
    weights = np.tile(weights, probes)  # a row's probes are drawn together
    reached = step[:, None] >= lags
    sums = swap.Sums.zeros(plan.resamples, len(lags), outputs)
    ahead = swap.Sums.zeros(0, 1, outputs)
    for output in np.unique(feature):
        asked = feature == output
        sums.numerator[..., output] = weights[:, asked] @ (tails[:, lags] * reached)[asked]
        sums.denominator[..., output] = weights[:, asked] @ (total[:, None] * reached)[asked]
        sums.tested |= reached[asked].any(axis=0)
        ahead.numerator[..., output] = future[asked].sum()
        ahead.denominator[..., output] = total[asked].sum()
    constant = plan.y.reshape(-1, outputs).var(axis=0) <= plan.noise()
    floor = np.where(constant, np.inf, 0.0)
    return _Found(sums, lags, floor, None if plan.last else ahead, (), int(keep.sum()))


def _report(found: _Found, method, scale, threshold, seed) -> LeakageReport:
    if not found.sums.tested[0]:
        raise errors.DataError(
            "`x` must have two rows with the same mask that are real on both sides of a cut. "
            "Received: none. Pad rows to fewer different lengths, or choose earlier cuts."
        )
    lags = found.lags[found.sums.tested]
    values = found.sums.leakage(found.floor, scale)[:, found.sums.tested]  # (1 + resamples, lags)
    index, by_lag = float(values[0, 0]), values[0]
    interval, error = _interval(values)
    numerator, denominator = found.sums.numerator[0, 0], found.sums.denominator[0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        by_feature = np.where(denominator > found.floor, numerator / denominator, np.nan)
    ahead = found.ahead and float(found.ahead.leakage(found.floor, scale)[0, 0])
    return LeakageReport(
        index=index,
        interval=(float(interval[0, 0]), float(interval[1, 0])),
        standard_error=error,
        lags=lags,
        by_lag=by_lag,
        by_lag_interval=interval,
        by_feature=by_feature,
        memory_horizon=_horizon(lags, by_lag, threshold),
        look_ahead=ahead,
        degenerate=bool(np.isnan(by_feature).any()),
        threshold=float(threshold),
        method=method,
        scale=scale,
        seed=int(seed),
        cuts=found.cuts,
        rows=found.rows,
    )


def _interval(values: np.ndarray) -> tuple[np.ndarray, float]:
    """95 % interval by lag `(2, lags)`, and the index's standard error, from the resamples."""
    interval, error = np.full((2, values.shape[1]), np.nan), float("nan")
    known = ~np.isnan(values[1:])
    for lag in np.flatnonzero(known.any(axis=0)):
        interval[:, lag] = np.quantile(values[1:, lag][known[:, lag]], (0.025, 0.975))
    if known[:, :1].any():
        error = float(values[1:, 0][known[:, 0]].std())
    return interval, error


def align(model, answer: np.ndarray, steps: int, output_step: int | None):
    """The output as `(batch, time, outputs)`, or as `(batch, outputs)` and True for one step.

    Raises:
        DataError: if the output is not aligned with the input's time and `output_step` is None.
    """
    y = answer.astype(np.float64)
    if output_step is not None:
        if not errors.is_int(output_step) or y.ndim < 2 or not (
            -y.shape[1] <= output_step < y.shape[1]
        ):
            raise errors.ArgumentError(
                errors.sentence("output_step", f"a step of an output of shape {y.shape}", output_step)
            )
        return y[:, output_step].reshape(len(y), -1), True
    if y.ndim == 1:
        return y[:, None], True
    if y.ndim == 2:
        last = y.shape[1] != steps
        if isinstance(model, keras.Model):  # its own shape tells features from time
            last = model.output_shape[1] is not None
        return (y, True) if last else (y[..., None], False)
    if y.shape[1] != steps:
        raise errors.DataError(
            f"The output has {y.shape[1]} steps where the input has {steps}, so that they are not "
            "aligned in time. Say which output step to look at with output_step=."
        )
    return y.reshape(*y.shape[:2], -1), False


def _answers(function, passes, plan: _Plan, batch_size: int):
    """Runs several passes per call as long as they fit: a loop over time costs little more for it."""
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


def _answer(function, x: np.ndarray, plan: _Plan, batch_size: int) -> np.ndarray:
    y = functions.run(function, x, batch_size).astype(np.float64)
    if plan.output_step is not None:
        y = y[:, plan.output_step]
    return y.reshape(len(y), *plan.y.shape[1:])


def _check_output(y: np.ndarray, real: np.ndarray | None) -> None:
    scored = y if real is None else y[real]
    if not np.isfinite(scored).all():
        raise errors.DataError(
            f"The output must be finite. Received: {np.count_nonzero(~np.isfinite(scored))} values "
            "that are NaN or infinite. Has the model diverged?"
        )


def _burn_in(burn_in: int | None, steps: int) -> int:
    if burn_in is None:
        return max(steps // 4, 1)
    if not errors.is_int(burn_in) or not 1 <= burn_in < steps:
        raise errors.ArgumentError(errors.sentence("burn_in", f"an int in [1, {steps - 1}]", burn_in))
    return int(burn_in)


def _cuts(cuts: int | Sequence[int], first: int, steps: int) -> np.ndarray:
    if errors.is_int(cuts):
        errors.check_positive(cuts=cuts)
        return np.unique(np.linspace(first, steps - 1, int(cuts)).round().astype(int))
    return _check_cuts(cuts, steps)


def _lags(cuts: int | Sequence[int], steps: int) -> np.ndarray:
    if errors.is_int(cuts):
        errors.check_positive(cuts=cuts)
        lags = _geometric(steps - 1)
        return lags if len(lags) <= cuts else np.append(lags[: int(cuts) - 1], lags[-1])
    return np.sort(steps - _check_cuts(cuts, steps))


def _check_cuts(cuts: Sequence[int], steps: int) -> np.ndarray:
    try:
        found = sorted({cut for cut in cuts if errors.is_int(cut) and 1 <= cut < steps})
        valid = bool(found) and len(found) == len(set(cuts))
    except TypeError:
        valid = False
    if not valid:
        raise errors.ArgumentError(
            errors.sentence("cuts", f"a positive int or ints in [1, {steps - 1}]", cuts)
        )
    return np.array(found)


def _geometric(highest: int) -> np.ndarray:
    """1, 2, 4, ... and `highest`."""
    return np.unique([min(2**power, highest) for power in range(int(highest).bit_length() + 1)])


def _horizon(lags: np.ndarray, by_lag: np.ndarray, threshold: float) -> int | None:
    above = np.flatnonzero(~(by_lag < threshold))  # nan is not below
    if not len(above):
        return int(lags[0])
    return int(lags[above[-1] + 1]) if above[-1] + 1 < len(lags) else None


def _without_round_off(change: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`change`, with what a matrix product owes to a row's place in the batch set to 0."""
    scale = np.abs(y).max(axis=(0, 1), initial=0.0)
    return np.where(np.abs(change) <= _ROUND_OFF * scale, 0.0, change)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
