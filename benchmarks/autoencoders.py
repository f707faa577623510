"""Autoencoders: what a code holds, how far, of which input; attention; linear cells.

    python -m benchmarks.autoencoders [--seeds 5] [--parts rows,lengths,attention,cells,input]

Generated sequences of unit variance: "white", independent numbers, and "slow", whose neighbours
correlate by 0.9 in every feature. Errors are over the variance, on rows that were not trained on:
0 is perfect, 1 what the mean gets. Beside them stands the least error that any linear map through
as many numbers can have, which is known: PCA's, `1 - code / (steps * features)` on white input.
Every model has the same rows, steps of training and seeds; claims are settled by paired ratios of
errors, with 95 % t-intervals over seeds. `--again` settles the runs of the last time. Writes
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
LOOKED_AT = (5, 20, 80)  # with attention
NOISES = (0.0, 0.5, 1.0)  # deviations, of a signal of deviation 1
WIDTHS = (1, 2, 4, 8)
CELLS = ("linear", "simple_rnn", "gru", "lstm")
NAN = float("nan")
# One width for all that is compared; the attention's encoder reads one way as the others do.
ONE = {"units": 32, "code_size": 8}
LOOKING = ONE | {"cell": "lstm", "bidirectional": False}
# The systems, 20 steps of 10 features each.
SYSTEMS = {
    "C1": ("linear_rnn_autoencoder", {"units": 32, "code_size": 10}),
    "C2": ("attention_autoencoder", {"units": 32, "code_size": 16, "mask_value": NAN}),
    "C3": ("lstm_autoencoder", {"units": 64, "code_size": 32}),
}


def data(kind: str, steps: int, features: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """Rows to train on and others to measure on, `(2, rows, steps, features)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, 2 * ROWS, features))
    if kind == "slow":
        for step in range(1, steps):
            x[step] = CORRELATION * x[step - 1] + np.sqrt(1 - CORRELATION**2) * x[step]
    x = (x + noise * rng.normal(size=x.shape)) / np.sqrt(1 + noise**2)
    return x.swapaxes(0, 1).reshape(2, ROWS, steps, features).astype("float32")


def floor(kind: str, steps: int, features: int, code: int, noise: float = 0.0) -> float:
    """The least error of a linear map through `code` numbers: the variance PCA leaves out."""
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    covariance = np.eye(steps) if kind == "white" else CORRELATION**lags
    variances = np.linalg.eigvalsh(covariance + noise**2 * np.eye(steps))
    largest = np.sort(np.repeat(variances, features))[::-1]
    return float(largest[code:].sum() / largest.sum())


@functools.cache
def compiled(entry: str, config: tuple) -> keras.Model:
    """One model for all seeds: a program takes longer to compile than to train."""
    model = zoo.get(entry, **dict(config))
    steps = EPOCHS * ROWS // BATCH
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps)),
        NormalizedMeanSquaredError(),  # all features have variance 1
        steps_per_execution=8,
    )
    return model


def trained(entry: str, x: np.ndarray, seed: int, **config) -> keras.Model:
    """The model of these arguments, trained from this seed's weights."""
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
    """One run: how it was set up, its error on other rows, and the floor of one linear code."""
    started = time.monotonic()
    x, other = data(kind, steps, features, seed, noise)
    if "mask_value" in config:  # lengths of their own
        for part in (x, other):
            lengths = np.random.default_rng(seed).integers(steps // 2, steps + 1, ROWS)
            part[np.arange(steps) >= lengths[:, None]] = NAN
    model = trained(entry, x, seed, **config)
    config = registry.get_entry(entry).arguments() | config
    least = floor(kind, steps, features, config["code_size"], noise)
    if config["attention"] is not None:
        least = 0.0  # every step is there to be looked at
    if len(model.output_shape) == 2:
        least = max(0.0, 1 - config["code_size"] / features)
    run = {"entry": entry, "input": kind, "steps": steps, "features": features, "seed": seed}
    run |= {"noise": noise, "cell": config["cell"]}
    run |= {
        "code": config["code_size"],
        "error": zoo.metrics.identity_error(model, other),
        "floor": least,
    }
    return run | {"seconds": time.monotonic() - started}


def systems(seeds):
    """Each system on its own shapes."""
    for (name, (entry, config)), kind in itertools.product(SYSTEMS.items(), ("white", "slow")):
        for seed in seeds:
            yield {"system": name} | measured(entry, kind, 20, 10, seed, **config)


def lengths(seeds):
    """One code, from short to long."""
    for steps, seed in itertools.product(LENGTHS, seeds):
        yield measured("lstm_autoencoder", "slow", steps, 2, seed, **ONE)


def attention(seeds):
    """The same with attention; and both on white input."""
    for steps, seed in itertools.product(LOOKED_AT, seeds):
        yield measured("attention_autoencoder", "slow", steps, 2, seed, **LOOKING)
    for seed in seeds:
        yield measured("attention_autoencoder", "white", 20, 2, seed, **LOOKING)
        yield measured("lstm_autoencoder", "white", 20, 2, seed, **ONE)


def cells(seeds):
    """What every step of ten is said from one code by."""
    for kind, cell, seed in itertools.product(("white", "slow"), CELLS, seeds):
        yield measured("lstm_autoencoder", kind, 10, 2, seed, cell=cell, **ONE)


def of_input(seeds):
    """One code of noisy and of wide sequences."""
    for noise, seed in itertools.product(NOISES[1:], seeds):  # none is of two features, below
        yield measured("lstm_autoencoder", "slow", 20, 2, seed, noise=noise, **ONE)
    for features, seed in itertools.product(WIDTHS, seeds):
        yield measured("lstm_autoencoder", "slow", 20, features, seed, **ONE)


PARTS = {
    "rows": systems,
    "lengths": lengths,
    "attention": attention,
    "cells": cells,
    "input": of_input,
}


def among(runs, part: str, **wanted) -> dict[int, float]:
    """Errors by seed of the runs that are wanted."""
    return {
        run["seed"]: run["error"]
        for run in runs.get(part, [])
        if all(run[key] == value for key, value in wanted.items())
    }


def ratio(runs, change: dict, base: dict) -> dict | None:
    """The error of `change` over that of `base`, with its interval over seeds."""
    ours, theirs = among(runs, **change), among(runs, **base)
    logs = [np.log(ours[seed] / theirs[seed]) for seed in ours if seed in theirs]
    if len(logs) < 2:
        return None
    mean, low, high = (float(np.exp(one)) for one in interval(logs))
    verdict = "holds" if high < 1 else "the opposite holds" if low > 1 else "undecided"
    return {"ratio": mean, "low": low, "high": high, "verdict": verdict}


def claims() -> Iterator[tuple[str, dict, dict]]:
    """What is claimed, of which runs: that the first err less than the others."""
    one, looks = {"part": "lengths"}, {"part": "attention", "entry": "attention_autoencoder"}
    white = {"part": "attention", "input": "white"}
    yield (
        "attention errs less than one code (white, 20 steps)",
        white | {"entry": "attention_autoencoder"},
        white | {"entry": "lstm_autoencoder"},
    )
    for steps in LOOKED_AT:
        same = {"input": "slow", "steps": steps}
        yield f"attention errs less than one code (slow, {steps} steps)", looks | same, one | same
    for less, more in itertools.pairwise(LENGTHS):
        text = f"one code: {less} steps err less than {more} (slow)"
        yield text, one | {"steps": less}, one | {"steps": more}
    less, *_, more = LOOKED_AT
    slow = looks | {"input": "slow"}
    text = f"attention: {less} steps err less than {more} (slow)"
    yield text, slow | {"steps": less}, slow | {"steps": more}
    for kind, cell in itertools.product(("white", "slow"), CELLS[1:]):
        same = {"part": "cells", "input": kind}
        text = f"linear cells err less than {cell} ({kind}, 10 steps)"
        yield text, same | {"cell": "linear"}, same | {"cell": cell}
    same = {"part": "input", "features": 2}
    for less, more in itertools.pairwise(NOISES):
        text = f"noise of {less:g} errs less than of {more:g} (one code, slow)"
        yield text, same | {"noise": less}, same | {"noise": more}
    same = {"part": "input", "noise": 0.0}
    for less, more in itertools.pairwise(WIDTHS):
        text = f"{less} features err less than {more} (one code, slow)"
        yield text, same | {"features": less}, same | {"features": more}


def settle(runs: dict[str, list[dict]]) -> list[dict]:
    """Every claim that has runs, with its ratio, interval and verdict."""
    found = [(text, ratio(runs, *sides)) for text, *sides in claims()]
    return [{"claim": text} | one for text, one in found if one is not None]


def table(runs: dict[str, list[dict]]) -> list[dict]:
    """A row for each configuration: mean error, its interval, and the floor."""
    keys = ("system", "entry", "cell", "input", "steps", "features", "noise", "code")
    groups: dict[tuple, list[dict]] = {}
    for part, found in runs.items():
        for run in found:
            groups.setdefault((part, *(run.get(key) for key in keys)), []).append(run)
    rows = []
    for group, members in groups.items():
        mean, low, high = interval([run["error"] for run in members])
        rows.append(dict(zip(("part", *keys), group, strict=True)))
        rows[-1] |= {"error": mean, "low": low, "high": high, "floor": members[0]["floor"]}
        rows[-1]["seconds"] = float(np.mean([run["seconds"] for run in members]))
    return rows


def show(rows, settled) -> None:
    """Prints both as tables."""
    print("| part | entry | cell | input | steps | features | noise | code | error | floor |")
    print("|" + " --- |" * 10)
    for row in rows:
        names = ("part", "entry", "cell", "input", "steps", "features", "noise", "code")
        said = [str(row[name]) for name in names]
        said.append(f"{row['error']:.3g} ({row['low']:.3g} to {row['high']:.3g})")
        print("| " + " | ".join([*said, f"{row['floor']:.3g}"]) + " |")
    print("\n| claim | ratio of errors (95 % interval) | verdict |\n| --- | --- | --- |")
    for one in settled:
        said = f"{one['ratio']:.2g} ({one['low']:.2g} to {one['high']:.2g})"
        print(f"| {one['claim']} | {said} | {one['verdict']} |")


def draw(rows, path) -> None:
    """Error against length, beside its floor; and by cell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = {"lstm_autoencoder": "one code of 8", "attention_autoencoder": "attention"}
    for entry, label in lines.items():
        ours = [r for r in rows if r["part"] in ("lengths", "attention") and r["entry"] == entry]
        ours = [row for row in ours if row["input"] == "slow"]
        places = [row["steps"] for row in ours]
        drawn = left.plot(places, [row["error"] for row in ours], marker="o", label=label)
        bounds = ([row[end] for row in ours] for end in ("low", "high"))
        left.fill_between(places, *bounds, alpha=0.2, color=drawn[0].get_color())
        if entry == "lstm_autoencoder":
            least = [row["floor"] for row in ours]
            left.plot(places, least, "--", color="#888", label="PCA with 8 numbers")
    left.set(xlabel="steps", ylabel="error over variance", xscale="log", ylim=(0, None))
    left.set_xticks(LENGTHS, LENGTHS)
    left.minorticks_off()
    for offset, kind in ((-0.2, "white"), (0.2, "slow")):
        ours = [row for row in rows if row["part"] == "cells" and row["input"] == kind]
        if not ours:
            continue
        places = np.arange(len(ours)) + offset
        errors = np.array([[row["error"] - row["low"], row["high"] - row["error"]] for row in ours])
        right.bar(places, [row["error"] for row in ours], 0.38, yerr=errors.T, label=kind)
        right.hlines(ours[0]["floor"], -0.5, 3.5, color="#888", linestyle="--", linewidth=1)
        right.set_xticks(range(len(ours)), [row["cell"] for row in ours])
    right.set(ylabel="error over variance, 10 steps", xlabel="cell (dashed: PCA)")
    for ax in (left, right):
        if ax.get_legend_handles_labels()[0]:  # a part may not have run
            ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs the parts asked for, keeps the others of the last time, and settles the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--again", action="store_true", help="settle the runs of the last time")
    options = parser.parse_args()
    path = common.RESULTS / "autoencoders.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for part in [] if options.again else options.parts.split(","):
        started, runs[part] = time.monotonic(), []
        for run in PARTS[part](range(options.seeds)):
            runs[part].append(run)
            print(part, run, flush=True)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
        common.write("autoencoders", {"runs": runs})
    runs = {part: runs[part] for part in PARTS if part in runs}
    rows, settled = table(runs), settle(runs)
    show(rows, settled)
    common.write("autoencoders", {"claims": settled, "table": rows, "runs": runs})
    draw(rows, common.RESULTS / "autoencoders.png")


if __name__ == "__main__":
    main()
