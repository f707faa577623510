"""Searches killed by SIGKILL at random moments and resumed, against an uninterrupted search.

    python -m benchmarks.search_interruptions [--kills 50] [--seed 0]

Each process searches until it is killed or done; the next process resumes the search. The results
and best weights of every completed search must equal those of the uninterrupted search bit for bit.
Writes results/search_interruptions.json.
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
    """A search of twenty trials, in populations of five, with pruning."""
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
    """Start a process that searches in a directory."""
    command = [sys.executable, "-m", "benchmarks.search_interruptions", "--worker"]
    return subprocess.Popen([*command, str(directory)])


def outcome(directory: Path):
    """Results and best weights of the search in a directory."""
    completed = search(str(directory))
    return completed.results.drop(columns="seconds"), completed.best_model.get_weights()


def main() -> None:
    """Kill and resume searches, compare their results; print and write the counts."""
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
        started = time.monotonic()
        if start(Path(folder) / "uninterrupted").wait():
            raise SystemExit("The uninterrupted search failed.")
        duration = time.monotonic() - started
        expected, expected_weights = outcome(Path(folder) / "uninterrupted")
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
                    print(f"{kills} kills, {moments[-1]} trials saved", flush=True)
                    if kills >= arguments.kills:
                        break
            results, weights = outcome(directory)
            pd.testing.assert_frame_equal(results, expected)
            for actual, desired in zip(weights, expected_weights, strict=True):
                np.testing.assert_array_equal(actual, desired)
            finished += 1
            print(f"{finished} searches equal the uninterrupted one", flush=True)
    common.write(
        "search_interruptions",
        {"kills": kills, "searches": finished, "trials saved at each kill": moments},
    )


if __name__ == "__main__":
    main()
