"""Sequences from files that go line by line: tokens in one, tags and labels in others."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keras_seqzoo.data.io.text_lines import count, lines, read_text, refuse_file, split_blanks
from keras_seqzoo.data.labeled import LabeledSequences


def read_seq_in_out(
    tokens: str | os.PathLike,
    tags: str | os.PathLike | None = None,
    *,
    labels: str | os.PathLike | None = None,
) -> LabeledSequences:
    r"""Reads sequences of tokens from a file with one sequence per line, and what is said of them.

    Spaces and tabs separate tokens, nothing else does: U+00A0 and its like stay in their token,
    and only \n and \r\n end a line. A line without tokens is an empty sequence, and is kept.

    Args:
        tokens: path of a text file in UTF-8, one sequence of tokens per line.
        tags: path of a file with as many lines, one tag per token; or None.
        labels: path of a file with as many lines, one label each; or None.

    Returns:
        `LabeledSequences` of tokens, in the order of the file.

    Raises:
        ArgumentError: if an argument is not a path.
        DataError: if a file cannot be read or the files do not fit; the message says which line.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "seq.in").write_text("play jazz\nstop\n")
        >>> _ = (folder / "seq.out").write_text("O B-genre\nO\n")
        >>> read_seq_in_out(folder / "seq.in", folder / "seq.out").tags
        (('O', 'B-genre'), ('O',))
    """
    sequences = [split_blanks(line) for line in lines(read_text(tokens, argument="tokens"))]
    tagged = labeled = None
    if tags is not None:
        tagged = [split_blanks(line) for line in lines(read_text(tags, argument="tags"))]
        _check_count("tags", tags, len(tagged), len(sequences))
        _check_tags(tags, tagged, sequences)
    if labels is not None:
        labeled = [line.strip(" \t") for line in lines(read_text(labels, argument="labels"))]
        _check_count("labels", labels, len(labeled), len(sequences))
        _check_labels(labels, labeled)
    empty = sum(not sequence for sequence in sequences)
    return LabeledSequences(
        sequences,
        labels=labeled,
        tags=tagged,
        notes=(f"{count(empty, 'line')} without tokens: kept as empty sequences.",) * bool(empty),
        source=os.fspath(tokens),
    )


def _check_count(argument: str, path: str | os.PathLike, found: int, wanted: int) -> None:
    if found != wanted:
        raise refuse_file(
            path,
            f"a file with as many lines as `tokens`, {wanted}",
            f"which has {count(found, 'line')}",
            "Files that belong together have a line for each sequence, empty ones too.",
            argument=argument,
        )


def _check_tags(
    path: str | os.PathLike, tags: Sequence[Sequence[str]], sequences: Sequence[Sequence[str]]
) -> None:
    for number, (of_it, sequence) in enumerate(zip(tags, sequences, strict=True), 1):
        if len(of_it) != len(sequence):
            raise refuse_file(
                path,
                "a file with one tag per token",
                f"whose line {number} has {count(len(of_it), 'tag')} for "
                f"{count(len(sequence), 'token')}",
                "Mend that line in either file; spaces and tabs separate tokens and tags.",
                argument="tags",
            )


def _check_labels(path: str | os.PathLike, labels: Sequence[str]) -> None:
    if "" in labels:
        raise refuse_file(
            path,
            "a file with a label in every line",
            f"whose line {labels.index('') + 1} is empty",
            "Label that sequence, or delete the line in every file.",
            argument="labels",
        )
