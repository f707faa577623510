"""`keras-seqzoo train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.utils import files

BEST, SAVED_MODEL, FIGURES, HISTORY = "best.keras", "saved_model", "figures.json", "history.csv"


@click.command("train")
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Training data: a time series (.csv, .tsv, .parquet, .npy); labeled sequences (a folder "
    "with seq.in and seq.out or label, .conllu, .conll, .csv, .tsv, .ts); or pairs, source and "
    "target separated by a tab.",
)
@click.option("--validation-data", type=click.Path(path_type=Path),
              help="Data to choose the best epoch by; default a part of --data.")  # fmt: skip
@click.option("--test", type=click.Path(path_type=Path), help="Data to evaluate on once.")
@options.reading
@options.sequences
@click.option("--epochs", type=int, default=30, show_default=True, help="The most epochs.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--learning-rate", type=float, help="Default: that of the card.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Weight classes equally.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Set an argument.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; default runs/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace what is at --out.")
@click.option("--no-export", is_flag=True, help="Write no SavedModel.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    name, data, validation_data, test, epochs, batch_size, learning_rate, class_weight, fixed, seed,
    out, overwrite, no_export, quiet, **reading,
) -> None:  # fmt: skip
    """Train model NAME on a time series, on labeled sequences, or on pairs of sequences.

    Writes best.keras, which takes strings or raw readings, a SavedModel that runs without keras,
    the scores and the history into --out.
    """
    load_tensorflow()
    from keras_seqzoo import exporting, tasks

    arguments = dict(map(options.assignment, fixed))
    task = tasks.task_for(name, **arguments)
    reading = tasks.ReadingOptions(**reading)
    out = out or Path("runs") / name
    files.refuse_existing(out, overwrite=overwrite)
    share = task.validation_split
    train, validation, evaluated = options.read_parts(
        task, (data, validation_data, test), (1 - share, share), reading, seed=seed, quiet=quiet
    )
    settings: dict[str, Any] = options.task_options(task, reading) | arguments
    result = tasks.train(
        name,
        train,
        validation_data=validation,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weight=class_weight,
        seed=seed,
        verbose=int(not quiet),
        **settings,
    )
    scores: dict[str, Any] = {"validation": result.scores}
    if evaluated is not None:
        scores["test"] = result.task.evaluate(result.model, evaluated)
    leakage = result.task.sequence_leakage(result.model)
    figures: dict[str, Any] = {label: score.to_dict() for label, score in scores.items()}
    figures["seconds"] = result.seconds
    plots: dict[str, Any] = {"scores.png": list(scores.values())[-1]}
    if leakage is not None:
        figures["leakage"] = leakage.to_dict()
        plots["leakage.png"] = leakage
    with files.replacing_folder(out, overwrite=overwrite) as folder:
        result.model.save(folder / BEST)
        if not no_export:
            exporting.export(result.model, folder / SAVED_MODEL, verbose=0)
        files.write_text(folder / FIGURES, json.dumps(figures, indent=2) + "\n")
        files.write_text(folder / HISTORY, result.history.to_csv())
        for file, scored in plots.items():
            if hasattr(scored, "plot"):
                scored.plot().figure.savefig(folder / file, bbox_inches="tight")
    if not quiet:
        click.echo(f"Validation: {result.scores}")
        if "test" in scores:
            click.echo(f"Test, evaluated once: {scores['test']}")
        if leakage is not None:
            click.echo(str(leakage))
        click.echo(f"Written: {files.display_path(out)}")
