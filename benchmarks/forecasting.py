"""Forecasts of 24 steps by `vector_encoder_decoder`, against the seasonal-naive forecast.

    python -m benchmarks.forecasting --taxi realKnownCause/nyc_taxi.csv

Two time series. The first has generated seasons of 24 steps with noise of known variance: no
forecast can have a smaller error than this variance, and the seasonal-naive forecast (the value one
season ago) has twice that. The second is the number of passengers of New York's taxis every half
hour, from https://github.com/numenta/NAB (data/realKnownCause), with naive forecasts from a day and
from a week ago. 60 % of the time for training, 20 % to select the epoch, 20 % measured once for
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
FRACTIONS = (0.6, 0.2, 0.2)


def seasons(steps: int = 6000, seed: int = 0) -> np.ndarray:
    """Two harmonics of 24 steps, and noise of standard deviation 0.3."""
    phase = 2 * np.pi * np.arange(steps) / 24
    noise = np.random.default_rng(seed).normal(scale=NOISE, size=steps)
    return 10 + np.sin(phase) + 0.5 * np.sin(2 * phase + 1) + noise


def naive_error(series: np.ndarray, first: int, pairs: SequencePairs, season: int) -> float:
    """The error of the seasonal-naive forecast, on pairs cut from row `first` on."""
    targets = np.stack(pairs.targets)[..., 0]
    rows = first + len(pairs.sources[0]) + np.arange(targets.size).reshape(targets.shape)
    return float(np.mean((series[rows - season] - targets) ** 2) / targets.var())


def main() -> None:
    """Train on both series with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--taxi", help="nyc_taxi.csv; omitted if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    data = {"seasons": (seasons(), 48, 4, (24,))}
    if options.taxi:
        taxi = zoo.data.read_time_series(options.taxi).values[:, 0]
        data["taxi"] = (taxi, 96, 3, (48, 336))
    results, examples = {}, []
    for name, (series, past, sequence_stride, periods) in data.items():
        ends = (np.cumsum(FRACTIONS) * len(series)).astype(int)
        parts = [series[a:b] for a, b in zip((0, *ends[:-1]), ends, strict=True)]
        train = forecasting_pairs(parts[0], past=past, steps=STEPS, sequence_stride=sequence_stride)
        valid, test = (forecasting_pairs(part, past=past, steps=STEPS) for part in parts[1:])
        errors, seconds = [], []
        for seed in range(options.seeds):
            result = zoo.train(
                "vector_encoder_decoder",
                train,
                validation_data=valid,
                epochs=options.epochs,
                seed=seed,
                verbose=0,
            )
            errors.append(zoo.evaluate(result.model, test))
            seconds.append(result.seconds)
            print(name, seed, round(errors[-1], 4), round(result.seconds), flush=True)
        results[name] = {
            "error": float(np.mean(errors)),
            "deviation": float(np.std(errors, ddof=1)),
            "naive": {str(p): naive_error(series, ends[1], test, p) for p in periods},
            "seconds": float(np.mean(seconds)),
        }
        if name == "seasons":
            results[name]["floor"] = NOISE**2 / float(np.var(np.stack(test.targets)))
        examples.append((name, test, result.model))
        common.write("forecasting", results)
    plot(examples)
    for name, summary in results.items():
        print(name, summary)


def plot(examples) -> None:
    """Plot the first forecast of each series and the true values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(examples)), layout="constrained")
    for position, (name, pairs, model) in enumerate(examples, 1):
        ax = figure.add_subplot(len(examples), 1, position)
        source, target = pairs.sources[0], pairs.targets[0]
        forecast = model.predict_on_batch(source[None])[0]
        ax.plot(np.arange(-len(source), 0), source, color="#999", label="past")
        ax.plot(np.arange(STEPS), target, color="#222", label="true")
        ax.plot(np.arange(STEPS), forecast, color="#c0392b", label="forecast")
        ax.set(title=name, xlabel="steps")
        ax.legend(frameon=False)
    figure.savefig(common.RESULTS / "forecasting.png", dpi=120)


if __name__ == "__main__":
    main()
