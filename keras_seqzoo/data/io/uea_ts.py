"""Reader of .ts files, the format of sktime, aeon and the UEA archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_seqzoo.data.io.cells import parse_numbers
from keras_seqzoo.data.io.text_lines import file_error, plural, read_text, split_lines
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import unknown_name_message

Header = dict[str, tuple[int, list[str]]]  # lower-case name: (line number, values)

_FIELDS = {
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions",
    "equallength", "serieslength", "classlabel", "targetlabel",
}  # fmt: skip


def read_ts(path: str | os.PathLike) -> LabeledSequences:
    r"""Read labeled sequences of readings from a .ts file.

    Each line below @data is a case: colons separate its dimensions, commas the values of a
    dimension, and the label is last unless the header has @classLabel false. Cases may differ in
    length; the dimensions of one case may not.

    Shapes: each sequence is `(steps, dimensions)`, float32.

    Args:
        path: a text file in UTF-8.

    Returns:
        `LabeledSequences` of readings, with labels where the file has them.

    Raises:
        ArgumentError: if `path` is not a path.
        DataError: if the file cannot be read, has time stamps or missing values, or a line does
            not match the header; the message has the line number.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "toy.ts")
        >>> _ = path.write_text("@classLabel true up down\n@data\n1,2,3:0,0,1:up\n2,1:0,1:down\n")
        >>> examples = read_ts(path)
        >>> examples.sequences[1].tolist(), examples.labels
        ([[2.0, 0.0], [1.0, 1.0]], ('up', 'down'))
    """
    rows = _rows(read_text(path))
    header = _header(path, rows)
    declared = _declared_labels(path, header)
    sequences, labels = [], []
    for number, line in rows:
        parts = line.split(":")
        if declared:
            labels.append(_pop_label(path, number, parts, declared))
        _check_dimensions(path, number, len(parts), _dimensions(path, header, sequences))
        sequences.append(_case(path, number, parts))
    if not sequences:
        raise file_error(path, "a .ts file", "which has no case below @data", "Add the cases.")
    return LabeledSequences(
        sequences,
        labels=labels if declared else None,
        notes=_notes(path, header, sequences, set(declared) - set(labels)),
        source=os.fspath(path),
    )


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without blank ones and comments."""
    for number, line in enumerate(split_lines(text), 1):
        line = line.strip()
        if line and not line.startswith(("#", "%")):
            yield number, line


def _header(path: Any, rows: Iterator[tuple[int, str]]) -> Header:
    """The header fields above @data; `rows` continues with the first case."""
    header: Header = {}
    for number, line in rows:
        name, *values = line.split()
        if not name.startswith("@"):
            cause = "is neither a header line, with @, nor below @data"
            raise _line_error(path, number, cause, "The header ends with a line @data.")
        if name.lower() == "@data":
            return header
        header[name[1:].lower()] = number, values
    raise file_error(path, "a .ts file", "which has no line @data", "Give the whole file.")


def _declared_labels(path: Any, header: Header) -> list[str]:
    """The labels that the header declares; empty if cases have no labels."""
    if _flag(path, header, "timestamps"):
        hint = "Write only the values, 1.5,1.6 for (0,1.5),(1,1.6)."
        raise _line_error(path, header["timestamps"][0], "declares time stamps", hint)
    if _flag(path, header, "targetlabel"):
        hint = "Labels must be classes: bin the numbers, and write @classLabel true."
        raise _line_error(path, header["targetlabel"][0], "declares numeric targets", hint)
    if "classlabel" not in header and "targetlabel" not in header:
        hint = "Add @classLabel true and the labels, or @classLabel false."
        raise file_error(path, "a .ts file", "whose header has no line @classLabel", hint)
    if not _flag(path, header, "classlabel"):
        return []
    number, (_, *labels) = header["classlabel"]
    if not labels:
        hint = "Write them all: @classLabel true walking running."
        raise _line_error(path, number, "has @classLabel true without labels", hint)
    return labels


def _flag(path: Any, header: Header, name: str) -> bool:
    """The boolean value of a header field; False if it is missing."""
    number, values = header.get(name, (0, ["false"]))
    value = values[0].lower() if values else ""
    if value not in ("true", "false"):
        raise _line_error(path, number, f"has {value!r} after @{name}", "Write true or false.")
    return value == "true"


def _number(path: Any, header: Header, name: str) -> int | None:
    """The positive int of a header field; None if it is missing."""
    if name not in header:
        return None
    number, values = header[name]
    value = values[0] if values else ""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value)):
        raise _line_error(path, number, f"has {value!r} after @{name}", "Write a positive number.")
    return int(value)


def _dimensions(path: Any, header: Header, sequences: list) -> int | None:
    """The number of dimensions that the next case must have; None if it is not known yet."""
    if sequences:
        return sequences[0].shape[1]
    declared = _number(path, header, "dimensions") or _number(path, header, "dimension")
    return 1 if _flag(path, header, "univariate") else declared


def _pop_label(path: Any, number: int, parts: list[str], declared: list[str]) -> str:
    """Remove the label from the end of a case and return it."""
    label = parts.pop().strip()
    if not parts:
        hint = "A case is dimensions and a label, with colons between them."
        raise _line_error(path, number, "has no colon, so no label", hint)
    if label not in declared:
        message = unknown_name_message("label", label[:40], declared)
        hint = f"{message} The line @classLabel declares labels."
        raise _line_error(path, number, "ends in a label that is not declared", hint)
    return label


def _check_dimensions(path: Any, number: int, count: int, expected: int | None) -> None:
    if expected is not None and count != expected:
        hint = "Fix that line or the header; colons separate dimensions and the label."
        raise _line_error(path, number, f"has {plural(count, 'dimension')}, not {expected}", hint)


def _case(path: Any, number: int, parts: list[str]) -> np.ndarray:
    """One case as an array `(steps, dimensions)`."""
    columns = [_values(path, number, index, part) for index, part in enumerate(parts, 1)]
    for index, column in enumerate(columns, 1):
        if len(column) != len(columns[0]):
            cause = f"has {plural(len(column), 'value')} in dimension {index}"
            cause += f" and {len(columns[0])} in the first"
            raise _line_error(path, number, cause, "All dimensions of a case must have one length.")
    return np.stack(columns, axis=1)


def _values(path: Any, number: int, index: int, part: str) -> np.ndarray:
    cells = part.split(",")
    values = parse_numbers(cells)
    if isinstance(values, int):
        cause = f"has {cells[values].strip()[:40]!r} for a number in dimension {index}"
        raise _line_error(path, number, cause, "Commas separate values, and colons dimensions.")
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0])
        cause = f"has no finite value at step {step + 1} of dimension {index}"
        hint = f"It is {cells[step].strip()!r}: fill the gap first, or delete the line."
        raise _line_error(path, number, cause, hint)
    return values


def _notes(path: Any, header: Header, sequences: list, unused: set[str]) -> tuple[str, ...]:
    notes = [
        f"The header field @{name} is unknown and was ignored." for name in header.keys() - _FIELDS
    ]
    lengths = {len(sequence) for sequence in sequences}
    declared = _number(path, header, "serieslength")
    unequal = len(lengths) > 1 or declared not in (None, *lengths)
    if _flag(path, header, "equallength") and unequal:
        notes.append(
            f"The header declares equal lengths{'' if declared is None else f', {declared}'}; "
            f"cases have {min(lengths)} to {max(lengths)} steps and were kept as they are."
        )
    if unused:
        notes.append(f"No case has the declared label {', '.join(sorted(unused))}.")
    return tuple(sorted(notes))


def _line_error(path: Any, number: int, cause: str, hint: str) -> DataError:
    return file_error(path, "a .ts file of readings", f"whose line {number} {cause}", hint)
