"""Seconds per trial of `zoo.search`, KerasTuner's RandomSearch, and Optuna with plain `fit`.

    python -m benchmarks.search [--trials 64] [--rounds 3] [--peer-trials 64]

The reference search: `simple_rnn_identity`, generated readings, time 50, features 3, 960 rows for
training and 320 for validation, batch 32, 20 epochs, 2 to 32 units, L2 on the recurrent kernel of
1e-5 to 1, learning rate 1e-3 to 3e-2. All tuners run the same trials with the same epochs and
objective, each in a new process, one after the other; "pruned" is keras_seqzoo with `pruning=True`.
Seconds are those of the whole search, with compilation, without imports. With `--peer-trials` below
`--trials`, KerasTuner and Optuna run only the first trials. Seconds are per trial. Best scores are
those of the trials that all tuners ran.

`--entry gru_identity` searches the same model with another cell. `--entry gru_tagger` and
`gru_classifier` search these entries by accuracy on the same windows, with the same hyperparameters
and epochs. The classes of each step are whether the first feature rose, fell or stayed over the
last steps; the class of a window is the feature with the largest variation.

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
LAG = 5  # steps over which a feature rises or falls
EPOCHS, BATCH, TIME, FEATURES, TRAIN, VALIDATE = 20, 32, 50, 3, 960, 320
TUNERS = ("KerasTuner", "Optuna", "keras_seqzoo", "pruned")
PEERS = ("KerasTuner", "Optuna")


def make_trials(count: int, seed: int) -> list[dict[str, Any]]:
    """Hyperparameters of the trials, the same for all tuners."""
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
    """Training and validation windows, each with its classes, or None for an identity model."""
    import numpy as np

    import keras_seqzoo as zoo

    steps = (TRAIN + VALIDATE) * TIME
    x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=steps), sequence_length=TIME)[
        ..., :FEATURES
    ]
    y = None
    if NAME == "gru_tagger":
        earlier = np.concatenate([x[:, :1, 0]] * LAG + [x[:, :-LAG, 0]], axis=1)
        rise = (x[..., 0] - earlier) / x[..., 0].std()
        y = np.digitize(rise, (-0.1, 0.1))
    elif NAME == "gru_classifier":
        y = (x.std(axis=1) / x.std(axis=(0, 1))).argmax(axis=-1)
    parts = slice(None, TRAIN), slice(TRAIN, TRAIN + VALIDATE)
    return [(x[part], None if y is None else y[part]) for part in parts]


SPACE = {"units": (2, 32), "recurrent_strength": (1e-5, 1.0), "learning_rate": (1e-3, 3e-2)}
NAME = os.environ.get("BENCHMARK_ENTRY", "simple_rnn_identity")
HAS_CLASSES = NAME in ("gru_tagger", "gru_classifier")
OBJECTIVE = "val_accuracy" if HAS_CLASSES else "val_identity_cost"
FIXED = {"recurrent_regularizer": "l2"}
FIXED |= (
    {"dropout": 0.0, "input_dropout": 0.0}
    if HAS_CLASSES
    else {"recurrent_initializer": "orthogonal"}
)
CLASSES = {"classes": 3} if HAS_CLASSES else {}


def run_keras_tuner(trials: list[dict[str, Any]], directory: str) -> list[float]:
    """KerasTuner's tuner with an oracle that proposes the given trials."""
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
        x,
        y,
        validation_data=_as_validation_data(validation),
        epochs=EPOCHS,
        batch_size=BATCH,
        verbose=0,
    )
    return [trial.score for trial in oracle.trials.values()]


def run_optuna(trials: list[dict[str, Any]], directory: str) -> list[float]:
    """An Optuna study in a file, and an objective that builds and fits a model."""
    import keras
    import keras_tuner
    import optuna

    import keras_seqzoo as zoo

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (x, y), validation = readings()
    hypermodel = zoo.hypermodel(NAME, features=FEATURES, space=SPACE, **FIXED, **CLASSES)
    direction = "maximize" if HAS_CLASSES else "minimize"
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
            validation_data=_as_validation_data(validation),
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
    """`zoo.search` with a sampler that proposes the given trials."""
    import keras_seqzoo as zoo
    from keras_seqzoo.tuning.study.oracle import FixedSampler

    (x, y), validation = readings()
    remaining = iter(trials[1:])  # the first trial has the defaults, set to those of trials[0]
    result = zoo.search(
        NAME,
        x,
        y,
        validation_data=_as_validation_data(validation),
        space=_space_with_defaults(trials[0]),
        max_trials=len(trials),
        epochs=EPOCHS,
        batch_size=BATCH,
        population=len(trials),
        pruning=pruning,
        sampler=lambda seed: FixedSampler(next(remaining)),
        directory=directory,
        report=False,
        verbose=0,
        **FIXED,
    )
    return result.results[OBJECTIVE].tolist()


def best(scores: list[float]) -> float:
    """The lowest cost, or the highest accuracy."""
    return max(scores) if HAS_CLASSES else min(scores)


def _as_validation_data(validation: tuple) -> Any:
    x, y = validation
    return x if y is None else (x, y)


def _space_with_defaults(defaults: dict[str, Any]) -> dict[str, Any]:
    from keras_seqzoo.registry.search_space import Float, Int

    return {
        name: (Int if name == "units" else Float)(low, high, log=True, default=defaults[name])
        for name, (low, high) in SPACE.items()
    }


def register_identity(name: str) -> None:
    """Register the identity entry with another cell."""
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


def work(tuner: str, count: int, seed: int) -> None:
    """Run one search in this process; print its seconds and scores as JSON."""
    import tensorflow  # noqa: F401

    import keras_seqzoo as zoo

    if NAME in ("gru_identity", "lstm_identity"):
        register_identity(NAME)
    zoo.get(NAME)  # imports everything that a first model imports
    run = {
        "KerasTuner": run_keras_tuner,
        "Optuna": run_optuna,
        "keras_seqzoo": run_keras_seqzoo,
        "pruned": functools.partial(run_keras_seqzoo, pruning=True),
    }
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        scores = run[tuner](make_trials(count, seed), directory)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "trials": len(scores), "scores": scores}))


def main() -> None:
    """Run all tuners in turn, print seconds per trial and ratios, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--peer-trials", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tuners", nargs="+", default=TUNERS, choices=TUNERS)
    parser.add_argument("--entry", choices=NAMES, default=NAMES[0])
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        tuner, count, seed = arguments.worker
        return work(tuner, int(count), int(seed))
    os.environ["BENCHMARK_ENTRY"] = arguments.entry
    runs: dict[str, list[dict[str, Any]]] = {tuner: [] for tuner in arguments.tuners}
    for seed in range(arguments.rounds):
        for tuner in arguments.tuners:
            count = arguments.trials
            if tuner in PEERS and arguments.peer_trials:
                count = arguments.peer_trials
            command = [sys.executable, "-m", "benchmarks.search", "--worker", tuner]
            command += [str(count), str(seed)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            run = json.loads(output.strip().splitlines()[-1])
            scores = run.pop("scores")
            shared = arguments.peer_trials or arguments.trials
            best_of = max if "identity" not in arguments.entry else min
            run |= {"best": best_of(scores), "best of the shared trials": best_of(scores[:shared])}
            runs[tuner].append(run)
            print(tuner, run, flush=True)
    seconds = {
        tuner: statistics.median(run["seconds"] / run["trials"] for run in tuner_runs)
        for tuner, tuner_runs in runs.items()
    }
    ratios = {tuner: round(s / seconds["keras_seqzoo"], 1) for tuner, s in seconds.items()}
    print("seconds per trial", seconds, "over keras_seqzoo", ratios)
    name = "search" if arguments.entry == NAMES[0] else f"search_{arguments.entry}"
    common.write(name, {"runs": runs, "seconds per trial": seconds, "over keras_seqzoo": ratios})
    return None


if __name__ == "__main__":
    main()
