"""`keras-seqzoo leakage`: state leakage of a model on readings.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("leakage")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@options.reading
@click.option(
    "--method", type=click.Choice(["swap", "gradient"]), default="swap", show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Plot leakage by lag to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model, file, columns, missing, sequence_length, sequence_stride, method, seed, plot, as_json
) -> None:
    """Measure the state leakage of MODEL on the readings of FILE.

    State leakage is the history dependence of the output: the share of its variance that is due to
    inputs before the present one (total Sobol index of the past). It has nothing to do with
    train/test data leakage.

    MODEL is a .keras file or a SavedModel folder; FILE is .csv, .tsv, .parquet or .npy.
    """
    x, block = options.windows(
        file,
        columns=columns,
        missing=missing,
        sequence_length=sequence_length,
        sequence_stride=sequence_stride,
        quiet=as_json,
    )
    load_tensorflow()
    from keras_seqzoo import diagnostics, saving

    report = diagnostics.leakage(saving.load(model), x, method=method, seed=seed, block=block)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if plot is not None:
        options.write_plot(report.plot().figure, plot)
