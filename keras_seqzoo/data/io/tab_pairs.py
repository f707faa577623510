"""Pairs of sequences from a file of two columns, or from two files."""

from __future__ import annotations

import os

from keras_seqzoo.data.io.text_lines import lines, read_text, refuse_file, split_blanks
from keras_seqzoo.data.pairs import UNITS, SequencePairs
from keras_seqzoo.utils.argument_validation import check_choice


def read_sequence_pairs(
    path: str | os.PathLike,
    targets: str | os.PathLike | None = None,
    *,
    source_units: str = "tokens",
    target_units: str = "tokens",
) -> SequencePairs:
    r"""Reads pairs from a file of two columns, or from two files with a sequence a line.

    Args:
        path: text file in UTF-8: source and target with a tab between them, or sources alone.
        targets: file with as many lines as `path`, or None for a file of two columns.
        source_units: "tokens", parted by blanks, or "characters", blanks inside among them.
        target_units: the same of targets.

    Raises:
        ArgumentError: if an argument is not a path, or the units are unknown.
        DataError: if a file cannot be read, or a line has no target.

    Example:

    >>> path = Path(tempfile.mkdtemp(), "words.tsv")
    >>> _ = path.write_text("achat\ta ʃ a\n", encoding="utf-8")
    >>> read_sequence_pairs(path, source_units="characters").sources
    (('a', 'c', 'h', 'a', 't'),)
    """
    check_choice("source_units", source_units, UNITS)
    check_choice("target_units", target_units, UNITS)
    given = lines(read_text(path))
    if targets is not None:
        beside = lines(read_text(targets, argument="targets"))
        if len(beside) != len(given):
            raise refuse_file(
                targets,
                f"a file with as many lines as `path`, {len(given)}",
                f"which has {len(beside)}",
                "Files that belong together have a line for each pair.",
                argument="targets",
            )
    else:
        parts = [line.split("\t") for line in given]
        for number, part in enumerate(parts, 1):
            if len(part) != 2:
                cause = f"whose line {number} has {len(part)} column{'s' * (len(part) != 1)}"
                hint = "Put a tab between source and target, or give two files."
                raise refuse_file(path, "a file of two columns", cause, hint)
        given, beside = zip(*parts, strict=True)
    return SequencePairs(
        [split(line, source_units) for line in given],
        [split(line, target_units) for line in beside],
        source_units=source_units,
        target_units=target_units,
        source=os.fspath(path),
    )


def split(text: str, units: str) -> list[str]:
    """The tokens or characters of a line, without blanks at its ends."""
    return split_blanks(text) if units == "tokens" else list(text.strip(" \t"))
