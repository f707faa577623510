"""Resident memory of a long search: after 2,000 tiny trials against after 200.

    python -m benchmarks.memory [--trials 2000] [--alone 200]

Trials that train together, and (`--alone`) a tenth as many that train one by one, after a tenth of
them and after all. Writes results/memory.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common


def resident() -> float:
    """Megabytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def grow(trials: int, **options) -> dict[str, float]:
    """One search; memory when a tenth of the trials are done, and when all are."""
    import numpy as np
    import optuna

    import keras_seqzoo as zoo

    x = np.cumsum(np.random.default_rng(0).normal(size=(64, 8, 2)), axis=1).astype("float32")
    proposed, found = [], {}

    def sampler(seed: int) -> optuna.samplers.BaseSampler:
        proposed.append(seed)
        if len(proposed) == trials // 10 + 1:
            found[f"after {trials // 10}"] = round(resident(), 1)
        return optuna.samplers.RandomSampler(seed=seed)

    with tempfile.TemporaryDirectory() as directory:
        zoo.search(
            "simple_rnn_identity", x, max_trials=trials, epochs=1, sampler=sampler,
            directory=directory, report=False, verbose=0, **options,
        )  # fmt: skip
    found[f"after {trials}"] = round(resident(), 1)
    first, last = found.values()
    found["growth"] = round(last / first - 1, 3)
    print(options, found, flush=True)
    return found


def main() -> None:
    """Measures both kinds of search; prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=200)
    arguments = parser.parse_args()
    figures = {"together": grow(arguments.trials, population=50)}
    if arguments.alone:
        figures["one by one"] = grow(arguments.alone, population=1)
    common.write("memory", figures)


if __name__ == "__main__":
    main()
