"""Time to measure state leakage by swapping, against the same profile from the full Jacobian.

    python -m benchmarks.leakage [--rounds 7]

Time 100, batch 256, 3 features, 8 cuts, SimpleRNN of 8 units. The alternative in TensorFlow is
`GradientTape.batch_jacobian` of the outputs after the burn-in by all inputs, eager and inside a
`tf.function`, reduced to the profile by lag at the same cuts. Rounds are interleaved after a
warm-up, which traces. Writes results/leakage.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import keras_seqzoo as zoo
from benchmarks import common

BATCH, STEPS, FEATURES, CUTS = 256, 100, 3, 8


def jacobian_profile(model, cuts, *, compiled):
    """A function from rows to the leakage profile by lag, from the Jacobian after the burn-in."""
    first = cuts[0]

    def squares(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=False)[:, first:]
        return tf.reduce_mean(tape.batch_jacobian(y, x) ** 2, axis=0)  # (steps, outputs, time, in)

    if compiled:
        squares = tf.function(squares)

    def profile(x):
        variance = x.numpy().reshape(-1, FEATURES).var(axis=0)
        effects = (squares(x).numpy() @ variance).transpose(1, 0, 2)  # (outputs, steps, time)
        cumulative = np.cumsum(effects, axis=-1)  # effect of all inputs up to a step
        past, total = (np.zeros((FEATURES, STEPS - first)) for _ in range(2))
        for cut in cuts:
            at = np.arange(cut - first, STEPS - first)  # output steps from the cut on
            past[:, : STEPS - cut] += cumulative[:, at, cut - 1]
            total[:, : STEPS - cut] += cumulative[:, at, -1]
        return (past / total).mean(axis=0)

    return profile


def main() -> None:
    """Time all methods, print medians and ratios, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    tf.get_logger().setLevel("ERROR")
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
    model = zoo.get("simple_rnn_identity", features=FEATURES, units=8)
    zoo.adapt(model, x)
    cuts = list(zoo.leakage(model, x, cuts=CUTS, resamples=0).cuts)
    plain, compiled = (jacobian_profile(model, cuts, compiled=flag) for flag in (False, True))
    tensor = tf.constant(x)
    methods = {
        "one forward pass": lambda: model.predict_on_batch(x),
        "swap": lambda: zoo.leakage(model, x, cuts=CUTS, resamples=0),
        "swap, 200 bootstrap resamples": lambda: zoo.leakage(model, x, cuts=CUTS),
        "gradient, 16 probes": lambda: zoo.leakage(model, x, method="gradient", resamples=0),
        "batch_jacobian": lambda: plain(tensor),
        "batch_jacobian in tf.function": lambda: compiled(tensor),
    }
    seconds = common.time_interleaved(methods, rounds)
    medians = common.medians(seconds)
    indices = {
        "swap": zoo.leakage(model, x, cuts=CUTS).index,
        "gradient, 16 probes": zoo.leakage(model, x, method="gradient").index,
        "batch_jacobian": float(plain(tensor)[0]),
        "batch_jacobian in tf.function": float(compiled(tensor)[0]),
    }
    print("| method | median ms | index |\n| --- | --- | --- |")
    for name, median in medians.items():
        index = f"{indices[name]:.4f}" if name in indices else ""
        print(f"| {name} | {1000 * median:.1f} | {index} |")
    ratios = {name: medians[name] / medians["swap"] for name in medians if name.startswith("batch")}
    for name, ratio in ratios.items():
        print(f"{name} / swap: {ratio:.1f} times")
    common.write(
        "leakage",
        {
            "setting": {"batch": BATCH, "time": STEPS, "features": FEATURES, "cuts": CUTS},
            "seconds": seconds,
            "medians": medians,
            "index": indices,
            "over_swap": ratios,
        },
    )


if __name__ == "__main__":
    main()
