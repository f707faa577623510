"""Microseconds per step of streaming inference, against an empty call and `predict`.

    python -m benchmarks.streaming [--rounds 31]

Models of 32 units process a reading of 3 features, for 1 and for 64 rows:

- "step": the `step` signature of an exported SavedModel, with the state of the previous call;
- "empty": a SavedModel that returns its inputs, of the same names and shapes: the overhead of
  TensorFlow in every call;
- "Streamer.step": the same in Python, which checks shapes first;
- "predict": on a window of the last 100 readings, the alternative without a state.

A round calls each method many times; the result is the median over interleaved rounds of the mean
of a round. Writes results/streaming.json.
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


def empty_artifact(step, folder: Path):
    """A SavedModel that returns the inputs of `step` under the names of its outputs."""
    specs = step.structured_input_signature[1]
    states = [name for name in specs if name.startswith("state_")]
    (reading,) = set(specs) - set(states)

    def identity(**tensors):
        next_states = {name: tf.identity(tensors[name]) for name in states}
        return {"output": tf.identity(tensors[reading])} | next_states

    module = tf.Module()
    module.identity = tf.function(identity)
    tf.saved_model.save(module, folder, module.identity.get_concrete_function(**specs))
    return tf.saved_model.load(folder)


def repeat(signature, x, state, times: int):
    """A function that calls a signature so many times, each with the state of the call before."""
    names = list(signature.structured_input_signature[1])
    (reading,) = set(names) - set(state)

    def calls():
        current = state
        for _ in range(times):
            outputs = signature(**{reading: x}, **current)
            current = {name: outputs[name] for name in state}

    return calls


def methods(model, folder: Path, batch: int) -> dict:
    """A function for each method, of `CALLS` calls."""
    artifact = zoo.load(folder / "served")
    step = artifact.signatures["step"]
    empty = empty_artifact(step, folder / f"empty_{batch}")
    x = np.random.default_rng(0).normal(size=(batch, WINDOW, FEATURES)).astype("float32")
    reading, state = tf.constant(x[:, 0]), artifact.initial_state(tf.constant(batch))
    streamer = zoo.stream(model)

    def stream():
        state = streamer.initial_state(batch)
        for _ in range(CALLS["Streamer.step"]):
            _, state = streamer.step(reading, state)

    identity = empty.signatures["serving_default"]
    functions = {
        "step": repeat(step, reading, state, CALLS["step"]),
        "empty": repeat(identity, reading, state, CALLS["empty"]),
        "Streamer.step": stream,
        "predict": lambda: model.predict(x, verbose=0),
    }
    # TensorFlow frees the variables with the objects, so the function keeps references to them.
    functions["step"].references = artifact, empty
    return functions


def main() -> None:
    """Time all methods, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    results: dict = {"rounds": rounds, "units": UNITS, "window": WINDOW}
    for title, config in MODELS.items():
        name = title.split(",")[0]
        model = zoo.get(name, **{"features": FEATURES, "units": UNITS} | config)
        with tempfile.TemporaryDirectory() as folder:
            zoo.export(model, Path(folder, "served"), verify=False)
            for batch in BATCHES:
                functions = methods(model, Path(folder), batch)
                seconds = common.medians(common.time_interleaved(functions, rounds))
                times = {name: 1e6 * value / CALLS[name] for name, value in seconds.items()}
                print(f"{title}, {batch} rows:")
                for name, value in times.items():
                    ratio = times["step"] / value
                    print(f"  {name:<14} {value:10.0f} us, step takes {ratio:.4f} of it")
                results[f"{title}, {batch} rows, us"] = {
                    name: round(value, 1) for name, value in times.items()
                }
    common.write("streaming", results)


if __name__ == "__main__":
    main()
