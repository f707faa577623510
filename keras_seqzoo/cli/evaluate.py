"""`keras-seqzoo evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo import saving, tasks, wrapping
from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@options.examples
@options.reading
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw the confusions, or accuracy against length, into this file.",
)
@click.option("--json", "as_json", is_flag=True, help="The scores as JSON.")
def command(
    model, data, format, columns, missing, sequence_length, sequence_stride, plot, as_json
) -> None:
    """Score MODEL, the best.keras of `train` or `search`, on labeled, tagged or plain DATA, or on
    pairs.
    """
    load_tensorflow()

    loaded = saving.load(model)
    reading = {
        "columns": columns, "missing": missing, "sequence_length": sequence_length, "sequence_stride": sequence_stride,
        "quiet": as_json,
    }  # fmt: skip
    if wrapping.is_end_to_end(loaded):
        preprocessor = wrapping.preprocessor_of(loaded)
        examples = options.read_for(preprocessor, data, format, **reading)
        scores = tasks.evaluate(loaded, examples)
        if isinstance(scores, float):
            said = f"Error of {preprocessor.max_length} readings: {scores:.4g} of the variance."
            click.echo(json.dumps({"error": scores}) if as_json else said)
        else:
            _say(scores, as_json, plot)
        return
    from keras_seqzoo.metrics import identity_error

    error = identity_error(loaded, options.windows(data, **reading)[0])
    said = f"Identity error: {error:.4g} of the variance."
    click.echo(json.dumps({"identity_error": error}) if as_json else said)


def _say(scores, as_json: bool, plot: Path | None) -> None:
    click.echo(json.dumps(scores.to_dict(), indent=2) if as_json else str(scores))
    if plot is not None:
        options.write_plot(scores.plot().figure, plot)
