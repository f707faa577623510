"""How much a recurrent layer remembers: which cell, how far back, with how many units.

    python -m benchmarks.recoverability [--input white|slow|all] [--seeds 5]

A layer of 4, 8, 16 or 32 units reads one number a step; its output at a step is asked for the
inputs of that step and of 47 before, by `zoo.diagnostics.recoverability`. The layers: SimpleRNN without
activation (linear), SimpleRNN, GRU, LSTM, as Keras initializes them (glorot_uniform, an orthogonal
recurrent kernel, zero biases, an LSTM's forget bias 1), and the same after training with a linear
layer behind to give the last 32 inputs back: mean squared error, Adam on a cosine from 0.01, 800
batches of 64 fresh windows of 48 steps. Measured on 1,000 other windows of 96 steps, half of them
to learn the read-out on.

`white`: independent standard normal inputs, for which the capacity is at most the units. `slow`:
x_t = 0.9 x_(t-1) + e_t of unit variance, for which it is not: the input itself, without any
memory, has a capacity of 1 / (1 - 0.81) = 5.3. Every configuration has 5 seeds, of weights and data
alike; intervals are 95 % t-intervals over them. Writes results/recoverability.json and .png.
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
BATCHES, BATCH, TRAIN_STEPS, RATE, TOGETHER = 800, 64, 48, 1e-2, 50
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
    """One recurrent layer, and a linear layer for the inputs it is to give back."""
    inputs = keras.Input((None, 1))
    kinds = {"simple_rnn": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}
    options = {"return_sequences": True, "name": "recurrent"}
    if cell == "linear":
        x = layers.SimpleRNN(units, activation=None, **options)(inputs)
    else:
        x = kinds[cell](units, **options)(inputs)
    return keras.Model(inputs, keras.layers.Dense(DELAYS, name="delays")(x))


def compiled(cell: str, units: int) -> keras.Model:
    """A model that `train` may be called with again and again: it is compiled once."""
    model = build(cell, units)
    rate = keras.optimizers.schedules.CosineDecay(RATE, BATCHES)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    model.compile(optimizer, "mse", steps_per_execution=TOGETHER, jit_compile=True)
    return model


def start(model: keras.Model, cell: str, units: int, seed: int) -> None:
    """Fresh weights, as Keras initializes them, and a fresh optimizer."""
    keras.utils.set_random_seed(seed)
    model.set_weights(build(cell, units).get_weights())
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(keras.ops.zeros_like(variable))


def train(model: keras.Model, kind: str, seed: int) -> None:
    """To give the last inputs back, on windows that are never seen twice."""
    x = series(kind, BATCHES * BATCH, TRAIN_STEPS, 1000 * seed + 1)
    model.fit(x, np.ascontiguousarray(delays(x)), batch_size=BATCH, shuffle=False, verbose=0)


def measure(model: keras.Model, kind: str, seed: int) -> dict:
    """What the layer's output tells of earlier inputs, on windows of its own."""
    x = series(kind, ROWS, STEPS, 1000 * seed)
    report = zoo.diagnostics.recoverability(
        model, x, lags=LAGS, layer="recurrent", resamples=0, seed=seed
    )
    return {
        "capacity": report.capacity,
        "rank": report.rank,
        "by_lag": [round(float(value), 4) for value in report.by_lag],
        "half": int(np.argmin(np.append(report.by_lag, -1) >= HALF)),  # lags before the first less
    }


def run(kinds, seeds: int) -> list[dict]:
    """Every configuration, untrained and trained."""
    runs = []
    grid = list(itertools.product(CELLS, UNITS))
    for number, (cell, units) in enumerate(grid, start=1):
        keras.backend.clear_session()
        model = compiled(cell, units)
        for kind, seed in itertools.product(kinds, range(seeds)):
            shared = {"input": kind, "units": units, "cell": cell, "seed": seed}
            start(model, cell, units, seed)
            runs.append(shared | {"trained": False} | measure(model, kind, seed))
            train(model, kind, seed)
            runs.append(shared | {"trained": True} | measure(model, kind, seed))
            print(
                f"{number}/{len(grid)} {cell} {units} {kind}: capacity "
                f"{runs[-2]['capacity']:.2f} untrained, {runs[-1]['capacity']:.2f} trained",
                flush=True,
            )
    return runs


def summarize(runs: list[dict]) -> list[dict]:
    """Means and intervals over seeds of every configuration."""
    found = []
    keys = ("input", "trained", "cell", "units")
    for values in itertools.product(INPUTS, (False, True), CELLS, UNITS):
        wanted = dict(zip(keys, values, strict=True))
        ours = [one for one in runs if all(one[key] == wanted[key] for key in keys)]
        if len(ours) > 1:
            figures = {key: interval([one[key] for one in ours]) for key in ("capacity", "half")}
            by_lag = np.mean([one["by_lag"] for one in ours], axis=0)
            ranks = [one["rank"] for one in ours]
            found.append(wanted | figures | {"ranks": ranks, "by_lag": by_lag.round(4).tolist()})
    return found


def table(summary: list[dict], kind: str) -> str:
    """Capacity by cell and units, and the lags that are told by half or more, as Markdown."""
    lines = ["| cell | " + " | ".join(f"{units} units" for units in UNITS) + " |"]
    lines.append("| --- |" + " --- |" * len(UNITS))
    for trained, cell in itertools.product((False, True), CELLS):
        ours = {
            one["units"]: one
            for one in summary
            if (one["input"], one["trained"], one["cell"]) == (kind, trained, cell)
        }
        cells = []
        for units in UNITS:
            mean, low, _ = ours[units]["capacity"]
            cells.append(f"{mean:.1f} ± {mean - low:.1f}, {ours[units]['half'][0]:.0f}")
        lines.append(f"| {cell}{', trained' if trained else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(summary: list[dict], path) -> None:
    """Capacity against units with the ceiling, and the profile by lag at 16 units."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, kind in zip(axes, INPUTS, strict=True):
        for trained, cell in itertools.product((False, True), CELLS):
            ours = [
                one
                for one in summary
                if (one["input"], one["trained"], one["cell"]) == (kind, trained, cell)
            ]
            style = {"color": COLORS[cell], "linestyle": "-" if trained else ":"}
            means, lows, highs = np.array([one["capacity"] for one in ours]).T
            row[0].plot(UNITS, means, marker=".", label=cell if trained else None, **style)
            row[0].fill_between(UNITS, lows, highs, color=COLORS[cell], alpha=0.15, linewidth=0)
            (profile,) = (one["by_lag"] for one in ours if one["units"] == 16)
            row[1].plot(profile, **style)
        row[0].set(xscale="log", xlabel="units", ylabel=f"memory capacity\n({kind} input)")
        row[0].set_yscale("log")
        row[1].set(xlabel="lag", ylabel="$R^2$, 16 units", ylim=(-0.05, 1.05))
        for ax in row:
            ax.grid(color="#e6e8eb")
            ax.spines[["top", "right"]].set_visible(False)
        row[0].set_xticks(UNITS, UNITS)
        ticks = [1, 2, 4, 8, 16, 32]
        row[0].set_yticks(ticks, ticks)
        row[0].minorticks_off()
    axes[0, 0].plot(UNITS, UNITS, color="black", linewidth=1, linestyle="--", label="ceiling: rank")
    axes[0, 0].plot([], [], color="0.3", linestyle=":", label="untrained")
    axes[0, 0].legend(frameon=False, fontsize="small")
    axes[1, 1].plot(SLOW ** (2 * np.arange(LAGS)), color="black", linewidth=1, linestyle="--",
                    label="the present input alone")  # fmt: skip
    axes[1, 1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Trains and measures, or takes the runs of before; prints, draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", choices=[*INPUTS, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="conclude from the runs of before")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    kinds = INPUTS if options.input == "all" else (options.input,)
    path = common.RESULTS / "recoverability.json"
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    if options.again:
        runs = before
    else:
        runs = [one for one in before if one["input"] not in kinds] + run(kinds, options.seeds)
    summary = summarize(runs)
    for kind in sorted({one["input"] for one in runs}, key=INPUTS.index):
        print(f"\n{kind}: capacity ± half of its 95 % interval, lags of R^2 >= {HALF}\n")
        print(table(summary, kind))
    setting = {
        "lags": LAGS, "delays": DELAYS, "rows": ROWS, "steps": STEPS, "batches": BATCHES,
        "batch": BATCH, "train_steps": TRAIN_STEPS, "rate": RATE, "slow": SLOW,
    }  # fmt: skip
    common.write("recoverability", {"setting": setting, "summary": summary, "runs": runs})
    if len({one["input"] for one in runs}) == len(INPUTS):
        draw(summary, common.RESULTS / "recoverability.png")


if __name__ == "__main__":
    main()
