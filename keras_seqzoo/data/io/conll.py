"""Readers of tagged sentences with one token per line: CoNLL-U and CoNLL columns."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any

from keras_seqzoo.data.io.text_lines import file_error, plural, read_text, split_lines, split_spaces
from keras_seqzoo.data.labeled import LabeledSequences
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message, is_int, unknown_name_message

_OPTIONAL_FIELDS = ("feats", "misc")  # where "_", no value, is a tag like any other


def read_conllu(path: str | os.PathLike, *, field: str = "upos") -> LabeledSequences:
    r"""Read sentences tagged with one field of a CoNLL-U or CoNLL-U Plus file.

    Words are tokens; ranges of multiword tokens (1-2) and empty nodes (1.1) are left out. It needs
    the package conllu: `pip install "keras-seqzoo[text]"`.

    Args:
        path: a CoNLL-U file in UTF-8.
        field: the column with the tags: "upos", "xpos", "lemma", "deprel", "feats" or any other
            except "id"; or one key of a column, "feats.Case", "misc.Entity". Words without features
            or without that key have the tag "_".

    Returns:
        `LabeledSequences` of tokens with tags; `notes` lists what was left out.

    Raises:
        ArgumentError: if `field` is not a name, or the package conllu is not installed.
        DataError: if the file cannot be read, has no such field, or a word lacks it.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "en.conllu")
        >>> rest = "\t_\t_\t0\troot\t_\t_\n"
        >>> _ = path.write_text("1\tDogs\tdog\tNOUN" + rest + "2\tbark\tbark\tVERB" + rest)
        >>> examples = read_conllu(path)
        >>> examples.sequences, examples.tags
        ((('Dogs', 'bark'),), (('NOUN', 'VERB'),))
    """
    if not isinstance(field, str) or not field:
        raise ArgumentError(argument_message("field", "the name of a CoNLL-U field", field))
    sequences, tags, left_out = [], [], 0
    keys: set[str] = set()
    for number, block in _blocks(path, read_text(path)):
        _check_field(field, block.default_fields)
        words = [token for token in block if not isinstance(token.get("id"), tuple)]
        left_out += len(block) - len(words)
        if not words:  # comments only
            continue
        where = f"sentence {number}" + f" ({block.metadata.get('sent_id')})" * (
            "sent_id" in block.metadata
        )
        for word in words:
            _check_width(path, word, len(block.default_fields), where)
        sequences.append([word["form"][0] for word in words])
        tags.append([_tag(path, word, field, where, keys) for word in words])
    _check_result(path, sequences, tags, field, keys)
    note = f"Multiword ranges and empty nodes: {left_out} left out, all words kept."
    return LabeledSequences(
        sequences, tags=tags, notes=(note,) * bool(left_out), source=os.fspath(path)
    )


def read_conll(
    path: str | os.PathLike, *, token_column: int = 0, tag_column: int = -1
) -> LabeledSequences:
    r"""Read tagged sentences from CoNLL columns: a token per line, a blank line between sentences.

    Tabs separate the columns if the first line with a token has a tab, so that tokens may contain
    spaces; otherwise spaces do. Every line has as many columns as the first. Lines that begin with
    -DOCSTART- are left out.

    Args:
        path: a text file in UTF-8.
        token_column: int, the column of the tokens, counted from 0, or from the end by -1, -2.
        tag_column: int, the column of the tags, counted in the same way.

    Returns:
        `LabeledSequences` of tokens with tags; `notes` lists what was left out.

    Raises:
        ArgumentError: if a column is not an int.
        DataError: if the file cannot be read, has no such column, or a line has more or fewer
            columns than the first; the message has the line number.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "train.conll")
        >>> _ = path.write_text("EU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\n")
        >>> examples = read_conll(path)
        >>> examples.sequences, examples.tags
        ((('EU', 'rejects'), ('Peter',)), (('B-ORG', 'O'), ('B-PER',)))
    """
    columns = {"token_column": token_column, "tag_column": tag_column}
    for name, column in columns.items():
        if not is_int(column):
            raise ArgumentError(argument_message(name, "an int", column, "Columns count from 0."))
    numbered = list(enumerate(split_lines(read_text(path)), 1))
    first = next((line for _, line in numbered if _has_token(line)), None)
    if first is None:
        hint = "Give a file with a token and its tag in each line."
        raise file_error(path, "a file of tagged tokens", "which contains no tokens", hint)
    split = _split_tabs if "\t" in first else split_spaces
    width = len(split(first))
    _check_columns(path, columns, width)
    sentences: list[list[tuple[str, str]]] = [[]]
    for number, line in numbered:
        if _has_token(line):
            cells = _checked_cells(path, number, split(line), width)
            sentences[-1].append(
                _checked_pair(path, number, cells[token_column], cells[tag_column])
            )
        elif sentences[-1]:
            sentences.append([])
    sentences = [pairs for pairs in sentences if pairs]
    documents = sum(line.startswith("-DOCSTART-") for _, line in numbered)
    return LabeledSequences(
        [[token for token, _ in pairs] for pairs in sentences],
        tags=[[tag for _, tag in pairs] for pairs in sentences],
        notes=(f"{plural(documents, '-DOCSTART- line')} left out.",) * bool(documents),
        source=os.fspath(path),
    )


def _blocks(path: Any, text: str) -> Iterator[tuple[int, Any]]:
    """Sentences parsed by conllu, numbered from 1."""
    parse, failure = _import_conllu()
    # Unparsed: conllu would split features, and reject invalid heads even where they are not read.
    raw: dict[str, Callable] = dict.fromkeys(("xpos", "feats", "head", "deps", "misc"), _raw)
    raw["form"] = _form
    number = 0
    try:
        for block in parse(io.StringIO(text), field_parsers=raw):
            number += 1
            yield number, block
    except (failure, ValueError) as error:  # ValueError: an id of thousands of digits
        cause = f"whose sentence {number + 1} cannot be read ({str(error)[:200].rstrip('.')})"
        hint = "Each line has 10 fields with tabs between them; a blank line ends a sentence."
        raise file_error(path, "a file in CoNLL-U", cause, hint) from None


def _import_conllu() -> tuple[Callable, type[Exception]]:
    try:
        from conllu import parse_incr
        from conllu.exceptions import ParseException
    except ImportError:
        raise ArgumentError(
            "`path` must be of a format whose packages are installed. Received: CoNLL-U, which "
            'needs conllu. Run: pip install "keras-seqzoo[text]".'
        ) from None
    return parse_incr, ParseException


def _raw(cells: list[str], index: int) -> str:
    return cells[index]


def _form(cells: list[str], index: int) -> tuple[str, int]:
    """The word, and the number of fields in its line: conllu ignores extra ones."""
    return cells[index], len(cells)


def _check_field(field: str, columns: list[str]) -> None:
    if "form" not in columns:
        raise DataError(
            f"`path` must have words, in a column FORM. Received: columns {', '.join(columns)}."
        )
    name, dot, _ = field.partition(".")
    if name not in columns or name == "id" or (dot and name not in _OPTIONAL_FIELDS):
        known = [column for column in columns if column != "id"]
        known += [f"{column}.KEY" for column in _OPTIONAL_FIELDS if column in columns]
        raise DataError(unknown_name_message("field", field, known))


def _check_width(path: Any, word: Any, columns: int, where: str) -> None:
    # conllu requires at least two fields in a line, so only FORM may be missing.
    form, width = word.get("form", ("", len(word)))
    if width != columns:
        cause = f"whose {where} has {width} fields at the word {form!r}, not {columns}"
        hint = "One tab separates fields, and two adjacent spaces also do; fix that line."
        raise file_error(path, "a file in CoNLL-U", cause, hint)


def _tag(path: Any, word: Any, field: str, where: str, keys: set[str]) -> str:
    """The word's tag; adds the keys of its field to `keys`."""
    column, dot, key = field.partition(".")
    tag = word[column][0] if column == "form" else word[column]
    if dot:
        pairs = dict(pair.partition("=")[::2] for pair in tag.split("|"))
        keys.update(f"{column}.{name}" for name in pairs if name != "_")
        tag = pairs.get(key, "_")
    if not tag or (tag == "_" and column not in _OPTIONAL_FIELDS):
        cause = f"whose {where} has no {field} at the word {word['form'][0]!r}"
        raise file_error(
            path, f"a file with {field} for every word", cause, "Add it, or choose another `field`."
        )
    return tag


def _check_result(path: Any, sequences: list, tags: list, field: str, keys: set[str]) -> None:
    if not sequences:
        hint = "Give a file with a word in each line."
        raise file_error(path, "a file in CoNLL-U", "which has no word", hint)
    if "." in field and field not in keys:
        raise DataError(unknown_name_message("field", field, sorted(keys)))


def _has_token(line: str) -> bool:
    return bool(line.strip(" \t")) and not line.startswith("-DOCSTART-")


def _split_tabs(line: str) -> list[str]:
    return [cell.strip(" ") for cell in line.split("\t")]


def _check_columns(path: Any, columns: dict[str, int], width: int) -> None:
    """Raises `DataError` unless both columns exist and differ."""
    for name, column in columns.items():
        if not -width <= column < width:
            raise DataError(
                f"`{name}` must be one of the {plural(width, 'column')} of '{path}'. Received: "
                f"{name}={column}. Columns count from 0, or from -1 at the end."
            )
    if len({column % width for column in columns.values()}) == 1:
        received = ", ".join(f"{name}={column}" for name, column in columns.items())
        raise DataError(
            f"`token_column` and `tag_column` must be two columns. Received: {received}, which are "
            f"the same of the {plural(width, 'column')} of '{path}'. Tabs or spaces separate "
            "columns."
        )


def _checked_cells(path: Any, number: int, cells: list[str], width: int) -> list[str]:
    if len(cells) != width:
        cause = f"whose line {number} has {plural(len(cells), 'column')}, not {width}"
        hint = "Fix or delete that line; all lines, comments too, have the columns of the first."
        raise file_error(path, "a file with as many columns in each line", cause, hint)
    return cells


def _checked_pair(path: Any, number: int, token: str, tag: str) -> tuple[str, str]:
    if not token or not tag:
        cause = f"whose line {number} has an empty {'tag' if token else 'token'}"
        hint = "Fix that line; two adjacent tabs enclose an empty column."
        raise file_error(path, "a file with a token and a tag in each line", cause, hint)
    return token, tag
