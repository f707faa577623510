"""State leakage: how much an output owes to earlier inputs, normalized by its variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.estimators import Found, Plan, by_cuts, by_gradient, by_lags
from keras_seqzoo.diagnostics.leakage.report import LeakageReport, geometric
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    check_seed,
    is_int,
)

THRESHOLD = 0.01
RESAMPLES = 200


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
    batch_size: int = model_function.BATCH_SIZE,
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
    check_choice("method", method, ("swap", "gradient"))
    check_choice("scale", scale, ("feature", "none"))
    check_fraction(threshold=threshold)
    check_positive(block=block, probes=probes)
    check_seed(seed)
    check_count(resamples=resamples)
    x, mask = model_function.prepare_inputs(model, x, mask, rows=2, steps=2)
    if 2 * block > len(x):
        raise errors.ArgumentError(
            f"`block` must be at most half of the {len(x)} rows, so that each row can take another "
            f"block's past. Received: block={block}. Use a larger stride or a longer record."
        )
    function = model_function.as_function(model)
    answer = model_function.predict_in_batches(function, x, batch_size)
    y, last = model_function.align_output(model, answer, x.shape[1], output_step)
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    rng = np.random.default_rng(seed)
    plan = Plan(
        x,
        y,
        mask,
        real,
        last,
        output_step,
        block,
        interventions.rotation(len(x), block, rng),
        rng,
        resamples,
    )
    model_function.check_output(plan.scored())
    first = first_cut(burn_in, x.shape[1])
    if method == "gradient":
        found = by_gradient(model, plan, first, probes, batch_size)
    elif last:
        found = by_lags(function, plan, _lags(cuts, x.shape[1]), batch_size)
    else:
        found = by_cuts(function, plan, spread_cuts(cuts, first, x.shape[1]), batch_size)
    return _report(found, method, scale, threshold, seed)


def _report(found: Found, method, scale, threshold, seed) -> LeakageReport:
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


def first_cut(burn_in: int | None, steps: int) -> int:
    """The first cut allowed: `burn_in`, or a quarter of the window."""
    if burn_in is None:
        return max(steps // 4, 1)
    if not is_int(burn_in) or not 1 <= burn_in < steps:
        raise errors.ArgumentError(
            argument_message("burn_in", f"an int in [1, {steps - 1}]", burn_in)
        )
    return int(burn_in)


def spread_cuts(cuts: int | Sequence[int], first: int, steps: int) -> np.ndarray:
    """That many cuts, evenly from the first one on; or those given."""
    if is_int(cuts):
        check_positive(cuts=cuts)
        spread = np.linspace(first, steps - 1, min(int(cuts), steps))
        return np.unique(spread.round().astype(int))
    return _check_cuts(cuts, steps)


def _lags(cuts: int | Sequence[int], steps: int) -> np.ndarray:
    if is_int(cuts):
        check_positive(cuts=cuts)
        lags = geometric(steps - 1)
        return lags if len(lags) <= cuts else np.unique([1, *lags[: int(cuts) - 1], lags[-1]])
    return np.union1d([1], steps - _check_cuts(cuts, steps))  # the index is leakage(1)


def _check_cuts(cuts: Sequence[int], steps: int) -> np.ndarray:
    try:
        found = sorted({cut for cut in cuts if is_int(cut) and 1 <= cut < steps})
        valid = bool(found) and len(found) == len(set(cuts))
    except TypeError:
        valid = False
    if not valid:
        raise errors.ArgumentError(
            argument_message("cuts", f"a positive int or ints in [1, {steps - 1}]", cuts)
        )
    return np.array(found)


def _horizon(lags: np.ndarray, by_lag: np.ndarray, threshold: float) -> int | None:
    above = np.flatnonzero(~(by_lag < threshold))  # nan is not below
    if not len(above):
        return int(lags[0])
    return int(lags[above[-1] + 1]) if above[-1] + 1 < len(lags) else None
