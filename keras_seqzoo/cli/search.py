"""`keras-seqzoo search`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError, UnknownArgumentError
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import argument_message, unknown_name_message

if TYPE_CHECKING:
    from keras_seqzoo.tasks import ReadingOptions, Task

SAVED_MODEL = "saved_model"
_BUILT_IN_STEPS = 12_000
_PLANTED_FAULT = (
    "Test scores are worse than validation scores here: a sensor fault is planted in the last part "
    "of the generated readings."
)


@click.command("search")
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Data as for `train`; default generated readings of a machine.",
)
@click.option("--validation-data", type=click.Path(path_type=Path),
              help="Data to choose trials by; default a part of --data.")  # fmt: skip
@click.option("--test", type=click.Path(path_type=Path),
              help="Data to evaluate on once; default a part of --data.")  # fmt: skip
@options.reading
@options.sequences
@click.option(
    "--split",
    default="60/20/20",
    show_default=True,
    help="Percent for training, validation and test; a time series is split in time order.",
)
@click.option("--max-trials", type=int, default=30, show_default=True)
@click.option("--epochs", type=int, default=30, show_default=True, help="Per trial.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--population", type=int, default=16, show_default=True,
              help="Trials that are proposed at once and trained together.")  # fmt: skip
@click.option("--pruning", is_flag=True, help="Stop unpromising trials early.")
@click.option("--sampler", type=click.Choice(["tpe", "random", "nsga2"]), default="tpe",
              show_default=True)  # fmt: skip
@click.option("--max-leakage", type=float, help="Choose the lowest error within this leakage.")
@click.option("--max-error", type=float, help="Choose the lowest leakage within this error.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Fix an argument.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path),
              help="Output folder; default runs/NAME.")  # fmt: skip
@click.option("--storage", metavar="URL", help="Database, such as postgresql://user@host/base, in "
              "which all who give the same command work on one search.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Start over instead of resuming.")
@click.option("--no-export", is_flag=True, help="Write no SavedModel.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    name, data, validation_data, test, split, max_trials, epochs, batch_size, population, pruning,
    sampler, max_leakage, max_error, fixed, seed, directory, storage, overwrite, no_export, quiet,
    **reading,
) -> None:  # fmt: skip
    """Tune model NAME on a time series, on labeled sequences, or on pairs of sequences.

    Writes best.keras, a SavedModel that runs without keras, and report.html into the directory.
    The same command again resumes an interrupted search.
    """
    load_tensorflow()
    from keras_seqzoo import exporting, tasks, tuning
    from keras_seqzoo.tuning.report.page import write_report

    arguments = dict(options.assignment(text) for text in fixed)
    task = _task(name, arguments)
    reading = tasks.ReadingOptions(**reading)
    directory = directory or Path("runs") / name
    fractions = _fractions(split)
    for option, path in (("validation-data", validation_data), ("test", test)):
        if data is None and path is not None:
            raise ArgumentError(argument_message(option, "given together with --data", str(path)))
    if data is None:
        parts = options.prepare_parts(
            task, task.split(_generated(task, reading, seed, quiet), fractions, seed=seed), reading
        )
    else:
        parts = options.read_parts(
            task, (data, validation_data, test), fractions, reading, seed=seed, quiet=quiet
        )
    train, validation, evaluated = parts

    settings: dict[str, Any] = options.task_options(task, reading) | arguments
    search = tuning.search(
        name,
        train,
        validation_data=validation,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=batch_size,
        population=population,
        pruning=pruning,
        storage=storage,
        sampler=sampler,
        directory=directory,
        overwrite=overwrite,
        seed=seed,
        max_leakage=max_leakage,
        max_error=max_error,
        report=False,
        verbose=int(not quiet),
        **settings,
    )
    model = search.best_model
    scores = {
        "validation": search.task.validation_scores(model),
        "test, evaluated once": search.task.evaluate(model, evaluated),
    }
    exported = None if no_export else directory / SAVED_MODEL
    notes = (*getattr(train, "notes", ()), *([_PLANTED_FAULT] if data is None else []))
    with search.writer_lock("report and export") as is_writer:
        if is_writer:
            command_line = shlex.join(["keras-seqzoo", *sys.argv[1:]])
            write_report(search, scores=scores, command=command_line, notes=notes)
            if overwrite:  # what the old search left is not this model
                shutil.rmtree(directory / SAVED_MODEL, ignore_errors=True)
            if exported is not None:
                exporting.export(model, exported, overwrite=True, verbose=0)
    if not quiet:
        _print_results(search, scores, exported, built_in=data is None)


def _task(name: str, arguments: dict) -> Task:
    """The task of an entry; `arguments` may hold dimensions of its search space, too."""
    from keras_seqzoo.tasks import task_for

    task = task_for(name)
    known = {*task.entry.arguments(), *task.entry.space, *task.option_defaults} - {"name"}
    for key in arguments:
        if key not in known:
            raise UnknownArgumentError(
                unknown_name_message(f"argument of {name}:", key, sorted(known))
            )
    return task


def _generated(task: Task, reading: ReadingOptions, seed: int, quiet: bool):
    """Generated sensor readings, for a task that takes a time series."""
    from keras_seqzoo import data

    if data.TimeSeries not in task.data_types and reading.forecast_steps is None:
        raise ArgumentError(argument_message("data", f"given for {task.entry.name}", None))
    if reading.columns is not None:
        raise ArgumentError(
            argument_message("columns", "given together with --data", reading.columns)
        )
    series = data.synthetic_readings(steps=_BUILT_IN_STEPS, seed=seed)
    if not quiet:
        click.echo("Generated sensor readings (--data FILE for your own).")
        options.print_data(series)
    return series


def _fractions(split: str) -> list[float]:
    try:
        parts = [float(part) for part in split.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) <= 0 or abs(sum(parts) - 100) > 1e-6:
        raise ArgumentError(argument_message("split", "three percentages such as 60/20/20", split))
    return [part / 100 for part in parts]


def _print_results(search, scores: dict, exported: Path | None, *, built_in: bool) -> None:
    """Prints the scores of the chosen model, and where its files are."""
    from rich.console import Console
    from rich.table import Table

    from keras_seqzoo.tuning.tuner import BEST, REPORT

    console = Console()
    table = Table(title=f"Best of {len(search.results)} trials")
    for heading in ("data", "metric", "value", ""):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for label, score in scores.items():
        for figure in score.figures():
            table.add_row(label, figure.label, figure.value, figure.note)
            label = ""
        table.add_section()
    console.print(table)
    values = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in search.chosen.hyperparameters.values.items()
    )
    for line in (
        search.choice,
        *([_PLANTED_FAULT] if built_in else []),
        f"Hyperparameters: {values}",
        f"Model:      {files.display_path(search.path / BEST)}",
        *(
            [f"SavedModel: {files.display_path(exported)} (verified without keras)"]
            if exported is not None
            else []
        ),
        f"Report:     {files.display_path(search.path / REPORT)}",
    ):
        console.print(line, highlight=False)
