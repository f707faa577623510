"""What several commands share: how data is read, and arguments are set."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import argument_message


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
                "--sequence-length",
                type=int,
                default=50,
                show_default=True,
                help="Steps per window.",
            ),
            click.option("--sequence-stride", type=int, help="Steps from window to window."),
        )
    ):
        command = option(command)
    return command


def read(path: Path, columns: str | None, missing: str, *, quiet: bool = False):
    """The readings in a file; what was noticed about them is said aloud."""
    from keras_seqzoo import data

    readings = data.read_time_series(path, columns=columns, missing=missing)
    if not quiet:
        click.echo(f"{readings.source}: {len(readings)} readings of {', '.join(readings.columns)}.")
        for note in readings.notes:
            click.echo(f"  {note}")
    return readings


def examples(command):
    """Adds the option that says what labeled and tagged sequences are in."""
    return click.option(
        "--format",
        type=click.Choice(["seq_in_out", "conllu", "conll", "labeled", "ts"]),
        help="Of labeled or tagged sequences; default by the name.",
    )(command)


def read_labeled_sequences(path: Path | None, format: str | None, quiet: bool):
    """The examples at a path, or None; what was noticed about them is said aloud."""
    from keras_seqzoo import data

    if path is None:
        return None
    found = data.read_labeled_sequences(path, format=format)
    if not quiet:
        click.echo(f"{found!r}")
        for note in found.notes:
            click.echo(f"  {note}")
    return found


def pairs(command):
    """Adds the options that say what sources and targets are in a file."""
    units = click.Choice(["tokens", "characters"])
    for option in reversed(
        (
            click.option("--source-units", type=units, default="tokens", show_default=True,
                         help="Of encoder-decoders: what sources are split into."),
            click.option("--target-units", type=units, default="tokens", show_default=True,
                         help="The same of targets."),
            click.option("--steps", type=int,
                         help="Of encoder-decoders: forecast so many readings after each window."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def read_seq_in_out(
    path, *, columns, missing, sequence_length, sequence_stride, quiet, steps, **units
):
    """Pairs at a path: a text's two columns, or, with `steps`, readings and what came next."""
    from keras_seqzoo import data

    if path is None:
        return None
    if steps is not None:
        readings = read(path, columns, missing, quiet=quiet)
        return data.forecasting_pairs(
            readings, past=sequence_length, steps=steps, sequence_stride=sequence_stride
        )
    found = data.read_sequence_pairs(path, **units)
    if not quiet:
        click.echo(f"{found!r}")
    return found


def windows(path, *, columns, missing, sequence_length, sequence_stride, quiet):
    """The windows of the readings at a path, and how many in a row share readings."""
    from keras_seqzoo import data

    readings = read(path, columns, missing, quiet=quiet)
    block = 1 if sequence_stride is None else -(-sequence_length // sequence_stride)
    return data.make_windows(
        readings, sequence_length=sequence_length, sequence_stride=sequence_stride
    ), block


def read_for(preprocessor, path, format, *, quiet, **reading):
    """The examples or pairs at a path, whichever a preprocessor is of."""
    from keras_seqzoo.data import PairPreprocessor

    if not isinstance(preprocessor, PairPreprocessor):
        return read_labeled_sequences(path, format, quiet)
    return read_seq_in_out(
        path, quiet=quiet, steps=None if preprocessor.generates_tokens else preprocessor.max_length,
        source_units=preprocessor.source_units, target_units=preprocessor.target_units, **reading,
    )  # fmt: skip


def split_pairs(
    path, fractions, *, columns, missing, sequence_length, sequence_stride, quiet, steps, **units
):
    """Parts of the pairs at a path; readings in time order, so that nothing is in two of them."""
    from keras_seqzoo import data

    if steps is not None:
        parts = read(path, columns, missing, quiet=quiet).split(*fractions)
        given = {"past": sequence_length, "steps": steps, "sequence_stride": sequence_stride}
        return [data.forecasting_pairs(part, **given) for part in parts]
    how = {
        "columns": columns,
        "missing": missing,
        "sequence_length": sequence_length,
        "sequence_stride": sequence_stride,
    }
    rest, found = read_seq_in_out(path, quiet=quiet, steps=None, **how, **units), []
    for number in range(len(fractions) - 1, 0, -1):
        rest, part = rest.split(fractions[number] / sum(fractions[: number + 1]))
        found.insert(0, part)
    return [rest, *found]


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
