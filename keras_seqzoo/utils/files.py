"""Files that are whole or absent: written under a temporary name, then moved into place."""

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
    """Yields a temporary path beside `path`; on success it takes `path`'s place, for files.

    The temporary name ends as `path` does, since writers choose the format by its end. When the
    body raises, `path` is what it was and nothing is left behind.
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
    """Writes `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path`; on success it takes `path`'s place at once.

    Raises:
        ExistsError: if `path` exists and `overwrite` is False, before anything is written.
    """
    path = Path(os.path.abspath(path))  # with a name even for "."; links stay links
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    fresh = workspace / path.name
    try:
        fresh.mkdir()
        yield fresh
        refuse_existing(path, overwrite=overwrite)  # another process may have been quicker
        _move_folder(fresh, path)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def as_path(name: str, value: str | os.PathLike) -> Path:
    """`value` as a path, or an `ArgumentError` that says which argument is none."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ArgumentError(argument_message(name, "a path", value))
    return Path(os.fsdecode(value))


def shown(path: str | os.PathLike) -> str:
    """`path` as a person would type it: relative where it lies below the working folder."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def refuse_existing(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Raises `ExistsError` if something is at `path` and it must not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise ExistsError(
            f"`path` must not exist yet. Received: path='{path}', which does. "
            "Choose another path, or replace it with overwrite=True (--overwrite)."
        )


def _move_folder(fresh: Path, path: Path) -> None:
    """Puts `fresh` where `path` is; what was there ends up at `fresh`."""
    if not os.path.lexists(path):
        os.rename(fresh, path)
    elif not _exchange(fresh, path):
        # No atomic exchange here: two renames, undone if the second fails.
        aside = fresh.with_name(fresh.name + "-old")
        os.rename(path, aside)
        try:
            os.rename(fresh, path)
        except OSError:
            os.rename(aside, path)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one system call. False where the system or the disk cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
