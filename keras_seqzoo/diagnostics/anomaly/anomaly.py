"""Anomaly scores of readings, from the residuals of a reconstruction or a forecast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics.anomaly import overlap, residuals
from keras_seqzoo.diagnostics.anomaly.overlap import SegmentedSeries
from keras_seqzoo.diagnostics.anomaly.report import AnomalyReport
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_fraction,
    check_positive,
    check_seed,
)

QUANTILE = 0.999


def anomaly_score(
    model: Any,
    x_train: Any,
    *,
    kind: str = "identity",
    alone: bool = False,
    mask: Any = None,
    batch_size: int = model_function.BATCH_SIZE,
) -> Callable[[Any], np.ndarray]:
    """A function from windows to anomaly scores, from the residuals of a model.

    The score of a step is the root mean square over features of its residual, each feature divided
    by its root mean squared residual in training. It is about 1 where residuals are as in training.
    There are no rolling statistics.

    The state leakage of the score is not that of the model. State leakage is the history dependence
    of the output: the share of its variance that is due to inputs before the present one (total
    Sobol index of the past); nothing to do with train/test data leakage. The score depends on the
    residual alone: with a residual of 0.5 % of the variance and a model leakage of 0.2 %, the
    score's leakage can be 40 %. Measure it with `keras_seqzoo.leakage(score, x)`. With `alone=True`
    it is 0 by construction. For a forecaster it is large, as it must be.

    Shapes: the score maps `(batch, time, features)` to `(batch, time)`, at least 0.
    Masking: padded steps of `x_train` (by the model's own mask, or `mask`) are left out; the scores
        of padded steps have no meaning.
    State: none.

    Args:
        model: a model, a loaded SavedModel or a function whose output has the shape of its input.
        x_train: rows the model was trained on.
        kind: "identity" or "reconstruction" for a model that reconstructs its input; "forecasting"
            for a model that outputs the next reading at every step. A forecaster has no output for
            the first step of a window, which then scores 0.
        alone: bool, run every reading as a window of one step, from the initial state, so that no
            other reading affects its score. For models of kind "identity".
        mask: bool array `(batch, time)` for `x_train`, True for real steps.
        batch_size: int, rows per call of the model.

    Raises:
        DataError: if the output has another shape than the input.
        ArgumentError: if another argument is invalid.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 1))
    >>> score = zoo.diagnostics.anomaly_score(lambda x: 0.9 * x, x)
    >>> score(x).shape
    (8, 20)
    """
    check_choice("kind", kind, residuals.KINDS)
    residual = residuals.residual_function(model, kind, alone=alone, batch_size=batch_size)
    x_train, mask = model_function.prepare_inputs(model, x_train, mask)
    if x_train.ndim != 3:
        raise DataError(
            f"`x_train` must have shape (batch, time, features). Received: shape {x_train.shape}."
        )
    real = np.ones(x_train.shape[:2], bool) if mask is None else mask
    if not real.any():
        raise DataError("`x_train` must have real steps. Received: padding alone.")
    train_residual = residual(x_train)
    scored = real & ~_without_output(train_residual, kind)
    if not scored.any():
        raise DataError("`x_train` must have windows of at least 2 steps for a forecaster.")
    scale = residuals.residual_scale(train_residual[scored], x_train[scored])
    return _score_function(residual, scale, kind)


def anomaly(
    model: Any,
    x: Any,
    x_train: Any,
    *,
    kind: str | None = None,
    quantile: float = QUANTILE,
    sequence_length: int = 50,
    sequence_stride: int | None = None,
    combine: str | None = None,
    alone: bool = False,
    batch_size: int = model_function.BATCH_SIZE,
    seed: int = 0,
) -> AnomalyReport:
    """Anomaly scores of all readings of a time series, flagged above a quantile of training scores.

    The model runs on windows of the time series. The score of a reading is the root mean square
    over features of its residual, each feature in units of its root mean squared residual in
    training, so that it is about 1 where residuals are as in training. There are no rolling
    statistics. Where windows overlap, the residuals of a reading are combined before scoring, so
    that each reading has one residual and one score.

    Shapes: `(steps, features)` -> scores `(steps,)`, at least 0; NaN where the model has no output:
        a forecaster does not predict the first reading of a segment.
    Masking: readings that the model masks as padding have no score. Windows never span the gaps of
        a `TimeSeries`.
    State: none; stateful models are refused.

    Args:
        model: a model, a loaded SavedModel or a function whose output has the shape of its input.
        x: the readings to score: `keras_seqzoo.data.TimeSeries`, an array `(steps, features)` or
            `(steps,)`, or windows `(batch, time, features)`, each a segment of its own.
        x_train: readings to choose the threshold on, in one of the same forms: the training data,
            or better, other readings without anomalies, since residuals are smaller on training
            data that the model overfits.
        kind: the output at a step. "identity": the same reading, from itself. "forecasting": the
            next reading. "reconstruction": the same reading, from its whole window. None takes
            `model.task`, which models of the zoo have.
        quantile: float in (0, 1); the share 1 - quantile of the training readings is above the
            threshold.
        sequence_length: int of at least 1, steps in a window; shorter segments are one window each.
        sequence_stride: int of at least 1, at most `sequence_length`, steps between windows; None
            is `sequence_length` for kind "identity" and half of it for the others.
        combine: "longest" takes the window in which a reading has the longest past; "mean" the mean
            residual over its windows. None is "mean" for a reconstruction, else "longest". A
            reconstruction with "longest" and stride 1 depends on no later reading.
        alone: bool, for kind "identity": run every reading as a window of one step.
        batch_size: int, windows per call of the model.
        seed: int, of the bootstrap of the score's state leakage.

    Returns:
        An `AnomalyReport`: scores, threshold, flagged, plot(), to_frame(), leakage of the score.

    Raises:
        DataError: if `x`, `x_train` and the model do not fit together.
        ArgumentError: if another argument is invalid.

    Example:

    >>> import keras_seqzoo as zoo
    >>> readings = np.random.default_rng(0).normal(size=(600, 1))
    >>> readings[550] = 9
    >>> report = zoo.anomaly(lambda x: 0.9 * x, readings[500:], readings[:500], kind="identity")
    >>> np.flatnonzero(report.flagged)
    array([50])

    Reference: [Malhotra et al., 2016](https://arxiv.org/abs/1607.00148), for scores from
    reconstructed windows
    """
    kind = residuals.find_kind(model, kind)
    check_fraction(quantile=quantile)
    check_positive(sequence_length=sequence_length)
    check_seed(seed)
    sequence_stride, combine = _window_defaults(kind, sequence_length, sequence_stride, combine)
    series, train = _read_series(x, x_train)
    residual = residuals.residual_function(model, kind, alone=alone, batch_size=batch_size)

    def real_residual(windows: np.ndarray) -> np.ndarray:
        windows, mask = model_function.prepare_inputs(model, windows, None)
        values = residual(windows)
        if mask is not None:
            values[~mask] = np.nan
            if kind == "forecasting":  # the output at a padded step is no forecast
                values[:, 1:][~mask[:, :-1]] = np.nan
        return values

    def combined_residual(readings: SegmentedSeries) -> np.ndarray:
        return overlap.combine_windows(
            readings,
            real_residual,
            sequence_length=sequence_length,
            sequence_stride=sequence_stride,
            combine=combine,
        )

    train_residual = combined_residual(train)
    scored = ~np.isnan(train_residual).any(axis=1)
    if not scored.any():
        raise DataError(
            "`x_train` must have readings for which the model has an output. Received: none among "
            f"{len(train_residual)}. Use longer segments."
        )
    scale = residuals.residual_scale(train_residual[scored], train.values[scored])
    scaled = combined_residual(series) / scale
    train_scores = residuals.root_mean_square(train_residual / scale)
    score = _score_function(residual, scale, kind)
    return AnomalyReport(
        scores=residuals.root_mean_square(scaled),
        threshold=float(np.quantile(train_scores[scored], quantile)),
        quantile=float(quantile),
        residuals=scaled,
        train_scores=train_scores,
        leakage=_score_leakage(model, score, series, sequence_length, seed),
        kind=kind,
        sequence_length=sequence_length,
        sequence_stride=sequence_stride,
        combine=combine,
        starts=series.starts,
        times=series.times,
        columns=series.columns,
    )


def _score_function(
    residual: Callable[[np.ndarray], np.ndarray], scale: np.ndarray, kind: str
) -> Callable[[Any], np.ndarray]:
    def score(x: Any) -> np.ndarray:
        values = residual(np.asarray(x))
        values[_without_output(values, kind)] = 0  # no output, no anomaly
        return residuals.root_mean_square(values / scale)

    return score


def _without_output(residual: np.ndarray, kind: str) -> np.ndarray:
    """Steps `(batch, time)` for which the model has no output."""
    missing = np.zeros(residual.shape[:2], bool)
    missing[:, 0] = kind == "forecasting"
    return missing


def _window_defaults(
    kind: str, sequence_length: int, sequence_stride: int | None, combine: str | None
) -> tuple[int, str]:
    """Checked stride and combination, by default those that suit the kind."""
    if combine is None:
        combine = "mean" if kind == "reconstruction" else "longest"
    check_choice("combine", combine, overlap.COMBINE)
    if sequence_stride is None:
        sequence_stride = sequence_length if kind == "identity" else max(sequence_length // 2, 1)
    check_positive(sequence_stride=sequence_stride)
    if sequence_stride > sequence_length:
        hint = "Readings between windows would have no score."
        expected = f"at most `sequence_length`, {sequence_length}"
        raise ArgumentError(argument_message("sequence_stride", expected, sequence_stride, hint))
    return int(sequence_stride), combine


def _read_series(x: Any, x_train: Any) -> tuple[SegmentedSeries, SegmentedSeries]:
    series, train = overlap.as_segments("x", x), overlap.as_segments("x_train", x_train)
    if series.values.shape[1] != train.values.shape[1]:
        raise DataError(
            "`x` must have the features of `x_train`. Received: "
            f"{series.values.shape[1]} and {train.values.shape[1]}."
        )
    return series, train


def _score_leakage(
    model: Any, score: Callable, series: SegmentedSeries, sequence_length: int, seed: int
) -> LeakageReport | None:
    """State leakage of the score; None where there are no two whole windows."""
    starts = [
        row
        for first, end in series.bounds()
        for row in range(first, end - sequence_length + 1, sequence_length)
    ]
    if sequence_length < 2 or len(starts) < 2:
        return None
    x = overlap.take_windows(series, np.array(starts), sequence_length)
    return leakage(score, x, mask=model_function.resolve_mask(model, x), seed=seed)
