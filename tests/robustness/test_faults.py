"""A full disk and a sudden death at a write: what is there afterwards is old and whole, or new and
whole, or not there at all."""

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

pytestmark = [pytest.mark.tensorflow, pytest.mark.own_process]

X = np.random.default_rng(0).normal(size=(2, 5, 2)).astype("float32")
# How often each scenario changes a folder, counted; a test below finds where it has grown.
EVENTS = {"save": 4, "export": 8, "train": 14, "search": 16}
SOME = {
    "save": ("event:4", "size:5000"),
    "export": ("event:4", "size:10", "size:3000", "size:20000"),
    "train": ("event:14",),
    "search": ("event:10",),
}
SIZES = (0, 1, 10, 100, 300, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 40_000, 80_000,
         120_000, 160_000)  # fmt: skip
EVERY = {
    name: (*(f"event:{one}" for one in range(1, count + 1)), *(f"size:{one}" for one in SIZES))
    for name, count in EVENTS.items()
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder where everything is already there, whole and old; but for the search."""
    folder = tmp_path_factory.mktemp("faults") / "start"
    folder.mkdir()
    old = faults.model(faults.OLD)
    zoo.export(old, folder / "served", verify=False)
    old.save(folder / "best.keras")
    (folder / "out").mkdir()
    old.save(folder / "out" / "best.keras")
    (folder / "out" / "figures.json").write_text('{"old": true}')
    return folder


def copy(start: Path, to: Path) -> Path:
    shutil.copytree(start, to)
    return to


# ------------------------------------------------------------------- what must hold at any time


def check_save(folder: Path) -> None:
    assert weight(zoo.load(folder / "best.keras")) in (faults.OLD, faults.NEW)


def check_export(folder: Path) -> None:
    artifact = zoo.load(folder / "served")
    answers = [np.asarray(faults.model(one)(X)) for one in (faults.OLD, faults.NEW)]
    found = np.asarray(artifact.serve(X))
    assert any(np.allclose(found, answer, atol=1e-5) for answer in answers)


def check_train(folder: Path) -> None:
    figures = json.loads((folder / "out" / "figures.json").read_text())
    loaded = zoo.load(folder / "out" / "best.keras")
    if "old" in figures:
        assert weight(loaded) == faults.OLD
        return
    np.testing.assert_array_equal(loaded.get_layer("recurrent").units, 3)
    assert {path.name for path in (folder / "out").iterdir()} >= {"history.csv", "memory.png"}


def check_search(folder: Path) -> None:
    """What is there loads; and going on ends where an uninterrupted search does."""
    best = folder / "run" / "best.keras"
    if best.exists():
        zoo.load(best)


CHECKS = {
    "save": check_save, "export": check_export, "train": check_train, "search": check_search,
}  # fmt: skip


def weight(model) -> float:
    """The one number that all weights are, or NaN."""
    values = np.unique(np.concatenate([np.ravel(one) for one in model.get_weights()]))
    return float(values[0]) if len(values) == 1 else float("nan")


def table(folder: Path) -> pd.DataFrame:
    """What a search says that is as whole as it will be."""
    x = np.random.default_rng(0).normal(size=(12, 6, 1)).astype("float32")
    found = zoo.search(
        "simple_rnn_identity", x, max_trials=2, population=1, epochs=1, directory=folder / "run",
        report=False, verbose=0, space={"units": [2, 3]},
    )  # fmt: skip
    zoo.load(folder / "run" / "best.keras")
    return found.results.drop(columns="seconds")


# ------------------------------------------------------------------------------------------ deaths


def deaths(start: Path, points: dict[str, tuple[str, ...]]) -> None:
    """Dies at each point, looks, and goes on."""
    given = [f"{name}/{point}" for name, ones in points.items() for point in ones]
    done = subprocess.run(
        [sys.executable, faults.__file__, start, *given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout.splitlines()[-1])
    whole = table(start.parent / "uninterrupted") if "search" in points else None
    for point in given:
        name, place = point.split("/")[0], start.parent / faults.place_of(point)
        # A file that never grows so large lets the process end well.
        allowed = (-9,) if "event" in point else (-25, 0)
        assert ended[point] in allowed, (point, ended[point], done.stderr[-3000:])
        CHECKS[name](place)
        if name == "search":
            pd.testing.assert_frame_equal(table(place), whole)
        elif name != "train":
            faults.SCENARIOS[name](place)
            CHECKS[name](place)
        shutil.rmtree(place)
    if "search" in points:
        shutil.rmtree(start.parent / "uninterrupted")


def test_what_a_process_was_writing_when_it_died_is_whole_or_not_there(start):
    deaths(start, {name: SOME[name] for name in ("save", "export")})  # the others in the long run


@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_a_death_at_every_write(name, start):
    deaths(start, {name: EVERY[name]})


# --------------------------------------------------------------------------------------- full disks


def full_at_event(name: str, folder: Path, number: int) -> int:
    """The disk is full from that event on; how many events there were."""

    def then(count: int, event: str) -> None:
        if count >= number and event in ("open", "os.mkdir", "os.rename", "os.link"):
            faults.full_disk(count, event)

    watch = faults.Watch(folder, then)
    try:
        refused_or_done(name, folder)
    finally:
        watch.on = False
    return watch.count


def refused_or_done(name: str, folder: Path) -> None:
    """Runs it; the error of a full disk is one of ours or the system's, which commands print."""
    try:
        faults.SCENARIOS[name](folder)
    except (SeqZooError, OSError, click.ClickException) as error:
        assert str(error)


def check_nothing_left(folder: Path, before: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} <= before | {"run"}


def full_disks(name: str, start: Path, folder: Path, points: tuple[str, ...]) -> None:
    before = {path.name for path in start.iterdir()}
    for point in points:
        kind, number = point.split(":")
        place = copy(start, folder / point.replace(":", "-"))
        if kind == "event":
            full_at_event(name, place, int(number))
        else:
            with faults.no_file_beyond(int(number)):
                refused_or_done(name, place)
        check_nothing_left(place, before)
        CHECKS[name](place)
        if name == "search":
            table(place)
        shutil.rmtree(place)


@pytest.mark.parametrize("name", ["save", "export"])
def test_a_full_disk_leaves_what_was_there(name, start, tmp_path):
    full_disks(name, start, tmp_path, EVERY[name][:: 1 if name == "save" else 3])


@pytest.mark.parametrize("name", ["train", "search"])
def test_a_full_disk_leaves_what_a_long_run_had(name, start, tmp_path):
    full_disks(name, start, tmp_path, SOME[name])


@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_a_full_disk_at_every_write(name, start, tmp_path):
    full_disks(name, start, tmp_path, EVERY[name])


@pytest.mark.parametrize("name", ["save", "export"])
def test_every_write_is_counted(name, start, tmp_path):
    assert full_at_event(name, copy(start, tmp_path / "all"), 10**6) == EVENTS[name]


def test_a_file_that_is_written_in_place_is_found_out(start, tmp_path, monkeypatch):
    """The checks would notice: without a temporary name, what is cut short takes the place."""

    class InPlace:
        def __init__(self, path):
            self.path = path

        def __enter__(self):
            return self.path

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(files, "replacing", InPlace)
    place = copy(start, tmp_path / "place")
    with faults.no_file_beyond(5_000):
        refused_or_done("save", place)
    with pytest.raises(SeqZooError, match=r"cut short|damaged|no zip"):
        check_save(place)
