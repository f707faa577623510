"""Sequence accuracy of an encoder-decoder on addition, copy and reversal, by length.

    python -m benchmarks.algorithms

Addition follows the example of keras.io: two numbers of up to three digits, written backwards,
50,000 different questions, a tenth of them held out. Copy and reversal use random strings of 1 to
40 of 26 letters; 2,000 strings of these lengths are held out. Another 200 of each length 5, 10,
..., 80 measure generalization beyond the lengths of training. Greedy search; a sequence counts if
it is correct as a whole. 3 seeds each. Writes results/algorithms.json and algorithms.png.
"""

from __future__ import annotations

import argparse
import json
import os
import string

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.callbacks import PairMetrics
from keras_seqzoo.data import SequencePairs

ENTRY = "attention_gru_encoder_decoder"
NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0, "label_smoothing": 0.0, "validation_split": 0}
SETTINGS = {
    "addition": NO_DROPOUT | {"epochs": 30, "batch_size": 64, "units": 128},
    "copy": NO_DROPOUT | {"epochs": 8, "units": 128, "attention": "additive"},
    "reversal": NO_DROPOUT | {"epochs": 8, "units": 128, "attention": "additive"},
}
LONGEST = 40
LENGTHS = range(5, 81, 5)


def addition(seed: int) -> tuple[SequencePairs, SequencePairs]:
    """Questions for training and held-out questions, disjoint."""
    rng = np.random.default_rng(seed)
    unique: dict[tuple[int, ...], tuple[int, int]] = {}
    while len(unique) < 50_000:
        a, b = (int(rng.integers(0, 10 ** rng.integers(1, 4))) for _ in range(2))
        unique.setdefault(tuple(sorted((a, b))), (a, b))
    questions = list(unique.values())
    pairs = SequencePairs(
        [list(f"{a}+{b}"[::-1]) for a, b in questions],
        [list(str(a + b)) for a, b in questions],
        source_units="characters",
        target_units="characters",
    )
    return pairs.split(0.1, seed=seed)


def strings(task: str, lengths, seed: int) -> SequencePairs:
    """Random strings of these lengths, paired with their copies or reversals."""
    rng = np.random.default_rng(seed)
    letters = list(string.ascii_lowercase)
    words = [rng.choice(letters, length).tolist() for length in lengths]
    targets = words if task == "copy" else [word[::-1] for word in words]
    return SequencePairs(words, targets, source_units="characters", target_units="characters")


def data(task: str, seed: int, count: int) -> tuple[SequencePairs, SequencePairs]:
    """Training pairs and held-out pairs of a task."""
    if task == "addition":
        return addition(seed)
    rng = np.random.default_rng(seed)
    train, held_out = (rng.integers(1, LONGEST + 1, size) for size in (count, 2000))
    return strings(task, train, 1000 + seed), strings(task, held_out, 2000 + seed)


def main() -> None:
    """Train on every task with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strings", type=int, default=20_000, help="number of training strings")
    options = parser.parse_args()
    path = common.RESULTS / "algorithms.json"  # keeps the results of tasks that are not run
    results = json.loads(path.read_text())["tasks"] if path.exists() else {}
    for task in options.tasks.split(","):
        runs = []
        for seed in range(options.seeds):
            train, held_out = data(task, seed, options.strings)
            result = zoo.train(ENTRY, train, seed=seed, verbose=0, **SETTINGS[task])
            accuracy = sequence_accuracy(result, held_out)
            runs.append({"accuracy": accuracy, "seconds": result.seconds})
            if task != "addition":
                runs[-1]["by_length"] = {
                    length: sequence_accuracy(result, strings(task, [length] * 200, 3000 + length))
                    for length in LENGTHS
                }
            print(task, seed, runs[-1], flush=True)
        results[task] = {
            "accuracy": float(np.mean([run["accuracy"] for run in runs])),
            "least": min(run["accuracy"] for run in runs),
            "seconds": float(np.mean([run["seconds"] for run in runs])),
            "runs": runs,
        }
        common.write("algorithms", {"settings": SETTINGS, "tasks": results})
    plot(results)
    for task, summary in results.items():
        print(f"| {task} | {100 * summary['accuracy']:.2f} | {100 * summary['least']:.2f} |")


def sequence_accuracy(result, pairs: SequencePairs) -> float:
    """The share of generated sequences that equal their target."""
    max_length = max(map(len, pairs.targets)) + 2
    metrics = PairMetrics(result.preprocessor, pairs, max_length=max_length)
    return metrics.measure(result.inner_model).accuracy


def plot(results) -> None:
    """Plot sequence accuracy against length, beyond the lengths of training too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for task, summary in results.items():
        if task != "addition":
            by_length = np.array([list(run["by_length"].values()) for run in summary["runs"]])
            ax.plot(LENGTHS, by_length.mean(0), marker="o", label=task)
    ax.axvline(LONGEST, color="#888", linestyle="--", linewidth=1, label="longest in training")
    ax.set(xlabel="length", ylabel="sequence accuracy", ylim=(-0.03, 1.03))
    ax.legend(frameon=False)
    figure.savefig(common.RESULTS / "algorithms.png", dpi=120)


if __name__ == "__main__":
    main()
