"""The trials of a search in an Optuna storage, where any number of workers find them.

A trial is one record, numbered from 0, and is never copied: a worker takes it by setting it from
waiting to running, which the storage lets only one do, and ends it once. What a dead worker held is
set back to waiting, with the parameters it had. Optuna's own retries would make new trials instead.
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
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from keras_seqzoo import errors
from keras_seqzoo.utils import compat

# Seconds: how often a worker says that it lives, and after how long of silence it counts as dead.
BEAT, GRACE = 10.0, 60.0
_WORKER = "worker "


class TrialStore:
    """One study.

    Args:
        url: str, of the storage.
        name: str, of the study.
        directions: "minimize" or "maximize", one for each objective.
        settings: mapping of what must be the same whenever the study is opened.
        shared: bool, whether other processes may be at work in it.

    Raises:
        SearchError: if the study cannot be read, or was made with other settings.
    """

    def __init__(
        self,
        url: str,
        name: str,
        directions: Sequence[str],
        settings: Mapping[str, Any],
        *,
        shared: bool,
    ):
        self.url, self.shared = url, shared
        self.worker = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:6]}"
        self._beats = 0
        self._heard: dict[str, tuple[int, float]] = {}
        self._buried: set[str] = set()
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
            self._check(settings)
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ValueError) as error:
            if isinstance(error, errors.SeqZooError):
                raise
            raise errors.SearchError(
                f"The study in '{_shown(url)}' cannot be read: {error}. {self._remedy()}"
            ) from error

    def _remedy(self) -> str:
        if self.shared:
            return "Is the server there, and is the address right?"
        return "Search in another directory, or start over with overwrite=True (--overwrite)."

    def _check(self, settings: Mapping[str, Any]) -> None:
        known = self.study.user_attrs.get("settings")
        if known is None:
            self.study.set_user_attr("settings", settings)
            return
        changed = [
            key for key in settings if known.get(key) != json.loads(json.dumps(settings[key]))
        ]
        if changed:
            raise errors.SearchError(
                f"The search in '{_shown(self.url)}' was started with another "
                f"{' and '.join(changed)}. Repeat the first call to resume it, search in another "
                "directory, or start over with overwrite=True (--overwrite)."
            )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in one of the states, by number."""
        found = self.storage.get_all_trials(self.id, deepcopy=False, states=states or None)
        return sorted(found, key=lambda trial: trial.number)

    def waiting(self) -> list[FrozenTrial]:
        """Trials that anyone may take, by number; running ones, of which many may be, unread."""
        found = self._database.get_all_trials(self.id, deepcopy=False, states=(TrialState.WAITING,))
        return sorted(found, key=lambda trial: trial.number)

    def count(self) -> int:
        """Of all trials; Optuna would read every one of them."""
        with self._database.engine.connect() as connection:
            return connection.execute(self._count).scalar_one()

    @property
    def _count(self) -> sqlalchemy.Select:
        trials = self._tables["trials"]
        return sqlalchemy.select(sqlalchemy.func.count()).where(trials.c.study_id == self.id)

    def create(self, proposed: Sequence[FrozenTrial], limit: int) -> list[FrozenTrial]:
        """New running trials with those parameters, as many as there may be up to `limit`.

        In one transaction, with Optuna's tables as they are stored: Optuna makes each trial in one
        of its own, row by row, and holds the study meanwhile, which is a tenth of a second for a
        population and lets a hundred workers wait for one another.
        """
        tables, now = self._tables, datetime.datetime.now()
        started = now.astimezone(datetime.UTC).replace(tzinfo=None)
        with self._database.engine.begin() as connection:
            studies, trials = tables["studies"], tables["trials"]
            here = studies.c.study_id == self.id
            # Holds the study, in every database, until the end.
            connection.execute(studies.update().where(here).values(study_name=studies.c.study_name))
            first = connection.execute(self._count).scalar_one()
            proposed = proposed[: max(limit - first, 0)]
            if not proposed:
                return []
            rows = [
                {"number": first + place, "study_id": self.id, "state": "RUNNING",
                 "datetime_start": started}
                for place in range(len(proposed))
            ]  # fmt: skip
            made = connection.execute(
                trials.insert().returning(trials.c.trial_id, sort_by_parameter_order=True), rows
            )
            made = [
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
                for row, trial_id, trial in zip(rows, made.scalars(), proposed, strict=True)
            ]
            parameters = [
                {
                    "trial_id": compat.trial_id(trial),
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for trial in made
                for name, value in trial.params.items()
            ]
            written = {"trial_params": parameters}
            for kind in ("user", "system"):
                written[f"trial_{kind}_attributes"] = [
                    {
                        "trial_id": compat.trial_id(trial),
                        "key": key,
                        "value_json": json.dumps(value),
                    }
                    for trial in made
                    for key, value in getattr(trial, f"{kind}_attrs").items()
                ]
            for name, values in written.items():
                if values:
                    connection.execute(tables[name].insert(), values)
        return made

    @functools.cached_property
    def _tables(self) -> dict[str, sqlalchemy.Table]:
        kept = sqlalchemy.MetaData()
        kept.reflect(
            self._database.engine,
            only=("studies", "trials", "trial_params", "trial_user_attributes",
                  "trial_system_attributes"),
        )  # fmt: skip
        return dict(kept.tables)

    def take(self, trial: FrozenTrial) -> bool:
        """Makes a waiting trial this worker's, unless another was faster."""
        try:
            if not self.storage.set_trial_state_values(
                compat.trial_id(trial), state=TrialState.RUNNING
            ):
                return False
            self.storage.set_trial_user_attr(compat.trial_id(trial), "worker", self.worker)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def put_back(self, trial: FrozenTrial) -> None:
        """Makes a running trial waiting again."""
        self.storage.set_trial_state_values(compat.trial_id(trial), state=TrialState.WAITING)

    def end(
        self,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
        outcome: Mapping[str, Any],
    ) -> bool:
        """Ends a trial; False if another worker did, which had taken this one for dead."""
        try:
            self.storage.set_trial_user_attr(compat.trial_id(trial), "outcome", outcome)
            self.storage.set_trial_state_values(compat.trial_id(trial), state=state, values=values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def report(self, trial: FrozenTrial, step: int, value: float) -> None:
        """Keeps a value that a sampler compares pruned trials by."""
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(compat.trial_id(trial), step, value)

    # Who is alive.

    def requeue_stale_trials(self) -> None:
        """Makes trials wait again whose workers are no more: all, or the silent ones if shared."""
        dead = None
        if self.shared:
            self._listen()
            now = time.monotonic()
            dead = {worker for worker, (_, since) in self._heard.items() if now - since > GRACE}
            self._buried &= dead
            if dead == self._buried:
                return  # running trials may be many, and are only read if there is a need
        running = self._database.get_all_trials(
            self.id, deepcopy=False, states=(TrialState.RUNNING,)
        )
        for trial in running:
            worker = trial.user_attrs["worker"]
            if worker != self.worker and (dead is None or worker in dead):
                self.put_back(trial)
        self._buried = dead or set()

    def heartbeat(self) -> _Beat:
        """A context in which this worker says that it lives."""
        return _Beat(self)

    def close(self) -> None:
        """Gives the connections back; whatever is asked next opens them again."""
        self._database.remove_session()
        self._database.engine.dispose()

    def beat(self) -> None:
        """Says so once; before a worker takes its first trial, and then again and again."""
        self._beats += 1
        self.study.set_user_attr(_WORKER + self.worker, self._beats)

    def _listen(self) -> None:
        """Hears who beat since; silence is measured by this machine's clock, as others differ."""
        now = time.monotonic()
        for key, count in self.study.user_attrs.items():
            worker = key.removeprefix(_WORKER)
            if worker != key and self._heard.get(worker, (None,))[0] != count:
                self._heard[worker] = (count, now)


class _Beat:
    def __init__(self, trial_store: TrialStore):
        self.trial_store = trial_store
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        if self.trial_store.shared:
            self.trial_store.beat()
            self._thread.start()

    def __exit__(self, *_) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self.trial_store.beat()
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError):
                continue  # the server may come back before this worker counts as dead
        self.trial_store.close()


def sqlite(path: Path) -> str:
    """The address of a study in a file."""
    url = sqlalchemy.URL.create("sqlite", database=os.path.abspath(path))
    return url.render_as_string(hide_password=False)


def _open(url: str) -> optuna.storages.RDBStorage:
    """The storage; of workers that start together one makes the tables, the others try again."""
    server = not url.startswith("sqlite")
    # A server holds a hundred connections, as it comes: one for each worker, that mends itself.
    options = {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True} if server else {}
    for left in reversed(range(5)):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not left:
                raise
            time.sleep(0.5)
    raise AssertionError("the last attempt returns or raises")


def _with_driver(url: str) -> str:
    """PostgreSQL through psycopg 3, which the extra installs, unless a driver is named."""
    made = sqlalchemy.engine.make_url(url)
    if made.drivername not in ("postgresql", "postgres"):
        return url
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise errors.ArgumentError(
            "`storage` on PostgreSQL needs psycopg. Install it with "
            "pip install 'keras-seqzoo[postgres]'."
        ) from error
    return made.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _shown(url: str) -> str:
    """Without the password; of a file, its path."""
    try:
        made = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return url
    return str(made.database) if made.drivername == "sqlite" else str(made)
