"""Atomic file and folder writes: a temporary name first, then a rename."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from keras_seqzoo.errors import ArgumentError, ExistsError
from keras_seqzoo.utils.argument_validation import argument_message

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h and linux/fs.h


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary file path, which replaces `path` when the body ends.

    The temporary path has the suffix of `path`, since writers choose the format by it. If the body
    raises, `path` is unchanged and the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write `text` to `path` as UTF-8 atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder, which replaces `path` when the body ends.

    Raises:
        ExistsError: if `path` exists and `overwrite` is False, before anything is written.
    """
    path = Path(os.path.abspath(path))  # has a name even for "."; does not follow links
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    fresh = workspace / path.name
    try:
        fresh.mkdir()
        yield fresh
        refuse_existing(path, overwrite=overwrite)  # another process may have created it
        _move_folder(fresh, path)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def as_path(name: str, value: str | os.PathLike) -> Path:
    """Convert `value` to a path.

    Raises:
        ArgumentError: if it is not a path or empty; the message names the argument `name`.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ArgumentError(argument_message(name, "a path", value))
    return Path(os.fsdecode(value))


def display_path(path: str | os.PathLike) -> str:
    """Format `path` for messages: relative to the working folder if it is inside."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def refuse_existing(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Raise `ExistsError` if `path` exists and `overwrite` is False."""
    if os.path.lexists(path) and not overwrite:
        raise ExistsError(
            f"`path` must not exist. Received: path='{path}', which exists. "
            "Choose another path, or replace it with overwrite=True (--overwrite)."
        )


def _move_folder(fresh: Path, path: Path) -> None:
    """Move the folder `fresh` to `path`, and what was there to the parent folder of `fresh`."""
    if not os.path.lexists(path):
        os.rename(fresh, path)
    elif not _exchange(fresh, path):
        # No atomic exchange: two renames, the first reverted if the second fails.
        aside = fresh.with_name(fresh.name + "-old")
        os.rename(path, aside)
        try:
            os.rename(fresh, path)
        except OSError:
            os.rename(aside, path)
            raise


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one system call; False if the system or the disk cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    source, target = os.fsencode(first), os.fsencode(second)
    return renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_EXCHANGE) == 0
