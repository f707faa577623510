"""`keras-seqzoo anomaly`: anomaly scores of readings."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import check_fraction

TRAIN_FRACTION = 0.6  # as in `search`


@click.command("anomaly")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@options.reading
@click.option("--train", type=click.Path(path_type=Path),
              help="Readings to choose the threshold on; all of FILE is scored then.")  # fmt: skip
@click.option("--train-fraction", type=float,
              help="Choose the threshold on this first share of FILE and score the rest; default "
              f"{TRAIN_FRACTION}.")  # fmt: skip
@click.option("--kind", type=click.Choice(["identity", "forecasting", "reconstruction"]),
              help="Output of MODEL at a step; default the task of its zoo entry.")  # fmt: skip
@click.option("--quantile", type=float, default=0.999, show_default=True,
              help="Share of training readings below the threshold.")  # fmt: skip
@click.option("--combine", type=click.Choice(["longest", "mean"]),
              help="Overlapping windows: the one with the longest past, or the mean.")  # fmt: skip
@click.option("--alone", is_flag=True, help="Run every reading as a window of one step.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a row per reading as CSV.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot the scores to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model, file, columns, missing, sequence_length, sequence_stride, train, train_fraction, kind,
    quantile, combine, alone, seed, out, plot, as_json,
) -> None:  # fmt: skip
    """Score the readings of FILE by the residuals of MODEL, and flag the highest scores.

    MODEL is a .keras file or a SavedModel folder that reconstructs or forecasts readings; FILE is
    .csv, .tsv, .parquet or .npy. The report includes the state leakage of the score: its history
    dependence, the share of its variance that is due to earlier readings (total Sobol index of the
    past). It has nothing to do with train/test data leakage.
    """
    scored, training = _read_parts(file, train, train_fraction, columns, missing, quiet=as_json)
    load_tensorflow()
    from keras_seqzoo import diagnostics, saving, wrapping

    loaded = saving.load(model)
    if wrapping.is_end_to_end(loaded):
        raise ArgumentError(
            "`anomaly` must have a model that reconstructs or forecasts readings. Received: "
            f"'{model}', an end-to-end model of labels or tags. Train an entry of "
            "`keras-seqzoo list --task identity`."
        )
    report = diagnostics.anomaly(
        loaded, scored, training, kind=kind, quantile=quantile, sequence_length=sequence_length,
        sequence_stride=sequence_stride, combine=combine, alone=alone, seed=seed,
    )  # fmt: skip
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if out is not None:
        files.write_text(out, report.to_frame().to_csv())
        click.echo(f"Written: {files.display_path(out)}", err=True)  # standard output may be JSON
    if plot is not None:
        options.write_plot(report.plot().figure, plot)


def _read_parts(file, train, train_fraction, columns, missing, *, quiet: bool):
    """Readings to score, and readings to choose the threshold on."""
    if train is not None and train_fraction is not None:
        raise ArgumentError(
            "`--train` and `--train-fraction` must not both be given. Received: "
            f"--train {train} --train-fraction {train_fraction}. Leave one out."
        )
    fraction = TRAIN_FRACTION if train_fraction is None else train_fraction
    check_fraction(**{"train-fraction": fraction})
    readings = options.read_time_series(file, columns, missing, quiet=quiet)
    if train is not None:
        return readings, options.read_time_series(train, columns, missing, quiet=quiet)
    training, scored = readings.split(fraction, 1 - fraction)
    return scored, training
