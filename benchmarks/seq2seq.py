"""Grapheme to phoneme by `attention_gru_encoder_decoder`, as it comes, in three languages.

    python -m benchmarks.seq2seq --data task1

DIR holds train, dev and test of https://github.com/sigmorphon/2020 (task1/data): columns of words
and of their phonemes in Icelandic, French and Hungarian, 3,600 / 450 / 450 each. Settings were
chosen on dev. The learning rate falls along a cosine, so that no epoch is chosen either; test is
scored once for each seed: greedy, by a beam, and by a beam of all seeds together (`Ensemble`). The
word error rate is the share of words that are not right as a whole. Writes
results/seq2seq.json.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.callbacks import PairMetrics
from keras_seqzoo.layers import Ensemble

LANGUAGES = ("ice", "fre", "hun")
ENTRY = "attention_gru_encoder_decoder"
EPOCHS = 60
BEAM = {"strategy": "beam", "num_beams": 5}


def read(folder: str, part: str, language: str):
    """The pairs of one part of one language."""
    path = os.path.join(folder, part, f"{language}_{part}.tsv")
    return zoo.data.read_sequence_pairs(path, source_units="characters")


def main() -> None:
    """Trains every language with every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--part", default="test", choices=("dev", "test"), help="what is scored")
    options = parser.parse_args()
    figures = {}
    for language in options.languages.split(","):
        train, scored = (read(options.data, part, language) for part in ("train", options.part))
        runs, networks = [], []
        for seed in range(options.seeds):
            trained = zoo.train(
                ENTRY, train, validation_split=0, epochs=options.epochs, seed=seed, verbose=0
            )
            networks.append(trained.inner_model)
            runs.append(
                {
                    "greedy": error(trained.inner_model, trained.preprocessor, scored),
                    "beam": error(trained.inner_model, trained.preprocessor, scored, **BEAM),
                    "seconds": trained.seconds,
                    "parameters": trained.inner_model.count_params(),
                }
            )
            print(language, seed, {key: round(one, 2) for key, one in runs[-1].items()}, flush=True)
        figures[language] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]} | {
            "beam_deviation": float(np.std([run["beam"] for run in runs], ddof=1)),
            "ensemble": error(Ensemble(networks), trained.preprocessor, scored, **BEAM),
            "runs": runs,
        }
        if options.part == "test":
            common.write("seq2seq", {"seeds": options.seeds, "languages": figures})
    for language, found in figures.items():
        print(
            f"| {language} | {found['greedy']:.1f} | {found['beam']:.1f} ± "
            f"{found['beam_deviation']:.1f} | {found['ensemble']:.1f} | {found['seconds']:.0f} |"
        )


def error(network, preprocessor, pairs, **how) -> float:
    """Words in 100 that are wrong."""
    return 100 * (1 - PairMetrics(preprocessor, pairs, **how).measure(network).accuracy)


if __name__ == "__main__":
    main()
