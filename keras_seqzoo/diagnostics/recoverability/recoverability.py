"""Recoverability: how well a linear read-out predicts an earlier input from the output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.bootstrap import RESAMPLES, resampling_weights
from keras_seqzoo.diagnostics.lags import distinct_ints
from keras_seqzoo.diagnostics.leakage.estimators import ROUND_OFF
from keras_seqzoo.diagnostics.recoverability.report import RecoverabilityReport
from keras_seqzoo.diagnostics.recoverability.ridge import PrincipalComponents
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

MIN_ROWS = 4  # two for training and two held out


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
    """Recoverability of earlier inputs from the output, by lag, and memory capacity.

    For every lag k and input feature, a ridge regression predicts the input `x_(t-k)` from the
    output `y_t`. It is trained on some rows, and the recoverability is its R^2 on the held-out
    rows: 1 where the output determines the input linearly, 0 where it carries no linear
    information. It may be negative on held-out rows and is not clipped. One read-out serves all
    steps.

    The sum over lags and features is the memory capacity. For inputs that are independent between
    steps and between features it is at most the rank of the output, up to sampling error. On other
    inputs that ceiling does not hold: for the memoryless `y = x` of a slow series, of rank 1, the
    present predicts the past as well, and the capacity grows with the correlation time. Only linear
    read-outs count; a nonlinear one may predict more.

    The ridge strength of each lag and feature minimizes generalized cross-validation on the
    training steps, over 37 strengths from 1e-12 to 1e6 times the variance of a standardized output.
    Principal components of the output below float32's round-off count neither for the rank nor in
    the read-out.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for one reading per step. The
        output is `(batch, time, outputs)`, or `(batch, time)`, or `(batch, outputs)` for the last
        step alone.
    Masking: a step is scored if it and the steps at all lags before it are real, so that all lags
        are scored on the same steps. For a last-step output, lags count from the last real step.
        Rows without such a step take no part.
    State: none; stateful models are refused.

    Args:
        model: a Keras model with one input and one output, a loaded SavedModel, or a function from
            array to array.
        x: the rows, of readings. At least 4.
        lags: int, number of newest inputs to recover (lags 0 to `lags - 1`), or the lags
            themselves; default half of the window. The capacity is the sum over these.
        readout: "ridge", the only choice.
        layer: str, name of the layer to read instead of the model's output.
        held_out: float in (0, 1), share of the rows to score the read-out on.
        burn_in: int, at least 0, first steps that are not scored. Steps without inputs at all lags
            are never scored.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own mask.
        output_step: int, the output step to read when output and input are not aligned in time;
            lags then count from the last real input.
        block: int, rows that belong together: 1 for independent rows, `ceil(length / stride)` for
            overlapping windows of one series. With more than 1 the last rows are held out, rows
            that overlap both parts are left out, and the bootstrap keeps blocks together.
        resamples: int, bootstrap resamples of the held-out rows; 0 for no interval.
        batch_size: int, rows per call of the model.
        seed: int, at least 0. The same seed gives the same report.

    Returns:
        A `RecoverabilityReport`.

    Raises:
        DataError: if `x`, the mask or the output has an unusable shape, type or value.
        ArgumentError: if another argument is invalid.

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
    x, mask = model_function.prepare_inputs(model, x, mask, rows=MIN_ROWS)
    _check_readings(model, x)
    tested = _tested_lags(lags, x.shape[1])
    function = model_function.as_function(model_function.truncate_at_layer(model, layer))
    outputs = model_function.predict_in_batches(function, x, batch_size)
    y, last_only = model_function.align_output(
        model if layer is None else None, outputs, x.shape[1], output_step
    )
    scored = _scored_steps(x, mask, tested, burn_in, last_only)
    rng = np.random.default_rng(seed)
    training_rows, test_rows = _split(np.flatnonzero(scored.any(axis=1)), held_out, block, rng)
    train = _ScoredSteps.of_rows(x, y, scored, training_rows)
    test = _ScoredSteps.of_rows(x, y, scored, test_rows)
    model_function.check_output(np.concatenate([train.outputs, test.outputs]))
    components = PrincipalComponents.fit(train.outputs, test.outputs, ROUND_OFF)
    order = np.arange(len(test_rows))  # in time order, so that contiguous runs hold whole blocks
    weights = resampling_weights(order, block, resamples, rng)
    values = np.stack([_r2_by_feature(components, train, test, lag, weights) for lag in tested], 1)
    return _report(
        values,
        lags=tested,
        rank=components.rank,
        outputs=y.shape[-1],
        rows=len(test_rows),
        training_rows=len(training_rows),
        layer=layer,
        seed=int(seed),
    )


@dataclasses.dataclass(frozen=True)
class _ScoredSteps:
    """The scored steps of some rows, row after row.

    Attributes:
        x: `(batch, time, features)`, all rows.
        row: int `(steps,)`, index into `x`.
        step: int `(steps,)`.
        outputs: `(steps, outputs)`.
    """

    x: np.ndarray
    row: np.ndarray
    step: np.ndarray
    outputs: np.ndarray

    @classmethod
    def of_rows(
        cls, x: np.ndarray, y: np.ndarray, scored: np.ndarray, rows: np.ndarray
    ) -> _ScoredSteps:
        index, step = np.nonzero(scored[rows])
        row = rows[index]
        outputs = y[row] if y.ndim == 2 else y[row, step]
        return cls(x.reshape(*x.shape[:2], -1), row, step, outputs)

    def target(self, lag: int) -> np.ndarray:
        """The inputs `lag` steps earlier, `(steps, features)`."""
        return self.x[self.row, self.step - lag].astype(np.float64)

    def sum_by_row(self, values: np.ndarray) -> np.ndarray:
        """Sums of `(steps, features)` over the steps of each row, `(rows, features)`."""
        return np.add.reduceat(values, np.flatnonzero(np.diff(self.row, prepend=-1)))


def _r2_by_feature(
    components: PrincipalComponents,
    train: _ScoredSteps,
    test: _ScoredSteps,
    lag: int,
    weights: np.ndarray,
) -> np.ndarray:
    """R^2 of every feature at one lag, `(1 + resamples, features)`; nan where it is constant."""
    target = train.target(lag)
    mean, largest = target.mean(axis=0), np.abs(target).max(axis=0)
    residual = test.target(lag) - components.predict(target)
    centered = test.target(lag) - mean  # keeps the variance from cancelling
    count = weights @ test.sum_by_row(np.ones((len(centered), 1)))  # (1 + resamples, 1)
    error = weights @ test.sum_by_row(residual**2)
    total = (
        weights @ test.sum_by_row(centered**2) - (weights @ test.sum_by_row(centered)) ** 2 / count
    )
    varies = total > count * (ROUND_OFF * largest) ** 2 + np.finfo(np.float64).tiny
    return np.where(varies, 1 - error / np.where(varies, total, 1.0), np.nan)


def _report(values: np.ndarray, **fields: Any) -> RecoverabilityReport:
    """The report of R^2 `(1 + resamples, lags, features)`; row 0 is the estimate."""
    values = np.where(np.isnan(values), values[:1], values)  # a resample without variance
    constant = np.isnan(values[0])
    defined = ~constant.all(axis=-1)  # (lags,)
    filled = np.where(constant, 0.0, values)
    mean = filled.sum(axis=-1) / np.maximum((~constant).sum(axis=-1), 1)
    by_lag = np.where(defined, mean, np.nan)  # (1 + resamples, lags)
    total = filled.sum(axis=(1, 2)) if defined.any() else by_lag[:, 0]
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
        **fields,
    )


def _interval(values: np.ndarray) -> np.ndarray:
    """95 % interval `(2, ...)` over the resamples; nan without any."""
    if len(values) == 1:
        return np.full((2, *values.shape[1:]), np.nan)
    return np.quantile(values[1:], (0.025, 0.975), axis=0)


def _check_readings(model: Any, x: np.ndarray) -> None:
    """Raises `DataError` for tokens: the distance to a token id has no meaning."""
    input_dtype = model.inputs[0].dtype if getattr(model, "inputs", None) else "float32"
    integers = not np.issubdtype(x.dtype, np.floating)
    if (x.ndim == 2 and integers) or keras.backend.is_int_dtype(input_dtype):
        raise errors.DataError(
            "`x` must be readings: token ids cannot be predicted by a linear read-out. Received: "
            f"shape {x.shape}, dtype {x.dtype}. Pass vectors as `x`, embedded or one-hot, and as "
            "`model` the layers after the embedding."
        )


def _tested_lags(lags: Any, steps: int) -> np.ndarray:
    if lags is None:
        return np.arange(max(steps // 2, 1))
    if is_int(lags):
        tested = np.arange(int(lags)) if 1 <= lags <= steps else None
    else:
        tested = distinct_ints(lags, 0, steps - 1)
    if tested is None:
        expected = f"an int in [1, {steps}], the number of lags, or ints in [0, {steps - 1}]"
        raise errors.ArgumentError(argument_message("lags", expected, lags))
    return tested


def _scored_steps(
    x: np.ndarray, mask: np.ndarray | None, lags: np.ndarray, burn_in: int, last_only: bool
) -> np.ndarray:
    """Steps that are real and have real inputs at every lag, `(batch, time)`."""
    real = np.ones(x.shape[:2], bool) if mask is None else mask
    scored = real.copy()
    scored[:, : min(max(burn_in, lags[-1]), x.shape[1])] = False
    for lag in lags[lags > 0]:
        scored[:, lag:] &= real[:, :-lag]
    if last_only:
        scored &= np.arange(x.shape[1]) == last_real_step(real)[:, None]
    return scored


def _split(
    rows: np.ndarray, held_out: float, block: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Training rows and held-out rows."""
    if len(rows) < MIN_ROWS * block:
        blocks = "" if block == 1 else f" blocks of {block} rows"
        raise errors.DataError(
            f"`x` must have at least {MIN_ROWS}{blocks or ' rows'} with steps that are real and "
            f"have real inputs at every lag. Received: {len(rows)} rows. Use fewer lags, a smaller "
            "burn_in or more rows."
        )
    count = int(np.clip(round(held_out * len(rows)), 2 * block, len(rows) - 2 * block))
    if block == 1:
        shuffled = rng.permutation(rows)
        return np.sort(shuffled[count:]), np.sort(shuffled[:count])
    last = rows[-count:]
    return rows[rows <= last[0] - block], last  # rows in between overlap both parts
