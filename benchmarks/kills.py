"""Searches killed -9 at random moments, against one that was left alone.

    python -m benchmarks.kills [--kills 50] [--seed 0]

Each process searches until it is killed, or until it is done; the next one goes on. After every
search that got to its end its results and its best weights must be those of the search that was
left alone, to the last bit. Writes results/kills.json.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common


def search(directory: str):
    """Twenty trials, in populations of five, with pruning."""
    import numpy as np

    import keras_seqzoo as zoo

    x = np.cumsum(np.random.default_rng(0).normal(size=(128, 12, 2)), axis=1).astype("float32")
    return zoo.search(
        "simple_rnn_identity",
        x,
        max_trials=20,
        population=5,
        pruning=True,
        epochs=9,
        batch_size=16,
        directory=directory,
        report=False,
        verbose=0,
    )


def start(directory: Path) -> subprocess.Popen:
    """A process that searches there."""
    return subprocess.Popen([sys.executable, "-m", "benchmarks.kills", "--worker", str(directory)])


def outcome(directory: Path):
    """What the search there found."""
    found = search(str(directory))
    table = found.results.drop(columns="seconds")
    return table, found.best_model.get_weights()


def main() -> None:
    """Kills, goes on, compares; prints and writes what happened."""
    import numpy as np
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        search(arguments.worker)
        return
    rng = random.Random(arguments.seed)
    kills, finished, moments = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        if start(Path(folder) / "whole").wait():
            raise SystemExit("The search that was left alone failed.")
        duration = time.monotonic() - began
        expected, weights = outcome(Path(folder) / "whole")
        while kills < arguments.kills:
            directory = Path(folder) / str(finished)
            while True:
                process = start(directory)
                try:
                    code = process.wait(rng.uniform(0.3, 1.1) * duration)
                    if code:
                        raise SystemExit(f"A search ended with {code} after {kills} kills.")
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    moments.append(len(list(directory.glob("trials/*.npz"))))
                    print(f"{kills} kills, {moments[-1]} trials kept", flush=True)
                    if kills >= arguments.kills:
                        break
            found, found_weights = outcome(directory)
            pd.testing.assert_frame_equal(found, expected)
            for one, other in zip(found_weights, weights, strict=True):
                np.testing.assert_array_equal(one, other)
            finished += 1
            print(f"{finished} searches ended as the one that was left alone", flush=True)
    common.write(
        "kills", {"kills": kills, "searches": finished, "trials kept at each kill": moments}
    )


if __name__ == "__main__":
    main()
