"""Word error rates of `attention_gru_encoder_decoder` on grapheme-to-phoneme conversion.

    python -m benchmarks.seq2seq --data task1

The folder contains train, dev and test of https://github.com/sigmorphon/2020 (task1/data): columns
of words and of their phonemes in Icelandic, French and Hungarian, 3,600 / 450 / 450 each. Default
arguments; settings were chosen on dev. The learning rate follows a cosine decay, so that no epoch
is selected either. Test is scored once for each seed: by greedy search, by beam search, and by beam
search with all seeds together (`Ensemble`). The word error rate is the share of words with at least
one wrong phoneme. Writes results/seq2seq.json.
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
    """Train on every language with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--part", default="test", choices=("dev", "test"), help="the scored part")
    options = parser.parse_args()
    results = {}
    for language in options.languages.split(","):
        train, scored = (read(options.data, part, language) for part in ("train", options.part))
        runs, networks = [], []
        for seed in range(options.seeds):
            result = zoo.train(
                ENTRY, train, validation_split=0, epochs=options.epochs, seed=seed, verbose=0
            )
            network, preprocessor = result.inner_model, result.preprocessor
            networks.append(network)
            runs.append(
                {
                    "greedy": word_error_rate(network, preprocessor, scored),
                    "beam": word_error_rate(network, preprocessor, scored, **BEAM),
                    "seconds": result.seconds,
                    "parameters": network.count_params(),
                }
            )
            print(language, seed, {key: round(v, 2) for key, v in runs[-1].items()}, flush=True)
        results[language] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]} | {
            "beam_deviation": float(np.std([run["beam"] for run in runs], ddof=1)),
            "ensemble": word_error_rate(Ensemble(networks), preprocessor, scored, **BEAM),
            "runs": runs,
        }
        if options.part == "test":
            common.write("seq2seq", {"seeds": options.seeds, "languages": results})
    for language, means in results.items():
        print(
            f"| {language} | {means['greedy']:.1f} | {means['beam']:.1f} ± "
            f"{means['beam_deviation']:.1f} | {means['ensemble']:.1f} | {means['seconds']:.0f} |"
        )


def word_error_rate(network, preprocessor, pairs, **options) -> float:
    """Percentage of wrong words."""
    return 100 * (1 - PairMetrics(preprocessor, pairs, **options).measure(network).accuracy)


if __name__ == "__main__":
    main()
