"""The cost of state leakage by swapping, against the same index from the full Jacobian.

    python -m benchmarks.leakage [--rounds 7]

Time 100, batch 256, 3 features, 8 cuts, SimpleRNN of 8 units. The other side is what TensorFlow
offers: `GradientTape.batch_jacobian` of all outputs by all inputs, compiled, then the share of the
past in its squares, at the same cuts. Both are timed in turn after a warm-up. Writes
results/leakage.json.
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


def jacobian_index(model, cuts):
    """A compiled function from rows to the index by full Jacobian at the output steps `cuts`."""
    steps = tf.constant(cuts)

    @tf.function
    def squares(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.gather(model(x, training=False), steps, axis=1)
        return tf.reduce_mean(tape.batch_jacobian(y, x) ** 2, axis=0)  # (cuts, outputs, time, in)

    def index(x):
        found = squares(x).numpy() @ x.numpy().reshape(-1, FEATURES).var(axis=0)
        past = sum(found[at, :, :cut].sum(axis=-1) for at, cut in enumerate(cuts))
        return float((past / found.sum(axis=(0, 2))).mean())

    return index


def main() -> None:
    """Times both sides, prints medians and the ratio, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")
    model = zoo.get("simple_rnn_identity", features=FEATURES, units=8)
    zoo.adapt(model, x)
    cuts = list(zoo.leakage(model, x, cuts=CUTS, resamples=0).cuts)
    by_jacobian, tensor = jacobian_index(model, cuts), tf.constant(x)
    sides = {
        "one forward pass": lambda: model.predict_on_batch(x),
        "swap": lambda: zoo.leakage(model, x, cuts=CUTS, resamples=0),
        "swap, 200 bootstrap resamples": lambda: zoo.leakage(model, x, cuts=CUTS),
        "gradient, 16 probes": lambda: zoo.leakage(model, x, method="gradient", resamples=0),
        "batch_jacobian": lambda: by_jacobian(tensor),
    }
    seconds = common.interleaved(sides, rounds)
    medians = common.medians(seconds)
    indices = {
        "swap": zoo.leakage(model, x, cuts=CUTS).index,
        "gradient, 16 probes": zoo.leakage(model, x, method="gradient").index,
        "batch_jacobian": by_jacobian(tensor),
    }
    print("| side | median ms | index |\n| --- | --- | --- |")
    for side, median in medians.items():
        index = f"{indices[side]:.4f}" if side in indices else ""
        print(f"| {side} | {1000 * median:.1f} | {index} |")
    ratio = medians["batch_jacobian"] / medians["swap"]
    print(f"batch_jacobian / swap: {ratio:.0f} times")
    common.write(
        "leakage",
        {
            "setting": {"batch": BATCH, "time": STEPS, "features": FEATURES, "cuts": CUTS},
            "seconds": seconds,
            "medians": medians,
            "index": indices,
            "batch_jacobian_over_swap": ratio,
        },
    )


if __name__ == "__main__":
    main()
