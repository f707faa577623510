"""One anomaly score per reading, from what a model says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.anomaly import overlap, residuals
from keras_seqzoo.diagnostics.anomaly.report import AnomalyReport
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.errors import DataError
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
    """A function that scores each reading of a window by how badly the model says it.

    The score of a step is the root of the mean over features of its squared residual, each feature
    divided by the mean squared residual in training: about 1 is usual. Nothing rolling enters it.

    The score is a function of the residual, so its leakage is not the model's: a residual of 0.5 %
    of the variance, with a model leakage of 0.2 %, can owe 40 % to the past. Measure it:
    `keras_seqzoo.leakage(score, x)`. With `alone=True` it is 0 by construction. A forecaster's
    score owes much to the past, as it must.

    Shapes: the score maps `(batch, time, features)` to `(batch, time)`, at least 0.
    Masking: padded steps of `x_train` (the model's own mask, or `mask`) are left out; the scores
        of padded steps mean nothing.
    State: none.

    Args:
        model: a model, a loaded SavedModel or a function whose output has the shape of its input.
        x_train: rows the model was trained on.
        kind: "identity" or "reconstruction", for a model that gives its input back, or
            "forecasting", for one that says at every step the next reading; the first of a window,
            of which nothing is said, scores 0 then.
        alone: bool, run every reading as a window of one step, from the initial state, so that no
            other reading can enter its score. For models that keep next to nothing anyway.
        mask: bool array `(batch, time)` for `x_train`, True for real steps.
        batch_size: int, rows per call of the model.

    Raises:
        DataError: if the output has another shape than the input.
        ArgumentError: if another argument cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 1))
    >>> score = zoo.diagnostics.anomaly_score(lambda x: 0.9 * x, x)
    >>> score(x).shape
    (8, 20)
    """
    check_choice("kind", kind, residuals.KINDS)
    of_windows = residuals.residuals(model, kind, alone=alone, batch_size=batch_size)
    x_train, mask = model_function.prepare_inputs(model, x_train, mask)
    if x_train.ndim != 3:
        raise DataError(
            f"`x_train` must have shape (batch, time, features). Received: shape {x_train.shape}."
        )
    real = np.ones(x_train.shape[:2], bool) if mask is None else mask
    if not real.any():
        raise DataError("`x_train` must have real steps. Received: padding alone.")
    found = of_windows(x_train)
    said = real & ~_nothing_said(found, kind)
    if not said.any():
        raise DataError("`x_train` must have windows of at least 2 steps for a forecaster.")
    return _score(of_windows, residuals.usual(found[said], x_train[said]), kind)


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
    """Scores every reading of a record, and flags those above a quantile of the training scores.

    The record is seen through windows, and what the model leaves over of each reading is put back
    in its place. The score is the root of the mean over features of the squared residual, each
    feature in units of its root mean squared residual in training: about 1 is usual. Nothing
    rolling enters it. Where windows overlap, the residuals of a reading are combined before it is
    scored, so that a reading has one residual and one score.

    Shapes: `(steps, features)` -> scores `(steps,)`, at least 0; NaN where the model says nothing:
        a forecaster of the first reading of a stretch.
    Masking: what the model itself takes for padding has no score. Windows never span the gaps of
        `TimeSeries`.
    State: none; stateful models are refused.

    Args:
        model: a model, a loaded SavedModel or a function whose output has the shape of its input.
        x: the record to score: `keras_seqzoo.data.TimeSeries`, an array `(steps, features)` or
            `(steps,)`, or windows `(batch, time, features)`, each an unbroken stretch of its own.
        x_train: the record that the threshold is chosen on, in one of the same forms: what the
            model was trained on, or better, other readings without anomalies, since a model that
            knows its training data by heart leaves less over there.
        kind: "identity", each reading given back by itself; "forecasting", the output at a step
            is the next reading; "reconstruction", a window given back as a whole. None asks the
            entry that the model is called after.
        quantile: float in (0, 1); the share 1 - quantile of the training readings is above the
            threshold.
        sequence_length: int of at least 1, steps in a window; shorter stretches are windows themselves.
        sequence_stride: int of at least 1, at most `sequence_length`, steps from window to window; None is `sequence_length`
            for the identity family and half of it for others.
        combine: "longest" takes the window in which a reading has the longest past; "mean" the mean
            residual over its windows. None is "mean" for a reconstruction, else "longest". A
            reconstruction with "longest" and stride 1 looks at no later reading.
        alone: bool, for the identity family: run every reading as a window of one step.
        batch_size: int, windows per call of the model.
        seed: int, of the leakage's bootstrap.

    Returns:
        An `AnomalyReport`: scores, threshold, flagged, plot(), to_frame(), leakage of the score.

    Raises:
        DataError: if records do not fit each other or the model.
        ArgumentError: if another argument cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> readings = np.random.default_rng(0).normal(size=(600, 1))
    >>> readings[550] = 9
    >>> report = zoo.anomaly(lambda x: 0.9 * x, readings[500:], readings[:500], kind="identity")
    >>> np.flatnonzero(report.flagged)
    array([50])

    Reference: windows given back as a whole are those of
    [Malhotra et al., 2016](https://arxiv.org/abs/1607.00148).
    """
    kind = residuals.find_kind(model, kind)
    check_fraction(quantile=quantile)
    check_positive(sequence_length=sequence_length)
    check_seed(seed)
    sequence_stride, combine = _seen(kind, sequence_length, sequence_stride, combine)
    record, train = _records(x, x_train)
    of_windows = residuals.residuals(model, kind, alone=alone, batch_size=batch_size)

    def said(windows: np.ndarray) -> np.ndarray:
        windows, mask = model_function.prepare_inputs(model, windows, None)
        found = of_windows(windows)
        if mask is not None:
            found[~mask] = np.nan
            if kind == "forecasting":  # padding forecasts nothing
                found[:, 1:][~mask[:, :-1]] = np.nan
        return found

    options = {
        "sequence_length": sequence_length,
        "sequence_stride": sequence_stride,
        "combine": combine,
    }
    left = overlap.averaged(train, said, **options)
    known = ~np.isnan(left).any(axis=1)
    if not known.any():
        raise DataError(
            "`x_train` must have readings that the model says something of. Received: none among "
            f"{len(left)}. Give longer unbroken stretches."
        )
    unit = residuals.usual(left[known], train.values[known])
    scaled = overlap.averaged(record, said, **options) / unit
    return AnomalyReport(
        scores=residuals.score(scaled),
        threshold=float(np.quantile(residuals.score(left[known] / unit), quantile)),
        quantile=float(quantile),
        residuals=scaled,
        train_scores=residuals.score(left / unit),
        leakage=_own_leakage(model, _score(of_windows, unit, kind), record, sequence_length, seed),
        kind=kind,
        **options,
        starts=record.starts,
        times=record.times,
        columns=record.columns,
    )


def _score(of_windows: Callable, unit: np.ndarray, kind: str) -> Callable[[Any], np.ndarray]:
    def score(x: Any) -> np.ndarray:
        found = of_windows(np.asarray(x))
        # An opinion that does not exist is no anomaly.
        found[_nothing_said(found, kind)] = 0
        return residuals.score(found / unit)

    return score


def _nothing_said(found: np.ndarray, kind: str) -> np.ndarray:
    """Steps `(batch, time)` that have no output to be compared with."""
    none = np.zeros(found.shape[:2], bool)
    none[:, 0] = kind == "forecasting"
    return none


def _seen(
    kind: str, sequence_length: int, sequence_stride: int | None, combine: str | None
) -> tuple[int, str]:
    """Stride and way of combining, by default those that suit the kind."""
    if combine is None:
        combine = "mean" if kind == "reconstruction" else "longest"
    check_choice("combine", combine, overlap.COMBINE)
    if sequence_stride is None:
        sequence_stride = sequence_length if kind == "identity" else max(sequence_length // 2, 1)
    check_positive(sequence_stride=sequence_stride)
    if sequence_stride > sequence_length:
        hint = "Readings between windows would have no score."
        expected = f"at most the window, {sequence_length}"
        raise errors.ArgumentError(
            argument_message("sequence_stride", expected, sequence_stride, hint)
        )
    return int(sequence_stride), combine


def _records(x: Any, x_train: Any) -> tuple[overlap.Record, overlap.Record]:
    record, train = overlap.as_record("x", x), overlap.as_record("x_train", x_train)
    if record.values.shape[1] != train.values.shape[1]:
        raise DataError(
            "`x` must have the features of `x_train`. Received: "
            f"{record.values.shape[1]} and {train.values.shape[1]}."
        )
    return record, train


def _own_leakage(
    model: Any, score: Callable, record: overlap.Record, sequence_length: int, seed: int
) -> LeakageReport | None:
    """What the score owes to earlier readings; None where there are no two whole windows."""
    whole = [
        row
        for first, last in record.edges()
        for row in range(first, last - sequence_length + 1, sequence_length)
    ]
    if sequence_length < 2 or len(whole) < 2:
        return None
    x = overlap.cut(record, np.array(whole), sequence_length)
    return leakage(score, x, mask=model_function.resolve_mask(model, x), seed=seed)
