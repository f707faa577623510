"""Anomaly detection on the Numenta Anomaly Benchmark, by one rule fixed beforehand.

    python -m benchmarks.anomaly --data nab
    python -m benchmarks.anomaly --seeds 1  # the generated records that the rule was developed on

`nab` contains data/ and labels/ of https://github.com/numenta/NAB. The first 15 % of each file, at
most 750 rows, are for training. The score of a row depends on rows up to it, and thresholds on the
training rows alone. The score is the standard profile (`benchmarks.nab.scoring`): 0 without any
alarm, 100 for perfect detection. Detectors:

- "by the clock": an alarm every 500 rows, whatever the readings; the baseline;
- "identity": simple_rnn_identity, each reading alone, above the 0.999 quantile of training;
- "forecaster": gru_forecaster on readings minus their season (`benchmarks.nab.seasons`), where the
  training rows show one, and the rule of `benchmarks.nab.alarms` on its residuals;
- "autoencoder": the same with an entry that reconstructs windows, each reading from the window that
  ends with it.

All use the defaults of the catalog. The rule was developed on generated records
(`benchmarks.nab.generated_anomalies`) and on the files without anomalies, and committed before the
nine files were scored. Every evaluation on those nine is listed here:

1. The rule as first committed, 3 seeds: real 62.4 ± 6.4, artificial 81.6. The scores of those files
   have not changed since.

2. lstm_autoencoder by the same rule, 2 seeds, added later: real 53.4 ± 3.7, artificial 81.6.
Nothing
   else was run again.

Numenta's published detectors had their thresholds optimized on the labels of the full corpus.
Writes results/anomaly.json and plots.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_seqzoo as zoo
from benchmarks import common
from benchmarks.nab import alarms, generated_anomalies, scoring, seasons

SEQUENCE_LENGTH, SEQUENCE_STRIDE = 50, 2  # of training windows: few rows, many windows
VALIDATION_SPLIT = 0.2  # the last training windows select the epoch
EVERY = 500
BY_THE_CLOCK = "by the clock"
SETS = {
    "real": [
        f"realKnownCause/{name}.csv"
        for name in (
            "ambient_temperature_system_failure", "cpu_utilization_asg_misconfiguration",
            "ec2_request_latency_system_failure", "machine_temperature_system_failure", "nyc_taxi",
        )
    ],
    "artificial": [
        f"artificialWithAnomaly/art_daily_{name}.csv"
        for name in ("flatmiddle", "jumpsdown", "jumpsup", "nojump")
    ],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Detection:
    """Alarms and scores of a detector on one file."""

    alarms: np.ndarray  # rows
    scores: np.ndarray | None = None  # (steps,), divided by the threshold
    leakage: float | None = None  # of the model's score


Detector = Callable[[scoring.LabeledRecord, int], Detection]


def detect_by_the_clock(record: scoring.LabeledRecord, seed: int) -> Detection:
    """Raise an alarm every `EVERY` rows."""
    return Detection(np.arange(record.train, len(record.values), EVERY))


def detect_by_identity(record: scoring.LabeledRecord, seed: int) -> Detection:
    """Score each raw reading by itself."""
    x_train = record.values[: record.train]
    model = train_model("simple_rnn_identity", x_train, seed)
    report = zoo.anomaly(model, record.values, x_train, alone=True)
    scores = report.scores / report.threshold
    return Detection(alarms.alarms(scores > 1, record.train), scores, report.leakage.index)


def rule_detector(name: str) -> Detector:
    """The rule of `benchmarks.nab.alarms` on the residuals of a forecaster or an autoencoder."""

    def detect(record: scoring.LabeledRecord, seed: int) -> Detection:
        first, adjusted = subtract_season(record)
        train = record.train - first
        model = train_model(name, adjusted[:train], seed)
        forecasts = zoo.registry.get_entry(name).task == "forecasting"
        # Each reading from the window with its longest past; an autoencoder's ends with it.
        report = zoo.anomaly(
            model, adjusted, adjusted[:train], sequence_length=SEQUENCE_LENGTH,
            sequence_stride=10 if forecasts else 1, combine="longest", batch_size=1024,
        )  # fmt: skip
        scores = alarms.scores(report.residuals[:, 0], adjusted, record.values[first:], train)
        scores = scores / alarms.threshold(scores, train)
        rows = alarms.alarms(scores > 1, train) + first
        return Detection(rows, np.r_[np.full(first, np.nan), scores], report.leakage.index)

    return detect


def subtract_season(record: scoring.LabeledRecord) -> tuple[int, np.ndarray]:
    """The first row with an earlier season, and the readings minus their season from there on."""
    train = record.train
    period = seasons.find_period(record.values[:train], record.times[:train])
    if period is None:
        return 0, record.values
    residuals = record.values - seasons.earlier(record.values, record.times, period)
    first = int(np.flatnonzero(~np.isnan(residuals))[0])
    if np.ptp(residuals[first:train]) == 0:  # the season explains the training rows entirely
        return 0, record.values
    return first, np.nan_to_num(residuals[first:])  # 0 where no earlier season is known


def train_model(name: str, x_train: np.ndarray, seed: int) -> keras.Model:
    """An entry with its defaults, trained on these rows."""
    keras.backend.clear_session()
    x = zoo.data.make_windows(
        x_train, sequence_length=SEQUENCE_LENGTH, sequence_stride=SEQUENCE_STRIDE
    )
    last = round(len(x) * (1 - VALIDATION_SPLIT))
    result = zoo.train(
        name, x[:last], validation_data=x[last:], epochs=30, batch_size=16, seed=seed, verbose=0
    )
    return result.model


def detectors(autoencoder: str | None) -> dict[str, Detector]:
    """Every detector by name."""
    detectors = {
        BY_THE_CLOCK: detect_by_the_clock,
        "identity": detect_by_identity,
        "forecaster": rule_detector("gru_forecaster"),
    }
    if autoencoder:
        detectors["autoencoder"] = rule_detector(autoencoder)
    return detectors


def measure(
    detect: Detector, records: dict[str, list[scoring.LabeledRecord]], seed: int, detections: dict
) -> dict:
    """Scores of the sets and of each file; adds the detections to `detections`."""
    results: dict[str, dict] = {"sets": {}, "files": {}}
    for group, members in records.items():
        total, windows = 0.0, 0
        for record in members:
            detection = detect(record, seed)
            detections[record.name] = (record, detection)
            score = scoring.score_file(detection.alarms, record.windows, len(record.values))
            total, windows = total + score, windows + len(record.windows)
            rows = detection.alarms
            hits = [(rows >= first) & (rows <= last) for first, last in record.windows]
            results["files"][record.name] = {
                "score": scoring.normalized(score, len(record.windows)) if record.windows else None,
                "windows": len(record.windows),
                "found": int(sum(hit.any() for hit in hits)),
                "false_alarms": len(rows) - int(sum(hit.sum() for hit in hits)),
                "score_leakage": detection.leakage,
            }
        results["sets"][group] = scoring.normalized(total, windows)
    return results


def plot(name: str, detections: dict[str, tuple[scoring.LabeledRecord, Detection]]) -> None:
    """Plot scores over the labeled windows, a panel for each file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.7 * len(detections)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(detections)))
    for ax, (record, detection) in zip(axes, detections.values(), strict=True):
        for first, last in record.windows:
            ax.axvspan(first, last, color="tab:orange", alpha=0.3, linewidth=0)
        ax.axvspan(0, record.train, color="0.9", linewidth=0)
        ax.plot(detection.scores, linewidth=0.6)
        ax.plot(detection.alarms, detection.scores[detection.alarms], "C3.", markersize=5)
        ax.axhline(1, color="0.5", linestyle="--", linewidth=0.8)
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set_title(record.name, fontsize="small", loc="left")
        ax.margins(x=0)
    axes[-1].set_xlabel("row; grey: training, orange: labeled window, red: alarm")
    figure.supylabel("anomaly score over threshold", fontsize="small")
    path = common.RESULTS / f"anomaly_{name}.png"
    figure.savefig(path, dpi=90)
    print(f"Plotted: {path}")


def print_table(results: dict[str, list[dict]]) -> None:
    """Print means and standard deviations over seeds, first of the sets, then of the files."""
    print(f"\n| | {' | '.join(results)} |\n| --- |{' --- |' * len(results)}")
    first_runs = next(iter(results.values()))
    for group in first_runs[0]["sets"]:
        cells = [_spread([run["sets"][group] for run in runs]) for runs in results.values()]
        print(f"| **{group}** | {' | '.join(cells)} |")
    for name, file in first_runs[0]["files"].items():
        cells = []
        for runs in results.values():
            hits = np.mean([run["files"][name]["found"] for run in runs])
            false = np.mean([run["files"][name]["false_alarms"] for run in runs])
            scores = [run["files"][name]["score"] for run in runs]
            score = "" if scores[0] is None else f"{_spread(scores)}, "
            cells.append(f"{score}{hits:.3g} found, {false:.3g} false")
        print(f"| {name} ({file['windows']}) | {' | '.join(cells)} |")


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values):.1f}" if np.std(values) else "")


def main() -> None:
    """Score every detector on every file, for each seed; write table, results and plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the NAB folder; default: generated records")
    parser.add_argument("--seeds", type=int, default=3)
    reconstructing = zoo.list_models("*autoencoder", task="reconstruction")
    parser.add_argument("--autoencoder", default="lstm_autoencoder", choices=reconstructing)
    parser.add_argument("--detectors", help="comma-separated; the others keep their results")
    options = parser.parse_args()
    if options.data is None:
        records = {"generated": generated_anomalies.records(range(1))}
    else:
        records = {
            group: [scoring.read(options.data, name) for name in names]
            for group, names in SETS.items()
        }
    results: dict[str, list[dict]] = {}
    selected = detectors(options.autoencoder)
    if options.detectors:
        results = json.loads((common.RESULTS / "anomaly.json").read_text())["detectors"]
        selected = {name: selected[name] for name in options.detectors.split(",")}
        results |= {name: [] for name in selected}
    for name, detect in selected.items():
        for seed in range(options.seeds if name != BY_THE_CLOCK else 1):
            detections: dict = {}
            results.setdefault(name, []).append(measure(detect, records, seed, detections))
            print(name, seed, results[name][-1]["sets"], flush=True)
            if options.data is not None and seed == 0 and name != BY_THE_CLOCK:
                plot(name, detections)
    print_table(results)
    if options.data is not None:
        seeds = {name: len(runs) for name, runs in results.items()}
        common.write("anomaly", {"seeds": seeds, "detectors": results})


if __name__ == "__main__":
    main()
