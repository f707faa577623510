"""Reader of line-aligned files: tokens in one, tags and labels in others."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keras_seqzoo.data.io.text_lines import file_error, plural, read_text, split_lines, split_spaces
from keras_seqzoo.data.labeled import LabeledSequences


def read_seq_in_out(
    tokens: str | os.PathLike,
    tags: str | os.PathLike | None = None,
    *,
    labels: str | os.PathLike | None = None,
) -> LabeledSequences:
    r"""Read token sequences, one per line, with tags and labels from files of as many lines.

    Only spaces and tabs separate tokens, so that U+00A0 and similar characters stay inside a token,
    and only \n and \r\n end a line. A line without tokens is an empty sequence.

    Args:
        tokens: path of a text file in UTF-8, one sequence of tokens per line.
        tags: path of a file with as many lines, one tag per token; or None.
        labels: path of a file with as many lines, one label each; or None.

    Returns:
        `LabeledSequences` of tokens, in the order of the file.

    Raises:
        ArgumentError: if an argument is not a path.
        DataError: if a file cannot be read or the files do not match; the message has the line
            number.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "seq.in").write_text("play jazz\nstop\n")
        >>> _ = (folder / "seq.out").write_text("O B-genre\nO\n")
        >>> read_seq_in_out(folder / "seq.in", folder / "seq.out").tags
        (('O', 'B-genre'), ('O',))
    """
    sequences = _split_file(tokens, "tokens")
    tag_sequences = label_list = None
    if tags is not None:
        tag_sequences = _split_file(tags, "tags")
        _check_line_count("tags", tags, len(tag_sequences), len(sequences))
        _check_tags(tags, tag_sequences, sequences)
    if labels is not None:
        lines = split_lines(read_text(labels, argument="labels"))
        label_list = [line.strip(" \t") for line in lines]
        _check_line_count("labels", labels, len(label_list), len(sequences))
        _check_labels(labels, label_list)
    empty = sum(not sequence for sequence in sequences)
    return LabeledSequences(
        sequences,
        labels=label_list,
        tags=tag_sequences,
        notes=(f"{plural(empty, 'line')} without tokens: empty sequences.",) * bool(empty),
        source=os.fspath(tokens),
    )


def _split_file(path: str | os.PathLike, argument: str) -> list[list[str]]:
    """The tokens or tags of each line."""
    return [split_spaces(line) for line in split_lines(read_text(path, argument=argument))]


def _check_line_count(argument: str, path: str | os.PathLike, count: int, expected: int) -> None:
    if count != expected:
        raise file_error(
            path,
            f"a file with as many lines as `tokens`, {expected}",
            f"which has {plural(count, 'line')}",
            "Each file must have one line per sequence, empty ones included.",
            argument=argument,
        )


def _check_tags(
    path: str | os.PathLike, tags: Sequence[Sequence[str]], sequences: Sequence[Sequence[str]]
) -> None:
    for number, (line_tags, tokens) in enumerate(zip(tags, sequences, strict=True), 1):
        if len(line_tags) != len(tokens):
            raise file_error(
                path,
                "a file with one tag per token",
                f"whose line {number} has {plural(len(line_tags), 'tag')} for "
                f"{plural(len(tokens), 'token')}",
                "Fix that line in either file; spaces and tabs separate tokens and tags.",
                argument="tags",
            )


def _check_labels(path: str | os.PathLike, labels: Sequence[str]) -> None:
    if "" in labels:
        raise file_error(
            path,
            "a file with a label in every line",
            f"whose line {labels.index('') + 1} is empty",
            "Add the label, or delete the line in every file.",
            argument="labels",
        )
