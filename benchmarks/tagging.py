"""Entity F1 of every tagger on the slots of SNIPS.

    python -m benchmarks.tagging --data snips

The folder contains train, valid and test, each with seq.in and seq.out, of
https://github.com/MiuLab/SlotGated-SLU (data/snips). `zoo.train` trains each entry with its
defaults on train; the epoch is selected by the entity F1 on valid, and test is scored once for each
seed. No pretrained vectors. Writes results/tagging.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.tasks import evaluate

ENTRIES = {  # and arguments that differ from the defaults
    "simple_rnn_tagger": {},
    "gru_tagger": {},
    "bilstm_tagger": {},
    "bilstm_crf_tagger": {},
    "char_bilstm_crf_tagger": {},
    "char_bilstm_crf_tagger, softmax": {"head": "softmax"},
}


def main() -> None:
    """Train every entry with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--entries", default=",".join(name for name in ENTRIES if "," not in name))
    options = parser.parse_args()
    train, valid, test = (
        zoo.data.read_labeled_sequences(os.path.join(options.data, part))
        for part in ("train", "valid", "test")
    )
    results = {}
    for label, settings in ENTRIES.items():
        name = label.partition(",")[0]
        if name not in options.entries.split(","):
            continue
        runs = []
        for seed in range(options.seeds):
            result = zoo.train(
                name,
                train,
                validation_data=valid,
                epochs=options.epochs,
                seed=seed,
                verbose=0,
                **settings,
            )
            scores = evaluate(result.model, test)
            runs.append(
                {
                    "f1": scores.f1,
                    "valid_f1": result.scores.f1,
                    "accuracy": scores.accuracy,
                    "seconds": result.seconds,
                    "epochs": len(result.history),
                    "parameters": result.inner_model.count_params(),
                }
            )
            print(
                label, seed, {key: round(value, 4) for key, value in runs[-1].items()}, flush=True
            )
        results[label] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]} | {
            "f1_deviation": float(np.std([run["f1"] for run in runs], ddof=1)),
            "runs": runs,
        }
        common.write("tagging", {"seeds": options.seeds, "entries": results})
    for label, means in results.items():
        print(
            f"| `{label}` | {means['parameters']:,.0f} | {means['seconds']:.0f} | "
            f"{100 * means['f1']:.1f} ± {100 * means['f1_deviation']:.1f} |"
        )


if __name__ == "__main__":
    main()
