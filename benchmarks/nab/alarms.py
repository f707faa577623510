"""The one rule by which a forecaster's residuals become alarms, for every file alike.

Four statistics of a row, each of rows up to it alone, and each divided by what its own 0.99
quantile was over the 1,500 rows that ended 100 rows before:

- the mean residual of the last 5 and of the last 20 rows: forecasts that err to one side, for a
  moment or for longer, where single residuals with a heavy tail would cry wolf;
- the mean reading of the last 12 rows against the median of the last 2,000: where the forecaster
  has grown used to a change, the level still shows it;
- the steadiness of the last 12 rows: a sensor that is stuck is forecast too well.

The score is the largest of the four. The threshold is 1.6 times the 0.99 quantile of the training
rows' scores. An alarm is the first row above the threshold after 100 rows below it. The numbers
were chosen on generated records (`benchmarks.nab.faulty`), where the rule reaches 93 on daily routines
and 74 on the 72 others; there a margin of 1.4 or 2.0 costs 5 or 3 points, a past of 800 or 3,000
rows 7 or 2, a quiet while of 30 or 300 rows 1 or none.

Comparing a short past with a long one is the idea of
[Ahmad et al., 2017](https://doi.org/10.1016/j.neucom.2017.04.070).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

QUANTILE, MARGIN = 0.99, 1.6
LONG, DELAY = 1500, 100  # rows that say what is usual, and how long ago they end
QUIET = 100  # rows below the threshold before the next alarm
SHORT, LONGER, LEVEL, STEADY = 5, 20, 12, 12  # rows
LEVEL_LONG = 2000
# A level moves less often than a residual, so its tail is lighter; steadiness has a heavier one.
WEIGHTS = {"short": 1.0, "longer": 1.0, "level": 1.3, "steady": 0.5}


def scores(
    residuals: np.ndarray, adjusted: np.ndarray, values: np.ndarray, train: int
) -> np.ndarray:
    """The score of each row, `(steps,)`, from rows up to it alone, once training rows are over.

    Args:
        residuals: array `(steps,)`, in units of training; NaN where nothing was forecast.
        adjusted: array `(steps,)`, readings without their season.
        values: array `(steps,)`, readings as they came.
        train: int, how many rows at the start are for training.
    """
    found = statistics(residuals, adjusted, values, train)
    ratios = [WEIGHTS[name] * found[name] / usual(found[name], train) for name in WEIGHTS]
    return np.max(ratios, axis=0)


def statistics(
    residuals: np.ndarray, adjusted: np.ndarray, values: np.ndarray, train: int
) -> dict[str, np.ndarray]:
    """The four statistics of each row, at least 0, by name."""
    residuals, adjusted = pd.Series(np.nan_to_num(residuals)), pd.Series(adjusted)
    before = adjusted.rolling(LEVEL_LONG, min_periods=1).median().shift(1).bfill()
    spread = pd.Series(values).rolling(STEADY).std() / max(np.std(values[:train]), 1e-12)
    found = {
        "short": _mean(residuals, SHORT).abs(),
        "longer": _mean(residuals, LONGER).abs(),
        "level": _mean(adjusted - before, LEVEL).abs(),
        "steady": 1 / (spread.fillna(np.inf) + 1e-3),
    }
    return {name: series.to_numpy() for name, series in found.items()}


def usual(statistic: np.ndarray, train: int) -> np.ndarray:
    """The 0.99 quantile of a while ago, of the training rows until these are a while ago."""
    at_first = np.quantile(statistic[:train], QUANTILE)
    past = pd.Series(statistic).shift(DELAY)
    rolled = past.rolling(LONG, min_periods=min(train, LONG)).quantile(QUANTILE)
    rolled[:train] = at_first
    return np.maximum(rolled.fillna(at_first).to_numpy(), 1e-9)


def threshold(scored: np.ndarray, train: int) -> float:
    """From the training rows alone."""
    return MARGIN * float(np.quantile(scored[:train], QUANTILE))


def alarms(above: np.ndarray, train: int, *, quiet: int = QUIET) -> np.ndarray:
    """The first of each run of rows above, runs closer than `quiet` being one; none in training."""
    rows = np.flatnonzero(above)
    rows = rows[rows >= train]
    return rows[np.diff(rows, prepend=-quiet - 1) > quiet]


def _mean(series: pd.Series, rows: int) -> pd.Series:
    return series.rolling(rows, min_periods=1).mean()
