"""Files as columns with names: what is in the file, before anything is decided about it."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_seqzoo.data.io.cells import is_missing, number, numbers
from keras_seqzoo.data.time_series import as_steps
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message

Columns = dict[str, np.ndarray | pd.Series | list[str]]

_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npy")
_STAMP = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")


def read_columns(path: str | os.PathLike, notes: list[str]) -> Columns:
    """Reads a file as named columns, each float64, datetime or texts; adds to `notes`.

    Raises:
        ArgumentError: if `path` is not a path.
        DataError: if there is no such file, its kind is unknown or it cannot be read.
    """
    kind = _kind(path)
    if kind == ".npy":
        return _npy(path, notes)
    return _parquet(path, notes) if kind == ".parquet" else _text(path, kind, notes)


def refuse(path: Any, expected: str, cause: str, hint: str) -> DataError:
    """Makes the one sentence about a file that cannot be used, and the hint after it."""
    return DataError(f"`path` must be {expected}. Received: path='{path}', {cause}. {hint}")


def _kind(path: Any) -> str:
    """The suffix that says how to read `path`, once it is known to be a file."""
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(argument_message("path", "a path to a file", path))
    name = os.fspath(path)
    hint = "Give the path of one file: " + ", ".join(_SUFFIXES) + "."
    if os.path.isdir(name):
        raise refuse(name, "a file", "which is a directory", hint)
    if not os.path.exists(name):
        raise refuse(name, "a file", "which does not exist", "Check the path.")
    for suffix in reversed(_SUFFIXES):
        if str(name).lower().endswith(suffix):
            break
    else:
        raise refuse(name, f"a {', '.join(_SUFFIXES)} file", "which is of another kind", hint)
    if not os.path.isfile(name):
        raise refuse(name, "a file", "which is a pipe or a device", hint)
    if os.path.getsize(name) == 0:
        raise refuse(name, "a file of readings", "which is empty", "Export the readings again.")
    return suffix


def _text(path: Any, kind: str, notes: list[str]) -> Columns:
    """Columns of a .csv or .tsv file, packed or not."""
    rows = _rows(path, _decoded(path, packed=kind.endswith(".gz")), kind)
    if not rows:
        raise refuse(path, "a file of readings", "which is empty", "Export the readings again.")
    header = _has_header(rows[0])
    names = _names(rows[0], notes) if header else [str(i) for i in range(len(rows[0]))]
    if not header:
        notes.append("The first row holds numbers, so the file has no header; columns are counted.")
        if rows[0] == names and len(names) > 1:
            notes.append(
                f"The first row is {','.join(names)}; if that is a header, give the columns names."
            )
    body = rows[1:] if header else rows
    if not body:
        raise refuse(path, "a file of readings", "which has a header only", "Add the readings.")
    columns: Columns = {}
    for name, cells in zip(names, zip(*body, strict=True), strict=True):
        values = numbers(list(cells))
        columns[name] = list(cells) if isinstance(values, int) else values
    return _without_row_numbers(columns, notes)


def _decoded(path: Any, *, packed: bool) -> str:
    """The text of a file in UTF-8."""
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if packed else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cause = f"whose byte {error.start} is not UTF-8"
        hint = "Save the file as CSV in UTF-8."
        raise refuse(path, "a text file in UTF-8", cause, hint) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        cause, hint = "which is damaged or not gzip", "Pack the file again, or give it unpacked."
        raise refuse(path, "a whole gzip file", cause, hint) from None
    except OSError as error:
        cause = f"which cannot be read ({error.strerror})"
        raise refuse(path, "a file", cause, "Check its permissions.") from None


def _rows(path: Any, text: str, kind: str) -> list[list[str]]:
    """Cells of each row; refuses rows of unequal lengths.

    Not pandas: it fills a row that is cut short with empty cells and says nothing.
    """
    separator = "\t" if kind.startswith(".tsv") else ","
    # A blank line is nothing between rows of many columns, and a missing value in one column.
    text = text.rstrip("\r\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            alone = bool(rows) and len(rows[0]) == 1
            if not alone and not "".join(row).strip() and len(row) < 2:
                continue
            rows.append([cell.strip() for cell in row] or [""])
            if len(rows[-1]) != len(rows[0]):
                cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                cause = f"whose line {reader.line_num} has {cells}, not {len(rows[0])}"
                hint = "Mend or delete that line; cells are separated by " + (
                    "tabs." if separator == "\t" else "commas, and decimals by points."
                )
                raise refuse(path, "a table with rows of equal length", cause, hint)
    except csv.Error as error:
        cause = f"whose line {reader.line_num} cannot be read ({error})"
        hint = "Mend that line; a quote that never ends is the usual cause."
        raise refuse(path, "a table", cause, hint) from None
    return rows


def _has_header(row: list[str]) -> bool:
    """Whether the first row names the columns: some cell is neither number, stamp nor missing."""
    values = [number(cell) for cell in row]
    if row[0] == "" and row[1:] == [str(i) for i in range(len(row) - 1)]:
        return True  # a table of unnamed columns that pandas wrote with its row numbers
    if any(
        value is None and not _STAMP.fullmatch(cell)
        for value, cell in zip(values, row, strict=True)
    ):
        return True
    return not any(
        value is not None and not is_missing(cell) for value, cell in zip(values, row, strict=True)
    )


def _names(row: list[str], notes: list[str]) -> list[str]:
    """Distinct names: unnamed ones and repeats get the names that pandas gives them."""
    names: list[str] = []
    for index, cell in enumerate(row):
        wanted = name = cell or f"Unnamed: {index}"
        count = 0
        while name in names or (count and name in row):
            count += 1
            name = f"{wanted}.{count}"
        if name != cell:
            notes.append(f"Column {index + 1} of the file, headed {cell!r}, is called {name!r}.")
        names.append(name)
    return names


def _without_row_numbers(columns: Columns, notes: list[str]) -> Columns:
    """Leaves out an unnamed first column that only counts the rows."""
    first, values = next(iter(columns.items()))
    if first != "Unnamed: 0" or len(columns) == 1 or not isinstance(values, np.ndarray):
        return columns
    if not np.array_equal(values - values[0], np.arange(len(values))) or values[0] not in (0, 1):
        return columns
    notes.append("The unnamed first column counts the rows and was left out.")
    return {name: cells for name, cells in columns.items() if name != first}


def _parquet(path: Any, notes: list[str]) -> Columns:
    """Columns of a .parquet file; an index with a name or with stamps is a column too."""
    try:
        table = pd.read_parquet(os.fspath(path), engine="pyarrow")
    except ImportError:
        hint = "Install pyarrow: pip install 'keras-seqzoo[parquet]'."
        raise refuse(
            path, "a file this computer can read", "and pyarrow is missing", hint
        ) from None
    except Exception:  # Arrow raises many types for damaged bytes; all mean the same to a user
        cause, hint = "which is damaged or not parquet", "Write or copy the file again."
        raise refuse(path, "a whole parquet file", cause, hint) from None
    if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
        table.index.name = "time"
    levels = [level for level in table.index.names if level is not None]
    table = table.reset_index(level=[level for level in levels if level not in table.columns])
    if not table.size:
        raise refuse(path, "a file of readings", "which has no rows", "Export the readings again.")
    names = _names([str(name) for name in table.columns], notes)
    return {name: _column(table.iloc[:, index]) for index, name in enumerate(names)}


def _column(column: pd.Series) -> np.ndarray | pd.Series | list[str]:
    """One parquet column: float64, datetime, or texts."""
    kind = column.dtype
    if pd.api.types.is_datetime64_any_dtype(kind):
        return column
    if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    cells = [_cell(value) for value in column]
    values = numbers(cells)
    return cells if isinstance(values, int) else values


def _cell(value: Any) -> str:
    """One cell as text; missing values of any type become the empty text."""
    missing = value is None or value is pd.NA or value is pd.NaT or value is np.nan
    return "" if missing else str(value)


def _npy(path: Any, notes: list[str]) -> Columns:
    """Columns of a .npy file of readings, named by their numbers."""
    values = _loaded(path)
    try:
        values = as_steps(values, argument="path")
    except DataError:
        shape, kind = getattr(values, "shape", None), getattr(values, "dtype", None)
        cause = f"which holds dtype {kind} of shape {shape}"
        hint = "Save the readings as an array of floats (steps, features)."
        if shape is not None and len(shape) == 3:
            hint = "Three axes are windows already: load them with numpy.load and use them as is."
        expected = "an array of real numbers (steps, features) or (steps,), not empty"
        raise refuse(path, expected, cause, hint) from None
    notes.append("The file has no header; columns are counted.")
    return {str(index): values[:, index] for index in range(values.shape[1])}


def _loaded(path: Any) -> Any:
    """The array in a .npy file."""
    try:
        # Never pickled objects: loading one runs whatever code the file's author put there.
        loaded = np.load(os.fspath(path), allow_pickle=False)
    except Exception as error:  # damaged headers raise many types; all mean the same to a user
        cause = "which is damaged or not .npy"
        if "allow_pickle" in str(error) and "Object arrays" in str(error):
            cause = "which holds Python objects"
        hint = "Save it again with numpy.save, as an array of floats."
        raise refuse(path, "a whole .npy file of numbers", cause, hint) from None
    if isinstance(loaded, np.lib.npyio.NpzFile):
        loaded.close()
        hint = "Save the one array of readings with numpy.save."
        raise refuse(path, "a .npy file", "which holds several arrays (.npz)", hint)
    return loaded
