"""Timing and result files of the benchmarks, with versions and machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Versions, cores and date, to compare a result with later ones."""
    versions = {"python": platform.python_version()}
    for package in ("keras-seqzoo", "keras", "tensorflow", "keras-tuner", "numpy", "torch", "jax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def time_interleaved(
    functions: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call, round by round, after one warm-up call of each function."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median of each list of seconds."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def write(name: str, result: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with the environment, and print its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(environment() | result, indent=1) + "\n")
    print(f"Written: {path}")
    return path
