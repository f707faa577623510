"""Seasonal baseline: the median reading at the same hour of earlier days or weeks, causal."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

PERIODS = (pd.Timedelta(days=1), pd.Timedelta(days=7))
MAX_PERIODS = 8  # earlier periods that the median uses
MAX_SHARE = 0.5  # mean absolute residual of a season, at most this share of that of the median


def earlier(values: np.ndarray, times: pd.DatetimeIndex, period: pd.Timedelta) -> np.ndarray:
    """Median of the readings 1 to 8 periods earlier, `(steps,)`; NaN in the first period."""
    stamps = np.maximum.accumulate(times.to_numpy())  # clocks are sometimes set back
    step = np.median(np.diff(stamps[:100]))  # causal: from the first rows only
    candidates = np.full((MAX_PERIODS, len(values)), np.nan)
    for index in range(MAX_PERIODS):
        wanted = stamps - (index + 1) * period.to_numpy()
        rows = np.searchsorted(stamps, wanted, side="right") - 1
        exists = (rows >= 0) & (wanted - stamps[rows] <= 2 * step)  # not in a gap
        candidates[index, exists] = values[rows[exists]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows without an earlier period are all NaN
        return np.nanmedian(candidates, axis=0)


def find_period(values: np.ndarray, times: pd.DatetimeIndex) -> pd.Timedelta | None:
    """The period that explains these rows best, or None if no period does well enough.

    The rows must span about two periods.
    """
    best, least = None, MAX_SHARE
    for period in PERIODS:
        if times[-1] - times[0] < 1.9 * period:
            continue
        residuals = values - earlier(values, times, period)
        known = ~np.isnan(residuals)
        spread = np.abs(values[known] - np.median(values[known])).mean()
        share = np.abs(residuals[known]).mean() / spread if spread > 0 else 1
        if share < least:
            best, least = period, share
    return best
