"""Trials and their trial_store: each ends exactly once, whoever dies when."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import keras_tuner
import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError, SearchError
from keras_seqzoo.tasks.vectorized_metrics import IdentityMetrics
from keras_seqzoo.tuning import tuner
from keras_seqzoo.tuning.study import storage, successive_halving
from keras_seqzoo.tuning.study.oracle import StudyOracle
from keras_seqzoo.tuning.study.storage import TrialStore, sqlite
from keras_seqzoo.tuning.trial import TrialResult
from keras_seqzoo.utils import files

pytestmark = pytest.mark.tensorflow

TRIALS, POPULATION, EPOCHS = 14, 4, 9


class StandIn:
    """A population whose curves follow from seed and parameters at once, without any training."""

    def __init__(self, *args, **kwargs):
        pass

    def can_train(self, hp):
        return True

    def start(self, member):
        return StandInRun(member)

    def advance(self, runs, until):
        for run, last in zip(runs, until, strict=True):
            run.history = {name: run.curve[:last] for name in IdentityMetrics.logs}
            yield

    def finish(self, run):
        epoch = int(np.argmin(run.history["loss"]))
        metrics = {name: curve[epoch] for name, curve in run.history.items()}
        return TrialResult(StandInModel(), metrics, epoch, run.history, 0.0)


class StandInModel:
    def get_weights(self):
        return [np.zeros(2)]


class StandInRun:
    error, continues = None, True

    def __init__(self, member):
        noise = np.random.default_rng(member.seed).random(EPOCHS)
        level = abs(math.log(member.hp.values["learning_rate"] / 0.004))
        self.curve = (level + 1 / np.arange(1, EPOCHS + 1) + 0.1 * noise).tolist()
        self.history = {name: [] for name in IdentityMetrics.logs}

    @property
    def epochs(self):
        return len(self.history["loss"])


class Killed(BaseException):
    """The process is gone: nothing may be written from here on."""


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(tuner, "Population", StandIn)
    monkeypatch.setattr(tuner, "is_worthwhile", lambda *_: True)
    monkeypatch.setattr(tuner.Search, "_smoke_test", lambda self: None)
    monkeypatch.setattr(tuner.Search, "_finish", lambda self: None)


def search(directory, **options):
    x = np.random.default_rng(0).normal(size=(8, 4, 1)).astype("float32")
    options = {
        "max_trials": TRIALS, "population": POPULATION, "epochs": EPOCHS, "pruning": True,
        "sampler": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=3),
    } | options  # fmt: skip
    return zoo.search(
        "simple_rnn_identity", x, directory=directory, verbose=0, report=False, **options
    ).results


def writes(monkeypatch, die_at: int | None) -> list[str]:
    """Counts what is written, and dies before or after the write of that number."""
    seen: list[str] = []

    def counted(name, genuine):
        def write(*args, **kwargs):
            seen.append(name)
            if len(seen) == die_at:
                raise Killed
            answer = genuine(*args, **kwargs)
            seen.append(name + ", done")
            if len(seen) == die_at:
                raise Killed
            return answer

        return write

    storage = optuna.storages._CachedStorage
    for name in ("set_trial_state_values", "set_trial_user_attr", "set_trial_intermediate_value"):
        monkeypatch.setattr(storage, name, counted(name, getattr(storage, name)))
    monkeypatch.setattr(TrialStore, "create", counted("create", TrialStore.create))
    monkeypatch.setattr(files, "replacing", counted("weights", files.replacing))
    return seen


def interrupted(directory, monkeypatch, die_at) -> None:
    with monkeypatch.context() as patch:
        writes(patch, die_at)
        with pytest.raises(Killed):
            search(directory)


@pytest.fixture
def whole(tmp_path, stand_in, monkeypatch):
    """An uninterrupted search, and how often it writes."""
    with monkeypatch.context() as patch:
        seen = writes(patch, None)
        return search(tmp_path / "whole"), len(seen)


def test_a_search_killed_at_any_write_ends_as_the_uninterrupted_one(tmp_path, whole, monkeypatch):
    expected, count = whole
    assert set(expected["state"]) == {"complete", "pruned"}
    step = int(os.environ.get("KERAS_SEQZOO_EVERY_WRITE", "9"))
    for die_at in range(1, count, step):
        directory = tmp_path / str(die_at)
        interrupted(directory, monkeypatch, die_at)
        pd.testing.assert_frame_equal(search(directory), expected)
        shutil.rmtree(directory)


def test_a_search_killed_again_and_again_ends_as_the_uninterrupted_one(
    tmp_path, whole, monkeypatch
):
    expected, _ = whole
    rng = np.random.default_rng(1)
    for _ in range(6):
        with contextlib.suppress(pytest.fail.Exception):  # it may have nothing left to write
            interrupted(tmp_path / "run", monkeypatch, int(rng.integers(2, 40)))
    pd.testing.assert_frame_equal(search(tmp_path / "run"), expected)


def test_pruning_spends_less_on_those_that_are_behind(whole):
    table, _ = whole
    assert table["epochs"][table["state"] == "pruned"].max() < EPOCHS
    assert (table["epochs"][table["state"] == "complete"] == EPOCHS).all()
    worst = table.sort_values("val_identity_cost")["state"].tolist()
    assert worst[0] == "complete" and worst[-1] == "pruned"
    assert not table["pareto"][table["state"] == "pruned"].any()


@given(st.integers(1, 300))
def test_rungs_rise_to_the_last_epoch(epochs):
    found = successive_halving.rungs(epochs)
    assert found[-1] == epochs and found[0] >= 1
    assert found == sorted(set(found))


def test_the_best_third_survives():
    rivals = [[float(rank)] for rank in range(9)]
    assert [successive_halving.survives(one, rivals) for one in rivals] == [True] * 3 + [False] * 6
    # The best epoch so far counts, what got less far does not, and nan is the worst.
    assert successive_halving.survives([0.5, 7.0], [[0.5, 7.0], [0.1], [0.6, 0.6], [math.nan, 9.0]])
    assert not successive_halving.survives([math.nan], [[math.nan], [1.0], [2.0]])
    assert successive_halving.survives([math.nan], [[math.nan]])


# ----------------------------------------------------------------------------- the trial store


def opened(path, shared=True) -> TrialStore:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return TrialStore(sqlite(path), "study", ["minimize"], {}, shared=shared)


def oracle_of(book: TrialStore, max_trials=4) -> StudyOracle:
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 0.0, 1.0)
    objective = keras_tuner.Objective("cost", "min")
    return StudyOracle(
        book, objective=objective, max_trials=max_trials, seed=0, sampler="random",
        hyperparameters=hp,
    )  # fmt: skip


def tell(oracle, trial, cost=1.0):
    return oracle.tell(
        trial, TrialState.COMPLETE, metrics={"cost": cost}, epoch=0, seconds=0.0, history={}
    )


def test_a_trial_is_taken_by_one_alone(tmp_path):
    one, other = opened(tmp_path / "s.db"), opened(tmp_path / "s.db")
    one.beat()
    (trial,) = oracle_of(one).ask(1, 0)
    held = one.trials()[int(trial.trial_id)]
    one.put_back(held)
    assert [book.take(held) for book in (other, one)] == [True, False]


def test_workers_never_make_more_trials_than_asked_for_nor_the_same(tmp_path):
    oracles = [oracle_of(opened(tmp_path / "s.db"), max_trials=9) for _ in range(3)]
    threads = [threading.Thread(target=oracle.ask, args=(5, 0)) for oracle in oracles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = oracles[0].trial_store.trials(TrialState.RUNNING)
    assert [trial.number for trial in running] == list(range(9))
    rates = [trial.params["rate"] for trial in running]
    assert len(set(rates)) >= 9 - 2  # at most the defaults more than once


def test_what_a_silent_worker_held_is_run_by_another_and_its_late_answer_dropped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "GRACE", 0.3)
    slow, quick = (oracle_of(opened(tmp_path / "s.db")) for _ in range(2))
    slow.trial_store.beat()
    (first,) = slow.ask(1, 0)
    quick.reload()
    assert quick.claimed_by_others()
    slow.trial_store.beat()
    time.sleep(0.4)
    slow.trial_store.beat()
    quick.reload()  # it was heard of
    assert quick.trial_store.trials(TrialState.RUNNING)
    time.sleep(0.4)
    quick.reload()
    assert not quick.trial_store.trials(TrialState.RUNNING)
    (again,) = quick.ask(1, 0)
    assert (again.trial_id, again.hyperparameters.values) == (
        first.trial_id, first.hyperparameters.values
    )  # fmt: skip
    tell(quick, again, cost=1.0)
    assert tell(slow, first, cost=2.0).score == 1.0
    assert len(quick.trial_store.trials()) == 1


def test_a_worker_that_died_right_after_asking_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "GRACE", 0.2)
    died, other = (oracle_of(opened(tmp_path / "s.db")) for _ in range(2))
    died.trial_store.beat()
    died.ask(2, 0)
    other.reload()
    time.sleep(0.3)
    other.reload()
    assert len(other.trial_store.trials(TrialState.WAITING)) == 2


def test_a_worker_beats_while_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BEAT", 0.02)
    book = opened(tmp_path / "s.db")

    def beats():
        return book.study.user_attrs["worker " + book.worker]

    with book.heartbeat():
        before = beats()
        time.sleep(0.3)
        assert beats() > before
    after = beats()
    time.sleep(0.1)
    assert beats() == after


def test_of_workers_that_share_a_study_one_writes_what_is_there_in_the_end(
    tmp_path, stand_in, monkeypatch
):
    written = []
    monkeypatch.setattr(tuner.Search, "_finish", lambda self: written.append(self))
    options = {"storage": sqlite(tmp_path / "s.db"), "max_trials": 5}
    tables = [search(tmp_path / "shared", **options) for _ in range(2)]
    assert len(written) == 1
    pd.testing.assert_frame_equal(*tables)
    search(tmp_path / "shared", **options | {"max_trials": 7})
    assert len(written) == 2  # there is more to write


def test_storage_and_overwrite_do_not_go_together(tmp_path):
    with pytest.raises(ArgumentError, match="delete-study"):
        search(tmp_path, storage=sqlite(tmp_path / "s.db"), overwrite=True)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://nobody@localhost:1/none"])
def test_a_storage_that_cannot_be_read_is_refused_in_one_sentence(tmp_path, url):
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(SearchError, match="cannot be read"):
        search(tmp_path, storage=url)


# ------------------------------------------------------------------------------------- PostgreSQL


def _postgres_programs() -> Path | None:
    """The newest server programs of Debian's packages, or those on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Address of a server of its own, on a free port; it needs a user that is not root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: the extra [postgres]")
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: Debian's package postgresql")
    as_user = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        as_user = ["runuser", "-u", "postgres", "--"]
    folder = Path("/tmp") / f"postgres-{os.getpid()}"
    folder.mkdir()
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]

    def run(program, *arguments):
        command = [*as_user, str(programs / program), *arguments]
        return subprocess.run(command, check=True, capture_output=True, cwd="/")

    try:
        run("initdb", "-D", str(folder / "data"), "-U", "zoo", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=localhost"
        control = ("pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "log"))
        run(*control, "-o", options, "start")
        yield f"postgresql://zoo@localhost:{port}/postgres"
        run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


ROOT = str(Path(__file__).resolve().parents[3])
WORKER = """
    import sys, time
    sys.path.insert(0, {root!r})
    from tests.tuning.study import test_storage as t
    from keras_seqzoo.tuning import tuner
    from keras_seqzoo.tuning.study import storage
    storage.BEAT, storage.GRACE, tuner._PATIENCE = 0.3, 2.0, 0.2
    class Slow(t.StandIn):
        def advance(self, runs, until):
            for step in super().advance(runs, until):
                time.sleep({pause})
                yield
    tuner.Population, tuner.is_worthwhile = Slow, lambda *_: True
    tuner.Search._smoke_test = tuner.Search._finish = lambda self: None
    print("started", flush=True)
    sys.stdin.readline()
    table = t.search({directory!r}, storage={url!r}, sampler="random", max_trials={trials})
    print(len(table), flush=True)
"""


def start_worker(directory, url, *, pause, trials) -> subprocess.Popen:
    script = textwrap.dedent(WORKER).format(
        root=ROOT, directory=str(directory), url=url, pause=pause,
        trials=trials,
    )  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", script], text=True, **pipes)


def let_go(worker: subprocess.Popen) -> None:
    worker.stdin.write("\n")
    worker.stdin.flush()


def test_three_workers_on_postgresql_one_killed_and_one_late(tmp_path, postgres):
    trials = 40
    directory = tmp_path / "many"
    pause = {"pause": 0.15, "trials": trials}
    first, killed, late = (start_worker(directory, postgres, **pause) for _ in range(3))
    for worker in (first, killed, late):
        assert worker.stdout.readline() == "started\n"  # imports take their time
    url = postgres.replace("postgresql:", "postgresql+psycopg:")
    # Makes the tables: Optuna's clash where two who begin at once both make them.
    database, book = optuna.storages.RDBStorage(url), None
    for worker in (first, killed):
        let_go(worker)
    while True:  # until the one to be killed holds trials and has ended some
        time.sleep(0.2)
        assert first.poll() is None and killed.poll() is None
        if book is None:
            with contextlib.suppress(KeyError):
                book = optuna.load_study(study_name="many", storage=database)
            continue
        workers = {trial.user_attrs["worker"] for trial in book.trials}
        mine = [worker for worker in workers if f"/{killed.pid}/" in worker]
        states = {t.state for t in book.trials if t.user_attrs["worker"] in mine}
        if {TrialState.RUNNING, TrialState.PRUNED} <= states:
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    held = [
        trial.number
        for trial in book.trials
        if trial.state is TrialState.RUNNING and trial.user_attrs["worker"] in mine
    ]
    let_go(late)
    for worker in (first, late):
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert out.split()[-1] == str(trials)  # every worker ends with all results
    assert held
    assert [trial.number for trial in book.trials] == list(range(trials))
    assert {trial.state for trial in book.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    ended_by = {trial.number: trial.user_attrs["worker"] for trial in book.trials}
    assert not any(ended_by[number] in mine for number in held)
    assert any(f"/{late.pid}/" in worker for worker in ended_by.values())
    database.remove_session()
    database.engine.dispose()
