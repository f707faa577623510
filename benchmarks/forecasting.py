"""Forecasts of 24 steps by `vector_encoder_decoder`, against the seasonal-naive forecast.

    python -m benchmarks.forecasting --taxi realKnownCause/nyc_taxi.csv

Two records: generated seasons of 24 steps with noise of known size, where no forecast can have
less than the noise's variance and the seasonal-naive one (what was a season ago) has twice that;
and passengers of New York's taxis every half hour, of
https://github.com/numenta/NAB (data/realKnownCause), where the naive forecast is the best of a day
and of a week ago. 60 % of the time to train, 20 % to choose the epoch by, 20 % measured once for
each seed. Errors are mean squared errors over the variance of the measured part. Writes
results/forecasting.json and results/forecasting.png.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from keras_seqzoo.data import SequencePairs, forecasting_pairs

STEPS = 24
NOISE = 0.3
PARTS = (0.6, 0.2, 0.2)


def seasons(steps: int = 6000, seed: int = 0) -> np.ndarray:
    """Two harmonics of 24 steps, and noise of deviation 0.3."""
    phase = 2 * np.pi * np.arange(steps) / 24
    noise = np.random.default_rng(seed).normal(scale=NOISE, size=steps)
    return 10 + np.sin(phase) + 0.5 * np.sin(2 * phase + 1) + noise


def naive(record: np.ndarray, first: int, pairs: SequencePairs, season: int) -> float:
    """The error of saying what was read a season ago, of pairs cut from row `first` on."""
    targets = np.stack(pairs.targets)[..., 0]
    rows = first + len(pairs.sources[0]) + np.arange(targets.size).reshape(targets.shape)
    return float(np.mean((record[rows - season] - targets) ** 2) / targets.var())


def main() -> None:
    """Trains on both records with every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--taxi", help="nyc_taxi.csv; left out if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    records = {"seasons": (seasons(), 48, 4, (24,))}
    if options.taxi:
        taxi = zoo.data.read_time_series(options.taxi).values[:, 0]
        records["taxi"] = (taxi, 96, 3, (48, 336))
    figures, drawn = {}, []
    for name, (record, past, sequence_stride, known) in records.items():
        ends = (np.cumsum(PARTS) * len(record)).astype(int)
        parts = [record[a:b] for a, b in zip((0, *ends[:-1]), ends, strict=True)]
        train = forecasting_pairs(parts[0], past=past, steps=STEPS, sequence_stride=sequence_stride)
        valid, test = (forecasting_pairs(part, past=past, steps=STEPS) for part in parts[1:])
        errors, seconds = [], []
        for seed in range(options.seeds):
            trained = zoo.train(
                "vector_encoder_decoder", train, validation_data=valid, epochs=options.epochs, seed=seed, verbose=0
            )
            errors.append(zoo.training.evaluate(trained.model, test))
            seconds.append(trained.seconds)
            print(name, seed, round(errors[-1], 4), round(trained.seconds), flush=True)
        figures[name] = {
            "error": float(np.mean(errors)),
            "deviation": float(np.std(errors, ddof=1)),
            "naive": {str(season): naive(record, ends[1], test, season) for season in known},
            "seconds": float(np.mean(seconds)),
        }
        if name == "seasons":
            figures[name]["floor"] = NOISE**2 / float(np.var(np.stack(test.targets)))
        drawn.append((name, test, trained.model))
        common.write("forecasting", figures)
    draw(drawn)
    for name, found in figures.items():
        print(name, found)


def draw(drawn) -> None:
    """The first forecast of each record beside what came."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(drawn)), layout="constrained")
    for number, (name, pairs, model) in enumerate(drawn, 1):
        ax = figure.add_subplot(len(drawn), 1, number)
        source, target = pairs.sources[0], pairs.targets[0]
        said = model.predict_on_batch(source[None])[0]
        ax.plot(np.arange(-len(source), 0), source, color="#999", label="read")
        ax.plot(np.arange(STEPS), target, color="#222", label="came")
        ax.plot(np.arange(STEPS), said, color="#c0392b", label="said")
        ax.set(title=name, xlabel="steps")
        ax.legend(frameon=False)
    figure.savefig(common.RESULTS / "forecasting.png", dpi=120)


if __name__ == "__main__":
    main()
