"""Options that several commands share, and how they read data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import argument_message

if TYPE_CHECKING:
    from keras_seqzoo.tasks import ReadingOptions, Task


def _add(options: Sequence[Callable]) -> Callable:
    def decorate(command):
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_UNITS = click.Choice(["tokens", "characters"])

reading = _add(
    (
        click.option("--columns", help="Columns of a time series, comma-separated; default all "
                     "numeric ones."),
        click.option("--missing", type=click.Choice(["split", "ffill", "interpolate", "error"]),
                     default="split", show_default=True,
                     help="Missing values: split the series there, carry the last value forward, "
                     "interpolate, or raise an error."),
        click.option("--sequence-length", type=int, default=50, show_default=True,
                     help="Steps per window."),
        click.option("--sequence-stride", type=int, help="Steps from window to window."),
    )
)  # fmt: skip

labeled = click.option(
    "--format",
    type=click.Choice(["seq_in_out", "conllu", "conll", "labeled", "ts"]),
    help="Format of labeled sequences; default by the name.",
)

sequences = _add(
    (
        labeled,
        click.option("--source-units", type=_UNITS, default="tokens", show_default=True,
                     help="Units of source texts, for encoder-decoders."),
        click.option("--target-units", type=_UNITS, default="tokens", show_default=True,
                     help="Units of target texts, for encoder-decoders."),
        click.option("--steps", "forecast_steps", type=int,
                     help="Steps that an encoder-decoder forecasts after each window of a time "
                     "series."),
    )
)  # fmt: skip


def print_data(data: Any) -> None:
    """Prints what was read, and what was noticed about it."""
    click.echo(repr(data))
    for note in getattr(data, "notes", ()):
        click.echo(f"  {note}")


def read_data(task: Task, path: Path | None, options: ReadingOptions, *, quiet: bool) -> Any:
    """Data of a task in a file, or None without a path."""
    if path is None:
        return None
    data = task.read(path, options)
    if not quiet:
        print_data(data)
    return data


def read_parts(
    task: Task,
    paths: Sequence[Path | None],
    fractions: Sequence[float],
    options: ReadingOptions,
    *,
    seed: int,
    quiet: bool,
) -> list[Any]:
    """Training, validation and test data of a task.

    Args:
        task: `tasks.Task`.
        paths: files of the three; None for a part of the training data, or for no test data.
        fractions: shares of the parts: of training and validation, or of all three.
        options: how files are read.
        seed: int, of random splits.
        quiet: bool, whether to print nothing.
    """
    train, validation, test = (read_data(task, path, options, quiet=quiet) for path in paths)
    first, second, *third = fractions
    if test is None and third:
        train, test = task.split(train, (first + second, *third), seed=seed)
    if validation is None:
        total = first + second
        train, validation = task.split(train, (first / total, second / total), seed=seed)
    return prepare_parts(task, (train, validation, test), options)


def prepare_parts(task: Task, parts: Sequence[Any], options: ReadingOptions) -> list[Any]:
    """Parts as `train`, `search` and `evaluate` take them."""
    return [None if part is None else task.prepare(part, options) for part in parts]


def task_options(task: Task, options: ReadingOptions) -> dict[str, Any]:
    """Those of the reading options that are options of the task."""
    names = ("sequence_length", "sequence_stride")
    return {name: getattr(options, name) for name in names if name in task.option_defaults}


def read_time_series(path: Path, columns: str | None, missing: str, *, quiet: bool) -> Any:
    """A time series in a file."""
    from keras_seqzoo import data

    series = data.read_time_series(path, columns=columns, missing=missing)
    if not quiet:
        print_data(series)
    return series


def read_windows(path: Path, *, quiet: bool, **reading: Any) -> tuple[Any, int]:
    """Windows of a time series, and how many consecutive ones overlap."""
    from keras_seqzoo import data

    series = read_time_series(path, reading["columns"], reading["missing"], quiet=quiet)
    length, stride = reading["sequence_length"], reading["sequence_stride"]
    block = 1 if stride is None else -(-length // stride)
    return data.make_windows(series, sequence_length=length, sequence_stride=stride), block


def assignment(text: str) -> tuple[str, object]:
    """An argument and its value, from `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentError(argument_message("set", "NAME=VALUE, such as units=8", text))
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, {"None": None, "True": True, "False": False}.get(value, value)


def write_plot(figure, path: Path) -> None:
    """Writes a matplotlib figure; the ending chooses the format."""
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise ArgumentError(
            argument_message(
                "plot", f"a file ending in one of {', '.join(sorted(known))}", str(path)
            )
        )
    with files.replacing(path) as temporary:
        figure.savefig(temporary)
    click.echo(f"Drawn: {path}", err=True)  # standard output may be JSON
