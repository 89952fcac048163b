"""A study in a database that any number of workers share: who runs which trial, and what becomes of a dead worker's.

Optuna numbers trials and hands out queued ones, but counting them and beginning one more is two steps, between which
another worker can begin one too. So a worker takes a lock of the whole database for both. It is one that the
system frees when a process dies: PostgreSQL's advisory lock, or a locked file beside SQLite's.
"""

import fcntl
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from wafer_lab.errors import UserError
from wafer_lab.workflows.study import methods
from wafer_lab.workflows.study.settings import Study

IDENTITY, REASON, WORKER = "identity", "reason", "worker"
_FILE = "sqlite:///"
_LOCK = 0x5AFE1AB  # of PostgreSQL's advisory locks, ours
_MISSED = 4  # signs of life, after which a worker is given up
_WAIT = 60  # seconds that a writer waits for another one's SQLite file


class Shared:
    """A study in its storage, made where there is none.

    Args:
        settings: of the study.
        identity: what makes a trial what it is, apart from its sampled values; a study is of one.
        epochs: of all fits of a trial together.
        given_up: told the number of a trial whose worker is dead.

    Raises:
        UserError: the storage cannot be used, or holds a study of that name that is another one.
    """

    def __init__(
        self, settings: Study, identity: dict[str, Any], epochs: int, given_up: Callable[[int], None] = lambda _: None
    ) -> None:
        self.settings, self.given_up = settings, given_up
        try:
            with self.alone(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._storage = self._open()
                self.study = optuna.create_study(
                    storage=self._storage,
                    study_name=settings.name,
                    directions=["maximize" if one.direction == "max" else "minimize" for one in settings.targets],
                    pruner=methods.pruner(settings, epochs),
                    load_if_exists=True,
                )
                self._check(identity)
        except ModuleNotFoundError as error:
            raise UserError(
                f"study.storage on PostgreSQL needs the package {error.name}, which is not installed; "
                'pip install "psycopg[binary]"'
            ) from error
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
            raise _unusable(settings.storage, error) from error

    def _open(self) -> RDBStorage:
        file = self.settings.storage.removeprefix(_FILE)
        if file != self.settings.storage:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        return RDBStorage(
            self.settings.storage,
            engine_kwargs={"connect_args": {"timeout": _WAIT}} if file != self.settings.storage else None,
            heartbeat_interval=self.settings.heartbeat,
            grace_period=_MISSED * self.settings.heartbeat,
            heartbeat_stale_trial_callback=self._queue_again,
        )

    def _check(self, identity: dict[str, Any]) -> None:
        """Refuse a study of other settings."""
        before = self.study.user_attrs.get(IDENTITY)
        if before is None:
            self.study.set_user_attr(IDENTITY, identity)
            return
        changed = [
            f"{k} was {before.get(k)}, is {identity.get(k)}" for k in identity if before.get(k) != identity.get(k)
        ]
        if changed:
            raise UserError(
                f"the study {self.settings.name} was begun with other settings: {'; '.join(changed)}; repeat its "
                "command to go on with it, or give this one a study.name of its own"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other workers from this block while it lasts."""
        file = self.settings.storage.removeprefix(_FILE)
        if file != self.settings.storage:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            with open(f"{file}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            return
        engine = create_engine(self.settings.storage, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield

    def claim(self) -> Trial | None:
        """A trial for this worker, queued again or new; None where enough are finished or being run."""
        with self.alone(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental heartbeats, outside of Study.optimize
            optuna.storages.fail_stale_trials(self.study)
            trials = self.study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs:  # died inside this block
                    self._give_up(trial)
            if self.taken() >= self.settings.n_trials:
                return None
            self.study.sampler = self._sampler(len(trials))
            claimed = self.study.ask()
            self._storage.record_heartbeat(claimed._trial_id)
            claimed.set_user_attr(WORKER, f"{socket.gethostname()} {os.getpid()}")
        return claimed

    def taken(self) -> int:
        """How many trials are finished or being run, without those that were given up."""
        trials = self.study.get_trials(deepcopy=False)  # one look: a trial that ends between two is in neither
        return sum(trial.state == TrialState.RUNNING or _counts(trial) for trial in trials)

    def running(self) -> list[FrozenTrial]:
        """The trials that some worker runs, or ran when it died."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    @contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Give signs of life for a trial while the block lasts."""
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(self.settings.heartbeat):
                try:
                    self._storage.record_heartbeat(trial._trial_id)
                except Exception:  # the database is away: a later beat may reach it, and if none does, others take over
                    continue

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def lost(self, trial: Trial) -> bool:
        """Whether somebody else has given up this worker and its trial."""
        state: TrialState = self._storage.get_trial(trial._trial_id).state
        return state != TrialState.RUNNING

    def hand_back(self, trial: Trial) -> None:
        """Queue a trial again that this worker leaves unfinished."""
        with self.alone():
            self._give_up(self._storage.get_trial(trial._trial_id))

    def _give_up(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.RUNNING:
            self._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            self._queue_again(self.study, trial)

    def _queue_again(self, study: optuna.Study, dead: FrozenTrial) -> None:
        """Queue the values of a trial that has ended without a result; it starts anew under a number of its own."""
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=dead.params,
                distributions=dead.distributions,
                system_attrs=dead.system_attrs,
                user_attrs={"repeats": dead.number},
            )
        )
        self.given_up(dead.number)

    def _sampler(self, position: int) -> optuna.samplers.BaseSampler:
        """A sampler whose draws depend on the study's seed and on how many trials there are, not on the worker."""
        seed = int(np.random.SeedSequence([self.settings.seed, position]).generate_state(1)[0])
        return methods.sampler(self.settings, self.settings.entries, seed)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those with a result, pruned ones, and failed ones, but not those queued again."""
    return [trial for trial in study.get_trials(deepcopy=False) if _counts(trial)]


def _counts(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and REASON in trial.user_attrs
    )


def _unusable(storage: str, error: Exception) -> UserError:
    shown = make_url(storage).render_as_string(hide_password=True)
    reason = (str(error.__cause__ or error).strip().splitlines() or ["no reason given"])[0]
    return UserError(
        f"cannot keep the study in {shown}: {reason}; set study.storage to sqlite:///<file>, or to "
        "postgresql+psycopg://user@host/database of a server that answers"
    )
