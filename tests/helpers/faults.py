"""Fault injection: processes that are killed at a chosen write, and full disks.

    python tests/helpers/faults.py FOLDER SCENARIO/POINT...

A point is `event:7`, before the seventh event that changes the folder (a file is opened for
writing, renamed, created or removed), or `size:1000`, when a file would grow beyond 1,000 bytes.
Each point kills a process that is forked from one that has imported everything and run nothing.
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
OLD, NEW = 1.0, 2.0  # the value of all weights in the existing and in the new files


def scenario(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a function that writes to a folder, under its name."""
    SCENARIOS[function.__name__] = function
    return function


def model(value: float):
    """A small model with all weights equal, so that a mixture of files would be visible."""
    import keras_seqzoo as zoo

    model = zoo.get("simple_rnn_identity", features=2, units=3)
    model.set_weights([np.full_like(weight, value) for weight in model.get_weights()])
    return model


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
        ["train", "simple_rnn_identity", "--data", str(data), "--sequence-length", "10",
         "--epochs", "1", "--set", "units=3", "--no-export", "--quiet", "--overwrite",
         "--out", str(folder / "out")],
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
def limit_file_size(size: int) -> Iterator[None]:
    """Fail writes beyond `size` bytes in a file, those of C and C++ code too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class WriteMonitor:
    """Calls `callback(count, event)` before each event that changes a folder.

    Python's audit hooks cannot be removed: set `active` to False instead.
    """

    def __init__(self, folder: Path, callback: Callable[[int, str], None]):
        self.folder, self.callback, self.count, self.active = str(folder), callback, 0, True
        sys.addaudithook(self._event)

    def _event(self, name: str, arguments: tuple) -> None:
        if not self.active or not (name in EVENTS or (name == "open" and _writes(arguments))):
            return
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(
            self.folder
        ):
            self.count += 1
            self.callback(self.count, name)


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def raise_disk_full(count: int, name: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _run_until_killed(name: str, folder: Path, point: str) -> None:
    kind, _, value = point.partition(":")
    if kind == "size":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with limit_file_size(int(value)):
            SCENARIOS[name](folder)
    else:

        def kill(count: int, _: str) -> None:
            if count == int(value):
                os.kill(os.getpid(), signal.SIGKILL)

        monitor = WriteMonitor(folder, kill)
        SCENARIOS[name](folder)
        monitor.active = False


def main(folder: Path, points: list[str]) -> None:
    """Run each `scenario/point` in a copy of `folder`; print the exit codes as JSON."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    import keras_seqzoo.exporting
    import keras_seqzoo.tasks
    import keras_seqzoo.tuning  # noqa: F401
    from keras_seqzoo import cli  # noqa: F401

    exit_codes = {}
    for scenario_point in points:
        name, point = scenario_point.split("/")
        copy = folder.parent / folder_name(scenario_point)
        shutil.copytree(folder, copy, symlinks=True)
        process = os.fork()
        if process == 0:
            code = 0
            try:
                _run_until_killed(name, copy, point)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        exit_codes[scenario_point] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps(exit_codes))


def folder_name(point: str) -> str:
    """The name of the folder in which a `scenario/point` ran."""
    return point.replace("/", "-").replace(":", "-")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
