"""`keras-seqzoo evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@options.reading
@options.sequences
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the scores into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(model, data, plot, as_json, **reading) -> None:
    """Score MODEL, the best.keras of `train` or `search`, on DATA of the kind it was trained on."""
    load_tensorflow()
    from keras_seqzoo import saving, tasks

    loaded = saving.load(model)
    task = tasks.task_of_model(loaded)
    reading = tasks.ReadingOptions(**reading)
    read = options.read_data(task, data, reading, quiet=as_json)
    task.options |= options.task_options(task, reading)
    scores = task.evaluate(loaded, task.prepare(read, reading))
    click.echo(json.dumps(scores.to_dict(), indent=2) if as_json else str(scores))
    if plot is not None:
        if not hasattr(scores, "plot"):
            raise ArgumentError("`--plot` must be left out: these scores have no figure.")
        options.write_plot(scores.plot().figure, plot)
