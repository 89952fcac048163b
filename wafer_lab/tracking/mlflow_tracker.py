"""Runs recorded in MLflow, through its client so that nothing global is changed."""

import logging
import os
import posixpath
import re
import shlex
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wafer_lab.errors import UserError
from wafer_lab.processes import rank
from wafer_lab.tracking.limits import brief_requests
from wafer_lab.tracking.outbox import Item, Outbox
from wafer_lab.tracking.tracker import NullRun, Run

_log = logging.getLogger(__name__)

_SERVER = ("http://", "https://")
_FILE = "sqlite:///"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SECONDS = 10  # that a server may take to answer
_CLOSING_SECONDS = 60
_VALUE_LENGTH = 250
_BATCH = 100
_PARENT_TAG = "mlflow.parentRunId"
# Passwords and tokens in an address: user:password@, token@ of a server, ?password=
_SECRET = re.compile(
    r"(https?://)[^/@\s]+(?=@)|(://[^:/@\s]*:)\S+(?=@)|([?&](?:password|passwd|pwd|token)=)[^&\s]+", re.IGNORECASE
)

# The run whose block we are in, whichever tracker opened it.
_enclosing: ContextVar["MlflowRun | None"] = ContextVar("enclosing", default=None)


class MLflowTracker:
    """Record runs in MLflow.

    MLflow is imported, and the store opened, when the first run is.

    Args:
        uri: the store: ``sqlite:///<absolute path>.db``, another database, or a server's ``http(s)://``
            address. None: what the environment variable ``MLFLOW_TRACKING_URI`` says, else the file ``store``.
        experiment: the experiment's name; it is made where there is none.
        artifacts: folder for the artifacts of a new experiment in a database; a server has its own.
        store: the SQLite file that is used where nothing else is named.
    """

    def __init__(
        self, uri: str | None, experiment: str, artifacts: Path | str, store: Path | str = "mlflow.db"
    ) -> None:
        if uri is None:  # read here and not in the config, which is kept with every run: it may hold a password
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_FILE}{store}"
        self.uri = _absolute(uri)
        self.experiment = experiment
        self.artifacts = Path(artifacts).absolute()

    @contextmanager
    def run(
        self,
        name: str,
        config: dict[str, Any],
        tags: dict[str, str],
        nested: bool = False,
        resumes: str | None = None,
    ) -> Iterator[Run]:
        """Open a run; it ends FINISHED, KILLED (interrupted, terminated, pruned) or FAILED (by an error).

        The configuration is logged twice: flattened, as parameters cut at 250 characters, and whole, as the
        artifact ``config.yaml``. In a process of rank other than 0 nothing is recorded.

        Args:
            name: the run's name.
            config: resolved configuration of plain dicts, lists and scalars.
            tags: short facts to find runs by.
            nested: make it a child of the enclosing run, if there is one in the same store.
            resumes: id of a run to go on with, if this store has it; its parameters stay as they were.

        Raises:
            UserError: MLflow is not installed, or its store cannot be used.
        """
        if rank() != 0:
            yield NullRun()
            return
        parent = _enclosing.get() if nested else None
        if parent is not None and parent.uri == self.uri:
            tags = {**tags, _PARENT_TAG: parent.id}
        run = self._open(name, tags, resumes)
        token = _enclosing.set(run)
        status = "FAILED"
        try:
            run.log_config(config, parameters=run.id != resumes)
            yield run
            status = "FINISHED"
        except BaseException as error:
            status = _status(error)
            raise
        finally:
            _enclosing.reset(token)
            run.close(status)

    def _open(self, name: str, tags: dict[str, str], resumes: str | None) -> "MlflowRun":
        _check_uri(self.uri)
        source = {"mlflow.source.name": Path(sys.argv[0]).name or "python", "mlflow.source.type": "LOCAL"}
        try:
            with _quiet(), brief_requests(_SECONDS):
                from mlflow.tracking import MlflowClient

                client = MlflowClient(self.uri, registry_uri=self.uri)
                experiment_id = self._experiment_id(client)
                if resumes and _reopened(client, resumes, experiment_id):
                    return MlflowRun(client, self.uri, self.experiment, experiment_id, resumes)
                info = client.create_run(experiment_id, tags={**source, **tags}, run_name=name).info
        except UserError:
            raise
        except ModuleNotFoundError as error:
            package = error.name or "mlflow"
            raise UserError(
                f"tracking=mlflow with {masked(self.uri)} needs the package {package}, which is not "
                f"installed; pip install {package}, or use tracking=none"
            ) from error
        except Exception as error:  # MLflow lets SQLAlchemy's, requests' and its own exceptions through.
            raise _unusable(self.uri, _reason(error)) from error
        return MlflowRun(client, self.uri, self.experiment, experiment_id, info.run_id)

    def _experiment_id(self, client: Any) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = None if self.uri.startswith(_SERVER) else str(self.artifacts)
            try:
                return str(client.create_experiment(self.experiment, artifact_location=location))
            except Exception:
                # Another process of the same sweep may have made it in between.
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {self.experiment!r} was deleted; restore it with `mlflow experiments "
                f"restore --experiment-id {found.experiment_id}`, or name another: tracking.experiment=<name>"
            )
        return str(found.experiment_id)


class MlflowRun:
    """One open run.

    What is recorded is handed to a thread, so a slow store does not slow the work. If the store stops answering, the
    run says so and goes on; values and files are kept, and sent when it answers again, at the latest when the run
    ends. What could not be sent by then is said, and the run tagged ``incomplete``.
    """

    def __init__(self, client: Any, uri: str, experiment: str, experiment_id: str, run_id: str) -> None:
        self._client = client
        self._experiment = experiment
        self._experiment_id = experiment_id
        self._outbox = Outbox(partial(brief_requests, _SECONDS), self._failed)
        self.uri = uri
        self.id = run_id

    @cached_property
    def logger(self) -> Any:
        """The Lightning logger of this run; the first use imports Lightning."""
        from wafer_lab.tracking.lightning_logger import RunLogger

        return RunLogger(self, self._client, self.uri, self._experiment, self._experiment_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record values by name, at a step (0 where there is none)."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_allowed(key), float(value), now, step or 0) for key, value in metrics.items()]
        for batch in _batches(values):
            self._outbox.put(Item(partial(self._client.log_batch, self.id, metrics=batch), values=len(batch)))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a whole folder (under its own name unless ``folder`` is given).

        It is read when it is sent, so it must stay until the run ends.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(path)
        if path.is_dir():
            send = partial(self._client.log_artifacts, self.id, str(path), folder or path.name)
        else:
            send = partial(self._client.log_artifact, self.id, str(path), folder)
        self._outbox.put(Item(send, file=path.name))

    def log_config(self, config: dict[str, Any], parameters: bool = True) -> None:
        """Record the configuration as the artifact ``config.yaml``, and as parameters, which are set only once."""
        from mlflow.entities import Param
        from omegaconf import OmegaConf

        text = OmegaConf.to_yaml(OmegaConf.create(config))
        self._outbox.put(Item(partial(self._client.log_text, self.id, text, "config.yaml"), file="config.yaml"))
        if not parameters:
            return
        # Where a run lies differs between any two runs and would hide what else does.
        folder = str(config.get("paths", {}).get("run") or "\0")
        flat = [(key, str(value)) for key, value in _flat(config) if key]
        params = [Param(_allowed(k), v[:_VALUE_LENGTH]) for k, v in flat if not v.startswith(folder)]
        for batch in _batches(params):
            self._outbox.put(Item(partial(self._client.log_batch, self.id, params=batch), values=len(batch)))

    def how_to_open(self) -> str:
        """The run's address on a server, or the command that shows the store."""
        if self.uri.startswith(_SERVER):
            return f"{masked(self.uri.rstrip('/'))}/#/experiments/{self._experiment_id}/runs/{self.id}"
        return f"mlflow ui --backend-store-uri {shlex.quote(masked(self.uri))}"

    def close(self, status: str) -> None:
        """Send what is kept, for a minute at most, and end the run as FINISHED, FAILED or KILLED."""
        lost = _told(self._outbox.finish(_CLOSING_SECONDS), self._outbox.dropped)
        tagged = not lost or self._end(self._client.set_tag, "incomplete", "true")
        if not tagged or not self._end(self._client.set_terminated, status):
            lost.append(f"its status, {status}")
        if lost:
            what = ", ".join(lost)
            _log.warning("not sent to MLflow, of run %s: %s; its own folder has everything", self.id, what)
        if self._outbox.mistake and status == "FINISHED":
            raise self._outbox.mistake

    def _end(self, call: Callable[..., Any], *args: str) -> bool:
        try:
            with brief_requests(_SECONDS):
                call(self.id, *args)
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        reason = _first_line(masked(_reason(error)))
        _log.warning("MLflow at %s failed (%s); the run goes on and tries again", masked(self.uri), reason)


def _told(unsent: Sequence[Item], dropped: int) -> list[str]:
    """What was not sent, in words."""
    values = dropped + sum(item.values for item in unsent)
    files = [item.file for item in unsent if item.file]
    return [*([f"{values} values"] if values else []), *files]


def _reopened(client: Any, run_id: str, experiment_id: str) -> bool:
    """Set a run of this experiment running again; False where the store has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        known = client.get_run(run_id).info.experiment_id == experiment_id
        if known:
            client.update_run(run_id, status="RUNNING")
    except MlflowException:
        return False
    return bool(known)


def _absolute(uri: str) -> str:
    """A relative SQLite path means the folder of today, not of whoever opens the store later."""
    if not uri.startswith(_FILE) or ":memory:" in uri:
        return uri
    return f"{_FILE}{Path(uri.removeprefix(_FILE)).absolute()}"


def _check_uri(uri: str) -> None:
    """Find in seconds what MLflow would find out in minutes, or report as something else."""
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    if scheme == "sqlite" and uri.startswith(_FILE):
        _check_file(uri, Path(uri.removeprefix(_FILE)))
    elif scheme in _DATABASE_PORTS:
        try:
            address = urlsplit(uri)
            host, port = address.hostname or "localhost", address.port or _DATABASE_PORTS[scheme]
            socket.create_connection((host, port), timeout=_SECONDS).close()
        except (OSError, ValueError) as error:
            raise _unusable(uri, f"no database answers there ({error})") from error
    elif scheme in ("", "file"):
        raise _unusable(uri, "MLflow no longer keeps runs in a folder of files")


def _check_file(uri: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("rb") as file:
                head = file.read(16)
            if head and head != b"SQLite format 3\0":
                raise _unusable(uri, "that file is not an SQLite database")
    except OSError as error:
        raise _unusable(uri, str(error)) from error


def _unusable(uri: str, reason: str) -> UserError:
    reason = _first_line(masked(reason)).rstrip(".")
    return UserError(
        f"cannot record runs in the MLflow store {masked(uri)!r}: {reason}; "
        "set MLFLOW_TRACKING_URI (or tracking.uri) to sqlite:////<absolute path>/mlflow.db or to the http "
        "address of a running MLflow server, or use tracking=none"
    )


def _reason(error: BaseException) -> str:
    """The system's own words (connection refused, timed out) where there are any, else the message."""
    text, link = str(error), error.__cause__ or error.__context__
    while link is not None:
        if isinstance(link, OSError):
            text = str(link)
        link = link.__cause__ or link.__context__
    return text


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:300]


def masked(text: str) -> str:
    """The text without the passwords and tokens of addresses in it."""
    return _SECRET.sub(r"\1\2\3***", text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Open a store without chatter, prints and third-party warnings on the console, and without telemetry."""
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for key, value in defaults.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "mlflow" not in sys.modules:
            import mlflow  # noqa: F401  # it sets up its own logging on import, so import before silencing it
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield


def _status(error: BaseException) -> str:
    # Lightning turns an interrupt into SystemExit(1), keeping it as the context; its SIGTERMException is a
    # SystemExit too. Optuna's TrialPruned is known by name so that Optuna need not be installed.
    if isinstance(error, SystemExit) and error.code in (None, 0) and type(error) is SystemExit:
        return "FINISHED"
    interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
    ended = {"Terminated", "SIGTERMException", "TrialPruned"} & {kind.__name__ for kind in type(error).__mro__}
    return "KILLED" if interrupted or ended else "FAILED"


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``("a.b", 1)``; a list of mappings counts its items, other lists stay whole."""
    if isinstance(config, Mapping) and config:
        items: Any = config.items()
    elif isinstance(config, list) and any(isinstance(item, Mapping) for item in config):
        items = enumerate(config)
    else:
        yield prefix, config
        return
    for key, value in items:
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _allowed(key: str) -> str:
    """The name with nothing in it that MLflow refuses: all but letters of any script, digits and `_/. -`."""
    return posixpath.normpath(re.sub(r"[^\w/. -]", "_", key))


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
