"""Reading of UTF-8 text files by lines, and the error message for files that cannot be used."""

from __future__ import annotations

import codecs
import os
import re

from keras_seqzoo.errors import DataError
from keras_seqzoo.utils.files import as_path


def read_text(path: str | os.PathLike, *, argument: str = "path") -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: path of the file.
        argument: str, the name of `path` in error messages.

    Raises:
        ArgumentError: if `path` is not a path.
        DataError: if there is no such file, it is empty, or it is not in UTF-8.
    """
    name = os.fspath(as_path(argument, path))
    if os.path.isdir(name):
        hint = "Give the path of one file."
        raise file_error(name, "a file", "which is a directory", hint, argument=argument)
    if not os.path.exists(name):
        cause = "which does not exist"
        raise file_error(name, "a file", cause, "Check the path.", argument=argument)
    if not os.path.isfile(name):  # reading a pipe would block
        cause = "which is a pipe or a device"
        raise file_error(name, "a file", cause, "Write it to a file first.", argument=argument)
    text = _decoded(name, argument)
    if not text:
        hint = "Export the data again."
        raise file_error(name, "a file of data", "which is empty", hint, argument=argument)
    return text


def file_error(
    path: str | os.PathLike, expected: str, cause: str, hint: str, *, argument: str = "path"
) -> DataError:
    """The error for a file that cannot be used: what is expected, the cause, and what to do."""
    return DataError(
        f"`{argument}` must be {expected}. Received: {argument}='{os.fspath(path)}', {cause}. "
        f"{hint}"
    )


def split_lines(text: str) -> list[str]:
    r"""The lines of `text` without line ends, \n or \r\n; a final line end adds no line.

    `str.splitlines` also splits at U+0085 and U+2028, which occur inside texts.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def split_spaces(line: str) -> list[str]:
    """Split a line at spaces and tabs only; `str.split` also splits at U+00A0 and others."""
    return [part for part in re.split("[ \t]+", line) if part]


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 line", "2 lines"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _decoded(name: str, argument: str) -> str:
    try:
        with open(name, "rb") as file:
            data = file.read().removeprefix(codecs.BOM_UTF8)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        cause = f"whose line {line} has the byte 0x{data[error.start]:02x}, which is not UTF-8"
        hint = "Save the file in UTF-8."
        raise file_error(name, "a text file in UTF-8", cause, hint, argument=argument) from None
    except OSError as error:
        cause = f"which cannot be read ({error.strerror})"
        hint = "Check its permissions."
        raise file_error(name, "a file", cause, hint, argument=argument) from None
