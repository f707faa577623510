"""An hour of searching and streaming leaves memory, threads and files as they were."""

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

# Seconds; less to try it.
SECONDS = float(os.environ.get("KERAS_SEQZOO_SOAK", 3_600))


def in_use() -> dict[str, float]:
    """Megabytes that are resident, threads, and open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "megabytes": pages * resource.getpagesize() / 2**20,
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def searched(folder: Path, seed: int) -> None:
    x = np.random.default_rng(0).normal(size=(24, 8, 1)).astype("float32")
    zoo.search(
        "simple_rnn_identity", x, max_trials=2, population=1, epochs=1, directory=folder / "run",
        report=False, verbose=0, seed=seed, space={"units": [2, 3]},
    )  # fmt: skip
    shutil.rmtree(folder / "run")


def streamed(steps: int) -> None:
    streamer = zoo.stream(zoo.get("gru_forecaster", features=2, units=4))
    state = streamer.initial_state(3)
    for reading in np.random.default_rng(1).normal(size=(steps, 3, 2)):
        _, state = streamer.step(reading, state)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says")
def test_nothing_grows(tmp_path):
    found, end, round_ = [], time.monotonic() + SECONDS, 0
    while time.monotonic() < end or len(found) < 8:
        searched(tmp_path, round_)
        streamed(1_000)
        found.append(in_use())
        round_ += 1
    # The first rounds fill caches; after them a straight line is laid through what is resident.
    warm = found[len(found) // 4 :]
    slope = np.polyfit(range(len(warm)), [one["megabytes"] for one in warm], 1)[0]
    print(f"{len(found)} rounds, {slope:.3f} MB a round, {found[0]} to {found[-1]}")
    assert slope * len(warm) < max(0.1 * warm[0]["megabytes"], 1.0), slope
    for what in ("threads", "files"):
        assert warm[-1][what] <= warm[0][what] + 2, found[-1]
    assert not list(tmp_path.iterdir())
