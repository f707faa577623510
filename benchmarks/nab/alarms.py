"""Alarms from the residuals of a forecaster or autoencoder: one rule for every file.

Four causal statistics of a row, each divided by its own 0.99 quantile over 1,500 rows, which end
100 rows earlier:

- the mean residual of the last 5 and of the last 20 rows: biased forecasts, without false alarms
  from single residuals with a heavy tail;
- the mean reading of the last 12 rows against the median of the last 2,000: a change of level that
  the forecaster has already adapted to;
- the steadiness of the last 12 rows: the readings of a stuck sensor, whose residuals are small.

The score is the largest of the four. The threshold is 1.6 times the 0.99 quantile of the training
rows' scores. An alarm is the first row above the threshold after 100 rows below it. The constants
were chosen on generated records (`benchmarks.nab.generated_anomalies`), where the rule scores 93 on
daily routines and 74 on the 72 others. There a margin of 1.4 or 2.0 costs 5 or 3 points, a past of
800 or 3,000 rows 7 or 2, 30 or 300 quiet rows 1 or none.

The comparison of a short with a long past follows
[Ahmad et al., 2017](https://doi.org/10.1016/j.neucom.2017.04.070).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

QUANTILE, MARGIN = 0.99, 1.6
LONG, DELAY = 1500, 100  # rows of the reference quantile, and how many rows ago they end
QUIET = 100  # rows below the threshold before the next alarm
SHORT, LONGER, LEVEL, STEADY = 5, 20, 12, 12  # rows
LEVEL_LONG = 2000
# A level changes less often than a residual, so its tail is lighter; that of steadiness is heavier.
WEIGHTS = {"short": 1.0, "longer": 1.0, "level": 1.3, "steady": 0.5}


def scores(
    residuals: np.ndarray, adjusted: np.ndarray, values: np.ndarray, train: int
) -> np.ndarray:
    """The score of each row, `(steps,)`; after the training rows it is causal.

    Args:
        residuals: array `(steps,)`, in units of their size in training; NaN without a forecast.
        adjusted: array `(steps,)`, readings minus their season.
        values: array `(steps,)`, raw readings.
        train: int, number of training rows at the start.
    """
    by_name = statistics(residuals, adjusted, values, train)
    ratios = [WEIGHTS[name] * by_name[name] / reference(by_name[name], train) for name in WEIGHTS]
    return np.max(ratios, axis=0)


def statistics(
    residuals: np.ndarray, adjusted: np.ndarray, values: np.ndarray, train: int
) -> dict[str, np.ndarray]:
    """The four statistics of each row, at least 0, by name."""
    residuals, adjusted = pd.Series(np.nan_to_num(residuals)), pd.Series(adjusted)
    level = adjusted.rolling(LEVEL_LONG, min_periods=1).median().shift(1).bfill()
    spread = pd.Series(values).rolling(STEADY).std() / max(np.std(values[:train]), 1e-12)
    by_name = {
        "short": _mean(residuals, SHORT).abs(),
        "longer": _mean(residuals, LONGER).abs(),
        "level": _mean(adjusted - level, LEVEL).abs(),
        "steady": 1 / (spread.fillna(np.inf) + 1e-3),
    }
    return {name: series.to_numpy() for name, series in by_name.items()}


def reference(statistic: np.ndarray, train: int) -> np.ndarray:
    """The delayed rolling 0.99 quantile; that of the training rows until enough rows exist."""
    in_training = np.quantile(statistic[:train], QUANTILE)
    past = pd.Series(statistic).shift(DELAY)
    rolling = past.rolling(LONG, min_periods=min(train, LONG)).quantile(QUANTILE)
    rolling[:train] = in_training
    return np.maximum(rolling.fillna(in_training).to_numpy(), 1e-9)


def threshold(scored: np.ndarray, train: int) -> float:
    """The alarm threshold, from the scores of the training rows alone."""
    return MARGIN * float(np.quantile(scored[:train], QUANTILE))


def alarms(above: np.ndarray, train: int, *, quiet: int = QUIET) -> np.ndarray:
    """The first row of each run above the threshold, without training rows.

    Runs with fewer than `quiet` rows between them are one run.
    """
    rows = np.flatnonzero(above)
    rows = rows[rows >= train]
    return rows[np.diff(rows, prepend=-quiet - 1) > quiet]


def _mean(series: pd.Series, rows: int) -> pd.Series:
    return series.rolling(rows, min_periods=1).mean()
