"""`keras-seqzoo predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from keras_seqzoo import saving, wrapping
from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError

_AT_ONCE = 256  # sentences


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@options.reading
def command(model, file, columns, missing, sequence_length, sequence_stride) -> None:
    """Write what MODEL answers to FILE, or to what comes in on standard input, as it comes.

    Sentences, one per line, tokens between blanks: a tagger writes a line per token, token and tag,
    and an empty line after each sentence; a classifier a line per sentence, label, probability and
    sentence; an encoder-decoder what it says, its probability and the sentence. Readings need a
    FILE; a line per reading comes out, or per reading forecast after the end of FILE. Columns are
    tab-separated.
    """
    load_tensorflow()

    loaded = saving.load(model)
    if not wrapping.is_end_to_end(loaded):
        _readings(loaded, file, columns, missing, sequence_length)
        return
    preprocessor = wrapping.preprocessor_of(loaded)
    if wrapping.decodes(loaded) and not preprocessor.generates_tokens:
        _forecast(loaded, file, columns, missing, sequence_length)
        return
    if not wrapping.decodes(loaded) and preprocessor.tokens is None:
        raise ArgumentError(
            f"`predict` must have a model of sentences, or of one record of readings. Received: "
            f"'{model}', of many sequences of readings. Use `evaluate`, or Python."
        )
    with open(file, "rb") if file is not None else os.fdopen(os.dup(0), "rb") as source:
        for sentences in _arriving(source.fileno()):
            for answer in _answers(loaded, sentences):
                click.echo(answer)
            sys.stdout.flush()


def _arriving(source: int) -> Iterator[list[str]]:
    """Lines as soon as they are there, many at once where many are."""
    rest = b""
    while True:
        read = os.read(source, 1 << 16)
        *whole, rest = (rest + read).split(b"\n")
        if not read:
            whole, rest = [rest] if rest else [], b""
        for start in range(0, len(whole), _AT_ONCE):
            yield [_decoded(line) for line in whole[start : start + _AT_ONCE]]
        if not read:
            return


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"Sentences must be in UTF-8. Received: {line[:60]!r}. Convert them first."
        ) from error


def _answers(model, sentences: list[str]) -> Iterator[str]:
    from keras import ops

    answers = model(ops.convert_to_tensor(np.array(sentences, object)), training=False)
    answers = {name: ops.convert_to_numpy(answer) for name, answer in answers.items()}
    for row, sentence in enumerate(sentences):
        if "labels" in answers:
            label = answers["labels"][row].decode("utf-8")
            yield f"{label}\t{answers['probabilities'][row].max():.4f}\t{sentence}"
            continue
        if "targets" in answers:
            said = answers["targets"][row].decode("utf-8")
            yield f"{said}\t{np.exp(answers['scores'][row]):.4f}\t{sentence}"
            continue
        tokens = sentence.split()
        tags = answers["tags"][row][: len(tokens)]
        for token, tag in zip(tokens, tags, strict=True):
            yield f"{token}\t{tag.decode('utf-8')}"
        yield ""


def _forecast(model, file, columns, missing, sequence_length) -> None:
    """The readings that a model says after the last ones of a record."""
    if file is None:
        raise ArgumentError("`FILE` must be given for a model of readings.")
    readings = options.read(file, columns, missing, quiet=True)
    click.echo("\t".join(readings.columns))
    past = list(readings.segments())[-1][None, -sequence_length:]
    for row in model.predict_on_batch(past.astype("float32"))[0]:
        click.echo("\t".join(f"{value:.7g}" for value in row))


def _readings(model, file, columns, missing, sequence_length) -> None:
    """Every reading of a record, as the model gives it back; unbroken stretches one by one."""
    if file is None:
        raise ArgumentError("`FILE` must be given for a model of readings.")
    readings = options.read(file, columns, missing, quiet=True)
    click.echo("\t".join(readings.columns))
    for stretch in readings.segments():
        for start in range(0, len(stretch), sequence_length):
            part = stretch[None, start : start + sequence_length]
            for row in model.predict_on_batch(part.astype("float32"))[0]:
                click.echo("\t".join(f"{value:.7g}" for value in row))
