"""Built-in readings of a machine, made up, for a first run without a file."""

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
_LEAST = 100  # fewer steps leave the fault too short to see


def synthetic_readings(*, steps: int = 4000, seed: int = 0, interval: str = "5min") -> TimeSeries:
    """GenerationMixin readings of one machine, with one fault late in the record.

    The readings are made up. A hidden load drives all channels: half of it follows the hour of
    the day, highest at 14:00, and the other half is slow noise, where each value is 0.98 of the
    one before plus a random step. What each channel adds is its own and cannot be told from the
    others.

    - `temperature_F` (20 to 110 °F): 58, plus a daily wave of 9, plus 16 times the load smoothed
      over about 20 steps (metal warms slowly), plus a slow drift, plus noise.
    - `pressure_bar` (1 to 15 bar): 7, plus 4 times the load, plus noise.
    - `vibration_mm_s` (above 0): 1.2 plus 2 times the load plus bursts, times random factors. A
      burst comes about once in 70 steps, oftener under load, and fades by a quarter each step.
    - `current_A` (above 0): 9, plus 22 times the load, plus noise.

    The noise of each channel is a part that remembers (each value a share of the one before plus
    a random step) and a part that does not. The fault takes 6 % of the record and begins after
    84 to 88 % of it: pressure sags, ever further, by up to 4 bar, and temperature rises by up to
    16 °F; then both are back at once. `sensor_fault` gives its rows.

    Shapes: `values` is `(steps, 4)`.

    Args:
        steps: int of at least 100.
        seed: int of at least 0; the same seed gives the same readings.
        interval: str, time between two readings as pandas writes it, such as "30s" or "5min".

    Returns:
        `TimeSeries` in one stretch, from 2024-01-01 on; the notes say where the fault is.

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
    # The ranges of the instruments; the equations seldom leave them.
    values = np.clip(values, (20, 1, 0.05, 0.5), (110, 15, 60, 80))
    return TimeSeries(
        values=values.round(4),
        columns=_COLUMNS,
        times=times,
        notes=("These readings are generated, not measured.", _fault_note(fault, times)),
        source=f"generated readings, seed {seed}",
    )


def sensor_fault(*, steps: int = 4000, seed: int = 0) -> range:
    """Gives the rows of the fault in `synthetic_readings` with the same `steps` and `seed`.

    Args:
        steps: int of at least 100.
        seed: int of at least 0.

    Returns:
        range of row numbers, inside the last fifth of the record.

    Raises:
        ArgumentError: if an argument is out of its range.

    Example:
        >>> rows = sensor_fault(steps=1000)
        >>> 840 <= rows[0] <= rows[-1] < 940
        True
    """
    check_positive(steps=steps)
    check_seed(seed)
    if steps < _LEAST:
        raise ArgumentError(argument_message("steps", f"an int of at least {_LEAST}", steps))
    # A stream of its own, so that where the fault is does not depend on the noise.
    begin = int(np.random.default_rng([seed, 1]).uniform(0.84, 0.88) * steps)
    return range(begin, begin + int(0.06 * steps))


def _healthy(times: pd.DatetimeIndex, rng: np.random.Generator) -> np.ndarray:
    """The four channels without the fault, `(steps, 4)`."""
    steps = len(times)
    day = ((times - _BEGIN) / _DAY).to_numpy()
    wave = np.cos(2 * np.pi * (day - 14 / 24))
    load = np.clip(0.5 + 0.25 * wave + 0.2 * _slow(rng, steps, memory=0.98), 0, 1)
    bursts = _bursts(rng, load)
    drift = 3 * _slow(rng, steps, memory=0.998)
    temperature = 58 + 9 * wave + 16 * _smooth(load, 20) + drift + _noise(rng, steps, 0.9)
    pressure = 7 + 4 * load + _noise(rng, steps, 0.5)
    vibration = (1.2 + 2 * load + bursts) * np.exp(_noise(rng, steps, 0.12))
    current = 9 + 22 * load + _noise(rng, steps, 0.9)
    return np.stack([temperature, pressure, vibration, current], axis=1)


def _slow(rng: np.random.Generator, steps: int, *, memory: float) -> np.ndarray:
    """Noise of variance 1 that keeps `memory` of its last value, `(steps,)`."""
    pushes = rng.standard_normal(steps) * np.sqrt(1 - memory**2)
    pushes[0] = rng.standard_normal()  # begin as it goes on, not at rest
    return _decaying(pushes, memory)


def _noise(rng: np.random.Generator, steps: int, size: float) -> np.ndarray:
    """A channel's own noise of standard deviation `size`: half remembers, half does not."""
    share = size * np.sqrt(0.5)
    return share * (_slow(rng, steps, memory=0.8) + rng.standard_normal(steps))


def _bursts(rng: np.random.Generator, load: np.ndarray) -> np.ndarray:
    """Sudden shocks, likelier under load, that fade by a quarter each step, `(steps,)`."""
    strikes = rng.random(len(load)) < load / 35
    return _decaying(strikes * rng.gamma(3.0, 0.9, len(load)), 0.75)


def _smooth(values: np.ndarray, steps: float) -> np.ndarray:
    """Exponential average over about `steps` steps that begins at the first value."""
    keep = 1 - 1 / steps
    pushes = values / steps
    pushes[0] = values[0]
    return _decaying(pushes, keep)


def _decaying(pushes: np.ndarray, keep: float) -> np.ndarray:
    """Each value is `keep` times the one before, plus its push."""
    values, last = np.empty(len(pushes)), 0.0
    for step, push in enumerate(pushes.tolist()):
        last = keep * last + push
        values[step] = last
    return values


def _times(steps: int, interval: str) -> pd.DatetimeIndex:
    """The stamps; refuses an interval that is not a positive length of time."""
    expected = 'a positive length of time such as "30s" or "5min"'
    try:
        # A bare number would be taken as nanoseconds, which nobody means.
        step = pd.Timedelta(interval) if not is_int(interval) else pd.NaT
        if step is pd.NaT or step <= pd.Timedelta(0):
            raise ValueError("not positive")
        return pd.date_range(_BEGIN, periods=steps, freq=step)
    except (ValueError, TypeError, OverflowError):
        raise ArgumentError(argument_message("interval", expected, interval)) from None


def _fault_note(fault: range, times: pd.DatetimeIndex) -> str:
    """Where the fault is, in rows and in times."""
    return (
        f"A fault is in rows {fault[0]} to {fault[-1]} (counted from 0; {times[fault[0]]} to "
        f"{times[fault[-1]]}): pressure sags by up to 4 bar and temperature rises by up to 16 °F."
    )
