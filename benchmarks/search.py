"""The search against KerasTuner's RandomSearch, and against Optuna driving plain `fit`.

    python -m benchmarks.search [--trials 64] [--rounds 3] [--peer-trials 64]

The reference search: `simple_rnn_identity`, generated readings, time 50, features 3, 960 training
rows and 320 to validate on, batch 32, 20 epochs, 2 to 32 units, L2 on the recurrent kernel of
1e-5 to 1, learning rate 1e-3 to 3e-2. All run the same trials with the same epochs and objective,
each in a fresh process, in turn; "pruned" is keras_seqzoo with `pruning=True`. Seconds are those of
the whole search, compiling included, importing not. With `--peer-trials` below `--trials`, the
peers run the first so many only; seconds are per trial, and best scores those of the trials that
all ran.

`--entry gru_identity` searches the same model with another cell. `--entry gru_tagger` and
`gru_classifier` search those on the same windows, with the same hyperparameters and epochs, for
accuracy: whether the first reading has risen, fallen or stayed over the last steps, at each step;
and which of the readings moved most in the window.

Writes results/search.json, or search_ENTRY.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common

NAMES = ("simple_rnn_identity", "gru_identity", "lstm_identity", "gru_tagger", "gru_classifier")
LAG = 5  # steps over which a reading rises or falls
EPOCHS, BATCH, TIME, FEATURES, TRAIN, VALIDATE = 20, 32, 50, 3, 960, 320
SIDES = ("KerasTuner", "Optuna", "keras_seqzoo", "pruned")
OURS = ("keras_seqzoo", "pruned")


def trials_of(count: int, seed: int) -> list[dict[str, Any]]:
    """The same for all sides."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return [
        {
            "units": int(rng.integers(2, 33)),
            "recurrent_strength": float(10 ** rng.uniform(-5, 0)),
            "learning_rate": float(10 ** rng.uniform(-3, np.log10(3e-2))),
        }
        for _ in range(count)
    ]


def readings():
    """Training and validation windows, each with its classes or None."""
    import numpy as np

    import keras_seqzoo as zoo

    steps = (TRAIN + VALIDATE) * TIME
    x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=steps), sequence_length=TIME)[
        ..., :FEATURES
    ]
    y = None
    if NAME == "gru_tagger":
        before = np.concatenate([x[:, :1, 0]] * LAG + [x[:, :-LAG, 0]], axis=1)
        rise = (x[..., 0] - before) / x[..., 0].std()
        y = np.digitize(rise, (-0.1, 0.1))
    elif NAME == "gru_classifier":
        y = (x.std(axis=1) / x.std(axis=(0, 1))).argmax(axis=-1)
    parts = slice(None, TRAIN), slice(TRAIN, TRAIN + VALIDATE)
    return [(x[part], None if y is None else y[part]) for part in parts]


SPACE = {"units": (2, 32), "recurrent_strength": (1e-5, 1.0), "learning_rate": (1e-3, 3e-2)}
NAME = os.environ.get("BENCHMARK_ENTRY", "simple_rnn_identity")
OF_CLASSES = NAME in ("gru_tagger", "gru_classifier")
OBJECTIVE = "val_accuracy" if OF_CLASSES else "val_identity_cost"
FIXED = {"recurrent_regularizer": "l2"}
FIXED |= (
    {"dropout": 0.0, "input_dropout": 0.0}
    if OF_CLASSES
    else {"recurrent_initializer": "orthogonal"}
)
CLASSES = {"classes": 3} if OF_CLASSES else {}


def run_keras_tuner(trials: list[dict[str, Any]], directory: str) -> list[float]:
    """Its tuner with its oracle, told which values to draw."""
    import keras_tuner
    from keras_tuner.oracles import RandomSearchOracle

    import keras_seqzoo as zoo

    (x, y), validation = readings()
    hypermodel = zoo.hypermodel(NAME, features=FEATURES, space=SPACE, **FIXED, **CLASSES)

    class Replay(RandomSearchOracle):
        def populate_space(self, trial_id):
            values = trials[int(trial_id)]
            return {"status": "RUNNING", "values": values}

    oracle = Replay(objective=hypermodel.objective, max_trials=len(trials), seed=1)
    tuner = keras_tuner.Tuner(oracle, hypermodel, directory=directory, project_name="search")
    tuner.search(
        x, y, validation_data=_given(validation), epochs=EPOCHS, batch_size=BATCH, verbose=0
    )
    return [trial.score for trial in oracle.trials.values()]


def run_optuna(trials: list[dict[str, Any]], directory: str) -> list[float]:
    """A study in a file, and a function that builds and fits."""
    import keras
    import keras_tuner
    import optuna

    import keras_seqzoo as zoo

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (x, y), validation = readings()
    hypermodel = zoo.hypermodel(NAME, features=FEATURES, space=SPACE, **FIXED, **CLASSES)
    direction = "maximize" if OF_CLASSES else "minimize"
    study = optuna.create_study(storage=f"sqlite:///{directory}/study.db", direction=direction)
    for values in trials:
        study.enqueue_trial(values)

    def objective(trial):
        keras.backend.clear_session()
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        hp.values |= {
            "units": trial.suggest_int("units", *SPACE["units"]),
            "recurrent_strength": trial.suggest_float(
                "recurrent_strength", *SPACE["recurrent_strength"], log=True
            ),
            "learning_rate": trial.suggest_float(
                "learning_rate", *SPACE["learning_rate"], log=True
            ),
        }
        history = hypermodel.fit(
            hp,
            hypermodel.build(hp),
            x,
            y,
            validation_data=_given(validation),
            epochs=EPOCHS,
            batch_size=BATCH,
            verbose=0,
        )
        return best(history.history[OBJECTIVE])

    study.optimize(objective, n_trials=len(trials))
    return [trial.value for trial in study.trials]


def run_keras_seqzoo(
    trials: list[dict[str, Any]], directory: str, *, pruning: bool = False
) -> list[float]:
    """`zoo.search`, with a sampler that gives the same trials."""
    import keras_seqzoo as zoo
    from keras_seqzoo.tuning.study.oracle import Given

    (x, y), validation = readings()
    left = iter(trials[1:])  # the first one is the defaults, which are set to the first here
    first = {name: (*SPACE[name], trials[0][name]) for name in SPACE}
    found = zoo.search(
        NAME,
        x,
        y,
        validation_data=_given(validation),
        space=_with_defaults(first),
        max_trials=len(trials),
        epochs=EPOCHS,
        batch_size=BATCH,
        population=len(trials),
        pruning=pruning,
        sampler=lambda seed: Given(next(left)),
        directory=directory,
        report=False,
        verbose=0,
        **FIXED,
    )
    return found.results[OBJECTIVE].tolist()


def best(scores: list[float]) -> float:
    """The lowest cost, or the highest accuracy."""
    return max(scores) if OF_CLASSES else min(scores)


def _given(validation: tuple) -> Any:
    x, y = validation
    return x if y is None else (x, y)


def _with_defaults(given: dict[str, tuple]) -> dict[str, Any]:
    from keras_seqzoo.registry.search_space import Float, Int

    return {
        name: (Int if name == "units" else Float)(low, high, log=True, default=default)
        for name, (low, high, default) in given.items()
    }


def register_cell(name: str) -> None:
    """The identity entry with another cell, which the zoo does not have."""
    import keras

    import keras_seqzoo as zoo
    from keras_seqzoo import layers, registry

    cell = {"gru_identity": layers.GRU, "lstm_identity": layers.LSTM}[name]

    def identity(
        *, features: int = 1, units: int = 8, recurrent_initializer="orthogonal",
        recurrent_regularizer=None, name: str = name,
    ):  # fmt: skip
        inputs = keras.Input((None, features))
        x = layers.Normalization(name="scale")(inputs)
        x = cell(
            units,
            return_sequences=True,
            recurrent_initializer=recurrent_initializer,
            recurrent_regularizer=recurrent_regularizer,
            name="recurrent",
        )(x)
        x = keras.layers.Dense(features, name="readout")(x)
        return keras.Model(inputs, layers.Normalization(invert=True, name="unscale")(x), name=name)

    zoo.register(
        name, identity, task="identity", summary="For this benchmark.",
        inputs="(batch, time, features)", outputs="(batch, time, features)", causal=True,
        space=registry.get_entry("simple_rnn_identity").space,
    )  # fmt: skip


def work(side: str, count: int, seed: int) -> None:
    """One search in this process: prints its seconds and its best score."""
    import tensorflow  # noqa: F401

    import keras_seqzoo as zoo

    if NAME in ("gru_identity", "lstm_identity"):
        register_cell(NAME)
    zoo.get(NAME)  # imports what a first model imports
    run = {
        "KerasTuner": run_keras_tuner,
        "Optuna": run_optuna,
        "keras_seqzoo": run_keras_seqzoo,
        "pruned": functools.partial(run_keras_seqzoo, pruning=True),
    }
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        scores = run[side](trials_of(count, seed), directory)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "trials": len(scores), "scores": scores}))


def main() -> None:
    """Runs all sides in turn, prints seconds a trial and ratios, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--peer-trials", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--entry", choices=NAMES, default=NAMES[0])
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side, count, seed = arguments.worker
        return work(side, int(count), int(seed))
    os.environ["BENCHMARK_ENTRY"] = arguments.entry
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides}
    for seed in range(arguments.rounds):
        for side in arguments.sides:
            count = arguments.trials
            if side not in OURS and arguments.peer_trials:
                count = arguments.peer_trials
            command = [sys.executable, "-m", "benchmarks.search", "--worker", side]
            command += [str(count), str(seed)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            runs[side].append(json.loads(answer.strip().splitlines()[-1]))
            one = runs[side][-1]
            scores = one.pop("scores")
            shared = arguments.peer_trials or arguments.trials
            best_of = max if "identity" not in arguments.entry else min
            one |= {"best": best_of(scores), "best of all sides' trials": best_of(scores[:shared])}
            print(side, one, flush=True)
    pace = {
        side: statistics.median(one["seconds"] / one["trials"] for one in found)
        for side, found in runs.items()
    }
    ratios = {side: round(seconds / pace["keras_seqzoo"], 1) for side, seconds in pace.items()}
    print("seconds a trial", pace, "times ours", ratios)
    output = "search" if arguments.entry == NAMES[0] else f"search_{arguments.entry}"
    common.write(output, {"runs": runs, "seconds a trial": pace, "times ours": ratios})
    return None


if __name__ == "__main__":
    main()
