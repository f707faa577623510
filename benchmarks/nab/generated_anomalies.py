"""Generated time series with labeled anomalies, to develop a detection rule on.

Each family resembles a kind of process: a daily routine, the activity of people over days and
weeks, the temperature of a machine, weather, a latency with a heavy tail, a load with irregular
peaks. Each anomaly has a window as in the Numenta benchmark: a tenth of the rows in all windows
together, around the start of the anomaly. As in real data, the noise level varies, harmless events
resemble anomalies, and some records have an unlabeled anomaly in their training rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.nab import scoring


def records(seeds: range = range(2)) -> list[scoring.LabeledRecord]:
    """Every family with each of its anomalies, for each seed."""
    return [
        record(family, anomaly, seed)
        for seed in seeds
        for family, (_, _, _, anomalies) in FAMILIES.items()
        for anomaly in anomalies
    ]


def record(family: str, anomaly: str, seed: int) -> scoring.LabeledRecord:
    """One record; `anomaly` is one of the family's, or "none", or "several" for all of them."""
    generate, rows, minutes, anomalies = FAMILIES[family]
    rng = np.random.default_rng([seed, *map(ord, family + anomaly)])
    values = generate(rng, rows)
    day = 24 * 60 // minutes
    names = {"none": [], "several": [name for name in anomalies if name not in ("none", "several")]}
    names = names.get(anomaly, [anomaly])
    first, starts = scoring.training_rows(rows), []
    if names and rng.random() < 0.5:  # an unlabeled anomaly in the training rows
        start = int(first * rng.uniform(0.3, 0.7))
        start = start // day * day if names[0] in AT_DAY_START else start
        training = values[: first - 1]  # a view: the anomaly ends with the training rows
        if start >= 2 * day and names[0] in ("holiday", "busy night", "spike", "noisy"):
            ANOMALIES[names[0]](training, start, day, rng)
    for index, name in enumerate(names):  # one in each part of the scored rows
        part = (rows - first) / len(names)
        start = int(first + part * (index + rng.uniform(0.3, 0.7)))
        start = min(start // day * day if name in AT_DAY_START else start, rows - 2 * day)
        ANOMALIES[name](values, start, day, rng)
        starts.append(start + (day // 3 if name in AT_DAY_START else 0))
    half = int(0.1 * rows / max(len(names), 1) / 2)
    windows = [(max(start - half, first), min(start + half, rows - 1)) for start in starts]
    times = pd.date_range("2024-01-01", periods=rows, freq=f"{minutes}min")
    return scoring.LabeledRecord(f"{family} {anomaly} {seed}", values, times, windows)


def exponential_sum(inputs: np.ndarray, decay: float) -> np.ndarray:
    """`y_t = decay * y_(t-1) + x_t`."""
    values, last = np.empty(len(inputs)), 0.0
    for step, value in enumerate(inputs.tolist()):
        last = decay * last + value
        values[step] = last
    return values


def autoregressive(rng: np.random.Generator, rows: int, decay: float) -> np.ndarray:
    """An AR(1) process of unit variance."""
    return exponential_sum(rng.standard_normal(rows) * np.sqrt(1 - decay**2), decay)


def noise_scale(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A slowly varying scale of noise, which halves or doubles over days."""
    return np.exp(0.35 * autoregressive(rng, rows, 0.999))


def _routine(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A machine that runs at the same hours every day."""
    hour = np.arange(rows) % 288 / 12
    on = (hour >= 9) & (hour < 18)
    return np.where(on, 80.0, 20.0) + rng.uniform(-1, 1, rows) * rng.uniform(1, 8)


def _people(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Activity of people per half hour: days, weeks and a slow trend."""
    hour, weekday = np.arange(rows) % 48 / 2, np.arange(rows) // 48 % 7
    daily = 0.55 - 0.45 * np.cos(2 * np.pi * (hour - 4.5) / 24)
    daily += 0.2 * np.exp(-((hour - 8) ** 2)) * (weekday < 5)
    daily += 0.35 * (weekday >= 4) * np.exp(-((hour - 23) % 24) / 3)
    level = 1 + 0.06 * autoregressive(rng, rows, 0.999) + 0.05 * autoregressive(rng, rows, 0.95)
    level *= np.repeat(1 + 0.04 * rng.standard_t(4, rows // 48 + 1), 48)[:rows]  # good and bad days
    return 20_000 * daily * level * (1 + 0.03 * rng.standard_t(5, rows))


def _machine(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A slowly varying temperature with noise and occasional dips that recover."""
    slow = 8 * autoregressive(rng, rows, 0.9985) + 3 * autoregressive(rng, rows, 0.98)
    dips = exponential_sum((rng.random(rows) < 1 / 900) * rng.gamma(2, 4, rows), 0.96)
    return 85 + slow - dips + noise_scale(rng, rows) * rng.standard_t(5, rows)


def _weather(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Hourly temperatures: a weak daily cycle, weather, and the season of the year."""
    hour = np.arange(rows)
    season = 4 * np.sin(2 * np.pi * hour / 24 / 365 + rng.uniform(0, 6))
    day = 1.5 * np.sin(2 * np.pi * hour / 24)
    return (
        70
        + season
        + day
        + 3 * autoregressive(rng, rows, 0.985)
        + 0.5 * noise_scale(rng, rows) * rng.standard_t(5, rows)
    )


def _latency(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A level with a heavy tail."""
    tail = rng.pareto(2.5, rows) * 2
    return 44 + 1.5 * rng.standard_normal(rows) + tail + 1.0 * autoregressive(rng, rows, 0.97)


def _load(rng: np.random.Generator, rows: int) -> np.ndarray:
    """An idle load with irregular peaks."""
    period = int(rng.integers(20, 40))
    phase = np.arange(rows) + np.cumsum(rng.random(rows) < 0.01)
    peaks = (phase % period < 4) * rng.uniform(20, 40, rows)
    return (
        35
        + peaks
        + 4 * noise_scale(rng, rows) * rng.standard_normal(rows)
        + 3 * autoregressive(rng, rows, 0.99)
    )


def _spread(values: np.ndarray) -> float:
    return float(np.diff(np.quantile(values, (0.05, 0.95)))[0])


def _jump_up(values, start, day, rng):
    part = slice(start + day // 3, start + 3 * day // 4)
    values[part] += rng.uniform(0.5, 0.9) * _spread(values)


def _jump_down(values, start, day, rng):
    part = slice(start + day // 3, start + 3 * day // 4)
    values[part] -= rng.uniform(0.5, 0.9) * _spread(values)


def _missing_peak(values, start, day, rng):
    part = slice(start + day // 4, start + day)
    low = np.sort(values[start - 3 * day : start])[: part.stop - part.start]
    values[part] = rng.permutation(low)


def _flat_middle(values, start, day, rng):
    values[start + day // 3 : start + 3 * day // 4] = np.median(values[start - day : start])


def _holiday(values, start, day, rng):
    values[start : start + day] *= rng.uniform(0.55, 0.8)


def _busy_night(values, start, day, rng):
    values[start : start + day // 4] += rng.uniform(0.4, 0.6) * _spread(values)


def _level_shift(values, start, day, rng):
    up = rng.choice([-1, 1]) * rng.uniform(0.7, 1.2)
    values[start:] += up * _spread(values[:start])


def _spike(values, start, day, rng):
    values[start : start + 3] += rng.uniform(2, 4) * _spread(values)


def _plunge(values, start, day, rng):
    """A fall, a low level, and a return."""
    depth = rng.uniform(1.5, 2.5) * _spread(values)
    shape = np.r_[np.linspace(0, 1, day // 12), np.ones(day // 3), np.linspace(1, 0, day // 6)]
    values[start : start + len(shape)] -= depth * shape[: len(values) - start]


def _drift_to_failure(values, start, day, rng):
    """A linear decline over two days, then a plunge; the anomaly starts with the plunge."""
    drift = np.linspace(0, 0.5 * _spread(values), 2 * day)
    values[start - 2 * day : start] -= drift
    _plunge(values, start, day, rng)


def _stuck(values, start, day, rng):
    values[start : start + day // 2] = values[start]


def _noisy(values, start, day, rng):
    part = slice(start, start + day // 2)
    values[part] += 0.5 * _spread(values) * rng.standard_normal(len(values[part]))


ANOMALIES: dict[str, Callable] = {
    "jump up": _jump_up,
    "jump down": _jump_down,
    "missing peak": _missing_peak,
    "flat middle": _flat_middle,
    "holiday": _holiday,
    "busy night": _busy_night,
    "level shift": _level_shift,
    "spike": _spike,
    "plunge": _plunge,
    "drift to failure": _drift_to_failure,
    "stuck": _stuck,
    "noisy": _noisy,
}
AT_DAY_START = ("jump up", "jump down", "missing peak", "flat middle", "holiday", "busy night")

# Generator, rows, minutes between rows, and anomalies.
FAMILIES = {
    "routine": (
        _routine, 4032, 5, ("none", "jump up", "jump down", "missing peak", "flat middle"),
    ),
    "people": (_people, 10_000, 30, ("none", "several", "holiday", "busy night", "spike")),
    "machine": (_machine, 16_000, 5, ("none", "several", "plunge", "drift to failure", "stuck")),
    "weather": (_weather, 7000, 60, ("none", "several", "level shift", "plunge", "noisy")),
    "latency": (_latency, 4032, 5, ("none", "several", "spike", "level shift", "noisy")),
    "load": (_load, 16_000, 5, ("none", "level shift", "stuck", "noisy")),
}  # fmt: skip
