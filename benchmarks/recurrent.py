"""Speed and memory of the recurrent layers of keras_seqzoo, Keras, PyTorch and JAX.

    pip install "keras-seqzoo[bench]"
    python -m benchmarks.recurrent [--cells LSTM] [--units 8 128] [--rounds 5] [--only speed]

A layer that returns sequences, a Dense head, mean squared error, Adam, float32. Each library runs
in its own process, so that threads do not compete, and rounds are interleaved; the result is the
median over the rounds. Training is measured

- in `fit`: keras_seqzoo ("ours") and Keras, plain and with `jit_compile=True`, Keras with
  `unroll=True` too, with 1 and with 20 steps per call (`steps_per_execution`);
- in a custom ("bare") loop: keras_seqzoo and Keras, compiled, PyTorch, and a hand-written JAX scan
  with the projection before the loop; 1 and 20 steps per call, PyTorch with 1 only.

`--only memory`: memory that a training step adds to a new process, at time 1,000, units 128, batch
64. `--only growth`: milliseconds per step, from 50 to 2,000 time steps and by batch size.

Writes results/recurrent.json, or results/OUTPUT.json with `--output`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common

# units: batch, time, features
SIZES = {8: (32, 50, 3), 32: (32, 50, 8), 128: (64, 100, 32), 256: (64, 50, 64)}
CELLS = ("SimpleRNN", "GRU", "LSTM")
MANY = 20  # steps per call
GROWTH = ((32, 50), (32, 200), (32, 800), (32, 2000), (128, 200), (512, 200))  # batch, time
Runs = dict[str, tuple[Callable[[], Any], int]]  # function by name, and its number of steps


def steps_per_round(units: int) -> int:
    """Training steps per round: a multiple of MANY that takes some tenths of a second."""
    return 100 if units <= 32 else MANY


def rows(batch: int, steps: int, features: int):
    import numpy as np

    return np.random.default_rng(0).normal(size=(batch, steps, features)).astype("float32")


# ------------------------------------------------------------------------------------ the libraries


def tensorflow_runs(cell: str, units: int) -> Runs:
    """keras_seqzoo and Keras."""
    import keras
    import tensorflow as tf

    from keras_seqzoo import layers

    tf.get_logger().setLevel("ERROR")
    batch, steps, features = SIZES[units]
    many = steps_per_round(units)
    x = rows(batch, steps, features)
    long = rows(batch * many, steps, features)

    def build(library, **kwargs):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((steps, features))
        hidden = getattr(library, cell)(units, return_sequences=True, **kwargs)(inputs)
        return keras.Model(inputs, keras.layers.Dense(features)(hidden))

    def fit(library, jit, per_call, **kwargs):
        model = build(library, **kwargs)
        model.compile("adam", "mse", jit_compile=jit, steps_per_execution=per_call)

        def run():
            clock = EpochClock()
            model.fit(long, long, batch_size=batch, epochs=2, verbose=0, callbacks=[clock])
            return clock.seconds  # of the second epoch

        class EpochClock(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.started = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                self.seconds = time.perf_counter() - self.started

        return run, many

    def bare(library, jit, per_call):
        model = build(library)
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        data = tf.constant(x)

        def one_step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(data, training=True) - data) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        def several_steps():
            return tf.while_loop(
                lambda i, _: i < per_call,
                lambda i, _: (i + 1, one_step()),
                (0, 0.0),
                maximum_iterations=per_call,
            )[1]

        body = one_step if per_call == 1 else several_steps
        step = tf.function(body, jit_compile=jit, autograph=False)

        def run():
            for _ in range(many // per_call):
                loss = step()
            return float(loss) and None

        return run, many

    def predict(library, jit, data, **kwargs):
        model = build(library, **kwargs)
        model.compile("adam", "mse", jit_compile=jit)

        def run():
            for _ in range(many):
                model.predict_on_batch(data)

        return run, many

    def call(jit, data):
        model = build(layers)
        data = tf.constant(data)
        function = tf.function(
            lambda data: model(data, training=False), jit_compile=jit, autograph=False
        )

        def run():
            for _ in range(many):
                outputs = function(data)
            outputs.numpy()

        return run, many

    runs: Runs = {}
    for per_call in (1, MANY):
        for jit in (False, True):
            setting = f"{'jit' if jit else 'plain'}, {per_call} a call"
            runs[f"ours, bare, {setting}"] = bare(layers, jit, per_call)
            runs[f"Keras, bare, {setting}"] = bare(keras.layers, jit, per_call)
            runs[f"ours, fit, {setting}"] = fit(layers, jit, per_call)
            runs[f"Keras, fit, {setting}"] = fit(keras.layers, jit, per_call)
        setting = f"unrolled, {per_call} a call"
        runs[f"Keras, fit, {setting}"] = fit(keras.layers, False, per_call, unroll=True)
    for label, data in (("one", x[:1]), ("batch", x)):
        for jit in (False, True):
            name = "jit" if jit else "plain"
            runs[f"ours, predict {label}, {name}"] = predict(layers, jit, data)
            runs[f"Keras, predict {label}, {name}"] = predict(keras.layers, jit, data)
            runs[f"ours, call {label}, {name}"] = call(jit, data)
        unrolled = predict(keras.layers, False, data, unroll=True)
        runs[f"Keras, predict {label}, unrolled"] = unrolled
    return runs


def torch_runs(cell: str, units: int) -> Runs:
    """PyTorch's fused layers in eager mode."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    batch, steps, features = SIZES[units]
    many = steps_per_round(units)
    layer = {"SimpleRNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}[cell]
    hidden, head = layer(features, units, batch_first=True), torch.nn.Linear(units, features)
    optimizer = torch.optim.Adam([*hidden.parameters(), *head.parameters()])
    x = torch.from_numpy(rows(batch, steps, features))

    def train():
        for _ in range(many):
            optimizer.zero_grad()
            loss = ((head(hidden(x)[0]) - x) ** 2).mean()
            loss.backward()
            optimizer.step()

    def infer(data):
        def run():
            with torch.inference_mode():
                for _ in range(many):
                    head(hidden(data)[0])

        return run, many

    return {
        "PyTorch, bare": (train, many),
        "PyTorch, call one": infer(x[:1]),
        "PyTorch, call batch": infer(x),
    }


def jax_runs(cell: str, units: int) -> Runs:
    """A hand-written scan, differentiated by JAX."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    batch, steps, features = SIZES[units]
    many = steps_per_round(units)
    gates = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}[cell]
    shapes = [(features, gates * units), (units, gates * units), (gates * units,)]
    shapes += [(gates * units,), (units, features), (features,)]
    generator = np.random.default_rng(0)
    weights = [jnp.asarray(generator.normal(size=s) * 0.1, jnp.float32) for s in shapes]
    x = jnp.asarray(rows(batch, steps, features))

    def step(state, projected, recurrent, bias):
        hidden, carry = state
        if cell == "SimpleRNN":
            hidden = jnp.tanh(projected + hidden @ recurrent)
        elif cell == "LSTM":
            i, f, g, o = jnp.split(projected + hidden @ recurrent, 4, -1)
            carry = jax.nn.sigmoid(f) * carry + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(carry)
        else:
            inner = hidden @ recurrent + bias
            (pz, pr, pn), (z, r, n) = jnp.split(projected, 3, -1), jnp.split(inner, 3, -1)
            z, r = jax.nn.sigmoid(pz + z), jax.nn.sigmoid(pr + r)
            hidden = z * hidden + (1 - z) * jnp.tanh(pn + r * n)
        return (hidden, carry), hidden

    def forward(weights, x):
        kernel, recurrent, bias, recurrent_bias, head, offset = weights
        zeros = jnp.zeros((x.shape[0], units))
        _, outputs = jax.lax.scan(
            lambda state, projected: step(state, projected, recurrent, recurrent_bias),
            (zeros, zeros),
            x.swapaxes(0, 1) @ kernel + bias,
        )
        return outputs.swapaxes(0, 1) @ head + offset

    def update(state, _):
        weights, first, second, count = state
        loss, gradients = jax.value_and_grad(lambda w: jnp.mean((forward(w, x) - x) ** 2))(weights)
        count += 1
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        first = [m + 0.1 * (g - m) for m, g in zip(first, gradients, strict=True)]
        second = [v + 0.001 * (g * g - v) for v, g in zip(second, gradients, strict=True)]
        weights = [
            w - rate * m / (jnp.sqrt(v) + 1e-7)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        return (weights, first, second, count), loss

    def train(per_call):
        @jax.jit
        def run_steps(state):
            if per_call == 1:
                return update(state, None)
            state, losses = jax.lax.scan(update, state, None, length=per_call)
            return state, losses[-1]

        zeros = [jnp.zeros_like(w) for w in weights]
        initial = [(weights, zeros, zeros, jnp.float32(0))]

        def run():
            state = initial[0]
            for _ in range(many // per_call):
                state, loss = run_steps(state)
            loss.block_until_ready()
            initial[0] = state

        return run, many

    def infer(data):
        function = jax.jit(forward)

        def run():
            for _ in range(many):
                outputs = function(weights, data)
            outputs.block_until_ready()

        return run, many

    return {
        "JAX, bare, 1 a call": train(1),
        f"JAX, bare, {MANY} a call": train(MANY),
        "JAX, call one": infer(x[:1]),
        "JAX, call batch": infer(x),
    }


LIBRARIES = {"tensorflow": tensorflow_runs, "torch": torch_runs, "jax": jax_runs}


# ----------------------------------------------------------------------------- interleaved rounds


class Worker:
    """A library in its own process: lists its runs as JSON, then times the requested ones."""

    def __init__(self, *arguments: str):
        command = [sys.executable, "-m", "benchmarks.recurrent", "--worker", *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def read(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def time(self, run: str) -> float:
        self.process.stdin.write(run + "\n")
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def work(library: str, cell: str, units: str) -> None:
    """Serve a `Worker`: read names of runs, write milliseconds per step."""
    out, sys.stdout = sys.stdout, sys.stderr
    runs = LIBRARIES[library](cell, int(units))
    print(json.dumps(list(runs)), file=out, flush=True)
    for line in sys.stdin:
        run, count = runs[line.strip()]
        started = time.perf_counter()
        measured = run()  # seconds if the run measures itself, else None
        seconds = measured if measured is not None else time.perf_counter() - started
        print(json.dumps(1e3 * seconds / count), file=out, flush=True)


def speed(cell: str, units: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of every run, and the ratios."""
    workers = {library: Worker(library, cell, str(units)) for library in LIBRARIES}
    worker_of = {run: worker for worker in workers.values() for run in worker.read()}
    for run, worker in worker_of.items():
        worker.time(run)  # traces and compiles
    times: dict[str, list[float]] = {run: [] for run in worker_of}
    for _ in range(rounds):
        for run, worker in worker_of.items():
            times[run].append(worker.time(run))
    for worker in workers.values():
        worker.close()
    milliseconds = {run: round(statistics.median(values), 3) for run, values in times.items()}
    return {"milliseconds": milliseconds, "ratios": ratios(milliseconds)}


def ratios(milliseconds: dict[str, float]) -> dict[str, float]:
    """Time of keras_seqzoo over that of each library, with the best setting of each."""

    def best(*words: str) -> float:
        return min(ms for run, ms in milliseconds.items() if all(word in run for word in words))

    result = {}
    for per_call in (", 1 a call", f", {MANY} a call"):
        ours = best("ours, bare", per_call)
        result[f"train, Keras in fit{per_call}"] = best("ours, fit", per_call) / best(
            "Keras, fit", per_call
        )
        result[f"train, Keras in a bare loop{per_call}"] = ours / best("Keras, bare", per_call)
        result[f"train, PyTorch{per_call}"] = ours / best("PyTorch, bare")
        result[f"train, JAX{per_call}"] = ours / best("JAX, bare", per_call)
    for label in ("one", "batch"):
        result[f"infer {label}, Keras"] = best(f"ours, predict {label}") / best(
            f"Keras, predict {label}"
        )
        for peer in ("PyTorch", "JAX"):
            result[f"infer {label}, {peer}"] = best(f"ours, call {label}") / best(
                f"{peer}, call {label}"
            )
    return {name: round(value, 3) for name, value in result.items()}


# ------------------------------------------------------------------------------- memory and growth


def training_step(
    library: str, cell: str, batch: int, steps: int, features: int, units: int, jit: bool
) -> Callable[[], float]:
    """A compiled training step with the layer of keras_seqzoo or Keras."""
    import keras
    import tensorflow as tf

    from keras_seqzoo import layers

    tf.get_logger().setLevel("ERROR")
    inputs = keras.Input((None, features))
    module = layers if library == "ours" else keras.layers
    hidden = getattr(module, cell)(units, return_sequences=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(features)(hidden))
    model.compile("adam", "mse", jit_compile=jit)
    x = rows(batch, steps, features)
    return lambda: model.train_on_batch(x, x)


def print_peak(library: str, cell: str, jit: str) -> None:
    """Print the megabytes that training steps add to this process."""
    step = training_step(library, cell, 64, 1000, 32, 128, jit == "jit")
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps((peak - built) / 1024))


def memory() -> dict[str, float]:
    """Peak memory of keras_seqzoo and Keras, each in a new process."""
    megabytes = {}
    for cell in CELLS:
        for library in ("ours", "Keras"):
            for jit in ("plain", "jit"):
                name = f"{cell}, {library}, {jit}"
                worker = Worker("peak", library, cell, jit)
                megabytes[name] = round(worker.read())
                worker.close()
                print(f"memory: {name}: {megabytes[name]} MB")
    return megabytes


def growth(rounds: int) -> dict[str, float]:
    """Milliseconds of a training step by time and batch size, units 32."""
    milliseconds = {}
    for cell in CELLS:
        for jit in (False, True):
            for batch, steps in GROWTH:
                step = training_step("ours", cell, batch, steps, 8, 32, jit)
                seconds = common.time_interleaved({"step": step}, rounds)["step"]
                name = f"{cell}, {'jit' if jit else 'plain'}, batch {batch}, time {steps}"
                milliseconds[name] = round(1e3 * statistics.median(seconds), 2)
                print(f"{name}: {milliseconds[name]} ms", flush=True)
    return milliseconds


def table(results: dict[str, Any]) -> str:
    """The ratios as Markdown, a row per layer and size."""
    names = list(next(iter(results.values()))["ratios"])
    lines = ["| layer, units | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for layer, result in results.items():
        cells = (f"{result['ratios'][name]:.2f}" for name in names)
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the requested measurements, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--units", nargs="+", type=int, default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=("speed", "memory", "growth"))
    parser.add_argument("--output", default="recurrent")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        first, *rest = arguments.worker
        return print_peak(*rest) if first == "peak" else work(first, *rest)
    results: dict[str, Any] = {"rounds": arguments.rounds}
    if "speed" in arguments.only:
        results["speed"] = {}
        for cell in arguments.cells:
            for units in arguments.units:
                result = speed(cell, units, arguments.rounds)
                results["speed"][f"{cell} {units}"] = result
                print(f"{cell} {units}", json.dumps(result, indent=1), flush=True)
                common.write(arguments.output, results)  # an interruption loses one layer at most
        print(table(results["speed"]))
    if "memory" in arguments.only:
        results["memory, MB"] = memory()
    if "growth" in arguments.only:
        results["growth, ms"] = growth(arguments.rounds)
    common.write(arguments.output, results)
    return None


if __name__ == "__main__":
    main()
