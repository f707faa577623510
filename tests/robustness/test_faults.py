"""A full disk or a killed process leaves each file old and intact, new and intact, or absent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

import keras_seqzoo as zoo
from keras_seqzoo.errors import SeqZooError
from keras_seqzoo.utils import files
from tests.helpers import faults

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.own_process]

X = np.random.default_rng(0).normal(size=(2, 5, 2)).astype("float32")
# Number of events that change the folder, by scenario; pinned by a test below.
EVENTS = {"save": 4, "export": 8, "train": 14, "search": 16}
SOME_POINTS = {
    "save": ("event:4", "size:5000"),
    "export": ("event:4", "size:10", "size:3000", "size:20000"),
    "train": ("event:14",),
    "search": ("event:10",),
}
SIZES = (0, 1, 10, 100, 300, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 40_000, 80_000,
         120_000, 160_000)  # fmt: skip
ALL_POINTS = {
    name: (
        *(f"event:{event}" for event in range(1, count + 1)),
        *(f"size:{size}" for size in SIZES),
    )
    for name, count in EVENTS.items()
}


@pytest.fixture(scope="module")
def existing(tmp_path_factory):
    """A folder with intact old files of every scenario but the search."""
    folder = tmp_path_factory.mktemp("faults") / "existing"
    folder.mkdir()
    old = faults.model(faults.OLD)
    zoo.export(old, folder / "served", verify=False)
    old.save(folder / "best.keras")
    (folder / "out").mkdir()
    old.save(folder / "out" / "best.keras")
    (folder / "out" / "figures.json").write_text('{"old": true}')
    return folder


def copy_of(existing: Path, path: Path) -> Path:
    shutil.copytree(existing, path)
    return path


# -------------------------------------------------------------------- invariants of each scenario


def check_save(folder: Path) -> None:
    assert weight_value(zoo.load(folder / "best.keras")) in (faults.OLD, faults.NEW)


def check_export(folder: Path) -> None:
    artifact = zoo.load(folder / "served")
    allowed = [np.asarray(faults.model(value)(X)) for value in (faults.OLD, faults.NEW)]
    outputs = np.asarray(artifact.serve(X))
    assert any(np.allclose(outputs, expected, atol=1e-5) for expected in allowed)


def check_train(folder: Path) -> None:
    figures = json.loads((folder / "out" / "figures.json").read_text())
    loaded = zoo.load(folder / "out" / "best.keras")
    if "old" in figures:
        assert weight_value(loaded) == faults.OLD
        return
    np.testing.assert_array_equal(loaded.get_layer("recurrent").units, 3)
    assert {path.name for path in (folder / "out").iterdir()} >= {"history.csv", "scores.png"}


def check_search(folder: Path) -> None:
    """The best model, if there is one, loads."""
    best = folder / "run" / "best.keras"
    if best.exists():
        zoo.load(best)


CHECKS = {
    "save": check_save, "export": check_export, "train": check_train, "search": check_search,
}  # fmt: skip


def weight_value(model) -> float:
    """The value of all weights, or NaN if they differ."""
    values = np.unique(np.concatenate([np.ravel(weight) for weight in model.get_weights()]))
    return float(values[0]) if len(values) == 1 else float("nan")


def complete_search(folder: Path) -> pd.DataFrame:
    """Run or resume the search to its end, and return its results."""
    x = np.random.default_rng(0).normal(size=(12, 6, 1)).astype("float32")
    search = zoo.search(
        "simple_rnn_identity", x, max_trials=2, population=1, epochs=1, directory=folder / "run",
        report=False, verbose=0, space={"units": [2, 3]},
    )  # fmt: skip
    zoo.load(folder / "run" / "best.keras")
    return search.results.drop(columns="seconds")


# --------------------------------------------------------------------------------- killed processes


def check_kills(existing: Path, points: dict[str, tuple[str, ...]]) -> None:
    """Kill a process at each point, check the files, and run the scenario again."""
    names = [f"{name}/{point}" for name in points for point in points[name]]
    process = subprocess.run(
        [sys.executable, faults.__file__, existing, *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    exit_codes = json.loads(process.stdout.splitlines()[-1])
    uninterrupted = existing.parent / "uninterrupted"
    expected = complete_search(uninterrupted) if "search" in points else None
    for point in names:
        name, folder = point.split("/")[0], existing.parent / faults.folder_name(point)
        # If no file reaches the size, the process ends normally.
        allowed = (-9,) if "event" in point else (-25, 0)
        assert exit_codes[point] in allowed, (point, exit_codes[point], process.stderr[-3000:])
        CHECKS[name](folder)
        if name == "search":
            pd.testing.assert_frame_equal(complete_search(folder), expected)
        elif name != "train":
            faults.SCENARIOS[name](folder)
            CHECKS[name](folder)
        shutil.rmtree(folder)
    if "search" in points:
        shutil.rmtree(uninterrupted)


def test_a_killed_process_leaves_intact_files(existing):
    # The other scenarios are tested with the mark `long`.
    check_kills(existing, {name: SOME_POINTS[name] for name in ("save", "export")})


@pytest.mark.long
@pytest.mark.parametrize("name", ALL_POINTS)
def test_a_process_killed_at_any_write_leaves_intact_files(name, existing):
    check_kills(existing, {name: ALL_POINTS[name]})


# --------------------------------------------------------------------------------------- full disks


def run_on_disk_full_from(event: int, name: str, folder: Path) -> int:
    """Run a scenario on a disk that is full from an event on; return the number of events."""

    def fail(count: int, kind: str) -> None:
        if count >= event and kind in ("open", "os.mkdir", "os.rename", "os.link"):
            faults.raise_disk_full(count, kind)

    monitor = faults.WriteMonitor(folder, fail)
    try:
        run_allowing_errors(name, folder)
    finally:
        monitor.active = False
    return monitor.count


def run_allowing_errors(name: str, folder: Path) -> None:
    """Run a scenario; an error must be the package's or the system's, which commands print."""
    try:
        faults.SCENARIOS[name](folder)
    except (SeqZooError, OSError, click.ClickException) as error:
        assert str(error)


def check_no_temporary_files(folder: Path, existing: Path) -> None:
    names = {path.name for path in existing.iterdir()}
    assert {path.name for path in folder.iterdir()} <= names | {"run"}


def check_full_disks(name: str, existing: Path, tmp_path: Path, points: tuple[str, ...]) -> None:
    """Run a scenario on a disk that is full at each point, and check the files."""
    for point in points:
        kind, value = point.split(":")
        folder = copy_of(existing, tmp_path / point.replace(":", "-"))
        if kind == "event":
            run_on_disk_full_from(int(value), name, folder)
        else:
            with faults.limit_file_size(int(value)):
                run_allowing_errors(name, folder)
        check_no_temporary_files(folder, existing)
        CHECKS[name](folder)
        if name == "search":
            complete_search(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["save", "export"])
def test_a_full_disk_leaves_intact_files(name, existing, tmp_path):
    check_full_disks(name, existing, tmp_path, ALL_POINTS[name][:: 1 if name == "save" else 3])


@pytest.mark.parametrize("name", ["train", "search"])
def test_a_full_disk_while_training_or_searching_leaves_intact_files(name, existing, tmp_path):
    check_full_disks(name, existing, tmp_path, SOME_POINTS[name])


@pytest.mark.long
@pytest.mark.parametrize("name", ALL_POINTS)
def test_a_disk_full_at_any_write_leaves_intact_files(name, existing, tmp_path):
    check_full_disks(name, existing, tmp_path, ALL_POINTS[name])


@pytest.mark.parametrize("name", ["save", "export"])
def test_number_of_writes_is_pinned(name, existing, tmp_path):
    folder = copy_of(existing, tmp_path / "all")
    assert run_on_disk_full_from(10**6, name, folder) == EVENTS[name]


def test_a_file_written_in_place_fails_the_check(existing, tmp_path, monkeypatch):
    """Without a temporary name, a truncated file replaces the old one."""

    class InPlace:
        def __init__(self, path):
            self.path = path

        def __enter__(self):
            return self.path

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(files, "replacing", InPlace)
    folder = copy_of(existing, tmp_path / "in_place")
    with faults.limit_file_size(5_000):
        run_allowing_errors("save", folder)
    with pytest.raises(SeqZooError, match=r"truncated|damaged|not a zip"):
        check_save(folder)
