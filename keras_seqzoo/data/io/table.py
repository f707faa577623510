"""Named columns of .csv, .tsv, .parquet and .npy files."""

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

from keras_seqzoo.data.io.cells import is_missing, parse_number, parse_numbers
from keras_seqzoo.data.io.text_lines import file_error, plural
from keras_seqzoo.data.time_series import as_readings
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.utils.argument_validation import argument_message

Columns = dict[str, np.ndarray | pd.Series | list[str]]

_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npy")
_STAMP = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")


def read_columns(path: str | os.PathLike, notes: list[str]) -> Columns:
    """Read a file as named columns, each float64, datetimes or texts; adds to `notes`.

    Raises:
        ArgumentError: if `path` is not a path.
        DataError: if the file does not exist, has an unknown extension or cannot be read.
    """
    kind = _extension(path)
    if kind == ".npy":
        return _npy(path, notes)
    return _parquet(path, notes) if kind == ".parquet" else _text(path, kind, notes)


def _extension(path: Any) -> str:
    """The extension of `path`, checked to be a file that is not empty."""
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(argument_message("path", "a path to a file", path))
    name = os.fspath(path)
    hint = "Give the path of one file: " + ", ".join(_SUFFIXES) + "."
    if os.path.isdir(name):
        raise file_error(name, "a file", "which is a directory", hint)
    if not os.path.exists(name):
        raise file_error(name, "a file", "which does not exist", "Check the path.")
    for suffix in reversed(_SUFFIXES):
        if str(name).lower().endswith(suffix):
            break
    else:
        raise file_error(name, f"a {', '.join(_SUFFIXES)} file", "which is of another kind", hint)
    if not os.path.isfile(name):
        raise file_error(name, "a file", "which is a pipe or a device", hint)
    if os.path.getsize(name) == 0:
        raise file_error(name, "a file of readings", "which is empty", "Export the readings again.")
    return suffix


def _text(path: Any, kind: str, notes: list[str]) -> Columns:
    """Columns of a .csv or .tsv file, gzipped or not."""
    rows = _rows(path, _decoded(path, gzipped=kind.endswith(".gz")), kind)
    if not rows:
        raise file_error(path, "a file of readings", "which is empty", "Export the readings again.")
    header = _has_header(rows[0])
    names = _names(rows[0], notes) if header else [str(i) for i in range(len(rows[0]))]
    if not header:
        notes.append("The first row has numbers, so the file has no header; columns are numbered.")
        if rows[0] == names and len(names) > 1:
            notes.append(
                f"The first row is {','.join(names)}; if that is a header, give the columns names."
            )
    body = rows[1:] if header else rows
    if not body:
        raise file_error(path, "a file of readings", "which has a header only", "Add the readings.")
    columns: Columns = {}
    for name, cells in zip(names, zip(*body, strict=True), strict=True):
        values = parse_numbers(list(cells))
        columns[name] = list(cells) if isinstance(values, int) else values
    return _without_row_numbers(columns, notes)


def _decoded(path: Any, *, gzipped: bool) -> str:
    """The text of a file in UTF-8."""
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if gzipped else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cause = f"whose byte {error.start} is not UTF-8"
        hint = "Save the file as CSV in UTF-8."
        raise file_error(path, "a text file in UTF-8", cause, hint) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        cause, hint = "which is damaged or not gzip", "Compress it again, or give it uncompressed."
        raise file_error(path, "a complete gzip file", cause, hint) from None
    except OSError as error:
        cause = f"which cannot be read ({error.strerror})"
        raise file_error(path, "a file", cause, "Check its permissions.") from None


def _rows(path: Any, text: str, kind: str) -> list[list[str]]:
    """Cells of each row, checked to be of equal length.

    pandas would silently fill a truncated row with empty cells.
    """
    separator = "\t" if kind.startswith(".tsv") else ","
    # A blank line is a missing value in a file of one column, and is ignored in others.
    text = text.rstrip("\r\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            single_column = bool(rows) and len(rows[0]) == 1
            if not single_column and not "".join(row).strip() and len(row) < 2:
                continue
            rows.append([cell.strip() for cell in row] or [""])
            if len(rows[-1]) != len(rows[0]):
                cells = plural(len(row), "cell")
                cause = f"whose line {reader.line_num} has {cells}, not {len(rows[0])}"
                hint = "Fix or delete that line; cells are separated by " + (
                    "tabs." if separator == "\t" else "commas, and decimals by points."
                )
                raise file_error(path, "a table with rows of equal length", cause, hint)
    except csv.Error as error:
        cause = f"whose line {reader.line_num} cannot be read ({error})"
        hint = "Fix that line; a quote that is not closed is the usual cause."
        raise file_error(path, "a table", cause, hint) from None
    return rows


def _has_header(row: list[str]) -> bool:
    """Whether the first row has names: a cell that is no number, time stamp or missing value."""
    values = [parse_number(cell) for cell in row]
    if row[0] == "" and row[1:] == [str(i) for i in range(len(row) - 1)]:
        return True  # unnamed columns and row numbers, as pandas writes them
    if any(
        value is None and not _STAMP.fullmatch(cell)
        for value, cell in zip(values, row, strict=True)
    ):
        return True
    return not any(
        value is not None and not is_missing(cell) for value, cell in zip(values, row, strict=True)
    )


def _names(row: list[str], notes: list[str]) -> list[str]:
    """Distinct names: missing and duplicate names are replaced as in pandas."""
    names: list[str] = []
    for index, cell in enumerate(row):
        base = name = cell or f"Unnamed: {index}"
        count = 0
        while name in names or (count and name in row):
            count += 1
            name = f"{base}.{count}"
        if name != cell:
            notes.append(f"Column {index + 1} of the file, headed {cell!r}, is named {name!r}.")
        names.append(name)
    return names


def _without_row_numbers(columns: Columns, notes: list[str]) -> Columns:
    """Columns without an unnamed first column of row numbers."""
    first, values = next(iter(columns.items()))
    if first != "Unnamed: 0" or len(columns) == 1 or not isinstance(values, np.ndarray):
        return columns
    if not np.array_equal(values - values[0], np.arange(len(values))) or values[0] not in (0, 1):
        return columns
    notes.append("The unnamed first column has row numbers and was left out.")
    return {name: cells for name, cells in columns.items() if name != first}


def _parquet(path: Any, notes: list[str]) -> Columns:
    """Columns of a .parquet file; an index with a name or time stamps is a column too."""
    try:
        table = pd.read_parquet(os.fspath(path), engine="pyarrow")
    except ImportError:
        hint = "Install pyarrow: pip install 'keras-seqzoo[parquet]'."
        raise file_error(
            path, "a file whose packages are installed", "which needs pyarrow", hint
        ) from None
    except Exception:  # Arrow raises many types for damaged files
        cause, hint = "which is damaged or not parquet", "Write or copy the file again."
        raise file_error(path, "a complete parquet file", cause, hint) from None
    if not table.size:
        raise file_error(
            path, "a file of readings", "which has no rows", "Export the readings again."
        )
    return dataframe_columns(table, notes)


def dataframe_columns(table: pd.DataFrame, notes: list[str]) -> Columns:
    """Columns of a DataFrame; an index with a name or time stamps is a column too."""
    if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
        table = table.rename_axis("time")
    levels = [level for level in table.index.names if level is not None]
    table = table.reset_index(level=[level for level in levels if level not in table.columns])
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
    values = parse_numbers(cells)
    return cells if isinstance(values, int) else values


def _cell(value: Any) -> str:
    """A cell as text; missing values of any type are empty."""
    missing = value is None or value is pd.NA or value is pd.NaT or value is np.nan
    return "" if missing else str(value)


def _npy(path: Any, notes: list[str]) -> Columns:
    """Columns of a .npy file of readings, named "0", "1" and so on."""
    values = _loaded(path)
    try:
        values = as_readings(values, argument="path")
    except DataError:
        shape, kind = getattr(values, "shape", None), getattr(values, "dtype", None)
        cause = f"which has dtype {kind} of shape {shape}"
        hint = "Save the readings as an array of floats (steps, features)."
        if shape is not None and len(shape) == 3:
            hint = "Three axes are windows already: load them with numpy.load and use them as is."
        expected = "an array of real numbers (steps, features) or (steps,), not empty"
        raise file_error(path, expected, cause, hint) from None
    notes.append("The file has no header; columns are numbered.")
    return {str(index): values[:, index] for index in range(values.shape[1])}


def _loaded(path: Any) -> Any:
    """The array in a .npy file."""
    try:
        # Loading pickled objects would execute code from the file.
        loaded = np.load(os.fspath(path), allow_pickle=False)
    except Exception as error:  # damaged headers raise many types
        cause = "which is damaged or not .npy"
        if "allow_pickle" in str(error) and "Object arrays" in str(error):
            cause = "which has Python objects"
        hint = "Save it again with numpy.save, as an array of floats."
        raise file_error(path, "a complete .npy file of numbers", cause, hint) from None
    if isinstance(loaded, np.lib.npyio.NpzFile):
        loaded.close()
        hint = "Save the one array of readings with numpy.save."
        raise file_error(path, "a .npy file", "which has several arrays (.npz)", hint)
    return loaded
