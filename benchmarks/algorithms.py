"""Addition, copy and reversal: what an encoder-decoder can learn exactly, and how far it carries.

    python -m benchmarks.algorithms

Addition is that of keras.io's recipe: two numbers of up to three digits, written backwards, 50,000
different questions of which a tenth is held out. Copy and reversal are of random strings of 26
letters and of 1 to 40 of them; 2,000 of the same lengths are held out, and 200 of each length of 5,
10, ..., 80 show what becomes of answers beyond the lengths of training. An answer counts if it is
right as a whole, greedily. Each with 3 seeds. Writes results/algorithms.json and algorithms.png.
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
SURE = {"dropout": 0.0, "input_dropout": 0.0, "label_smoothing": 0.0, "validation_split": 0}
SETTINGS = {
    "addition": SURE | {"epochs": 30, "batch_size": 64, "units": 128},
    "copy": SURE | {"epochs": 8, "units": 128, "attention": "additive"},
    "reversal": SURE | {"epochs": 8, "units": 128, "attention": "additive"},
}
LONGEST = 40
LENGTHS = range(5, 81, 5)


def addition(seed: int) -> tuple[SequencePairs, SequencePairs]:
    """Questions to train on and held out; no question is in both."""
    rng = np.random.default_rng(seed)
    known: dict[tuple[int, ...], tuple[int, int]] = {}
    while len(known) < 50_000:
        one, other = (int(rng.integers(0, 10 ** rng.integers(1, 4))) for _ in range(2))
        known.setdefault(tuple(sorted((one, other))), (one, other))
    questions = list(known.values())
    pairs = SequencePairs(
        [list(f"{one}+{other}"[::-1]) for one, other in questions],
        [list(str(one + other)) for one, other in questions],
        source_units="characters",
        target_units="characters",
    )
    return pairs.split(0.1, seed=seed)


def strings(task: str, lengths, seed: int) -> SequencePairs:
    """Random strings of these lengths, and their copies or reversals."""
    rng = np.random.default_rng(seed)
    letters = list(string.ascii_lowercase)
    words = [rng.choice(letters, length).tolist() for length in lengths]
    said = words if task == "copy" else [word[::-1] for word in words]
    return SequencePairs(words, said, source_units="characters", target_units="characters")


def data(task: str, seed: int, count: int) -> tuple[SequencePairs, SequencePairs]:
    """What a task is trained on, and what is held out."""
    if task == "addition":
        return addition(seed)
    rng = np.random.default_rng(seed)
    train, held_out = (rng.integers(1, LONGEST + 1, size) for size in (count, 2000))
    return strings(task, train, 1000 + seed), strings(task, held_out, 2000 + seed)


def main() -> None:
    """Trains every task with every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strings", type=int, default=20_000, help="to train on")
    options = parser.parse_args()
    path = common.RESULTS / "algorithms.json"  # tasks that are not run stay as they are
    figures = json.loads(path.read_text())["tasks"] if path.exists() else {}
    for task in options.tasks.split(","):
        runs = []
        for seed in range(options.seeds):
            train, held_out = data(task, seed, options.strings)
            trained = zoo.train(ENTRY, train, seed=seed, verbose=0, **SETTINGS[task])
            scores = right(trained, held_out)
            runs.append({"accuracy": scores, "seconds": trained.seconds})
            if task != "addition":
                runs[-1]["by_length"] = {
                    length: right(trained, strings(task, [length] * 200, 3000 + length))
                    for length in LENGTHS
                }
            print(task, seed, runs[-1], flush=True)
        figures[task] = {
            "accuracy": float(np.mean([run["accuracy"] for run in runs])),
            "least": min(run["accuracy"] for run in runs),
            "seconds": float(np.mean([run["seconds"] for run in runs])),
            "runs": runs,
        }
        common.write("algorithms", {"settings": SETTINGS, "tasks": figures})
    draw(figures)
    for task, found in figures.items():
        print(f"| {task} | {100 * found['accuracy']:.2f} | {100 * found['least']:.2f} |")


def right(trained, pairs: SequencePairs) -> float:
    """The share of answers that are right as a whole."""
    longest = max(map(len, pairs.targets)) + 2
    return (
        PairMetrics(trained.preprocessor, pairs, max_length=longest)
        .measure(trained.inner_model)
        .accuracy
    )


def draw(figures) -> None:
    """Accuracy against length, beyond the lengths of training too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for task, found in figures.items():
        if task != "addition":
            lines = np.array([list(run["by_length"].values()) for run in found["runs"]])
            ax.plot(LENGTHS, lines.mean(0), marker="o", label=task)
    ax.axvline(LONGEST, color="#888", linestyle="--", linewidth=1, label="longest in training")
    ax.set(xlabel="length", ylabel="right as a whole", ylim=(-0.03, 1.03))
    ax.legend(frameon=False)
    figure.savefig(common.RESULTS / "algorithms.png", dpi=120)


if __name__ == "__main__":
    main()
