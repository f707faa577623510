"""Intents of SNIPS and the speakers of Japanese Vowels by the classifiers of the zoo.

    python -m benchmarks.classification --snips snips --vowels japanese_vowels

SNIPS as in benchmarks/tagging.py, with its file label; entries as they come, the epoch chosen by
the accuracy on valid. Japanese Vowels: JapaneseVowels_TRAIN.ts and _TEST.ts of
https://www.timeseriesclassification.com; no part is held out of 270 examples
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


def runs(name: str, train, valid, test, *, seeds: int, **settings) -> dict:
    """The mean over seeds of what an entry reaches on `test`."""
    found = []
    for seed in range(seeds):
        trained = zoo.train(name, train, validation_data=valid, seed=seed, verbose=0, **settings)
        accuracy = evaluate(trained.model, test).accuracy
        found.append({"accuracy": accuracy, "seconds": trained.seconds})
        print(name, seed, round(accuracy, 4), round(trained.seconds), flush=True)
    accuracies = [run["accuracy"] for run in found]
    return {
        "accuracy": float(np.mean(accuracies)),
        "deviation": float(np.std(accuracies, ddof=1)),
        "seconds": float(np.mean([run["seconds"] for run in found])),
        "parameters": trained.inner_model.count_params(),
        "runs": found,
    }


def main() -> None:
    """Trains every entry with every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snips")
    parser.add_argument("--vowels")
    parser.add_argument("--seeds", type=int, default=3, help="of SNIPS; vowels have 5")
    options = parser.parse_args()
    figures: dict[str, dict] = {}
    for name in ENTRIES:
        if options.vowels:
            train, test = (
                zoo.data.read_labeled_sequences(
                    os.path.join(options.vowels, f"JapaneseVowels_{part}.ts")
                )
                for part in ("TRAIN", "TEST")
            )
            figures.setdefault("vowels", {})[name] = runs(
                name, train, None, test, seeds=5, **VOWELS
            )
        if options.snips:
            train, valid, test = (
                zoo.data.read_labeled_sequences(os.path.join(options.snips, part))
                for part in ("train", "valid", "test")
            )
            figures.setdefault("intents", {})[name] = runs(
                name, train, valid, test, seeds=options.seeds
            )
        common.write("classification", figures)
    for task, entries in figures.items():
        for name, found in entries.items():
            print(
                f"| {task} | `{name}` | {found['parameters']:,} | {found['seconds']:.0f} | "
                f"{100 * found['accuracy']:.1f} ± {100 * found['deviation']:.1f} |"
            )


if __name__ == "__main__":
    main()
