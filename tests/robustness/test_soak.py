"""An hour of searches and streams does not grow memory, threads or open files."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import keras_seqzoo as zoo

SECONDS = float(os.environ.get("KERAS_SEQZOO_SOAK", 3_600))


def resources_in_use() -> dict[str, float]:
    """Resident megabytes, threads, and open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "megabytes": pages * resource.getpagesize() / 2**20,
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def run_search(folder: Path, seed: int) -> None:
    x = np.random.default_rng(0).normal(size=(24, 8, 1)).astype("float32")
    zoo.search(
        "simple_rnn_identity", x, max_trials=2, population=1, epochs=1, directory=folder / "run",
        report=False, verbose=0, seed=seed, space={"units": [2, 3]},
    )  # fmt: skip
    shutil.rmtree(folder / "run")


def run_stream(steps: int) -> None:
    streamer = zoo.stream(zoo.get("gru_forecaster", features=2, units=4))
    state = streamer.initial_state(3)
    for reading in np.random.default_rng(1).normal(size=(steps, 3, 2)):
        _, state = streamer.step(reading, state)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_threads_and_files_do_not_grow(tmp_path):
    rounds, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end or len(rounds) < 8:
        run_search(tmp_path, seed=len(rounds))
        run_stream(1_000)
        rounds.append(resources_in_use())
    # The first rounds fill caches; a line is fitted to the memory of the later ones.
    warm = rounds[len(rounds) // 4 :]
    slope = np.polyfit(range(len(warm)), [usage["megabytes"] for usage in warm], 1)[0]
    print(f"{len(rounds)} rounds, {slope:.3f} MB per round, {rounds[0]} to {rounds[-1]}")
    assert slope * len(warm) < max(0.1 * warm[0]["megabytes"], 1.0), slope
    for resource_name in ("threads", "files"):
        assert warm[-1][resource_name] <= warm[0][resource_name] + 2, rounds[-1]
    assert not list(tmp_path.iterdir())
