"""Reader of labeled sequences that chooses the format by the path."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_seqzoo.data.io.conll import read_conll, read_conllu
from keras_seqzoo.data.io.csv_labels import read_labeled_csv
from keras_seqzoo.data.io.seq_in_out import read_seq_in_out
from keras_seqzoo.data.io.text_lines import file_error
from keras_seqzoo.data.io.uea_ts import read_ts
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.errors import ArgumentError, UnknownArgumentError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    unknown_name_message,
)
from keras_seqzoo.utils.files import as_path

_READERS: dict[str, Callable[..., LabeledSequences]] = {
    "conllu": read_conllu,
    "conll": read_conll,
    "labeled": read_labeled_csv,
    "seq_in_out": read_seq_in_out,
    "ts": read_ts,
}
_FORMATS = {
    ".conllu": "conllu",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".txt": "conll",
    ".csv": "labeled",
    ".tsv": "labeled",
    ".ts": "ts",
}


def read_labeled_sequences(
    path: str | os.PathLike, *, format: str | None = None, **options: Any
) -> LabeledSequences:
    r"""Read labeled or tagged sequences; the path decides the format unless `format` is given.

    Args:
        path: a file, or a folder with the files seq.in (tokens) and seq.out (tags), label (labels)
            or both.
        format: "conllu" (`read_conllu`), "conll" (`read_conll`), "labeled" (`read_labeled_csv`),
            "seq_in_out" (`read_seq_in_out`) or "ts" (`read_ts`). None means "seq_in_out" for a
            folder, and goes by the extension of a file: .conllu; .conll, .bio, .iob or .txt for
            "conll"; .csv or .tsv for "labeled"; .ts.
        **options: further arguments of the reader.

    Returns:
        `LabeledSequences`; `notes` lists what the reader noticed and changed.

    Raises:
        ArgumentError: if the format is unknown or cannot be inferred.
        UnknownArgumentError: if the reader has no such option.
        DataError: if the data cannot be read; the message has the place.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "train.bio")
        >>> _ = path.write_text("EU NNP B-ORG\nrejects VBZ O\n")
        >>> read_labeled_sequences(path, tag_column=1).tags
        (('NNP', 'VBZ'),)
    """
    path = as_path("path", path)
    folder = os.path.isdir(path)  # `Path.is_dir` raises for a name that is too long
    if format is None:
        format = "seq_in_out" if folder else _format(path)
    check_choice("format", format, _READERS)
    known = list(inspect.signature(_READERS[format]).parameters)[1:]
    for option in options:
        if option not in known:
            raise UnknownArgumentError(
                unknown_name_message(f"option of format {format}:", option, known)
            )
    if folder and format == "seq_in_out":
        return _read_folder(path, options)
    return _READERS[format](path, **options)


def _format(path: Path) -> str:
    extension = path.suffix.lower()
    if extension not in _FORMATS:
        expected = f"a folder with seq.in or a file that ends in {', '.join(_FORMATS)}"
        hint = f"Give its format: {', '.join(f'format={name!r}' for name in _READERS)}."
        raise ArgumentError(argument_message("path", expected, os.fspath(path), hint))
    return _FORMATS[extension]


def _read_folder(folder: Path, options: dict[str, Any]) -> LabeledSequences:
    """Tokens, tags and labels of a folder; options override its files, None leaves one out."""
    defaults = {"tags": folder / "seq.out", "labels": folder / "label"}
    files = {name: file for name, file in defaults.items() if file.exists()} | options
    for cause, missing in (
        ("which has no seq.in", not (folder / "seq.in").exists()),
        ("which has neither seq.out nor label", not files),
    ):
        if missing:
            hint = "seq.in has a sequence of tokens per line, seq.out their tags, label one label."
            raise file_error(folder, "a folder with seq.in and seq.out or label", cause, hint)
    return read_seq_in_out(folder / "seq.in", **files)
