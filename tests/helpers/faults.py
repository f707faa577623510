"""Processes that die while they write, at a write of one's choice.

    python tests/faults.py FOLDER SCENARIO/POINT...    dies at each of these points in turn

A point is `event:7`, before the seventh time that a file is opened to be written, renamed, made or
removed; or `size:1000`, when a file would grow beyond so many bytes, whoever writes it. Each death
is of a process forked from one that has imported everything and run nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

EVENTS = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
SCENARIOS: dict[str, Callable[[Path], None]] = {}
OLD, NEW = 1.0, 2.0  # the weights of what was there before, and of what takes its place


def scenario(function: Callable[[Path], None]) -> Callable[[Path], None]:
    SCENARIOS[function.__name__] = function
    return function


def model(weight: float):
    """A small model whose weights are all alike, so that a mixture would show."""
    import keras_seqzoo as zoo

    made = zoo.get("simple_rnn_identity", features=2, units=3)
    made.set_weights([np.full_like(one, weight) for one in made.get_weights()])
    return made


@scenario
def export(folder: Path) -> None:
    import keras_seqzoo as zoo

    zoo.export(model(NEW), folder / "served", verify=False, overwrite=True, verbose=0)


@scenario
def save(folder: Path) -> None:
    from keras_seqzoo.utils import files

    with files.replacing(folder / "best.keras") as temporary:
        model(NEW).save(temporary)


@scenario
def train(folder: Path) -> None:
    from keras_seqzoo import cli

    readings = np.random.default_rng(0).normal(size=(120, 2)).cumsum(axis=0)
    text = "a,b\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in readings)
    data = folder.parent / "readings.csv"
    if not data.exists():
        data.write_text(text)
    cli.main(
        ["train", "simple_rnn_identity", "--data", str(data), "--sequence-length", "10", "--epochs", "1",
         "--set", "units=3", "--no-export", "--quiet", "--overwrite", "--out", str(folder / "out")],
        standalone_mode=False,
    )  # fmt: skip


@scenario
def search(folder: Path) -> None:
    import keras_seqzoo as zoo

    x = np.random.default_rng(0).normal(size=(12, 6, 1)).astype("float32")
    zoo.search(
        "simple_rnn_identity", x, max_trials=2, population=1, epochs=1, directory=folder / "run",
        report=False, verbose=0, space={"units": [2, 3]},
    )  # fmt: skip


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full as soon as a file has so many bytes; for C and C++ too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Watch:
    """Calls back at each event that changes a folder; no hook can be removed."""

    def __init__(self, folder: Path, then: Callable[[int, str], None]):
        self.folder, self.then, self.count, self.on = str(folder), then, 0, True
        sys.addaudithook(self._event)

    def _event(self, name: str, arguments: tuple) -> None:
        if not self.on or not (name in EVENTS or (name == "open" and _writes(arguments))):
            return
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(
            self.folder
        ):
            self.count += 1
            self.then(self.count, name)


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def full_disk(count: int, name: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _die(name: str, folder: Path, point: str) -> None:
    kind, _, number = point.partition(":")
    if kind == "size":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with no_file_beyond(int(number)):
            SCENARIOS[name](folder)
    else:

        def then(count: int, _: str) -> None:
            if count == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

        watch = Watch(folder, then)
        SCENARIOS[name](folder)
        watch.on = False


def main(folder: Path, points: list[str]) -> None:
    """One copy of `folder` per point, which is `scenario/point`; prints how each process ended."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    import keras_seqzoo.exporting
    import keras_seqzoo.tasks
    import keras_seqzoo.tuning  # noqa: F401
    from keras_seqzoo import cli  # noqa: F401

    ended = {}
    for given in points:
        name, point = given.split("/")
        place = folder.parent / place_of(given)
        shutil.copytree(folder, place, symlinks=True)
        process = os.fork()
        if process == 0:
            code = 0
            try:
                _die(name, place, point)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        ended[given] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps(ended))


def place_of(point: str) -> str:
    """The folder in which a process died at that point."""
    return point.replace("/", "-").replace(":", "-")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
