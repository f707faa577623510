"""Memory capacity of recurrent layers by cell, lag and number of units.

    python -m benchmarks.recoverability [--input white|slow|all] [--seeds 5]

A layer of 4, 8, 16 or 32 units reads one number per step. `zoo.diagnostics.recoverability` measures
how well its output determines the inputs of the same step and of the 47 steps before. The layers:
SimpleRNN without activation (linear), SimpleRNN, GRU, LSTM, with Keras's initialization
(glorot_uniform, an orthogonal recurrent kernel, zero biases, an LSTM's forget bias 1), and after
training, with a linear layer on top, to output the last 32 inputs: mean squared error, Adam with
cosine decay from 0.01, 800 batches of 64 fresh windows of 48 steps. Measured on 1,000 other windows
of 96 steps; the read-out is fitted on half of them.

`white`: independent standard normal inputs, for which the capacity is at most the number of units.
`slow`: x_t = 0.9 x_(t-1) + e_t of unit variance, for which this bound does not apply: the input
itself, without any memory, has a capacity of 1 / (1 - 0.81) = 5.3. Every configuration has 5 seeds,
of weights and data; intervals are 95 % t-intervals over them. `--reuse` prints and plots the stored
runs. Writes results/recoverability.json and .png.
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
from benchmarks.claims import interval
from keras_seqzoo import layers

UNITS = (4, 8, 16, 32)
CELLS = ("linear", "simple_rnn", "gru", "lstm")
INPUTS = ("white", "slow")
LAGS, DELAYS, HALF = 48, 32, 0.5
ROWS, STEPS = 1000, 96
BATCHES, BATCH, TRAIN_STEPS, RATE, STEPS_PER_EXECUTION = 800, 64, 48, 1e-2, 50
SLOW = 0.9
COLORS = {"linear": "#8a8f98", "simple_rnn": "#1f77b4", "gru": "#d9822b", "lstm": "#2ca02c"}


def series(kind: str, rows: int, steps: int, seed: int) -> np.ndarray:
    """Windows of the input, `(rows, steps, 1)`, of unit variance, stationary from the start."""
    x = np.random.default_rng(seed).normal(size=(rows, steps, 1)).astype("float32")
    if kind == "slow":
        for step in range(1, steps):
            x[:, step] = SLOW * x[:, step - 1] + np.sqrt(1 - SLOW**2) * x[:, step]
    return x


def delays(x: np.ndarray) -> np.ndarray:
    """The last inputs at every step, `(rows, steps, DELAYS)`; 0 before the first."""
    padded = np.pad(x[..., 0], ((0, 0), (DELAYS - 1, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, DELAYS, axis=1)[..., ::-1]


def build(cell: str, units: int) -> keras.Model:
    """One recurrent layer, and a linear layer that outputs the last inputs."""
    inputs = keras.Input((None, 1))
    kinds = {"simple_rnn": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}
    options = {"return_sequences": True, "name": "recurrent"}
    if cell == "linear":
        x = layers.SimpleRNN(units, activation=None, **options)(inputs)
    else:
        x = kinds[cell](units, **options)(inputs)
    return keras.Model(inputs, keras.layers.Dense(DELAYS, name="delays")(x))


def compiled(cell: str, units: int) -> keras.Model:
    """A model that is compiled once for all calls of `train`."""
    model = build(cell, units)
    rate = keras.optimizers.schedules.CosineDecay(RATE, BATCHES)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    model.compile(optimizer, "mse", steps_per_execution=STEPS_PER_EXECUTION, jit_compile=True)
    return model


def reset(model: keras.Model, cell: str, units: int, seed: int) -> None:
    """Reset weights to Keras's initialization, and the optimizer's variables to zero."""
    keras.utils.set_random_seed(seed)
    model.set_weights(build(cell, units).get_weights())
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(keras.ops.zeros_like(variable))


def train(model: keras.Model, kind: str, seed: int) -> None:
    """Train to output the last inputs, on windows that are not repeated."""
    x = series(kind, BATCHES * BATCH, TRAIN_STEPS, 1000 * seed + 1)
    model.fit(x, np.ascontiguousarray(delays(x)), batch_size=BATCH, shuffle=False, verbose=0)


def measure(model: keras.Model, kind: str, seed: int) -> dict:
    """Recoverability of earlier inputs from the layer's output, on windows not used in training."""
    x = series(kind, ROWS, STEPS, 1000 * seed)
    report = zoo.diagnostics.recoverability(
        model, x, lags=LAGS, layer="recurrent", resamples=0, seed=seed
    )
    return {
        "capacity": report.capacity,
        "rank": report.rank,
        "by_lag": [round(float(value), 4) for value in report.by_lag],
        "half": int(np.argmin(np.append(report.by_lag, -1) >= HALF)),  # the first lag below it
    }


def run(kinds, seeds: int) -> list[dict]:
    """Every configuration, untrained and trained."""
    runs = []
    grid = list(itertools.product(CELLS, UNITS))
    for count, (cell, units) in enumerate(grid, start=1):
        keras.backend.clear_session()
        model = compiled(cell, units)
        for kind, seed in itertools.product(kinds, range(seeds)):
            shared = {"input": kind, "units": units, "cell": cell, "seed": seed}
            reset(model, cell, units, seed)
            runs.append(shared | {"trained": False} | measure(model, kind, seed))
            train(model, kind, seed)
            runs.append(shared | {"trained": True} | measure(model, kind, seed))
            print(
                f"{count}/{len(grid)} {cell} {units} {kind}: capacity "
                f"{runs[-2]['capacity']:.2f} untrained, {runs[-1]['capacity']:.2f} trained",
                flush=True,
            )
    return runs


def summarize(runs: list[dict]) -> list[dict]:
    """Means and intervals over seeds of every configuration."""
    summary = []
    keys = ("input", "trained", "cell", "units")
    for values in itertools.product(INPUTS, (False, True), CELLS, UNITS):
        wanted = dict(zip(keys, values, strict=True))
        selected = [run for run in runs if all(run[key] == wanted[key] for key in keys)]
        if len(selected) > 1:
            means = {key: interval([run[key] for run in selected]) for key in ("capacity", "half")}
            by_lag = np.mean([run["by_lag"] for run in selected], axis=0)
            ranks = [run["rank"] for run in selected]
            summary.append(wanted | means | {"ranks": ranks, "by_lag": by_lag.round(4).tolist()})
    return summary


def select(summary: list[dict], kind: str, trained: bool, cell: str) -> list[dict]:
    """The rows of one input and layer, by increasing units."""
    wanted = (kind, trained, cell)
    return [row for row in summary if (row["input"], row["trained"], row["cell"]) == wanted]


def table(summary: list[dict], kind: str) -> str:
    """Capacity by cell and units, and the number of newest inputs with R^2 >= 0.5, as Markdown."""
    lines = ["| cell | " + " | ".join(f"{units} units" for units in UNITS) + " |"]
    lines.append("| --- |" + " --- |" * len(UNITS))
    for trained, cell in itertools.product((False, True), CELLS):
        by_units = {row["units"]: row for row in select(summary, kind, trained, cell)}
        cells = []
        for units in UNITS:
            mean, low, _ = by_units[units]["capacity"]
            cells.append(f"{mean:.1f} ± {mean - low:.1f}, {by_units[units]['half'][0]:.0f}")
        lines.append(f"| {cell}{', trained' if trained else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(summary: list[dict], path) -> None:
    """Plot capacity and its bound against units, and recoverability by lag at 16 units."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for (left, right), kind in zip(axes, INPUTS, strict=True):
        for trained, cell in itertools.product((False, True), CELLS):
            rows = select(summary, kind, trained, cell)
            style = {"color": COLORS[cell], "linestyle": "-" if trained else ":"}
            means, lows, highs = np.array([row["capacity"] for row in rows]).T
            left.plot(UNITS, means, marker=".", label=cell if trained else None, **style)
            left.fill_between(UNITS, lows, highs, color=COLORS[cell], alpha=0.15, linewidth=0)
            (profile,) = (row["by_lag"] for row in rows if row["units"] == 16)
            right.plot(profile, **style)
        left.set(xscale="log", xlabel="units", ylabel=f"memory capacity\n({kind} input)")
        left.set_yscale("log")
        right.set(xlabel="lag", ylabel="$R^2$, 16 units", ylim=(-0.05, 1.05))
        for ax in (left, right):
            ax.grid(color="#e6e8eb")
            ax.spines[["top", "right"]].set_visible(False)
        left.set_xticks(UNITS, UNITS)
        ticks = [1, 2, 4, 8, 16, 32]
        left.set_yticks(ticks, ticks)
        left.minorticks_off()
    axes[0, 0].plot(UNITS, UNITS, color="black", linewidth=1, linestyle="--", label="bound: rank")
    axes[0, 0].plot([], [], color="0.3", linestyle=":", label="untrained")
    axes[0, 0].legend(frameon=False, fontsize="small")
    axes[1, 1].plot(SLOW ** (2 * np.arange(LAGS)), color="black", linewidth=1, linestyle="--",
                    label="the present input alone")  # fmt: skip
    axes[1, 1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Train and measure, or take the stored runs; print, plot and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", choices=[*INPUTS, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--reuse", action="store_true", help="summarize the stored runs")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    kinds = INPUTS if options.input == "all" else (options.input,)
    path = common.RESULTS / "recoverability.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    if not options.reuse:
        runs = [stored for stored in runs if stored["input"] not in kinds]
        runs += run(kinds, options.seeds)
    summary = summarize(runs)
    for kind in sorted({row["input"] for row in runs}, key=INPUTS.index):
        print(f"\n{kind}: capacity ± half of its 95 % interval, lags of R^2 >= {HALF}\n")
        print(table(summary, kind))
    setting = {
        "lags": LAGS, "delays": DELAYS, "rows": ROWS, "steps": STEPS, "batches": BATCHES,
        "batch": BATCH, "train_steps": TRAIN_STEPS, "rate": RATE, "slow": SLOW,
    }  # fmt: skip
    common.write("recoverability", {"setting": setting, "summary": summary, "runs": runs})
    if len({row["input"] for row in runs}) == len(INPUTS):
        plot(summary, common.RESULTS / "recoverability.png")


if __name__ == "__main__":
    main()
