"""Accuracy of the classifiers on the intents of SNIPS and the speakers of Japanese Vowels.

    python -m benchmarks.classification --snips snips --vowels japanese_vowels

SNIPS as in benchmarks/tagging.py, with its file label; default arguments, the epoch selected by the
accuracy on valid. Japanese Vowels: JapaneseVowels_TRAIN.ts and _TEST.ts of
https://www.timeseriesclassification.com; none of the 270 sequences is held out
(`validation_split=0`), and the settings were chosen by cross-validation on them. Every test set is
scored once for each seed. Writes results/classification.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.tasks import evaluate

ENTRIES = ("simple_rnn_classifier", "gru_classifier", "bilstm_classifier")
VOWELS = {"validation_split": 0, "epochs": 60}


def train_and_test(name: str, train, valid, test, *, seeds: int, **settings) -> dict:
    """Mean and standard deviation of an entry's test accuracy over seeds."""
    runs = []
    for seed in range(seeds):
        result = zoo.train(name, train, validation_data=valid, seed=seed, verbose=0, **settings)
        accuracy = evaluate(result.model, test).accuracy
        runs.append({"accuracy": accuracy, "seconds": result.seconds})
        print(name, seed, round(accuracy, 4), round(result.seconds), flush=True)
    accuracies = [run["accuracy"] for run in runs]
    return {
        "accuracy": float(np.mean(accuracies)),
        "deviation": float(np.std(accuracies, ddof=1)),
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "parameters": result.inner_model.count_params(),
        "runs": runs,
    }


def main() -> None:
    """Train every entry with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snips")
    parser.add_argument("--vowels")
    parser.add_argument("--seeds", type=int, default=3, help="of SNIPS; vowels have 5")
    options = parser.parse_args()
    results: dict[str, dict] = {}
    for name in ENTRIES:
        if options.vowels:
            train, test = (
                zoo.data.read_labeled_sequences(
                    os.path.join(options.vowels, f"JapaneseVowels_{part}.ts")
                )
                for part in ("TRAIN", "TEST")
            )
            results.setdefault("vowels", {})[name] = train_and_test(
                name, train, None, test, seeds=5, **VOWELS
            )
        if options.snips:
            train, valid, test = (
                zoo.data.read_labeled_sequences(os.path.join(options.snips, part))
                for part in ("train", "valid", "test")
            )
            results.setdefault("intents", {})[name] = train_and_test(
                name, train, valid, test, seeds=options.seeds
            )
        common.write("classification", results)
    for task, entries in results.items():
        for name, summary in entries.items():
            print(
                f"| {task} | `{name}` | {summary['parameters']:,} | {summary['seconds']:.0f} | "
                f"{100 * summary['accuracy']:.1f} ± {100 * summary['deviation']:.1f} |"
            )


if __name__ == "__main__":
    main()
