"""Recoverability: how much of an earlier input a linear read-out finds in the output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.leakage import interventions
from keras_seqzoo.diagnostics.leakage.estimators import ROUND_OFF
from keras_seqzoo.diagnostics.leakage.leakage import RESAMPLES
from keras_seqzoo.diagnostics.recoverability.report import RecoverabilityReport
from keras_seqzoo.diagnostics.recoverability.ridge import Directions
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
from keras_seqzoo.utils.masks import last_real_step

LEAST_ROWS = 4  # two to learn from and two to be tried on


def recoverability(
    model: Any,
    x: Any,
    *,
    lags: int | Sequence[int] | None = None,
    readout: str = "ridge",
    layer: str | None = None,
    held_out: float = 0.5,
    burn_in: int = 0,
    mask: Any = None,
    output_step: int | None = None,
    block: int = 1,
    resamples: int = RESAMPLES,
    batch_size: int = model_function.BATCH_SIZE,
    seed: int = 0,
) -> RecoverabilityReport:
    """Measures how well earlier inputs can be read out of the output at a step, linearly.

    For every lag k and input feature, a ridge regression from the output `y_t` to the input
    `x_(t-k)` is learned on some rows and tried on the others: the recoverability is its R^2 there,
    1 where the input follows from the output, 0 where the output tells nothing. It may be negative
    on rows it was not learned on, and is shown as it is. One read-out serves all steps.

    The sum over lags and features is the memory capacity. For inputs that are independent from
    step to step and from feature to feature it is at most the rank of the output, up to sampling
    error. On other inputs that ceiling does not hold: for the memoryless `y = x` of a slow series,
    of rank 1, the present tells the past as well, and the capacity is as long as the series is
    slow. It counts linear read-outs alone: what a nonlinear one would find may be more.

    Ridge strength: for each lag and feature that of 37 strengths, from 1e-12 to 1e6 times the
    variance of a standardized output, with the least generalized cross-validation score on the
    training steps. Directions of the output below float32's round-off count neither for the rank
    nor in the read-out.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for one reading per step. The
        output is `(batch, time, outputs)`, or `(batch, time)`, or `(batch, outputs)` for the last
        step alone.
    Masking: a step is scored if it and all lags before it are real, so that all lags are tried on
        the same steps; of a last-step output, the lags count from the last real step. Rows without
        such a step take no part.
    State: none; stateful models are refused.

    Args:
        model: any Keras model of one input and one output, a loaded SavedModel, or a function from
            array to array.
        x: the rows, of readings. At least 4.
        lags: int, how many of the newest inputs to look for (lags 0 to `lags - 1`), or the lags
            themselves; default half of the window. The capacity is the sum over these.
        readout: "ridge", the only one.
        layer: str, name of the layer to look at in place of the model's output.
        held_out: float in (0, 1), share of the rows to try the read-out on.
        burn_in: int, at least 0, first steps that are not scored; those without all lags before
            them never are.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own.
        output_step: int, which output step to look at when the output is not aligned with the
            input's time; lags count from the last real input then.
        block: int, rows that belong together: 1 for independent rows, `ceil(length / stride)` for
            overlapping windows of one series. With more than 1 the last rows are held out, those
            that overlap both sides are left out, and the bootstrap keeps blocks together.
        resamples: int, bootstrap resamples of the held-out rows; 0 for no interval.
        batch_size: int, rows per call of the model.
        seed: int, at least 0. The same seed gives the same report.

    Returns:
        A `RecoverabilityReport`.

    Raises:
        DataError: if `x`, the mask or the output has a shape, type or value that cannot be used.
        ArgumentError: if another argument cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(64, 40, 1))
    >>> report = zoo.diagnostics.recoverability(lambda x: x + 2 * np.roll(x, 1, axis=1), x, lags=4)
    >>> print([round(float(value), 1) for value in report.by_lag], report.rank)
    [0.2, 0.8, -0.0, -0.0] 1

    Reference: [Jaeger, 2001, Short term memory in echo state networks, GMD Report
    152](https://www.ai.rug.nl/minds/uploads/STMEchoStatesTechRep.pdf)
    """
    check_choice("readout", readout, ("ridge",))
    check_fraction(held_out=held_out)
    check_positive(block=block)
    check_seed(seed)
    check_count(resamples=resamples, burn_in=burn_in)
    x, mask = model_function.prepare_inputs(model, x, mask, rows=LEAST_ROWS)
    _check_readings(model, x)
    tested = _tested_lags(lags, x.shape[1])
    function = model_function.as_function(model_function.truncate_at_layer(model, layer))
    answer = model_function.predict_in_batches(function, x, batch_size)
    y, last = model_function.align_output(
        model if layer is None else None, answer, x.shape[1], output_step
    )
    scored = _scored_steps(x, mask, tested, burn_in, last)
    rng = np.random.default_rng(seed)
    rows = _split(np.flatnonzero(scored.any(axis=1)), held_out, block, rng)
    train, tried = (_Side.of(x, y, scored, part) for part in rows)
    model_function.check_output(np.concatenate([train.outputs, tried.outputs]))
    directions = Directions.of(train.outputs, tried.outputs, ROUND_OFF)
    order = np.arange(len(rows[1]))  # in the order of the record, so that stretches hold blocks
    weights = interventions.resampling_weights(order, block, resamples, rng)
    values = np.stack([_by_feature(directions, train, tried, lag, weights) for lag in tested], 1)
    return _report(
        values,
        lags=tested,
        rank=directions.rank,
        outputs=y.shape[-1],
        rows=len(rows[1]),
        training_rows=len(rows[0]),
        layer=layer,
        seed=int(seed),
    )


@dataclasses.dataclass(frozen=True)
class _Side:
    """The scored steps of some rows, row after row."""

    x: np.ndarray  # (batch, time, features)
    row: np.ndarray  # (steps,), of x
    step: np.ndarray  # (steps,)
    outputs: np.ndarray  # (steps, outputs)

    @classmethod
    def of(cls, x, y, scored, rows) -> _Side:
        at, step = np.nonzero(scored[rows])
        row = rows[at]
        outputs = y[row] if y.ndim == 2 else y[row, step]
        return cls(x.reshape(*x.shape[:2], -1), row, step, outputs)

    def target(self, lag: int) -> np.ndarray:
        """The inputs that many steps before, `(steps, features)`."""
        return self.x[self.row, self.step - lag].astype(np.float64)

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Sums of `(steps, features)` over each row's steps, `(rows, features)`."""
        return np.add.reduceat(values, np.flatnonzero(np.diff(self.row, prepend=-1)))


def _by_feature(directions, train: _Side, tried: _Side, lag: int, weights) -> np.ndarray:
    """R^2 of every feature at one lag, `(1 + resamples, features)`; nan where it is constant."""
    target = train.target(lag)
    mean, largest = target.mean(axis=0), np.abs(target).max(axis=0)
    residual = tried.target(lag) - directions.predict(target)
    found = tried.target(lag) - mean  # keeps the variance from cancelling
    count = weights @ tried.by_row(np.ones((len(found), 1)))  # (1 + resamples, 1)
    error = weights @ tried.by_row(residual**2)
    total = weights @ tried.by_row(found**2) - (weights @ tried.by_row(found)) ** 2 / count
    varies = total > count * (ROUND_OFF * largest) ** 2 + np.finfo(np.float64).tiny
    return np.where(varies, 1 - error / np.where(varies, total, 1.0), np.nan)


def _report(values: np.ndarray, **known) -> RecoverabilityReport:
    """The report of R^2 `(1 + resamples, lags, features)`; row 0 is the estimate."""
    values = np.where(np.isnan(values), values[:1], values)  # a resample without variance
    constant = np.isnan(values[0])
    some = ~constant.all(axis=-1)  # lags
    mean = np.where(constant, 0.0, values).sum(axis=-1) / np.maximum((~constant).sum(axis=-1), 1)
    by_lag = np.where(some, mean, np.nan)  # (1 + resamples, lags)
    total = np.where(constant, 0.0, values).sum(axis=(1, 2)) if some.any() else by_lag[:, 0]
    low, high = _interval(total)
    return RecoverabilityReport(
        capacity=float(total[0]),
        interval=(float(low), float(high)),
        standard_error=float(total[1:].std()) if len(total) > 1 else float("nan"),
        by_lag=by_lag[0],
        by_lag_interval=_interval(by_lag),
        by_feature=values[0],
        by_feature_interval=_interval(values),
        degenerate=bool(constant.any()),
        **known,
    )


def _interval(values: np.ndarray) -> np.ndarray:
    """95 % interval, `(2, ...)`, from the resamples; nan without any."""
    if len(values) == 1:
        return np.full((2, *values.shape[1:]), np.nan)
    return np.quantile(values[1:], (0.025, 0.975), axis=0)


def _check_readings(model: Any, x: np.ndarray) -> None:
    """Tokens are names: the distance from a read-out to a token's number means nothing."""
    takes = model.inputs[0].dtype if getattr(model, "inputs", None) else "float32"
    whole = not np.issubdtype(x.dtype, np.floating)
    if (x.ndim == 2 and whole) or keras.backend.is_int_dtype(takes):
        raise errors.DataError(
            "`x` must be readings: tokens are names, which no linear read-out finds. Received: "
            f"shape {x.shape}, dtype {x.dtype}. Pass vectors as `x`, embedded or one per token, "
            "and as `model` the layers that take them."
        )


def _tested_lags(lags: int | Sequence[int] | None, steps: int) -> np.ndarray:
    if lags is None:
        return np.arange(max(steps // 2, 1))
    if is_int(lags):
        valid, found = 1 <= lags <= steps, range(int(lags)) if 1 <= lags <= steps else []
    else:
        try:
            found = sorted({lag for lag in lags if is_int(lag) and 0 <= lag < steps})
            valid = bool(found) and len(found) == len(set(lags))
        except TypeError:
            valid = False
    if not valid:
        expected = f"an int in [1, {steps}], how many, or ints in [0, {steps - 1}]"
        raise errors.ArgumentError(argument_message("lags", expected, lags))
    return np.array(found)


def _scored_steps(x, mask, lags, burn_in: int, last: bool) -> np.ndarray:
    """Steps that are real and have real inputs at every lag, `(batch, time)`."""
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    scored = real.copy()
    scored[:, : min(max(burn_in, lags[-1]), x.shape[1])] = False
    for lag in lags[lags > 0]:
        scored[:, lag:] &= real[:, :-lag]
    if last:
        scored &= np.arange(x.shape[1]) == last_real_step(real)[:, None]
    return scored


def _split(rows: np.ndarray, held_out: float, block: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to try the read-out on."""
    if len(rows) < LEAST_ROWS * block:
        blocks = "" if block == 1 else f" blocks of {block} rows"
        raise errors.DataError(
            f"`x` must have at least {LEAST_ROWS}{blocks or ' rows'} with steps that are real and "
            f"have real inputs at every lag. Received: {len(rows)} rows. Use fewer lags, a smaller "
            "burn_in or more rows."
        )
    tried = int(np.clip(round(held_out * len(rows)), 2 * block, len(rows) - 2 * block))
    if block == 1:
        mixed = rng.permutation(rows)
        return np.sort(mixed[tried:]), np.sort(mixed[:tried])
    later = rows[-tried:]
    return rows[rows <= later[0] - block], later  # those between overlap both
