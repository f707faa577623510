"""What a reading would be if it were as at this hour of earlier days or weeks; past alone."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

PERIODS = (pd.Timedelta(days=1), pd.Timedelta(days=7))
SEEN = 8  # earlier periods looked at, at most
CLEARLY = 0.5  # share of the distance from the median that a season must leave at most


def earlier(values: np.ndarray, times: pd.DatetimeIndex, period: pd.Timedelta) -> np.ndarray:
    """Median of the readings 1 to 8 periods earlier, `(steps,)`; NaN before there is one."""
    stamps = np.maximum.accumulate(times.to_numpy())  # clocks are set back now and then
    step = np.median(np.diff(stamps[:100]))  # of first rows: later ones are not known yet
    found = np.full((SEEN, len(values)), np.nan)
    for number in range(SEEN):
        wanted = stamps - (number + 1) * period.to_numpy()
        rows = np.searchsorted(stamps, wanted, side="right") - 1
        there = (rows >= 0) & (wanted - stamps[rows] <= 2 * step)  # not in a gap
        found[number, there] = values[rows[there]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that have no earlier period
        return np.nanmedian(found, axis=0)


def find_period(values: np.ndarray, times: pd.DatetimeIndex) -> pd.Timedelta | None:
    """The period that explains these rows clearly and best, or None. They must span two of it."""
    best, least = None, CLEARLY
    for period in PERIODS:
        if times[-1] - times[0] < 1.9 * period:
            continue
        left = values - earlier(values, times, period)
        known = ~np.isnan(left)
        spread = np.abs(values[known] - np.median(values[known])).mean()
        share = np.abs(left[known]).mean() / spread if spread > 0 else 1
        if share < least:
            best, least = period, share
    return best
