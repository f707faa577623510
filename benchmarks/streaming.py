"""Microseconds for one step of a stream, beside a call that does nothing and `predict`, in turn.

    python -m benchmarks.streaming [--rounds 31]

Models of 32 units get a reading of 3 numbers, for 1 and for 64 rows:

- the `step` signature of the SavedModel that `export` wrote, its state going round;
- an empty signature: a SavedModel that gives back the tensors of the same names and shapes. What
  it costs, TensorFlow asks of every call;
- `Streamer.step` in Python, which checks shapes first;
- `predict` on a window of the last 100 readings, which is what one does without a state.

A round calls each side many times in turn; a figure is the median over rounds of the mean of a
round. Writes results/streaming.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import keras_seqzoo as zoo
from benchmarks import common

UNITS, FEATURES, WINDOW = 32, 3, 100
BATCHES = (1, 64)
MODELS = {
    "simple_rnn_identity": {},
    "gru_forecaster": {},
    "gru_forecaster, LSTM": {"cell": "lstm"},
    "gru_forecaster, 2 layers, NaN as padding": {"num_layers": 2, "mask_value": float("nan")},
}
CALLS = {"step": 100, "empty": 100, "Streamer.step": 50, "predict": 1}


def empty(step, folder: Path):
    """The signature of a SavedModel that gives back what `step` is given, under its names."""
    specs = step.structured_input_signature[1]
    states = [name for name in specs if name.startswith("state_")]
    (reading,) = set(specs) - set(states)

    def back(**tensors):
        kept = {name: tf.identity(tensors[name]) for name in states}
        return {"output": tf.identity(tensors[reading])} | kept

    module = tf.Module()
    module.back = tf.function(back)
    tf.saved_model.save(module, folder, module.back.get_concrete_function(**specs))
    return tf.saved_model.load(folder)


def round_and_round(signature, x, state, times: int):
    """A round of calls, each of which is given the state that the one before gave."""
    names = list(signature.structured_input_signature[1])
    (reading,) = set(names) - set(state)

    def calls():
        now = state
        for _ in range(times):
            answer = signature(**{reading: x}, **now)
            now = {name: answer[name] for name in state}

    return calls


def sides(model, folder: Path, batch: int) -> dict:
    """What is run."""
    artifact = zoo.load(folder / "served")
    step = artifact.signatures["step"]
    nothing = empty(step, folder / f"empty_{batch}")
    x = np.random.default_rng(0).normal(size=(batch, WINDOW, FEATURES)).astype("float32")
    reading, state = tf.constant(x[:, 0]), artifact.initial_state(tf.constant(batch))
    streamer = zoo.stream(model)

    def stream():
        now = streamer.initial_state(batch)
        for _ in range(CALLS["Streamer.step"]):
            _, now = streamer.step(reading, now)

    back = nothing.signatures["serving_default"]
    runs = {
        "step": round_and_round(step, reading, state, CALLS["step"]),
        "empty": round_and_round(back, reading, state, CALLS["empty"]),
        "Streamer.step": stream,
        "predict": lambda: model.predict(x, verbose=0),
    }
    runs["step"].kept = artifact, nothing  # TensorFlow frees variables with the object
    return runs


def main() -> None:
    """Times all sides in turn, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    result: dict = {"rounds": rounds, "units": UNITS, "window": WINDOW}
    for title, config in MODELS.items():
        name = title.split(",")[0]
        model = zoo.get(name, **{"features": FEATURES, "units": UNITS} | config)
        with tempfile.TemporaryDirectory() as folder:
            zoo.export(model, Path(folder, "served"), verify=False)
            for batch in BATCHES:
                runs = sides(model, Path(folder), batch)
                seconds = common.medians(common.interleaved(runs, rounds))
                found = {side: 1e6 * value / CALLS[side] for side, value in seconds.items()}
                print(f"{title}, {batch} rows:")
                for side, value in found.items():
                    print(f"  {side:<14} {value:10.0f} us, step takes {found['step'] / value:.4f}")
                result[f"{title}, {batch} rows, us"] = {
                    side: round(value, 1) for side, value in found.items()
                }
    common.write("streaming", result)


if __name__ == "__main__":
    main()
