"""State leakage of a model: history dependence of the output.

It is the share of the output's variance that is due to inputs before the present one (total Sobol
index of the past). It has nothing to do with train/test data leakage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.bootstrap import RESAMPLES
from keras_seqzoo.diagnostics.lags import distinct_ints, geometric_lags
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.estimators import (
    LeakageEstimate,
    LeakageInputs,
    estimate_by_cuts,
    estimate_by_gradient,
    estimate_by_lags,
)
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
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
    """State leakage and memory horizon of a model on given rows.

    State leakage is the history dependence of the output: the share of its variance that is due to
    inputs before the present one (total Sobol index of the past); nothing to do with train/test
    data leakage.

    Each row keeps its newest `k` steps and takes the earlier steps of another row. Leakage at lag
    `k` is the mean squared change of the output over twice its variance; the index is that of lag
    1. For independent rows whose past is independent of the kept steps, it is the total Sobol index
    and lies in [0, 1]. On autocorrelated readings it is the normalized effect of an intervention
    (what if the past had been another), and it may exceed 1: for `y = x_t - x_(t-1)` on slow input
    it is very large. It is never clipped.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for tokens. The output is
        `(batch, time, outputs)`, or `(batch, time)` for one score per step, or `(batch, outputs)`
        for the last step alone. The output `(batch, time)` of a callable counts as one score per
        step.
    Masking: padded rows are swapped only where they are real on both sides of the cut, and only
        with rows of the same past mask. Each row keeps its own mask. Only real steps are scored.
    State: none; stateful models are refused.

    Args:
        model: a Keras model with one input and one output, a loaded SavedModel, or a function from
            array to array.
        x: the rows. At least 2 rows and 2 steps.
        method: "swap" needs nothing but the function. "gradient" is the local form: the share of
            the squared derivatives at earlier steps, with input features weighted by their
            variance.
        cuts: int, number of cuts spread over the window; or the cuts themselves, ints in
            `[1, time - 1]`. For last-step outputs: the number of lags to test (1, 2, 4, ... and the
            longest), or the cuts.
        burn_in: int, first cut allowed; default a quarter of the window, at least 1.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own mask.
        output_step: int, the output step to measure when output and input are not aligned in time,
            as in an encoder-decoder. All input before the last step is then the past.
        scale: "feature" is the mean over output features, independent of their units of
            measurement; "none" pools the features.
        threshold: float in (0, 1), for the memory horizon.
        block: int, rows that belong together: 1 for independent rows, `ceil(length / stride)` for
            overlapping windows of one series. The bootstrap keeps blocks together, and no row takes
            its past from its own block.
        probes: int, backward passes of method "gradient".
        resamples: int, bootstrap resamples; 0 for no interval.
        batch_size: int, rows per call of the model.
        seed: int, at least 0. The same seed gives the same report.

    Returns:
        A `LeakageReport`.

    Raises:
        DataError: if `x`, the mask or the output has an unusable shape, type or value.
        ArgumentError: if another argument is invalid.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(256, 40, 1))
    >>> print(round(zoo.leakage(lambda x: np.cumsum(x, axis=1), x).index, 1))
    1.0

    Reference: [Homma & Saltelli, 1996](https://doi.org/10.1016/0951-8320(96)00002-6), for the total
    Sobol index
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
            f"`block` must be at most half of the {len(x)} rows, so that each row can take "
            f"another block's past. Received: block={block}. Use a larger stride or a longer "
            "series."
        )
    function = model_function.as_function(model)
    outputs = model_function.predict_in_batches(function, x, batch_size)
    y, last_only = model_function.align_output(model, outputs, x.shape[1], output_step)
    rng = np.random.default_rng(seed)
    inputs = LeakageInputs(
        x=x,
        y=y,
        mask=mask,
        real=np.ones(x.shape[:2], bool) if mask is None else mask,
        last_only=last_only,
        output_step=output_step,
        block=block,
        order=interventions.shuffled_blocks(len(x), block, rng),
        rng=rng,
        resamples=resamples,
    )
    model_function.check_output(inputs.scored())
    first = first_cut(burn_in, x.shape[1])
    if method == "gradient":
        estimate = estimate_by_gradient(model, inputs, first, probes, batch_size)
    elif last_only:
        estimate = estimate_by_lags(function, inputs, _lags(cuts, x.shape[1]), batch_size)
    else:
        spread = spread_cuts(cuts, first, x.shape[1])
        estimate = estimate_by_cuts(function, inputs, spread, batch_size)
    return _report(estimate, method, scale, threshold, seed)


def _report(
    estimate: LeakageEstimate, method: str, scale: str, threshold: float, seed: int
) -> LeakageReport:
    sums, floor = estimate.sums, estimate.floor
    if not sums.tested[0]:
        raise errors.DataError(
            "`x` must have two rows with the same mask that are real on both sides of a cut. "
            "Received: none. Pad rows to fewer different lengths, or choose earlier cuts."
        )
    lags = estimate.lags[sums.tested]
    values = sums.leakage(floor, scale)[:, sums.tested]  # (1 + resamples, lags)
    by_lag = values[0]
    interval, standard_error = _interval(values)
    numerator, denominator = sums.numerator[0, 0], sums.denominator[0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        by_feature = np.where(denominator > floor, numerator / denominator, np.nan)
    look_ahead = None
    if estimate.look_ahead is not None:
        look_ahead = float(estimate.look_ahead.leakage(floor, scale)[0, 0])
    return LeakageReport(
        index=float(by_lag[0]),
        interval=(float(interval[0, 0]), float(interval[1, 0])),
        standard_error=standard_error,
        lags=lags,
        by_lag=by_lag,
        by_lag_interval=interval,
        by_feature=by_feature,
        memory_horizon=_memory_horizon(lags, by_lag, threshold),
        look_ahead=look_ahead,
        degenerate=bool(np.isnan(by_feature).any()),
        threshold=float(threshold),
        method=method,
        scale=scale,
        seed=int(seed),
        cuts=estimate.cuts,
        rows=estimate.rows,
    )


def _interval(values: np.ndarray) -> tuple[np.ndarray, float]:
    """95 % interval by lag `(2, lags)`, and the standard error of the index."""
    interval, standard_error = np.full((2, values.shape[1]), np.nan), float("nan")
    resampled = values[1:]
    defined = ~np.isnan(resampled)
    for lag in np.flatnonzero(defined.any(axis=0)):
        interval[:, lag] = np.quantile(resampled[:, lag][defined[:, lag]], (0.025, 0.975))
    if defined[:, :1].any():
        standard_error = float(resampled[:, 0][defined[:, 0]].std())
    return interval, standard_error


def first_cut(burn_in: int | None, steps: int) -> int:
    """The first cut allowed: `burn_in`, or a quarter of the window."""
    if burn_in is None:
        return max(steps // 4, 1)
    if not is_int(burn_in) or not 1 <= burn_in < steps:
        raise errors.ArgumentError(
            argument_message("burn_in", f"an int in [1, {steps - 1}]", burn_in)
        )
    return int(burn_in)


def spread_cuts(cuts: Any, first: int, steps: int) -> np.ndarray:
    """Cuts in ascending order: `cuts` many, evenly spaced from `first` on; or `cuts` themselves.

    Args:
        cuts: int, or a collection of ints in `[1, steps - 1]`.
        first: int, the first cut of an even spacing.
        steps: int, length of the window.
    """
    if is_int(cuts):
        check_positive(cuts=cuts)
        spaced = np.linspace(first, steps - 1, min(int(cuts), steps))
        return np.unique(spaced.round().astype(int))
    return _check_cuts(cuts, steps)


def _lags(cuts: Any, steps: int) -> np.ndarray:
    if is_int(cuts):
        check_positive(cuts=cuts)
        lags = geometric_lags(steps - 1)
        return lags if len(lags) <= cuts else np.unique([1, *lags[: int(cuts) - 1], lags[-1]])
    return np.union1d([1], steps - _check_cuts(cuts, steps))  # the index is leakage(1)


def _check_cuts(cuts: Any, steps: int) -> np.ndarray:
    valid = distinct_ints(cuts, 1, steps - 1)
    if valid is None:
        raise errors.ArgumentError(
            argument_message("cuts", f"a positive int or ints in [1, {steps - 1}]", cuts)
        )
    return valid


def _memory_horizon(lags: np.ndarray, by_lag: np.ndarray, threshold: float) -> int | None:
    above = np.flatnonzero(~(by_lag < threshold))  # nan is not below
    if not len(above):
        return int(lags[0])
    return int(lags[above[-1] + 1]) if above[-1] + 1 < len(lags) else None
