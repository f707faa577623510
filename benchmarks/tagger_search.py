"""Gain in entity F1 of a hyperparameter search over the defaults of a tagger.

    python -m benchmarks.tagger_search --data snips

24 trials of `bilstm_crf_tagger` over units, dropouts, learning rate and recurrent regularizer on
the first 3,000 training sentences of SNIPS (see benchmarks/tagging.py), 10 epochs each, with entity
F1 on valid as the objective. The first trial has the defaults. Test is scored once for it and once
for the best trial. Writes results/tagger_search.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.data import LabeledSequences
from keras_seqzoo.tasks import evaluate


def main() -> None:
    """Search, compare the best trial with the first, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-trials", type=int, default=24)
    parser.add_argument("--sentences", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    train, valid, test = (
        LabeledSequences(part.sequences, tags=part.tags)
        for part in (
            zoo.data.read_labeled_sequences(os.path.join(options.data, name))
            for name in ("train", "valid", "test")
        )
    )
    started = time.monotonic()
    search = zoo.search(
        "bilstm_crf_tagger",
        train.take(range(options.sentences)),
        validation_data=valid,
        max_trials=options.max_trials,
        epochs=options.epochs,
        directory=tempfile.mkdtemp(),
    )
    seconds = time.monotonic() - started
    results = search.results
    first = min(search.oracle.trials.values(), key=lambda trial: int(trial.trial_id))
    defaults = search.load_model(first)
    summary = {
        "seconds": seconds,
        "defaults": {"valid": results["val_f1"][0], "test": evaluate(defaults, test).f1},
        "best": {
            "valid": float(results["val_f1"].max()),
            "test": evaluate(search.best_model, test).f1,
            "values": search.chosen.hyperparameters.values,
        },
        "valid_f1": results["val_f1"].tolist(),
    }
    print(summary)
    common.write("tagger_search", summary)


if __name__ == "__main__":
    main()
