"""Reader of labeled texts from a table, and the tokenizer that it uses."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from typing import Any

import pandas as pd

from keras_seqzoo.data.io.text_lines import file_error, plural, read_text
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_instance,
    unknown_name_message,
)

_SEPARATORS = (",", "\t", ";", "|")


def read_labeled_csv(
    path: str | os.PathLike,
    *,
    text: str = "text",
    label: str = "label",
    separator: str | None = None,
    lower: bool = False,
) -> LabeledSequences:
    r"""Read texts and their labels from two columns of a .csv or .tsv file with a header.

    `split_words` splits the texts: a run of letters, digits and underscores is a token, and so is
    every other character that is not whitespace. A label is any non-empty text; "none" and "NA" are
    labels.

    Args:
        path: a text file in UTF-8; cells with separators, quotes or line ends are in double quotes,
            and double quotes inside them are doubled.
        text: str, the name of the column of texts.
        label: str, the name of the column of labels.
        separator: str of one character between cells; None takes the first of comma, tab,
            semicolon and bar that splits the header so that both columns are found.
        lower: bool, whether to convert texts to lower case.

    Returns:
        `LabeledSequences` of tokens with labels, one per row; a text without tokens is an empty
        sequence.

    Raises:
        ArgumentError: if an argument has another type or value.
        DataError: if the file cannot be read, a column is missing, or a row has no label.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "reviews.csv")
        >>> _ = path.write_text('text,label\n"Good, really.",pos\n')
        >>> examples = read_labeled_csv(path)
        >>> examples.sequences, examples.labels
        ((('Good', ',', 'really', '.'),), ('pos',))
    """
    _check_arguments(text, label, separator)
    check_bool(lower=lower)
    content = read_text(path)
    if separator is None:
        separator = _separator(path, content, {text, label})
    (_, header), *rows = _rows(path, content, separator)
    columns = [_column(path, name, header) for name in (text, label)]
    if not rows:
        raise file_error(path, "a table", "which has a header only", "Add the texts.")
    texts, labels = zip(*([row[column] for column in columns] for _, row in rows), strict=True)
    _check_labels(path, labels, [line for line, _ in rows])
    sequences = [split_words(cell, lower=lower) for cell in texts]
    empty = sum(not sequence for sequence in sequences)
    return LabeledSequences(
        sequences,
        labels=labels,
        notes=(f"{plural(empty, 'text')} without tokens: empty sequences.",) * bool(empty),
        source=os.fspath(path),
    )


def labeled_sequences_from_dataframe(
    frame: pd.DataFrame, *, text: str = "text", label: str = "label", lower: bool = False
) -> LabeledSequences:
    """Make labeled sequences of two columns of a DataFrame, as `read_labeled_csv` of a file.

    Args:
        frame: `pandas.DataFrame`, a row per text.
        text: str, the name of the column of texts.
        label: str, the name of the column of labels.
        lower: bool, whether to convert texts to lower case.

    Returns:
        `LabeledSequences` of tokens with labels, one per row.

    Raises:
        ArgumentError: if an argument has another type or value.
        DataError: if a column is missing, there is no row, or a row has no text or label.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"text": ["Good!"], "label": ["pos"]})
        >>> labeled_sequences_from_dataframe(frame).sequences
        (('Good', '!'),)
    """
    check_instance(pd.DataFrame, frame=frame)
    _check_arguments(text, label, None)
    check_bool(lower=lower)
    for name in (text, label):
        if name not in frame:
            raise DataError(unknown_name_message("column", name, map(str, frame.columns)))
        if not all(isinstance(cell, str) for cell in frame[name]):
            raise DataError(f"Column {name!r} must have a str in every row of `frame`.")
    sequences = [split_words(cell, lower=lower) for cell in frame[text]]
    return LabeledSequences(sequences, labels=tuple(frame[label]), source="a DataFrame")


def split_words(text: str, *, lower: bool = False) -> list[str]:
    r"""Split a text into words and single punctuation marks.

    A run of letters, digits and underscores of any script is one token. Every other character that
    is not whitespace is a token. Combining marks stay with the character before them.

    Args:
        text: str.
        lower: bool, whether to convert `text` to lower case first.

    Returns:
        List of str.

    Raises:
        ArgumentError: if `text` is not a str.

    Example:
        >>> split_words("Don't stop: 3.5 नमस्ते!")
        ['Don', "'", 't', 'stop', ':', '3', '.', '5', 'नमस्ते', '!']
    """
    if not isinstance(text, str):
        raise ArgumentError(argument_message("text", "a str", text))
    text = text.lower() if lower else text
    # `\w` does not match combining marks, so it would split Hindi and Thai words at vowel signs.
    marks = "".join(c for c in set(text) if not c.isascii() and unicodedata.category(c)[0] == "M")
    combining = re.escape(marks)
    pattern = rf"\w[\w{combining}]*|[^\w\s][{combining}]*" if marks else r"\w+|[^\w\s]"
    return re.findall(pattern, text)


def _check_arguments(text: Any, label: Any, separator: Any) -> None:
    for name, value in (("text", text), ("label", label)):
        if not isinstance(value, str) or not value:
            raise ArgumentError(argument_message(name, "the name of a column", value))
    if text == label:
        raise ArgumentError(argument_message("label", "another column than `text`", label))
    valid = isinstance(separator, str) and len(separator) == 1 and separator not in '"\r\n\0'
    if separator is not None and not valid:
        expected = "one character, no quote and no line end, or None"
        raise ArgumentError(argument_message("separator", expected, separator))


def _separator(path: Any, content: str, columns: set[str]) -> str:
    """The first separator that splits the header into `columns`, or that of the file extension."""
    header = content.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    for separator in _SEPARATORS:
        if columns <= {cell.strip(' "') for cell in header.split(separator)}:
            return separator
    return "\t" if os.fspath(path).lower().endswith(".tsv") else ","


def _rows(path: Any, content: str, separator: str) -> list[tuple[int, list[str]]]:
    """Cells of each row with the number of its last line, without blank lines."""
    # pandas would silently fill a truncated row with empty cells.
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if len(row) < 2 and not "".join(row).strip():
                continue
            rows.append((reader.line_num, [cell.strip() for cell in row]))
            if len(row) != len(rows[0][1]):
                cells = f"{plural(len(row), 'cell')}, not {len(rows[0][1])}"
                cause = f"whose line {reader.line_num} has {cells}"
                hint = (
                    f"Fix that line; {separator!r} separates cells, cells with one are in quotes."
                )
                raise file_error(path, "a table with rows of equal length", cause, hint)
    except csv.Error as error:
        cause = f"whose line {reader.line_num} cannot be read ({error})"
        hint = "Fix the quotes: those that open a cell also close it, those inside are doubled."
        raise file_error(path, "a table", cause, hint) from None
    if not rows:
        raise file_error(path, "a table", "which has blank lines only", "Export the data again.")
    return rows


def _column(path: Any, name: str, header: list[str]) -> int:
    if name not in header:
        raise DataError(
            f"{unknown_name_message('column', name, header)} Columns are those of '{path}'."
        )
    if header.count(name) > 1:
        cause = f"whose header has {name!r} {header.count(name)} times"
        raise file_error(path, "a table", cause, "Rename all but one of these columns.")
    return header.index(name)


def _check_labels(path: Any, labels: tuple[str, ...], line_numbers: list[int]) -> None:
    if "" in labels:
        row = labels.index("")
        cause = f"whose row {row + 1} below the header, line {line_numbers[row]}, has no label"
        raise file_error(
            path, "a table with a label in each row", cause, "Label that text or delete the row."
        )
