"""Generated records with known anomalies, to develop a rule on: never the records it is scored on.

Each looks like a family of machines or people: a daily routine, a routine of days and weeks, a
wandering temperature, weather, a latency with a heavy tail, a load with peaks of its own. Each
anomaly gets a window as the Numenta benchmark draws them: a tenth of the rows over all windows,
around where the anomaly begins. Nothing is tidy: noise comes and goes, harmless events look a
little like faults, and some records have an anomaly in their training rows, unlabelled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.nab import scoring


def records(seeds: range = range(2)) -> list[scoring.Labeled]:
    """Every family with every fault that suits it, for each seed."""
    return [
        record(family, fault, seed)
        for seed in seeds
        for family, (_, _, _, faults) in FAMILIES.items()
        for fault in faults
    ]


def record(family: str, fault: str, seed: int) -> scoring.Labeled:
    """One record; the faults "none" and "several" are of every family."""
    make, rows, minutes, faults = FAMILIES[family]
    rng = np.random.default_rng([seed, *map(ord, family + fault)])
    values = make(rng, rows)
    day = 24 * 60 // minutes
    names = {"none": [], "several": [one for one in faults if one not in ("none", "several")]}
    names = names.get(fault, [fault])
    first, begins = scoring.training_rows(rows), []
    if names and rng.random() < 0.5:  # training data is not clean
        begin = int(first * rng.uniform(0.3, 0.7))
        begin = begin // day * day if names[0] in BY_DAY else begin
        piece = values[: first - 1]  # a view: the fault ends with the training rows
        if begin >= 2 * day and names[0] in ("holiday", "busy night", "spike", "noisy"):
            FAULTS[names[0]](piece, begin, day, rng)
    for number, name in enumerate(names):  # one in each part of what is scored
        part = (rows - first) / len(names)
        begin = int(first + part * (number + rng.uniform(0.3, 0.7)))
        begin = min(begin // day * day if name in BY_DAY else begin, rows - 2 * day)
        FAULTS[name](values, begin, day, rng)
        begins.append(begin + (day // 3 if name in BY_DAY else 0))
    half = int(0.1 * rows / max(len(names), 1) / 2)
    windows = [(max(one - half, first), min(one + half, rows - 1)) for one in begins]
    times = pd.date_range("2024-01-01", periods=rows, freq=f"{minutes}min")
    return scoring.Labeled(f"{family} {fault} {seed}", values, times, windows)


def _decaying(pushes: np.ndarray, keep: float) -> np.ndarray:
    values, last = np.empty(len(pushes)), 0.0
    for step, push in enumerate(pushes.tolist()):
        last = keep * last + push
        values[step] = last
    return values


def _wander(rng: np.random.Generator, rows: int, keep: float) -> np.ndarray:
    return _decaying(rng.standard_normal(rows) * np.sqrt(1 - keep**2), keep)


def _unrest(rng: np.random.Generator, rows: int) -> np.ndarray:
    """How large noise is: half or twice as large for days."""
    return np.exp(0.35 * _wander(rng, rows, 0.999))


def _routine(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A machine that is switched on and off at the same hours every day."""
    hour = np.arange(rows) % 288 / 12
    on = (hour >= 9) & (hour < 18)
    return np.where(on, 80.0, 20.0) + rng.uniform(-1, 1, rows) * rng.uniform(1, 8)


def _people(rng: np.random.Generator, rows: int) -> np.ndarray:
    """What people do in half hours: days, weeks and a slow trend."""
    hour, weekday = np.arange(rows) % 48 / 2, np.arange(rows) // 48 % 7
    daily = 0.55 - 0.45 * np.cos(2 * np.pi * (hour - 4.5) / 24)
    daily += 0.2 * np.exp(-((hour - 8) ** 2)) * (weekday < 5)
    daily += 0.35 * (weekday >= 4) * np.exp(-((hour - 23) % 24) / 3)
    level = 1 + 0.06 * _wander(rng, rows, 0.999) + 0.05 * _wander(rng, rows, 0.95)
    level *= np.repeat(1 + 0.04 * rng.standard_t(4, rows // 48 + 1), 48)[:rows]  # good and bad days
    return 20_000 * daily * level * (1 + 0.03 * rng.standard_t(5, rows))


def _machine(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A temperature that wanders, with noise and now and then a dip after which it recovers."""
    slow = 8 * _wander(rng, rows, 0.9985) + 3 * _wander(rng, rows, 0.98)
    dips = _decaying((rng.random(rows) < 1 / 900) * rng.gamma(2, 4, rows), 0.96)
    return 85 + slow - dips + _unrest(rng, rows) * rng.standard_t(5, rows)


def _weather(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Hourly: a weak day, weather, and seasons."""
    hour = np.arange(rows)
    season = 4 * np.sin(2 * np.pi * hour / 24 / 365 + rng.uniform(0, 6))
    day = 1.5 * np.sin(2 * np.pi * hour / 24)
    return (
        70
        + season
        + day
        + 3 * _wander(rng, rows, 0.985)
        + 0.5 * _unrest(rng, rows) * rng.standard_t(5, rows)
    )


def _latency(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A level with a heavy tail."""
    tail = rng.pareto(2.5, rows) * 2
    return 44 + 1.5 * rng.standard_normal(rows) + tail + 1.0 * _wander(rng, rows, 0.97)


def _load(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Peaks at their own times between idling."""
    period = int(rng.integers(20, 40))
    phase = np.arange(rows) + np.cumsum(rng.random(rows) < 0.01)
    peaks = (phase % period < 4) * rng.uniform(20, 40, rows)
    return (
        35
        + peaks
        + 4 * _unrest(rng, rows) * rng.standard_normal(rows)
        + 3 * _wander(rng, rows, 0.99)
    )


def _spread(values: np.ndarray) -> float:
    return float(np.diff(np.quantile(values, (0.05, 0.95)))[0])


def _jump_up(values, begin, day, rng):
    part = slice(begin + day // 3, begin + 3 * day // 4)
    values[part] += rng.uniform(0.5, 0.9) * _spread(values)


def _jump_down(values, begin, day, rng):
    part = slice(begin + day // 3, begin + 3 * day // 4)
    values[part] -= rng.uniform(0.5, 0.9) * _spread(values)


def _missing_peak(values, begin, day, rng):
    part = slice(begin + day // 4, begin + day)
    low = np.sort(values[begin - 3 * day : begin])[: part.stop - part.start]
    values[part] = rng.permutation(low)


def _flat_middle(values, begin, day, rng):
    values[begin + day // 3 : begin + 3 * day // 4] = np.median(values[begin - day : begin])


def _holiday(values, begin, day, rng):
    values[begin : begin + day] *= rng.uniform(0.55, 0.8)


def _busy_night(values, begin, day, rng):
    values[begin : begin + day // 4] += rng.uniform(0.4, 0.6) * _spread(values)


def _level_shift(values, begin, day, rng):
    up = rng.choice([-1, 1]) * rng.uniform(0.7, 1.2)
    values[begin:] += up * _spread(values[:begin])


def _spike(values, begin, day, rng):
    values[begin : begin + 3] += rng.uniform(2, 4) * _spread(values)


def _plunge(values, begin, day, rng):
    """Cools down, stays there, and comes back."""
    depth = rng.uniform(1.5, 2.5) * _spread(values)
    shape = np.r_[np.linspace(0, 1, day // 12), np.ones(day // 3), np.linspace(1, 0, day // 6)]
    values[begin : begin + len(shape)] -= depth * shape[: len(values) - begin]


def _drift_to_failure(values, begin, day, rng):
    """Ever further down for days, then a plunge; it begins where the plunge does."""
    drift = np.linspace(0, 0.5 * _spread(values), 2 * day)
    values[begin - 2 * day : begin] -= drift
    _plunge(values, begin, day, rng)


def _stuck(values, begin, day, rng):
    values[begin : begin + day // 2] = values[begin]


def _noisy(values, begin, day, rng):
    part = slice(begin, begin + day // 2)
    values[part] += 0.5 * _spread(values) * rng.standard_normal(len(values[part]))


FAULTS: dict[str, Callable] = {
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
BY_DAY = ("jump up", "jump down", "missing peak", "flat middle", "holiday", "busy night")

# How it is made, rows, minutes between rows, and faults.
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
