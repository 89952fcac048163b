"""A store that is away, slow, locked or full does not hold up the work, and nothing is lost without a word."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wafer_lab.tracking.mlflow_tracker import MLflowTracker


class Flaky:
    """Refuses while `down`, counting how often it was asked."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real, self.down, self.calls = real, True, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.down:
            raise OSError("gone")
        return self.real(*args, **kwargs)


@pytest.fixture
def flaky(monkeypatch) -> Callable[[Any, str], Flaky]:
    def make(run: Any, method: str) -> Flaky:
        made = Flaky(getattr(run._client, method))
        monkeypatch.setattr(run._client, method, made)
        return made

    return make


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def steps(store_uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return sorted((m.step, m.value) for m in MlflowClient(store_uri).get_metric_history(run_id, key))


def test_a_store_that_stays_away_does_not_end_the_work_and_what_is_lost_is_said(tracker, stored, flaky, caplog) -> None:
    with tracker.run("x", {}, {}) as run:
        log_batch = flaky(run, "log_batch")
        for step in range(10):
            run.log_metrics({"a": 1.0}, step)
    assert log_batch.calls <= 2, "one attempt in half a minute, and one at the end"
    first, *_, last = said(caplog)
    assert first.endswith("(gone); the run goes on and tries again")
    assert last == f"not sent to MLflow, of run {run.id}: 10 values; its own folder has everything"
    assert stored(run.id).info.status == "FINISHED"
    assert stored(run.id).data.tags["incomplete"] == "true"


def test_what_was_kept_is_sent_once_the_store_answers(tracker, stored, store_uri, flaky, monkeypatch, caplog) -> None:
    monkeypatch.setattr("wafer_lab.tracking.outbox.RETRY_SECONDS", 0.1)
    with tracker.run("x", {}, {}) as run:
        log_batch = flaky(run, "log_batch")
        for step in range(5):
            run.log_metrics({"a": float(step)}, step)
        until(lambda: log_batch.calls > 1)
        log_batch.down = False
        until(lambda: len(steps(store_uri, run.id, "a")) == 5)
    assert steps(store_uri, run.id, "a") == [(step, float(step)) for step in range(5)]
    assert "incomplete" not in stored(run.id).data.tags
    assert len(said(caplog)) == 1, "one warning for one absence"


def test_what_was_kept_is_sent_when_the_run_ends(tracker, stored, store_uri, flaky) -> None:
    with tracker.run("x", {}, {}) as run:
        log_batch = flaky(run, "log_batch")
        run.log_metrics({"a": 0.0}, 0)
        until(lambda: log_batch.calls > 0)
        log_batch.down = False
        run.log_metrics({"a": 1.0}, 1)
    assert steps(store_uri, run.id, "a") == [(0, 0.0), (1, 1.0)]
    assert "incomplete" not in stored(run.id).data.tags


def test_files_that_cannot_be_kept_do_not_hold_up_values(tracker, stored, flaky, tmp_path, caplog) -> None:
    (tmp_path / "report.md").write_text("good")
    with tracker.run("x", {}, {}) as run:
        flaky(run, "log_artifact")
        run.log_artifact(tmp_path / "report.md")
        run.log_metrics({"a": 1.0}, 0)
        until(lambda: stored(run.id).data.metrics == {"a": 1.0})
    assert said(caplog)[-1].endswith("report.md; its own folder has everything")
    assert "values" not in said(caplog)[-1]


def test_values_that_there_is_no_room_for_are_counted(tracker, store_uri, flaky, monkeypatch, caplog) -> None:
    monkeypatch.setattr("wafer_lab.tracking.outbox._MOST_VALUES", 3)
    with tracker.run("x", {}, {}) as run:
        log_batch = flaky(run, "log_batch")
        for step in range(5):
            run.log_metrics({"a": float(step)}, step)
        until(lambda: log_batch.calls > 0)
        log_batch.down = False
    assert [step for step, _ in steps(store_uri, run.id, "a")] == [2, 3, 4]
    assert ": 2 values; its own" in said(caplog)[-1]


def test_a_mistake_of_ours_is_not_taken_for_the_stores(tracker, monkeypatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("no such type", INVALID_PARAMETER_VALUE)

    opened = tracker.run("x", {}, {})
    run = opened.__enter__()
    monkeypatch.setattr(run._client, "log_batch", refuse)
    run.log_metrics({"a": 1.0})
    with pytest.raises(MlflowException, match="no such type"):
        opened.__exit__(None, None, None)


def test_a_locked_database_is_waited_for(tracker, stored, store_uri, caplog) -> None:
    """Another writer holds the file's lock for two seconds."""
    path = store_uri.removeprefix("sqlite:///")
    with tracker.run("x", {}, {}) as run:
        other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(2, lambda: other.execute("COMMIT"))
        release.start()
        began = time.monotonic()
        for step in range(3):
            run.log_metrics({"a": float(step)}, step)
        assert time.monotonic() - began < 0.5, "the work does not wait"
    release.join()
    other.close()
    assert steps(store_uri, run.id, "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert stored(run.id).info.status == "FINISHED"
    assert said(caplog) == []


class Server:
    """As much of an MLflow server as one run needs; `delay` is how long it takes over each answer."""

    def __init__(self, artifacts: Path, port: int = 0) -> None:
        self.delay, self.metrics, self.status = 0.0, [], ""
        server = self
        info = {"run_id": "r", "experiment_id": "1", "status": "RUNNING", "artifact_uri": str(artifacts)}
        run = {"run": {"info": info, "data": {}}}
        experiment = {"experiment_id": "1", "name": "wafer_lab", "lifecycle_stage": "active"}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({"experiment": experiment} if "experiments" in self.path else run)

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(server.delay)
                server.metrics += [(m["key"], m.get("step", 0)) for m in asked.get("metrics", [])]
                server.status = asked.get("status", server.status)
                self.answer(run if self.path.endswith("runs/create") else {})

            def answer(self, found: dict[str, Any]) -> None:
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server(tmp_path / "artifacts")
    yield made
    made.stop()


def test_a_slow_server_does_not_slow_the_work(server, tmp_path) -> None:
    with MLflowTracker(f"http://127.0.0.1:{server.port}", "wafer_lab", tmp_path).run("x", {"a": 1}, {}) as run:
        server.delay = 0.5
        began = time.monotonic()
        for step in range(5):
            run.log_metrics({"a": 1.0}, step)
        assert time.monotonic() - began < 0.2
        assert len(server.metrics) < 5
    assert server.metrics == [("a", step) for step in range(5)]
    assert server.status == "FINISHED"


def test_a_server_that_was_away_gets_everything(server, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("wafer_lab.tracking.outbox.RETRY_SECONDS", 0.1)
    with MLflowTracker(f"http://127.0.0.1:{server.port}", "wafer_lab", tmp_path).run("x", {}, {}) as run:
        run.log_metrics({"a": 1.0}, 0)
        until(lambda: len(server.metrics) == 1)
        server.stop()
        run.log_metrics({"a": 1.0}, 1)
        until(lambda: len(said(caplog)) == 1)
        back = Server(tmp_path / "artifacts", server.port)
        run.log_metrics({"a": 1.0}, 2)
    back.stop()
    assert "refused" in said(caplog)[0]
    assert back.metrics == [("a", 1), ("a", 2)]
    assert back.status == "FINISHED"
