"""Synthetic sensor readings of one machine with a fault, for a first run without a file."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_seqzoo.data.time_series import TimeSeries
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_positive,
    check_seed,
    is_int,
)

_COLUMNS = ("temperature_F", "pressure_bar", "vibration_mm_s", "current_A")
_DAY = pd.Timedelta(days=1)
_BEGIN = pd.Timestamp("2024-01-01")
_MIN_STEPS = 100  # the fault is 6 % of the steps, and must be long enough to detect


def synthetic_readings(*, steps: int = 4000, seed: int = 0, interval: str = "5min") -> TimeSeries:
    """Generate readings of one machine, with one fault late in the series.

    A hidden load drives all channels: half of it follows the hour of the day, highest at 14:00,
    and the other half is an AR(1) process with coefficient 0.98. Each channel adds noise of its
    own, which cannot be predicted from the other channels.

    - `temperature_F` (20 to 110 °F): 58, plus a daily wave of 9, plus 16 times the load smoothed
      over about 20 steps (metal warms slowly), plus a slow drift, plus noise.
    - `pressure_bar` (1 to 15 bar): 7, plus 4 times the load, plus noise.
    - `vibration_mm_s` (above 0): 1.2 plus 2 times the load plus bursts, times random factors. A
      burst occurs about once in 70 steps, more often under load, and decays by a quarter per step.
    - `current_A` (above 0): 9, plus 22 times the load, plus noise.

    The noise of each channel is the sum of an AR(1) process and white noise. The fault takes 6 % of
    the series and begins after 84 to 88 % of it: pressure falls by up to 4 bar and temperature
    rises by up to 16 °F, then both return at once. `sensor_fault` returns its rows.

    Shapes: `values` is `(steps, 4)`.

    Args:
        steps: int of at least 100.
        seed: int of at least 0; the same seed gives the same readings.
        interval: str, time between two readings in pandas notation, such as "30s" or "5min".

    Returns:
        `TimeSeries` in one segment that begins on 2024-01-01; a note has the rows of the fault.

    Raises:
        ArgumentError: if an argument is out of its range.

    Example:
        >>> synthetic_readings(steps=500).columns
        ('temperature_F', 'pressure_bar', 'vibration_mm_s', 'current_A')
    """
    fault = sensor_fault(steps=steps, seed=seed)
    times = _times(steps, interval)
    rng = np.random.default_rng([seed, 0])
    values = _healthy(times, rng)
    severity = np.zeros(steps)
    severity[fault] = np.linspace(0, 1, len(fault)) ** 0.7
    values[:, 0] += 16 * severity
    values[:, 1] -= 4 * severity
    # The measuring ranges of the sensors; the equations seldom exceed them.
    values = np.clip(values, (20, 1, 0.05, 0.5), (110, 15, 60, 80))
    return TimeSeries(
        values=values.round(4),
        columns=_COLUMNS,
        times=times,
        notes=("These readings are synthetic, not measured.", _fault_note(fault, times)),
        source=f"generated readings, seed {seed}",
    )


def sensor_fault(*, steps: int = 4000, seed: int = 0) -> range:
    """The rows of the fault in `synthetic_readings` with the same `steps` and `seed`.

    Args:
        steps: int of at least 100.
        seed: int of at least 0.

    Returns:
        range of row numbers, inside the last fifth of the series.

    Raises:
        ArgumentError: if an argument is out of its range.

    Example:
        >>> rows = sensor_fault(steps=1000)
        >>> 840 <= rows[0] <= rows[-1] < 940
        True
    """
    check_positive(steps=steps)
    check_seed(seed)
    if steps < _MIN_STEPS:
        raise ArgumentError(argument_message("steps", f"an int of at least {_MIN_STEPS}", steps))
    # A separate random stream, so that the position of the fault does not depend on the noise.
    begin = int(np.random.default_rng([seed, 1]).uniform(0.84, 0.88) * steps)
    return range(begin, begin + int(0.06 * steps))


def _healthy(times: pd.DatetimeIndex, rng: np.random.Generator) -> np.ndarray:
    """The four channels without the fault, `(steps, 4)`."""
    steps = len(times)
    day = ((times - _BEGIN) / _DAY).to_numpy()
    wave = np.cos(2 * np.pi * (day - 14 / 24))
    load = np.clip(0.5 + 0.25 * wave + 0.2 * _ar1(rng, steps, coefficient=0.98), 0, 1)
    bursts = _bursts(rng, load)
    drift = 3 * _ar1(rng, steps, coefficient=0.998)
    temperature = 58 + 9 * wave + 16 * _smooth(load, 20) + drift + _noise(rng, steps, 0.9)
    pressure = 7 + 4 * load + _noise(rng, steps, 0.5)
    vibration = (1.2 + 2 * load + bursts) * np.exp(_noise(rng, steps, 0.12))
    current = 9 + 22 * load + _noise(rng, steps, 0.9)
    return np.stack([temperature, pressure, vibration, current], axis=1)


def _ar1(rng: np.random.Generator, steps: int, *, coefficient: float) -> np.ndarray:
    """Stationary AR(1) process of variance 1, `(steps,)`."""
    innovations = rng.standard_normal(steps) * np.sqrt(1 - coefficient**2)
    innovations[0] = rng.standard_normal()  # from the stationary distribution
    return _autoregression(innovations, coefficient)


def _noise(rng: np.random.Generator, steps: int, size: float) -> np.ndarray:
    """Noise of standard deviation `size`; half of its variance is AR(1), half is white."""
    scale = size * np.sqrt(0.5)
    return scale * (_ar1(rng, steps, coefficient=0.8) + rng.standard_normal(steps))


def _bursts(rng: np.random.Generator, load: np.ndarray) -> np.ndarray:
    """Shocks that are likelier under load and decay by a quarter per step, `(steps,)`."""
    shocks = rng.random(len(load)) < load / 35
    return _autoregression(shocks * rng.gamma(3.0, 0.9, len(load)), 0.75)


def _smooth(values: np.ndarray, steps: float) -> np.ndarray:
    """Exponential moving average over about `steps` steps that begins at the first value."""
    innovations = values / steps
    innovations[0] = values[0]
    return _autoregression(innovations, 1 - 1 / steps)


def _autoregression(innovations: np.ndarray, coefficient: float) -> np.ndarray:
    """`y[t] = coefficient * y[t - 1] + innovations[t]`, from `y[-1] = 0`."""
    values, last = np.empty(len(innovations)), 0.0
    for step, innovation in enumerate(innovations.tolist()):
        last = coefficient * last + innovation
        values[step] = last
    return values


def _times(steps: int, interval: str) -> pd.DatetimeIndex:
    """The time stamps; raises `ArgumentError` unless `interval` is a positive duration."""
    expected = 'a positive duration such as "30s" or "5min"'
    try:
        # pandas would read a plain number as nanoseconds.
        step = pd.Timedelta(interval) if not is_int(interval) else pd.NaT
        if step is pd.NaT or step <= pd.Timedelta(0):
            raise ValueError("not positive")
        return pd.date_range(_BEGIN, periods=steps, freq=step)
    except (ValueError, TypeError, OverflowError):
        raise ArgumentError(argument_message("interval", expected, interval)) from None


def _fault_note(fault: range, times: pd.DatetimeIndex) -> str:
    """A note with the rows and times of the fault."""
    return (
        f"A fault is in rows {fault[0]} to {fault[-1]} (counted from 0; {times[fault[0]]} to "
        f"{times[fault[-1]]}): pressure falls by up to 4 bar and temperature rises by up to 16 °F."
    )
