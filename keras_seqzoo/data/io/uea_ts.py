"""Labeled readings from a .ts file, the format of sktime, aeon and the UEA archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_seqzoo.data.io.cells import numbers
from keras_seqzoo.data.io.text_lines import count, lines, read_text, refuse_file
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.argument_validation import unknown_name_message

Header = dict[str, tuple[int, list[str]]]  # by lower-case name: the line's number and its values

_KNOWN = {
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions",
    "equallength", "serieslength", "classlabel", "targetlabel",
}  # fmt: skip


def read_ts(path: str | os.PathLike) -> LabeledSequences:
    r"""Reads labeled sequences of readings from a .ts file.

    Each line below @data is a case: dimensions with colons between them, the values of a dimension
    with commas, and the label last unless the header says @classLabel false. Cases may differ in
    length; the dimensions of one case may not.

    Shapes: each sequence is `(steps, dimensions)`, float32.

    Args:
        path: a text file in UTF-8.

    Returns:
        `LabeledSequences` of readings, with labels where the file has them.

    Raises:
        ArgumentError: if `path` is not a path.
        DataError: if the file cannot be read, has time stamps or missing values, or a line is not
            what the header says; the message says which line.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "toy.ts")
        >>> _ = path.write_text("@classLabel true up down\n@data\n1,2,3:0,0,1:up\n2,1:0,1:down\n")
        >>> examples = read_ts(path)
        >>> examples.sequences[1].tolist(), examples.labels
        ([[2.0, 0.0], [1.0, 1.0]], ('up', 'down'))
    """
    rows = _rows(read_text(path))
    header = _header(path, rows)
    names = _label_names(path, header)
    sequences, labels = [], []
    for number, line in rows:
        parts = line.split(":")
        if names:
            labels.append(_label(path, number, parts, names))
        _check_dimensions(path, number, len(parts), _dimensions(path, header, sequences))
        sequences.append(_case(path, number, parts))
    if not sequences:
        raise refuse_file(path, "a .ts file", "which has no case below @data", "Add the cases.")
    return LabeledSequences(
        sequences,
        labels=labels if names else None,
        notes=_notes(path, header, sequences, set(names) - set(labels)),
        source=os.fspath(path),
    )


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, without blank ones and comments."""
    for number, line in enumerate(lines(text), 1):
        line = line.strip()
        if line and not line.startswith(("#", "%")):
            yield number, line


def _header(path: Any, rows: Iterator[tuple[int, str]]) -> Header:
    """What the lines above @data say; leaves `rows` at the first case."""
    header: Header = {}
    for number, line in rows:
        name, *values = line.split()
        if not name.startswith("@"):
            cause = "is neither a header line, with @, nor below @data"
            raise _refuse(path, number, cause, "The header ends in a line @data, then come cases.")
        if name.lower() == "@data":
            return header
        header[name[1:].lower()] = number, values
    raise refuse_file(path, "a .ts file", "which has no line @data", "Give the whole file.")


def _label_names(path: Any, header: Header) -> list[str]:
    """The labels that cases may have; none if they have none."""
    if _flag(path, header, "timestamps"):
        hint = "Write the values alone, 1.5,1.6 for (0,1.5),(1,1.6)."
        raise _refuse(path, header["timestamps"][0], "says that values have time stamps", hint)
    if _flag(path, header, "targetlabel"):
        hint = "Labels are names of classes; number them in classes and say @classLabel true."
        raise _refuse(path, header["targetlabel"][0], "says that numbers are to be learned", hint)
    if "classlabel" not in header and "targetlabel" not in header:
        hint = "Add @classLabel true and the labels, or @classLabel false."
        raise refuse_file(path, "a .ts file", "whose header has no line @classLabel", hint)
    if not _flag(path, header, "classlabel"):
        return []
    number, (_, *names) = header["classlabel"]
    if not names:
        hint = "Write them all: @classLabel true walking running."
        raise _refuse(path, number, "has @classLabel true without labels", hint)
    return names


def _flag(path: Any, header: Header, name: str) -> bool:
    """What a header line says, true or false; false if there is none."""
    number, values = header.get(name, (0, ["false"]))
    said = values[0].lower() if values else ""
    if said not in ("true", "false"):
        raise _refuse(path, number, f"has {said!r} after @{name}", "Write true or false.")
    return said == "true"


def _number(path: Any, header: Header, name: str) -> int | None:
    """What a header line says, a positive int; None if there is none."""
    if name not in header:
        return None
    number, values = header[name]
    said = values[0] if values else ""
    if not (said.isascii() and said.isdigit() and len(said) < 10 and int(said)):
        raise _refuse(path, number, f"has {said!r} after @{name}", "Write a positive number.")
    return int(said)


def _dimensions(path: Any, header: Header, sequences: list) -> int | None:
    """How many dimensions the next case must have; None if nothing says so yet."""
    if sequences:
        return sequences[0].shape[1]
    said = _number(path, header, "dimensions") or _number(path, header, "dimension")
    return 1 if _flag(path, header, "univariate") else said


def _label(path: Any, number: int, parts: list[str], names: list[str]) -> str:
    """Takes the label off the end of a case."""
    label = parts.pop().strip()
    if not parts:
        hint = "A case is dimensions and a label, with colons between them."
        raise _refuse(path, number, "has no colon, so no label", hint)
    if label not in names:
        hint = f"{unknown_name_message('label', label[:40], names)} The line @classLabel declares labels."
        raise _refuse(path, number, "ends in a label that is not declared", hint)
    return label


def _check_dimensions(path: Any, number: int, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        hint = "Mend that line or the header; colons separate dimensions and the label."
        raise _refuse(path, number, f"has {count(found, 'dimension')}, not {wanted}", hint)


def _case(path: Any, number: int, parts: list[str]) -> np.ndarray:
    """One case as an array `(steps, dimensions)`."""
    columns = [_values(path, number, index, part) for index, part in enumerate(parts, 1)]
    for index, column in enumerate(columns, 1):
        if len(column) != len(columns[0]):
            cause = f"has {count(len(column), 'value')} in dimension {index}"
            cause += f" and {len(columns[0])} in the first"
            raise _refuse(path, number, cause, "Cut the dimensions of a case to one length.")
    return np.stack(columns, axis=1)


def _values(path: Any, number: int, index: int, part: str) -> np.ndarray:
    cells = part.split(",")
    values = numbers(cells)
    if isinstance(values, int):
        cause = f"has {cells[values].strip()[:40]!r} for a number in dimension {index}"
        raise _refuse(path, number, cause, "Commas separate values, and colons dimensions.")
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0])
        cause = f"has no finite value at step {step + 1} of dimension {index}"
        hint = f"It holds {cells[step].strip()!r}: fill the gap first, or delete the line."
        raise _refuse(path, number, cause, hint)
    return values


def _notes(path: Any, header: Header, sequences: list, unused: set[str]) -> tuple[str, ...]:
    notes = [
        f"The header line @{name} is not known and was ignored." for name in header.keys() - _KNOWN
    ]
    lengths = {len(sequence) for sequence in sequences}
    said = _number(path, header, "serieslength") if "serieslength" in header else None
    if _flag(path, header, "equallength") and (len(lengths) > 1 or said not in (None, *lengths)):
        notes.append(
            f"The header says equal lengths{'' if said is None else f', {said}'}; cases have "
            f"{min(lengths)} to {max(lengths)} steps and were kept as they are."
        )
    if unused:
        notes.append(f"No case has the declared label {', '.join(sorted(unused))}.")
    return tuple(sorted(notes))


def _refuse(path: Any, number: int, cause: str, hint: str) -> DataError:
    return refuse_file(path, "a .ts file of readings", f"whose line {number} {cause}", hint)
