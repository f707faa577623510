"""The trial store: every trial finishes exactly once, whichever worker dies at whichever time."""

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
from keras_seqzoo.tuning.study.storage import TrialStore, sqlite_url
from keras_seqzoo.tuning.trial import TrialResult
from keras_seqzoo.utils import files

pytestmark = pytest.mark.tensorflow

TRIALS, POPULATION, EPOCHS = 14, 4, 9


class FakePopulation:
    """A population whose learning curves are a function of seed and hyperparameters."""

    def __init__(self, *args, **kwargs):
        pass

    def can_train(self, hp):
        return True

    def start(self, member):
        return FakeRun(member)

    def advance(self, runs, until):
        for run, last in zip(runs, until, strict=True):
            run.history = {name: run.curve[:last] for name in IdentityMetrics.logs}
            yield

    def finish(self, run):
        epoch = int(np.argmin(run.history["loss"]))
        metrics = {name: curve[epoch] for name, curve in run.history.items()}
        return TrialResult(FakeModel(), metrics, epoch, run.history, 0.0)


class FakeModel:
    def get_weights(self):
        return [np.zeros(2)]


class FakeRun:
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
    """Simulates the death of the process: nothing is written afterwards."""


@pytest.fixture
def fake_population(monkeypatch):
    monkeypatch.setattr(tuner, "Population", FakePopulation)
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
    """Record all writes, and raise `Killed` before or after the write with number `die_at`."""
    written: list[str] = []

    def counted(name, original):
        def write(*args, **kwargs):
            written.append(name)
            if len(written) == die_at:
                raise Killed
            result = original(*args, **kwargs)
            written.append(name + ", done")
            if len(written) == die_at:
                raise Killed
            return result

        return write

    storage = optuna.storages._CachedStorage
    for name in ("set_trial_state_values", "set_trial_user_attr", "set_trial_intermediate_value"):
        monkeypatch.setattr(storage, name, counted(name, getattr(storage, name)))
    monkeypatch.setattr(TrialStore, "create", counted("create", TrialStore.create))
    monkeypatch.setattr(files, "replacing", counted("weights", files.replacing))
    return written


def interrupted(directory, monkeypatch, die_at) -> None:
    with monkeypatch.context() as patch:
        writes(patch, die_at)
        with pytest.raises(Killed):
            search(directory)


@pytest.fixture
def uninterrupted(tmp_path, fake_population, monkeypatch):
    """Results of an uninterrupted search, and its number of writes."""
    with monkeypatch.context() as patch:
        written = writes(patch, None)
        return search(tmp_path / "uninterrupted"), len(written)


@pytest.mark.slow
def test_search_killed_at_any_write_resumes_to_the_uninterrupted_results(
    tmp_path, uninterrupted, monkeypatch
):
    expected, count = uninterrupted
    assert set(expected["state"]) == {"complete", "pruned"}
    step = int(os.environ.get("KERAS_SEQZOO_EVERY_WRITE", "9"))
    for die_at in range(1, count, step):
        directory = tmp_path / str(die_at)
        interrupted(directory, monkeypatch, die_at)
        pd.testing.assert_frame_equal(search(directory), expected)
        shutil.rmtree(directory)


@pytest.mark.slow
def test_search_killed_repeatedly_resumes_to_the_uninterrupted_results(
    tmp_path, uninterrupted, monkeypatch
):
    expected, _ = uninterrupted
    rng = np.random.default_rng(1)
    for _ in range(6):
        with contextlib.suppress(pytest.fail.Exception):  # the search may have finished
            interrupted(tmp_path / "run", monkeypatch, int(rng.integers(2, 40)))
    pd.testing.assert_frame_equal(search(tmp_path / "run"), expected)


@pytest.mark.slow
def test_pruned_trials_train_for_fewer_epochs_and_are_worse(uninterrupted):
    table, _ = uninterrupted
    assert table["epochs"][table["state"] == "pruned"].max() < EPOCHS
    assert (table["epochs"][table["state"] == "complete"] == EPOCHS).all()
    worst = table.sort_values("val_identity_cost")["state"].tolist()
    assert worst[0] == "complete" and worst[-1] == "pruned"
    assert not table["pareto"][table["state"] == "pruned"].any()


@given(st.integers(1, 300))
def test_rungs_increase_to_the_last_epoch(epochs):
    rungs = successive_halving.rung_epochs(epochs)
    assert rungs[-1] == epochs and rungs[0] >= 1
    assert rungs == sorted(set(rungs))


def test_best_third_of_a_cohort_is_promoted():
    cohort = [[float(rank)] for rank in range(9)]
    assert [successive_halving.is_promoted(costs, cohort) for costs in cohort] == (
        [True] * 3 + [False] * 6
    )
    # The lowest cost so far counts; trials with fewer epochs are left out; NaN is the worst.
    assert successive_halving.is_promoted(
        [0.5, 7.0], [[0.5, 7.0], [0.1], [0.6, 0.6], [math.nan, 9.0]]
    )
    assert not successive_halving.is_promoted([math.nan], [[math.nan], [1.0], [2.0]])
    assert successive_halving.is_promoted([math.nan], [[math.nan]])


# ----------------------------------------------------------------------------- the trial store


def open_store(path, shared=True) -> TrialStore:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return TrialStore(sqlite_url(path), "study", ["minimize"], {}, shared=shared)


def make_oracle(store: TrialStore, max_trials=4) -> StudyOracle:
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 0.0, 1.0)
    objective = keras_tuner.Objective("cost", "min")
    return StudyOracle(
        store, objective=objective, max_trials=max_trials, seed=0, sampler="random",
        hyperparameters=hp,
    )  # fmt: skip


def tell(oracle, trial, cost=1.0):
    return oracle.tell(
        trial, TrialState.COMPLETE, metrics={"cost": cost}, epoch=0, seconds=0.0, history={}
    )


def test_queued_trial_is_claimed_by_one_worker_only(tmp_path):
    first, second = open_store(tmp_path / "s.db"), open_store(tmp_path / "s.db")
    first.record_heartbeat()
    (trial,) = make_oracle(first).ask(1, 0)
    queued = first.trials()[int(trial.trial_id)]
    first.requeue(queued)
    assert [store.claim(queued) for store in (second, first)] == [True, False]


@pytest.mark.slow
def test_concurrent_workers_create_exactly_max_trials_different_trials(tmp_path):
    oracles = [make_oracle(open_store(tmp_path / "s.db"), max_trials=9) for _ in range(3)]
    threads = [threading.Thread(target=oracle.ask, args=(5, 0)) for oracle in oracles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = oracles[0].trial_store.trials(TrialState.RUNNING)
    assert [trial.number for trial in running] == list(range(9))
    rates = [trial.params["rate"] for trial in running]
    assert len(set(rates)) >= 9 - 2  # only the defaults may repeat


def test_stale_trial_runs_in_another_worker_and_its_late_result_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_TIMEOUT", 0.3)
    slow, quick = (make_oracle(open_store(tmp_path / "s.db")) for _ in range(2))
    slow.trial_store.record_heartbeat()
    (first,) = slow.ask(1, 0)
    quick.reload()
    assert quick.claimed_by_others()
    slow.trial_store.record_heartbeat()
    time.sleep(0.4)
    slow.trial_store.record_heartbeat()
    quick.reload()  # its heartbeat is recent
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


def test_trials_of_a_worker_that_died_right_after_asking_are_requeued(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_TIMEOUT", 0.2)
    died, other = (make_oracle(open_store(tmp_path / "s.db")) for _ in range(2))
    died.trial_store.record_heartbeat()
    died.ask(2, 0)
    other.reload()
    time.sleep(0.3)
    other.reload()
    assert len(other.trial_store.trials(TrialState.WAITING)) == 2


@pytest.mark.slow
def test_worker_records_heartbeats_while_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_INTERVAL", 0.02)
    store = open_store(tmp_path / "s.db")

    def heartbeats():
        return store.study.user_attrs["worker " + store.worker]

    with store.heartbeat():
        before = heartbeats()
        time.sleep(0.3)
        assert heartbeats() > before
    after = heartbeats()
    time.sleep(0.1)
    assert heartbeats() == after


@pytest.mark.slow
def test_one_of_the_workers_that_share_a_study_writes_the_outputs(
    tmp_path, fake_population, monkeypatch
):
    written = []
    monkeypatch.setattr(tuner.Search, "_finish", lambda self: written.append(self))
    options = {"storage": sqlite_url(tmp_path / "s.db"), "max_trials": 5}
    tables = [search(tmp_path / "shared", **options) for _ in range(2)]
    assert len(written) == 1
    pd.testing.assert_frame_equal(*tables)
    search(tmp_path / "shared", **options | {"max_trials": 7})
    assert len(written) == 2  # more trials are finished


def test_storage_with_overwrite_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="delete-study"):
        search(tmp_path, storage=sqlite_url(tmp_path / "s.db"), overwrite=True)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://nobody@localhost:1/none"])
def test_unreadable_storage_is_refused_with_one_sentence(tmp_path, url):
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(SearchError, match="cannot be read"):
        search(tmp_path, storage=url)


# ------------------------------------------------------------------------------------- PostgreSQL


def _postgres_programs() -> Path | None:
    """Folder of the newest PostgreSQL programs: of a Debian package, or on the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Address of a new PostgreSQL server on a free port, run by a user that is not root."""
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
    storage.HEARTBEAT_INTERVAL, storage.HEARTBEAT_TIMEOUT, tuner._POLL_INTERVAL = 0.3, 2.0, 0.2
    class Slow(t.FakePopulation):
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


def release(worker: subprocess.Popen) -> None:
    worker.stdin.write("\n")
    worker.stdin.flush()


@pytest.mark.slow
def test_three_workers_on_postgresql_one_killed_and_one_late(tmp_path, postgres):
    trials = 40
    directory = tmp_path / "many"
    pause = {"pause": 0.15, "trials": trials}
    first, killed, late = (start_worker(directory, postgres, **pause) for _ in range(3))
    for worker in (first, killed, late):
        assert worker.stdout.readline() == "started\n"  # imports are slow
    url = postgres.replace("postgresql:", "postgresql+psycopg:")
    # Creates the tables: Optuna fails if two workers create them at once.
    database, store = optuna.storages.RDBStorage(url), None
    for worker in (first, killed):
        release(worker)
    while True:  # until the worker to be killed has running and finished trials
        time.sleep(0.2)
        assert first.poll() is None and killed.poll() is None
        if store is None:
            with contextlib.suppress(KeyError):
                store = optuna.load_study(study_name="many", storage=database)
            continue
        workers = {trial.user_attrs["worker"] for trial in store.trials}
        killed_workers = [worker for worker in workers if f"/{killed.pid}/" in worker]
        states = {t.state for t in store.trials if t.user_attrs["worker"] in killed_workers}
        if {TrialState.RUNNING, TrialState.PRUNED} <= states:
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    stale = [
        trial.number
        for trial in store.trials
        if trial.state is TrialState.RUNNING and trial.user_attrs["worker"] in killed_workers
    ]
    release(late)
    for worker in (first, late):
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert out.split()[-1] == str(trials)  # every worker has all results
    assert stale
    assert [trial.number for trial in store.trials] == list(range(trials))
    assert {trial.state for trial in store.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    finished_by = {trial.number: trial.user_attrs["worker"] for trial in store.trials}
    assert not any(finished_by[number] in killed_workers for number in stale)
    assert any(f"/{late.pid}/" in worker for worker in finished_by.values())
    database.remove_session()
    database.engine.dispose()
