"""Growth of the resident memory of a long search: after 2,000 tiny trials against after 200.

    python -m benchmarks.search_memory [--trials 2000] [--one-by-one 200]

One search with populations, and one with `--one-by-one` trials that train one at a time. Memory is
measured after a tenth of the trials and after all. Writes results/search_memory.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common


def resident_megabytes() -> float:
    """Resident memory of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure_growth(trials: int, **options) -> dict[str, float]:
    """Memory of one search after a tenth of the trials and after all."""
    import numpy as np
    import optuna

    import keras_seqzoo as zoo

    x = np.cumsum(np.random.default_rng(0).normal(size=(64, 8, 2)), axis=1).astype("float32")
    proposed, megabytes = [], {}

    def sampler(seed: int) -> optuna.samplers.BaseSampler:
        proposed.append(seed)
        if len(proposed) == trials // 10 + 1:
            megabytes[f"after {trials // 10}"] = round(resident_megabytes(), 1)
        return optuna.samplers.RandomSampler(seed=seed)

    with tempfile.TemporaryDirectory() as directory:
        zoo.search(
            "simple_rnn_identity", x, max_trials=trials, epochs=1, sampler=sampler,
            directory=directory, report=False, verbose=0, **options,
        )  # fmt: skip
    megabytes[f"after {trials}"] = round(resident_megabytes(), 1)
    first, last = megabytes.values()
    megabytes["growth"] = round(last / first - 1, 3)
    print(options, megabytes, flush=True)
    return megabytes


def main() -> None:
    """Measure both kinds of search; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--one-by-one", type=int, default=200)
    arguments = parser.parse_args()
    results = {"together": measure_growth(arguments.trials, population=50)}
    if arguments.one_by_one:
        results["one by one"] = measure_growth(arguments.one_by_one, population=1)
    common.write("search_memory", results)


if __name__ == "__main__":
    main()
