"""Reader of sequence pairs from a file of two columns, or from two line-aligned files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keras_seqzoo.data.io.text_lines import file_error, plural, read_text, split_lines, split_spaces
from keras_seqzoo.data.pairs import UNITS, SequencePairs
from keras_seqzoo.utils.argument_validation import check_choice


def read_sequence_pairs(
    path: str | os.PathLike,
    targets: str | os.PathLike | None = None,
    *,
    source_units: str = "tokens",
    target_units: str = "tokens",
) -> SequencePairs:
    r"""Read sequence pairs from a file of two columns, or from two files with a sequence per line.

    Args:
        path: text file in UTF-8: source and target with a tab between them, or only sources.
        targets: file with as many lines as `path`, or None for a file of two columns.
        source_units: "tokens", separated by spaces or tabs, or "characters", including spaces.
        target_units: the same for targets.

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
    source_lines: Sequence[str] = split_lines(read_text(path))
    if targets is not None:
        target_lines: Sequence[str] = split_lines(read_text(targets, argument="targets"))
        if len(target_lines) != len(source_lines):
            raise file_error(
                targets,
                f"a file with as many lines as `path`, {len(source_lines)}",
                f"which has {len(target_lines)}",
                "Each file must have one line per pair.",
                argument="targets",
            )
    else:
        parts = [line.split("\t") for line in source_lines]
        for number, part in enumerate(parts, 1):
            if len(part) != 2:
                cause = f"whose line {number} has {plural(len(part), 'column')}"
                hint = "Put a tab between source and target, or give two files."
                raise file_error(path, "a file of two columns", cause, hint)
        source_lines, target_lines = zip(*parts, strict=True)
    return SequencePairs(
        [split_units(line, source_units) for line in source_lines],
        [split_units(line, target_units) for line in target_lines],
        source_units=source_units,
        target_units=target_units,
        source=os.fspath(path),
    )


def split_units(text: str, units: str) -> list[str]:
    """The tokens or characters of a line, without spaces and tabs at its ends."""
    return split_spaces(text) if units == "tokens" else list(text.strip(" \t"))
