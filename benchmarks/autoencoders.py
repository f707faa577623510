"""Reconstruction error of autoencoders by length, attention, cell, noise and number of features.

    python -m benchmarks.autoencoders [--seeds 5] [--parts rows,lengths,attention,cells,input]

Generated sequences of unit variance: "white", independent in time, and "slow", with a correlation
of 0.9 between adjacent steps in every feature. Errors are mean squared errors over the variance, on
held-out rows: 0 is perfect, 1 the error of the mean. The floor beside them is the least error of
any linear map through a code of that size, that of PCA: `1 - code / (steps * features)` on white
input. All models have the same rows, training steps and seeds. Claims are tested by paired ratios
of errors, with 95 % t-intervals over seeds. `--reuse` tests them on the stored runs. Writes
results/autoencoders.json and results/autoencoders.png.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import time
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from benchmarks.claims import interval
from keras_seqzoo import registry
from keras_seqzoo.losses import NormalizedMeanSquaredError

ROWS, EPOCHS, BATCH = 512, 30, 64
CORRELATION = 0.9
LENGTHS = (5, 10, 20, 40, 80)
ATTENTION_LENGTHS = (5, 20, 80)  # with attention
NOISES = (0.0, 0.5, 1.0)  # standard deviations; that of the signal is 1
FEATURES = (1, 2, 4, 8)
CELLS = ("linear", "simple_rnn", "gru", "lstm")
NAN = float("nan")
# The same sizes for all comparisons; the encoder with attention is unidirectional like the others.
CONFIG = {"units": 32, "code_size": 8}
ATTENTION_CONFIG = CONFIG | {"cell": "lstm", "bidirectional": False}
# Entry and arguments of each system, for 20 steps of 10 features.
SYSTEMS = {
    "C1": ("linear_rnn_autoencoder", {"units": 32, "code_size": 10}),
    "C2": ("attention_autoencoder", {"units": 32, "code_size": 16, "mask_value": NAN}),
    "C3": ("lstm_autoencoder", {"units": 64, "code_size": 32}),
}


def data(kind: str, steps: int, features: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """Training rows and held-out rows, `(2, rows, steps, features)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, 2 * ROWS, features))
    if kind == "slow":
        for step in range(1, steps):
            x[step] = CORRELATION * x[step - 1] + np.sqrt(1 - CORRELATION**2) * x[step]
    x = (x + noise * rng.normal(size=x.shape)) / np.sqrt(1 + noise**2)
    return x.swapaxes(0, 1).reshape(2, ROWS, steps, features).astype("float32")


def floor(kind: str, steps: int, features: int, code: int, noise: float = 0.0) -> float:
    """The least error of a linear map through a code of size `code`, that of PCA."""
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    covariance = np.eye(steps) if kind == "white" else CORRELATION**lags
    variances = np.linalg.eigvalsh(covariance + noise**2 * np.eye(steps))
    largest = np.sort(np.repeat(variances, features))[::-1]
    return float(largest[code:].sum() / largest.sum())


@functools.cache
def compiled(entry: str, config: tuple) -> keras.Model:
    """One model for all seeds, because compilation takes longer than training."""
    model = zoo.get(entry, **dict(config))
    steps = EPOCHS * ROWS // BATCH
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps)),
        NormalizedMeanSquaredError(),  # all features have variance 1
        steps_per_execution=8,
    )
    return model


def trained(entry: str, x: np.ndarray, seed: int, **config) -> keras.Model:
    """The model of these arguments, trained from the initial weights of this seed."""
    keras.utils.set_random_seed(seed)
    config["features"] = x.shape[-1]
    model = compiled(entry, tuple(sorted(config.items())))
    model.set_weights(zoo.get(entry, **config).get_weights())
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    zoo.adapt(model, x)
    y = x[:, -1] if len(model.output_shape) == 2 else np.nan_to_num(x)
    model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def measured(entry: str, kind: str, steps: int, features: int, seed: int, *, noise=0.0, **config):
    """One run: its settings, its error on held-out rows, and the floor of a linear code."""
    started = time.monotonic()
    x, held_out = data(kind, steps, features, seed, noise)
    if "mask_value" in config:  # rows of unequal lengths
        for part in (x, held_out):
            lengths = np.random.default_rng(seed).integers(steps // 2, steps + 1, ROWS)
            part[np.arange(steps) >= lengths[:, None]] = NAN
    model = trained(entry, x, seed, **config)
    config = registry.get_entry(entry).arguments() | config
    least = floor(kind, steps, features, config["code_size"], noise)
    if config["attention"] is not None:
        least = 0.0  # attention reaches every step
    if len(model.output_shape) == 2:
        least = max(0.0, 1 - config["code_size"] / features)
    run = {"entry": entry, "input": kind, "steps": steps, "features": features, "seed": seed}
    run |= {"noise": noise, "cell": config["cell"]}
    run |= {
        "code": config["code_size"],
        "error": zoo.metrics.identity_error(model, held_out),
        "floor": least,
    }
    return run | {"seconds": time.monotonic() - started}


def systems(seeds):
    """The systems on both kinds of input."""
    for (name, (entry, config)), kind in itertools.product(SYSTEMS.items(), ("white", "slow")):
        for seed in seeds:
            yield {"system": name} | measured(entry, kind, 20, 10, seed, **config)


def lengths(seeds):
    """One code for sequences of increasing length."""
    for steps, seed in itertools.product(LENGTHS, seeds):
        yield measured("lstm_autoencoder", "slow", steps, 2, seed, **CONFIG)


def attention(seeds):
    """The same with attention, and both on white input."""
    for steps, seed in itertools.product(ATTENTION_LENGTHS, seeds):
        yield measured("attention_autoencoder", "slow", steps, 2, seed, **ATTENTION_CONFIG)
    for seed in seeds:
        yield measured("attention_autoencoder", "white", 20, 2, seed, **ATTENTION_CONFIG)
        yield measured("lstm_autoencoder", "white", 20, 2, seed, **CONFIG)


def cells(seeds):
    """Decoder and encoder cells, ten steps from one code."""
    for kind, cell, seed in itertools.product(("white", "slow"), CELLS, seeds):
        yield measured("lstm_autoencoder", kind, 10, 2, seed, cell=cell, **CONFIG)


def noise_and_features(seeds):
    """One code for noisy sequences and for more features."""
    for noise, seed in itertools.product(NOISES[1:], seeds):  # without noise: two features, below
        yield measured("lstm_autoencoder", "slow", 20, 2, seed, noise=noise, **CONFIG)
    for features, seed in itertools.product(FEATURES, seeds):
        yield measured("lstm_autoencoder", "slow", 20, features, seed, **CONFIG)


PARTS = {
    "rows": systems,
    "lengths": lengths,
    "attention": attention,
    "cells": cells,
    "input": noise_and_features,
}


def errors_by_seed(runs, part: str, **wanted) -> dict[int, float]:
    """Errors by seed of the runs with the wanted settings."""
    return {
        run["seed"]: run["error"]
        for run in runs.get(part, [])
        if all(run[key] == value for key, value in wanted.items())
    }


def ratio(runs, change: dict, base: dict) -> dict | None:
    """The ratio of the errors of `change` to those of `base`, with its interval over seeds."""
    changed, compared = errors_by_seed(runs, **change), errors_by_seed(runs, **base)
    logs = [np.log(changed[seed] / compared[seed]) for seed in changed if seed in compared]
    if len(logs) < 2:
        return None
    mean, low, high = (float(np.exp(value)) for value in interval(logs))
    verdict = "holds" if high < 1 else "the opposite holds" if low > 1 else "undecided"
    return {"ratio": mean, "low": low, "high": high, "verdict": verdict}


def claims() -> Iterator[tuple[str, dict, dict]]:
    """Claims that one group of runs has less error than another: text, group, other group."""
    code, attends = {"part": "lengths"}, {"part": "attention", "entry": "attention_autoencoder"}
    white = {"part": "attention", "input": "white"}
    yield (
        "attention has less error than one code (white, 20 steps)",
        white | {"entry": "attention_autoencoder"},
        white | {"entry": "lstm_autoencoder"},
    )
    for steps in ATTENTION_LENGTHS:
        same = {"input": "slow", "steps": steps}
        text = f"attention has less error than one code (slow, {steps} steps)"
        yield text, attends | same, code | same
    for less, more in itertools.pairwise(LENGTHS):
        text = f"one code: {less} steps have less error than {more} (slow)"
        yield text, code | {"steps": less}, code | {"steps": more}
    less, *_, more = ATTENTION_LENGTHS
    slow = attends | {"input": "slow"}
    text = f"attention: {less} steps have less error than {more} (slow)"
    yield text, slow | {"steps": less}, slow | {"steps": more}
    for kind, cell in itertools.product(("white", "slow"), CELLS[1:]):
        same = {"part": "cells", "input": kind}
        text = f"linear cells have less error than {cell} ({kind}, 10 steps)"
        yield text, same | {"cell": "linear"}, same | {"cell": cell}
    same = {"part": "input", "features": 2}
    for less, more in itertools.pairwise(NOISES):
        text = f"noise of {less:g} gives less error than of {more:g} (one code, slow)"
        yield text, same | {"noise": less}, same | {"noise": more}
    same = {"part": "input", "noise": 0.0}
    for less, more in itertools.pairwise(FEATURES):
        text = f"{less} features have less error than {more} (one code, slow)"
        yield text, same | {"features": less}, same | {"features": more}


def evaluate_claims(runs: dict[str, list[dict]]) -> list[dict]:
    """Every claim that has runs, with its ratio, interval and verdict."""
    results = [(text, ratio(runs, change, base)) for text, change, base in claims()]
    return [{"claim": text} | result for text, result in results if result is not None]


def table(runs: dict[str, list[dict]]) -> list[dict]:
    """A row for each configuration: mean error, its interval, and the floor."""
    keys = ("system", "entry", "cell", "input", "steps", "features", "noise", "code")
    groups: dict[tuple, list[dict]] = {}
    for part, members in runs.items():
        for run in members:
            groups.setdefault((part, *(run.get(key) for key in keys)), []).append(run)
    rows = []
    for group, members in groups.items():
        mean, low, high = interval([run["error"] for run in members])
        rows.append(dict(zip(("part", *keys), group, strict=True)))
        rows[-1] |= {"error": mean, "low": low, "high": high, "floor": members[0]["floor"]}
        rows[-1]["seconds"] = float(np.mean([run["seconds"] for run in members]))
    return rows


def print_tables(rows, claims) -> None:
    """Print configurations and claims as Markdown."""
    print("| part | entry | cell | input | steps | features | noise | code | error | floor |")
    print("|" + " --- |" * 10)
    for row in rows:
        names = ("part", "entry", "cell", "input", "steps", "features", "noise", "code")
        cells = [str(row[name]) for name in names]
        cells.append(f"{row['error']:.3g} ({row['low']:.3g} to {row['high']:.3g})")
        print("| " + " | ".join([*cells, f"{row['floor']:.3g}"]) + " |")
    print("\n| claim | ratio of errors (95 % interval) | verdict |\n| --- | --- | --- |")
    for claim in claims:
        ratio = f"{claim['ratio']:.2g} ({claim['low']:.2g} to {claim['high']:.2g})"
        print(f"| {claim['claim']} | {ratio} | {claim['verdict']} |")


def plot(rows, path) -> None:
    """Plot error and floor against length, and error by cell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = {"lstm_autoencoder": "one code of 8", "attention_autoencoder": "attention"}
    for entry, label in lines.items():
        selected = [r for r in rows if r["part"] in ("lengths", "attention")]
        selected = [r for r in selected if r["entry"] == entry and r["input"] == "slow"]
        steps = [row["steps"] for row in selected]
        (line,) = left.plot(steps, [row["error"] for row in selected], marker="o", label=label)
        bounds = ([row[end] for row in selected] for end in ("low", "high"))
        left.fill_between(steps, *bounds, alpha=0.2, color=line.get_color())
        if entry == "lstm_autoencoder":
            floors = [row["floor"] for row in selected]
            left.plot(steps, floors, "--", color="#888", label="PCA with 8 components")
    left.set(xlabel="steps", ylabel="error over variance", xscale="log", ylim=(0, None))
    left.set_xticks(LENGTHS, LENGTHS)
    left.minorticks_off()
    for offset, kind in ((-0.2, "white"), (0.2, "slow")):
        cells = [row for row in rows if row["part"] == "cells" and row["input"] == kind]
        if not cells:
            continue
        places = np.arange(len(cells)) + offset
        bars = np.array([[row["error"] - row["low"], row["high"] - row["error"]] for row in cells])
        right.bar(places, [row["error"] for row in cells], 0.38, yerr=bars.T, label=kind)
        right.hlines(cells[0]["floor"], -0.5, 3.5, color="#888", linestyle="--", linewidth=1)
        right.set_xticks(range(len(cells)), [row["cell"] for row in cells])
    right.set(ylabel="error over variance, 10 steps", xlabel="cell (dashed: PCA)")
    for ax in (left, right):
        if ax.get_legend_handles_labels()[0]:  # a part may not have run
            ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the requested parts, keep the stored runs of the others, and test the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--reuse", action="store_true", help="test the claims on the stored runs")
    options = parser.parse_args()
    path = common.RESULTS / "autoencoders.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for part in [] if options.reuse else options.parts.split(","):
        started, runs[part] = time.monotonic(), []
        for run in PARTS[part](range(options.seeds)):
            runs[part].append(run)
            print(part, run, flush=True)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
        common.write("autoencoders", {"runs": runs})
    runs = {part: runs[part] for part in PARTS if part in runs}
    rows, tested = table(runs), evaluate_claims(runs)
    print_tables(rows, tested)
    common.write("autoencoders", {"claims": tested, "table": rows, "runs": runs})
    plot(rows, common.RESULTS / "autoencoders.png")


if __name__ == "__main__":
    main()
