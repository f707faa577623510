"""`keras-seqzoo predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError

_MAX_LINES = 256  # lines that are predicted at once


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@options.reading
def command(model, file, **reading) -> None:
    """Print the predictions of MODEL for FILE, or for standard input as it arrives.

    Input sentences are one per line, tokens separated by blanks. A tagger prints a line per token,
    token and tag, and an empty line after each sentence; a classifier a line per sentence, label,
    probability and sentence; an encoder-decoder the decoded sequence, its probability and the
    sentence. A model of readings needs a FILE and prints a line per reading, or per step of the
    forecast after the end of FILE. Columns are separated by tabs.
    """
    load_tensorflow()
    from keras_seqzoo import saving, tasks

    loaded = saving.load(model)
    task = tasks.task_of_model(loaded)
    for line in task.predictions(loaded, file, _lines(file), tasks.ReadingOptions(**reading)):
        click.echo(line)
        sys.stdout.flush()


def _lines(file: Path | None) -> Iterator[list[str]]:
    """Lines of a file or of standard input, as they arrive."""
    with open(file, "rb") if file is not None else os.fdopen(os.dup(0), "rb") as source:
        yield from _arriving(source.fileno())


def _arriving(source: int) -> Iterator[list[str]]:
    """Lines as soon as they arrive, several at once where several do."""
    rest = b""
    while True:
        read = os.read(source, 1 << 16)
        *whole, rest = (rest + read).split(b"\n")
        if not read:
            whole, rest = [rest] if rest else [], b""
        for start in range(0, len(whole), _MAX_LINES):
            yield [_decoded(line) for line in whole[start : start + _MAX_LINES]]
        if not read:
            return


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"Sentences must be in UTF-8. Received: {line[:60]!r}. Convert them first."
        ) from error
