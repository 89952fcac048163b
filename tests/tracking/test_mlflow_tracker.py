import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from wafer_lab.errors import Terminated, UserError
from wafer_lab.tracking.mlflow_tracker import MLflowTracker

CONFIG = {
    "model": {"_target_": "wafer_lab.models.resnet18", "width": 64, "stages": [1, 2]},
    "callbacks": [{"patience": 3}],
    "note": "n" * 400,
    "nothing": None,
    "empty": {},
    "blank": "",
    "odd+key": True,
}


def test_normal_exit_is_finished_with_params_tags_and_config(tracker, stored, tmp_path: Path) -> None:
    tags = {"git_revision": "abc1234", "split_digest": "d1", "data_fingerprint": "f1"}
    with tracker.run("first try", CONFIG, tags) as run:
        assert stored(run.id).info.status == "RUNNING"
    found = stored(run.id)
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time
    assert found.info.run_name == "first try"
    assert tags.items() <= found.data.tags.items()
    params = found.data.params
    assert params["model.width"] == "64"
    assert params["model.stages"] == "[1, 2]"
    assert params["callbacks.0.patience"] == "3"
    assert params["note"] == "n" * 250
    assert params["nothing"] == "None"
    assert params["odd_key"] == "True"
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(tmp_path / "mlartifacts")
    import yaml

    assert yaml.safe_load((artifacts / "config.yaml").read_text()) == CONFIG


class SIGTERMException(SystemExit):  # Lightning's name
    pass


class TrialPruned(Exception):  # noqa: N818  # Optuna's name
    pass


def _lightning_interrupt() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def _raise(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


@pytest.mark.parametrize(
    ("act", "kind", "status"),
    [
        (_raise(RuntimeError("boom")), RuntimeError, "FAILED"),
        (_raise(UserError("typo")), UserError, "FAILED"),
        (_raise(SystemExit(2)), SystemExit, "FAILED"),
        (_raise(SystemExit(0)), SystemExit, "FINISHED"),
        (_raise(KeyboardInterrupt()), KeyboardInterrupt, "KILLED"),
        (_lightning_interrupt, SystemExit, "KILLED"),
        (_raise(SIGTERMException()), SystemExit, "KILLED"),
        (_raise(Terminated(15)), SystemExit, "KILLED"),
        (_raise(TrialPruned()), TrialPruned, "KILLED"),
    ],
)
def test_the_way_out_decides_the_status_and_propagates(tracker, stored, act, kind, status) -> None:
    with pytest.raises(kind), tracker.run("x", {}, {}) as run:
        act()
    assert stored(run.id).info.status == status


def test_nested_run_has_the_enclosing_run_as_parent(tracker, stored, store_uri, tmp_path) -> None:
    other = MLflowTracker(store_uri, "wafer_lab", tmp_path)
    with tracker.run("kfold", {}, {}) as parent:
        with other.run("fold 0", {}, {}, nested=True) as child:
            pass
        assert stored(parent.id).info.status == "RUNNING"
        with tracker.run("unrelated", {}, {}) as stranger:
            pass
    with tracker.run("late", {}, {}, nested=True) as late:
        pass
    assert stored(child.id).data.tags["mlflow.parentRunId"] == parent.id
    assert stored(child.id).info.experiment_id == stored(parent.id).info.experiment_id
    assert "mlflow.parentRunId" not in stored(stranger.id).data.tags
    assert "mlflow.parentRunId" not in stored(late.id).data.tags


def test_a_failed_child_leaves_the_parent_to_go_on(tracker, stored) -> None:
    with (
        tracker.run("sweep", {}, {}) as parent,
        pytest.raises(TrialPruned),
        tracker.run("trial", {}, {}, nested=True) as child,
    ):
        raise TrialPruned
    assert (stored(child.id).info.status, stored(parent.id).info.status) == ("KILLED", "FINISHED")


def test_metrics_and_artifacts(tracker, stored, store_uri, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "a.png").write_bytes(b"png")
    with tracker.run("x", {}, {}) as run:
        run.log_metrics({"val/f1_macro": 0.5}, step=1)
        run.log_metrics({"val/f1_macro": 0.7}, step=2)
        run.log_metrics({f"test/f1/{name}": 0.9 for name in ("Edge-Ring", "Center+Loc", "a//b/")})
        run.log_metrics({"test/f1/none": math.nan, **{f"many/{i}": i for i in range(1500)}})
        run.log_artifact(figures)
        run.log_artifact(figures / "a.png")
        run.log_artifact(figures / "a.png", folder="copies")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store_uri)
    history = [(m.step, m.value) for m in client.get_metric_history(run.id, "val/f1_macro")]
    assert history == [(1, 0.5), (2, 0.7)]
    metrics = stored(run.id).data.metrics
    assert metrics["test/f1/Edge-Ring"] == metrics["test/f1/Center_Loc"] == 0.9
    assert metrics["test/f1/a/b"] == 0.9
    assert math.isnan(metrics["test/f1/none"])
    assert metrics["many/1499"] == 1499
    for folder, files in (("figures", ["figures/a.png"]), ("copies", ["copies/a.png"])):
        assert [item.path for item in client.list_artifacts(run.id, folder)] == files
    assert {item.path for item in client.list_artifacts(run.id)} == {"a.png", "config.yaml", "copies", "figures"}


def test_nothing_global_changes(tracker) -> None:
    with tracker.run("x", {}, {}) as run:
        _ = run.logger.experiment
        assert "MLFLOW_TRACKING_URI" not in os.environ
        import mlflow

        assert mlflow.active_run() is None


def test_a_fresh_store_is_made_in_silence(tmp_path: Path, capfd, caplog, monkeypatch) -> None:
    """A path with spaces, a folder that does not exist, and a root logger at INFO, as Hydra sets it."""
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "my outputs" / "mlflow.db"
    tracker = MLflowTracker(f"sqlite:///{database}", "wafer_lab", tmp_path / "my outputs" / "artifacts")
    with tracker.run("x", CONFIG, {}) as run:
        assert run.how_to_open() == f"mlflow ui --backend-store-uri 'sqlite:///{database}'"
    assert database.stat().st_size > 0
    assert [item.name for item in tmp_path.iterdir()] == ["my outputs"], "nothing beside what was asked for"
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_relative_database_becomes_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert MLflowTracker("sqlite:///a.db", "x", "art").uri == f"sqlite:///{tmp_path / 'a.db'}"
    assert MLflowTracker("sqlite:///a.db", "x", "art").artifacts == tmp_path / "art"


def test_other_ranks_record_nothing(tracker, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with tracker.run("x", {}, {}) as run:
        assert run.id is run.logger is None


def test_an_experiment_made_by_another_process_meanwhile_is_used(tracker, store_uri, tmp_path, monkeypatch) -> None:
    from mlflow.tracking import MlflowClient

    existing = MlflowClient(store_uri).create_experiment("wafer_lab", artifact_location=str(tmp_path / "a"))
    answers = [None]
    real = MlflowClient.get_experiment_by_name
    monkeypatch.setattr(
        MlflowClient, "get_experiment_by_name", lambda self, name: answers.pop() if answers else real(self, name)
    )
    with tracker.run("x", {}, {}) as run:
        assert run.logger.experiment_id == existing


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("./mlruns", "no longer keeps runs in a folder"),
        ("", "no longer keeps runs in a folder"),
        ("file:///tmp/mlruns", "folder"),
        ("sqlite://outputs/mlflow.db", "sqlite"),
        ("foo://somewhere", "foo://somewhere"),
        ("http://127.0.0.1:{closed}", "refused"),
        ("http://127.0.0.1:{silent}", "timed out"),
        ("postgresql://me:secret@127.0.0.1:{closed}/db", "no database answers"),
        ("postgresql://me:secret@127.0.0.1:port/db", "no database answers"),
        ("sqlite:///{tmp}/notes.txt", "not an SQLite database"),
        ("sqlite:///{tmp}", "directory"),
        ("sqlite:///{tmp}/notes.txt/mlflow.db", "notes.txt"),
    ],
)
def test_unusable_store_is_one_clear_message_within_seconds(uri, says, tmp_path: Path, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("wafer_lab.tracking.mlflow_tracker._SECONDS", 1)
    (tmp_path / "notes.txt").write_text("not a database at all")
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = uri.format(tmp=tmp_path, closed=closed.getsockname()[1], silent=silent.getsockname()[1])
        began = time.monotonic()
        run = MLflowTracker(uri, "wafer_lab", tmp_path).run("x", {}, {})
        with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI.*tracking=none") as caught, run:
            pass
    assert time.monotonic() - began < 10
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_something_else_listening_there_is_reported(tmp_path: Path, monkeypatch) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tracker = MLflowTracker(f"http://127.0.0.1:{server.server_port}", "wafer_lab", tmp_path)
        with pytest.raises(UserError, match="404"), tracker.run("x", {}, {}):
            pass
    finally:
        server.shutdown()
        server.server_close()


def test_a_missing_package_is_named(tracker, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(UserError, match=r"pip install mlflow.*tracking=none"), tracker.run("x", {}, {}):
        pass


def test_a_deleted_experiment_says_how_to_restore(tracker, store_uri) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store_uri)
    client.delete_experiment(client.create_experiment("wafer_lab"))
    with pytest.raises(UserError, match="mlflow experiments restore"), tracker.run("x", {}, {}):
        pass


def test_a_whole_record_is_not_called_incomplete(tracker, stored, caplog) -> None:
    with tracker.run("x", {}, {}) as run:
        run.log_metrics({"a": 1.0})
    assert "incomplete" not in stored(run.id).data.tags
    assert caplog.records == []


def test_class_names_of_any_script_keep_their_own_keys(tracker, stored) -> None:
    scores = {"test/f1/划痕": 0.1, "test/f1/边缘": 0.2, "test/f1/Kratzer-außen": 0.3}
    with tracker.run("x", {}, {}) as run:
        run.log_metrics(scores)
    assert stored(run.id).data.metrics == scores
