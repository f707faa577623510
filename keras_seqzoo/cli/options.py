"""What several commands share: how data is read, and arguments are set."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo import files
from keras_seqzoo.errors import ArgumentError, sentence


def reading(command):
    """Adds the options that say how a file becomes windows."""
    for option in reversed(
        (
            click.option(
                "--columns", help="Columns to read, comma-separated; default all numbers."
            ),
            click.option(
                "--missing",
                type=click.Choice(["split", "ffill", "interpolate", "error"]),
                default="split",
                show_default=True,
                help="Missing values: no window across them, carry forward, interpolate, refuse.",
            ),
            click.option(
                "--window", type=int, default=50, show_default=True, help="Steps per window."
            ),
            click.option("--stride", type=int, help="Steps from window to window."),
        )
    ):
        command = option(command)
    return command


def read(path: Path, columns: str | None, missing: str, *, quiet: bool = False):
    """The readings in a file; what was noticed about them is said aloud."""
    from keras_seqzoo import data

    readings = data.read_readings(path, columns=columns, missing=missing)
    if not quiet:
        click.echo(f"{readings.source}: {len(readings)} readings of {', '.join(readings.columns)}.")
        for note in readings.notes:
            click.echo(f"  {note}")
    return readings


def examples(command):
    """Adds the option that says what labelled and tagged sequences are in."""
    return click.option(
        "--format",
        type=click.Choice(["pairs", "conllu", "conll", "labelled", "ts"]),
        help="Of labelled or tagged sequences; default by the name.",
    )(command)


def read_examples(path: Path | None, format: str | None, quiet: bool):
    """The examples at a path, or None; what was noticed about them is said aloud."""
    from keras_seqzoo import data

    if path is None:
        return None
    found = data.read_examples(path, format=format)
    if not quiet:
        click.echo(f"{found!r}")
        for note in found.notes:
            click.echo(f"  {note}")
    return found


def assignment(text: str) -> tuple[str, object]:
    """An argument and its value, from `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentError(sentence("set", "NAME=VALUE, such as units=8", text))
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, {"None": None, "True": True, "False": False}.get(value, value)


def write_plot(figure, path: Path) -> None:
    """Writes a matplotlib figure; the ending chooses the format."""
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise ArgumentError(
            sentence("plot", f"a file ending in one of {', '.join(sorted(known))}", str(path))
        )
    with files.replacing(path) as temporary:
        figure.savefig(temporary)
    click.echo(f"Drawn: {path}", err=True)  # standard output may be JSON
