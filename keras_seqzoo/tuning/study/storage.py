"""The trials of a search in an Optuna storage that any number of workers share.

A trial is one record, numbered from 0, and is never copied. A worker claims a queued trial by
setting its state from waiting to running; the storage lets exactly one worker do so. The worker
finishes the trial once. A running trial of a worker without a heartbeat is stale: it is queued
again with the same parameters. Optuna's own retries would create new trials instead.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from keras_seqzoo import errors
from keras_seqzoo.utils import compat

# Seconds between heartbeats of a worker, and without one after which its trials are stale.
HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT = 10.0, 60.0
_WORKER = "worker "  # study attributes of this prefix count the heartbeats of each worker
_STORAGE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError)


class TrialStore:
    """One study: its trials, their states, and the heartbeats of its workers.

    Args:
        url: str, address of the storage.
        name: str, name of the study.
        directions: "minimize" or "maximize", one for each objective.
        settings: mapping of settings that must be the same whenever the study is opened.
        shared: bool, whether other processes may work on the study.

    Raises:
        SearchError: if the study cannot be read, or was created with other settings.
    """

    def __init__(
        self,
        url: str,
        name: str,
        directions: Sequence[Literal["minimize", "maximize"]],
        settings: Mapping[str, Any],
        *,
        shared: bool,
    ):
        self.url, self.shared = url, shared
        self.worker = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._heartbeats = 0
        self._last_heartbeats: dict[str, tuple[int, float]] = {}  # count, and when it was new
        self._requeued_workers: set[str] = set()
        try:
            self._database = _open(_with_driver(url))
            self.storage = compat.cached_storage(self._database)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=list(directions),
                load_if_exists=True,
            )
            self.id = self.storage.get_study_id_from_name(name)
            self._check_settings(settings)
        except (*_STORAGE_ERRORS, ValueError) as error:
            if isinstance(error, errors.SeqZooError):
                raise
            raise errors.SearchError(
                f"The study in '{_display_url(url)}' cannot be read: {error}. {self._remedy()}"
            ) from error

    def _remedy(self) -> str:
        if self.shared:
            return "Check that the server runs and that the address is right."
        return "Search in another directory, or start over with overwrite=True (--overwrite)."

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        stored = self.study.user_attrs.get("settings")
        if stored is None:
            self.study.set_user_attr("settings", settings)
            return
        changed = [
            key for key in settings if stored.get(key) != json.loads(json.dumps(settings[key]))
        ]
        if changed:
            raise errors.SearchError(
                f"The search in '{_display_url(self.url)}' was started with another "
                f"{' and '.join(changed)}. Repeat the first call to resume it, search in another "
                "directory, or start over with overwrite=True (--overwrite)."
            )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in one of the states, sorted by number."""
        trials = self.storage.get_all_trials(self.id, deepcopy=False, states=states or None)
        return sorted(trials, key=lambda trial: trial.number)

    def queued(self) -> list[FrozenTrial]:
        """Trials that any worker may claim, sorted by number.

        The query skips running trials, since there may be many of them.
        """
        states = (TrialState.WAITING,)
        trials = self._database.get_all_trials(self.id, deepcopy=False, states=states)
        return sorted(trials, key=lambda trial: trial.number)

    def count(self) -> int:
        """Number of trials. Optuna would read every trial to count them."""
        with self._database.engine.connect() as connection:
            return connection.execute(self._count).scalar_one()

    @property
    def _count(self) -> sqlalchemy.Select:
        trials = self._tables["trials"]
        return sqlalchemy.select(sqlalchemy.func.count()).where(trials.c.study_id == self.id)

    def create(self, proposals: Sequence[FrozenTrial], max_trials: int) -> list[FrozenTrial]:
        """Create running trials, claimed by this worker, with the parameters of the proposals.

        One transaction writes Optuna's tables directly. Optuna creates each trial in a transaction
        of its own, row by row, and locks the study meanwhile. That takes 0.1 s for a population,
        and a hundred workers would wait for one another.

        Args:
            proposals: trials of a study in memory.
            max_trials: int, number of trials that the study may hold. Proposals beyond it are
                dropped.
        """
        tables, now = self._tables, datetime.datetime.now()
        started = now.astimezone(datetime.UTC).replace(tzinfo=None)
        with self._database.engine.begin() as connection:
            studies, trials = tables["studies"], tables["trials"]
            this_study = studies.c.study_id == self.id
            # An update locks the row of the study until the end of the transaction.
            connection.execute(
                studies.update().where(this_study).values(study_name=studies.c.study_name)
            )
            first = connection.execute(self._count).scalar_one()
            proposals = proposals[: max(max_trials - first, 0)]
            if not proposals:
                return []
            rows = [
                {"number": first + offset, "study_id": self.id, "state": "RUNNING",
                 "datetime_start": started}
                for offset in range(len(proposals))
            ]  # fmt: skip
            trial_ids = connection.execute(
                trials.insert().returning(trials.c.trial_id, sort_by_parameter_order=True), rows
            )
            created = [
                FrozenTrial(
                    number=row["number"],
                    trial_id=trial_id,
                    state=TrialState.RUNNING,
                    value=None,
                    datetime_start=now,
                    datetime_complete=None,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**trial.user_attrs, "worker": self.worker},
                    system_attrs=trial.system_attrs,
                    intermediate_values={},
                )
                for row, trial_id, trial in zip(rows, trial_ids.scalars(), proposals, strict=True)
            ]
            self._insert_parameters(connection, created)
        return created

    def _insert_parameters(
        self, connection: sqlalchemy.Connection, trials: Sequence[FrozenTrial]
    ) -> None:
        """Write parameters and attributes of new trials."""
        rows = {
            "trial_params": [
                {
                    "trial_id": compat.trial_id(trial),
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for trial in trials
                for name, value in trial.params.items()
            ]
        }
        for kind in ("user", "system"):
            rows[f"trial_{kind}_attributes"] = [
                {"trial_id": compat.trial_id(trial), "key": key, "value_json": json.dumps(value)}
                for trial in trials
                for key, value in getattr(trial, f"{kind}_attrs").items()
            ]
        for table, values in rows.items():
            if values:
                connection.execute(self._tables[table].insert(), values)

    @functools.cached_property
    def _tables(self) -> dict[str, sqlalchemy.Table]:
        metadata = sqlalchemy.MetaData()
        metadata.reflect(
            self._database.engine,
            only=("studies", "trials", "trial_params", "trial_user_attributes",
                  "trial_system_attributes"),
        )  # fmt: skip
        return dict(metadata.tables)

    def claim(self, trial: FrozenTrial) -> bool:
        """Claim a queued trial for this worker; False if another worker was faster."""
        try:
            if not self.storage.set_trial_state_values(
                compat.trial_id(trial), state=TrialState.RUNNING
            ):
                return False
            self.storage.set_trial_user_attr(compat.trial_id(trial), "worker", self.worker)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def requeue(self, trial: FrozenTrial) -> None:
        """Queue a running trial again."""
        self.storage.set_trial_state_values(compat.trial_id(trial), state=TrialState.WAITING)

    def finish(
        self,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
        result: Mapping[str, Any],
    ) -> bool:
        """Finish a trial; False if it became stale and another worker finished it."""
        try:
            self.storage.set_trial_user_attr(compat.trial_id(trial), "result", result)
            self.storage.set_trial_state_values(compat.trial_id(trial), state=state, values=values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def report(self, trial: FrozenTrial, step: int, value: float) -> None:
        """Store the intermediate value by which a sampler ranks a pruned trial."""
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(compat.trial_id(trial), step, value)

    # Stale trials and heartbeats.

    def requeue_stale_trials(self) -> None:
        """Queue stale trials again.

        In a shared study, trials of workers without a heartbeat for `HEARTBEAT_TIMEOUT` seconds are
        stale; else every trial that another process left running.
        """
        stale = None
        if self.shared:
            self._read_heartbeats()
            now = time.monotonic()
            stale = {
                worker
                for worker, (_, changed) in self._last_heartbeats.items()
                if now - changed > HEARTBEAT_TIMEOUT
            }
            self._requeued_workers &= stale
            if stale == self._requeued_workers:
                return  # reading all running trials is slow
        running = self._database.get_all_trials(
            self.id, deepcopy=False, states=(TrialState.RUNNING,)
        )
        for trial in running:
            worker = trial.user_attrs["worker"]
            if worker != self.worker and (stale is None or worker in stale):
                self.requeue(trial)
        self._requeued_workers = stale or set()

    def heartbeat(self) -> _Heartbeat:
        """A context in which a thread records a heartbeat of this worker at regular intervals."""
        return _Heartbeat(self)

    def record_heartbeat(self) -> None:
        """Record one heartbeat. The first must precede the first claimed trial."""
        self._heartbeats += 1
        self.study.set_user_attr(_WORKER + self.worker, self._heartbeats)

    def _read_heartbeats(self) -> None:
        """Note when each worker's count changed, by this machine's clock, as clocks differ."""
        now = time.monotonic()
        for key, count in self.study.user_attrs.items():
            worker = key.removeprefix(_WORKER)
            if worker != key and self._last_heartbeats.get(worker, (None,))[0] != count:
                self._last_heartbeats[worker] = (count, now)

    def close(self) -> None:
        """Close the connections; the next query opens them again."""
        self._database.remove_session()
        self._database.engine.dispose()


class _Heartbeat:
    def __init__(self, trial_store: TrialStore):
        self.trial_store = trial_store
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        if self.trial_store.shared:
            self.trial_store.record_heartbeat()
            self._thread.start()

    def __exit__(self, *_) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(HEARTBEAT_INTERVAL):
            try:
                self.trial_store.record_heartbeat()
            except _STORAGE_ERRORS:
                continue  # the server may recover before the trials of this worker are stale
        self.trial_store.close()


def sqlite_url(path: Path) -> str:
    """Address of a SQLite storage in a file."""
    url = sqlalchemy.URL.create("sqlite", database=os.path.abspath(path))
    return url.render_as_string(hide_password=False)


def _open(url: str) -> optuna.storages.RDBStorage:
    """Open the storage; of workers that start together, one creates the tables, others retry."""
    options: dict[str, Any] = {}
    if not url.startswith("sqlite"):
        # PostgreSQL allows 100 connections by default: one per worker, reopened when it breaks.
        options = {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True}
    for retries in reversed(range(5)):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not retries:
                raise
            time.sleep(0.5)
    raise AssertionError("the last attempt returns or raises")


def _with_driver(url: str) -> str:
    """Select psycopg 3, which the extra installs, for PostgreSQL without a driver in the URL."""
    parsed = sqlalchemy.engine.make_url(url)
    if parsed.drivername not in ("postgresql", "postgres"):
        return url
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise errors.ArgumentError(
            "`storage` on PostgreSQL needs psycopg. Install it with "
            "pip install 'keras-seqzoo[postgres]'."
        ) from error
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _display_url(url: str) -> str:
    """The URL without its password; for SQLite, the path of the file."""
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return url
    return str(parsed.database) if parsed.drivername == "sqlite" else str(parsed)
