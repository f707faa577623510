"""Identity error and state leakage of a tuned `simple_rnn_identity` on machine temperatures.

    python -m benchmarks.temperatures --data machine_temperature_system_failure.csv

The series (Numenta Anomaly Benchmark, realKnownCause,
https://github.com/numenta/NAB/tree/master/data/realKnownCause) in time order: the first 60 % for
training, the next 20 % to select among 30 trials by `select(max_leakage=0.002)`, the last 20 %
measured once. The leakage of the anomaly score is measured too. Both for two leakage budgets.
Writes results/temperatures.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_seqzoo as zoo
from benchmarks import common

SEQUENCE_LENGTH, SEQUENCE_STRIDE = 50, 25
BUDGETS = (0.002, 1e-6)


def main() -> None:
    """Search, select by each budget, measure on the last part and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", help="of the search; default: a temporary folder")
    options = parser.parse_args()
    readings = zoo.data.read_time_series(options.data)
    for note in readings.notes:
        print(note)
    train, validation, test = readings.split(0.6, 0.2, 0.2)
    x = zoo.data.make_windows(
        train, sequence_length=SEQUENCE_LENGTH, sequence_stride=SEQUENCE_STRIDE
    )
    x_val, x_test = (
        zoo.data.make_windows(part, sequence_length=SEQUENCE_LENGTH) for part in (validation, test)
    )
    started = time.monotonic()
    search = zoo.search(
        "simple_rnn_identity",
        x,
        validation_data=x_val,
        max_trials=options.max_trials,
        seed=options.seed,
        directory=options.directory or tempfile.mkdtemp(),
    )
    seconds = time.monotonic() - started
    results = {}
    for budget in BUDGETS:
        model = search.select(max_leakage=budget)
        report = zoo.leakage(model, x_test)
        scores = {
            alone: zoo.leakage(zoo.diagnostics.anomaly_score(model, x, alone=alone), x_test)
            for alone in (False, True)
        }
        results[f"max_leakage={budget:g}"] = {
            "identity_error": zoo.metrics.identity_error(model, x_test),
            "leakage": report.to_dict(),
            "score_leakage": scores[False].to_dict(),
            "score_leakage_alone": scores[True].index,
        }
    print("\n| selected by | identity error | leakage (95 %) | of the score (95 %) | alone=True |")
    print("| --- | --- | --- | --- | --- |")
    for name, result in results.items():
        cells = [
            f"{result[key]['index']:.2g} ({result[key]['interval'][0]:.2g} to "
            f"{result[key]['interval'][1]:.2g})"
            for key in ("leakage", "score_leakage")
        ]
        print(
            f"| {name} | {result['identity_error']:.2g} | {cells[0]} | {cells[1]} | "
            f"{result['score_leakage_alone']:.2g} |"
        )
    print(f"{options.max_trials} trials in {seconds:.0f} s")
    common.write(
        "temperatures",
        {"seed": options.seed, "trials": options.max_trials, "seconds": seconds, "test": results},
    )


if __name__ == "__main__":
    main()
