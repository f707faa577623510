"""State leakage of the identity SimpleRNN by units, regularizer, output and scaling.

    python -m benchmarks.claims [--input white|readings] [--seeds 5] [--fine]

Windows of 12 steps and 3 features. `white`: independent readings between 1 and 15, for which the
index is the Sobol index of the past. `readings`: generated sensor readings, which are
autocorrelated. Every configuration is trained with every seed on the same rows and measured on
held-out rows. Common claims are tested by paired differences of the logarithm of the leakage over
seeds, with 95 % t-intervals. `--reuse` tests them on the stored runs. Writes
results/claims_INPUT.json and .png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.losses import NormalizedMeanSquaredError

UNITS = (2, 8, 32)
STRENGTHS = (1e-3, 1e-2, 1e-1)
FINE_UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
FINE_STRENGTHS = tuple(np.logspace(-4, 0, 9))
KINDS = ("l1", "l2", "l1_l2")
ROWS, STEPS, FEATURES, EPOCHS = 512, 12, 3, 25
FLOOR = 1e-12  # for the logarithm of an exact 0
# Two-sided 95 % points of Student's t by degrees of freedom.
T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def data(source, seed):
    """Training and test rows, `(2, rows, steps, features)`."""
    shape = (2, ROWS, STEPS, FEATURES)
    if source == "white":
        return np.random.default_rng(seed).uniform(1, 15, shape).astype("float32")
    values = zoo.data.synthetic_readings(steps=16_000, seed=seed).values  # the fault is at the end
    return values[: 2 * ROWS * STEPS, :FEATURES].reshape(shape).astype("float32")


def train(units, kind, strength, sequences, seed, source, *, normalize=True):
    """Identity error, leakage and saturation of one configuration on held-out rows."""
    x, x_test = data(source, seed)
    keras.utils.set_random_seed(seed)
    regularizer = {
        None: lambda s: None,
        "l1": keras.regularizers.L1,
        "l2": keras.regularizers.L2,
        "l1_l2": lambda s: keras.regularizers.L1L2(s, s),
    }[kind](strength)
    model = zoo.get(
        "simple_rnn_identity",
        features=FEATURES,
        units=units,
        return_sequences=sequences,
        recurrent_regularizer=regularizer,
        normalize=normalize,
    )
    if normalize:
        zoo.adapt(model, x)
    y = x if sequences else x[:, -1]
    loss = NormalizedMeanSquaredError(x.var(axis=(0, 1)))
    model.compile(keras.optimizers.Adam(1e-2), loss, steps_per_execution=16)
    model.fit(x, y, epochs=EPOCHS, batch_size=32, verbose=0)
    states = keras.Model(model.inputs, model.get_layer("recurrent").output)
    return {
        "units": units,
        "kind": kind or "none",
        "strength": strength,
        "return_sequences": sequences,
        "seed": seed,
        "normalize": normalize,
        "identity_error": zoo.metrics.identity_error(model, x_test),
        "leakage": zoo.leakage(model, x_test, resamples=0).to_dict()["index"],  # None if constant
        "saturated": float((np.abs(states.predict_on_batch(x_test)) > 0.99).mean()),
    }


def interval(values) -> tuple[float, float, float]:
    """Mean and 95 % t-interval."""
    values = np.asarray(values)
    half = T.get(len(values) - 1, 1.96) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def compare(runs, change, base, keys) -> dict:
    """Ratio of the leakage of runs that satisfy `change` to that of their counterparts in `base`.

    Counterparts agree in `keys`. Differences of logarithms are averaged within a seed before the
    interval is taken over seeds, because runs of one seed share their rows. The leakage of a
    constant output is undefined; pairs with one are left out.
    """
    counterparts = {tuple(run[key] for key in keys): run for run in runs if base(run)}
    by_seed: dict[int, list[float]] = {}
    for run in filter(change, runs):
        counterpart = counterparts.get(tuple(run[key] for key in keys))
        if counterpart is not None and None not in (run["leakage"], counterpart["leakage"]):
            logs = [np.log(max(r["leakage"], FLOOR)) for r in (run, counterpart)]
            by_seed.setdefault(run["seed"], []).append(logs[0] - logs[1])
    if len(by_seed) < 2:
        return {"ratio": None, "low": None, "high": None, "verdict": "undefined"}
    mean, low, high = interval([np.mean(values) for values in by_seed.values()])
    verdict = "holds" if high < 0 else "the opposite holds" if low > 0 else "undecided"
    return {
        "ratio": float(np.exp(mean)),
        "low": float(np.exp(low)),
        "high": float(np.exp(high)),
        "verdict": verdict,
    }


def evaluate_claims(runs, units) -> list[dict]:
    """Every claim with its ratio, interval and verdict."""
    scaled = [run for run in runs if run["normalize"]]
    few, many = min(units), max(units)
    results = []

    def claim(text, change, base, keys, among=scaled):
        results.append({"claim": text} | compare(among, change, base, keys))

    for sequences in (True, False):
        claim(
            f"{few} units leak less than {many} (no regularizer, return_sequences={sequences})",
            lambda r, s=sequences: r["units"] == few and r["kind"] == "none"
            and r["return_sequences"] == s,
            lambda r, s=sequences: r["units"] == many and r["kind"] == "none"
            and r["return_sequences"] == s,
            ["seed"],
        )  # fmt: skip
    claim(
        f"{few} units leak less than {many} (with a regularizer)",
        lambda r: r["units"] == few and r["kind"] != "none",
        lambda r: r["units"] == many and r["kind"] != "none",
        ["seed", "kind", "strength", "return_sequences"],
    )
    strengths = sorted({run["strength"] for run in scaled if run["kind"] != "none"})
    for kind, strength in itertools.product(KINDS, strengths):
        claim(
            f"{kind} of {strength:g} leaks less than no regularizer",
            lambda r, k=kind, s=strength: r["kind"] == k and r["strength"] == s,
            lambda r: r["kind"] == "none",
            ["seed", "units", "return_sequences"],
        )
    for kind in ("none", "any"):
        chosen = (lambda r: r["kind"] == "none") if kind == "none" else (
            lambda r: r["kind"] != "none"
        )  # fmt: skip
        claim(
            "return_sequences=False leaks less than True "
            + ("(no regularizer)" if kind == "none" else "(with a regularizer)"),
            lambda r, c=chosen: not r["return_sequences"] and c(r),
            lambda r, c=chosen: r["return_sequences"] and c(r),
            ["seed", "units", "kind", "strength"],
        )
    claim(
        "scaled input leaks less than raw input",
        lambda r: r["normalize"],
        lambda r: not r["normalize"],
        ["seed", "units", "kind", "return_sequences"],
        among=runs,
    )
    return results


def plot(runs, path) -> None:
    """Plot leakage against units and against strength: runs as dots, medians as lines."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    colors = {"none": "#8a8f98", "l1": "#1f77b4", "l2": "#d9822b", "l1_l2": "#2ca02c"}
    scaled = [run for run in runs if run["normalize"]]
    for row, sequences in zip(axes, (True, False), strict=True):
        part = [run for run in scaled if run["return_sequences"] == sequences]
        for kind, color in colors.items():
            selected = [run for run in part if run["kind"] == kind]
            for ax, key in zip(row, ("units", "strength"), strict=True):
                if kind == "none" and key == "strength":
                    median = np.median([run["leakage"] for run in selected])
                    ax.axhline(median, color=color, linestyle="--", label="none, median")
                    continue
                xs = sorted({run[key] for run in selected})
                values = [[r["leakage"] for r in selected if r[key] == x] for x in xs]
                for x, leakages in zip(xs, values, strict=True):
                    ax.scatter([x] * len(leakages), leakages, s=10, color=color, alpha=0.35)
                ax.plot(xs, [np.median(v) for v in values], color=color, label=kind)
        row[0].set_ylabel(f"state leakage\n(return_sequences={sequences})")
        for ax, key in zip(row, ("units", "strength"), strict=True):
            ax.set(xscale="log", yscale="log", xlabel=key)
            ax.grid(color="#e6e8eb")
            ax.spines[["top", "right"]].set_visible(False)
            if key == "units":
                ax.set_xticks(ticks := sorted({run["units"] for run in part}), ticks)
                ax.minorticks_off()
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)


def measure(units, strengths, seeds, source) -> list[dict]:
    """Train and measure every configuration."""
    kinds = [(None, 0.0), *itertools.product(KINDS, strengths)]
    grid = list(itertools.product(units, kinds, (True, False), range(seeds)))
    runs = []
    for count, (size, (kind, strength), sequences, seed) in enumerate(grid, start=1):
        runs.append(train(size, kind, float(strength), sequences, seed, source))
        if count % 20 == 0:
            print(f"{count}/{len(grid)} configurations", flush=True)
    for size, seed in itertools.product(units, range(seeds)):
        runs.append(train(size, None, 0.0, True, seed, source, normalize=False))
    return runs


def report(runs, units, name) -> None:
    """Test the claims, print and write the results."""
    claims = evaluate_claims(runs, units)
    raw, scaled = (
        [r for r in runs if r["kind"] == "none" and r["return_sequences"] and r["normalize"] == n]
        for n in (False, True)
    )
    saturation = {
        label: {key: interval([r[key] for r in group]) for key in ("saturated", "identity_error")}
        for label, group in (("raw", raw), ("scaled", scaled))
    }
    print("\n| claim | leakage ratio (95 % interval) | verdict |\n| --- | --- | --- |")
    for claim in claims:
        ratio = "constant output"
        if claim["ratio"] is not None:
            ratio = f"{claim['ratio']:.2g} ({claim['low']:.2g} to {claim['high']:.2g})"
        print(f"| {claim['claim']} | {ratio} | {claim['verdict']} |")
    print("\n| input | share of states beyond 0.99 | identity error |\n| --- | --- | --- |")
    for label, intervals in saturation.items():
        cells = [f"{m:.2g} ({a:.2g} to {b:.2g})" for m, a, b in intervals.values()]
        print(f"| {label} | {cells[0]} | {cells[1]} |")
    common.write(name, {"claims": claims, "saturation": saturation, "runs": runs})
    plot(runs, common.RESULTS / f"{name}.png")


def main() -> None:
    """Run the grid, or take the stored runs, and test the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", choices=["white", "readings"], default="white")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fine", action="store_true", help="a finer grid; takes hours")
    parser.add_argument("--reuse", action="store_true", help="test the claims on the stored runs")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    units, strengths = (FINE_UNITS, FINE_STRENGTHS) if options.fine else (UNITS, STRENGTHS)
    name = f"claims_{options.input}" + ("_fine" if options.fine else "")
    if options.reuse:
        runs = json.loads((common.RESULTS / f"{name}.json").read_text())["runs"]
    else:
        runs = measure(units, strengths, options.seeds, options.input)
    report(runs, units, name)


if __name__ == "__main__":
    main()
