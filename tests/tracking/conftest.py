"""One migrated MLflow store per session; every test gets a copy."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wafer_lab.tracking.mlflow_tracker import MLflowTracker


@pytest.fixture(autouse=True)
def _restore_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what opening a store does to the environment and the loggers."""
    for name in ("MLFLOW_TRACKING_URI", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    before, levels = dict(os.environ), {n: logging.getLogger(n).level for n in ("mlflow", "alembic")}
    yield
    os.environ.clear()
    os.environ.update(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    tracker = MLflowTracker(f"sqlite:///{path}", "template", path.parent / "artifacts")
    with tracker.run("first", {}, {}):
        pass
    return path


@pytest.fixture
def store_uri(migrated_store: Path, tmp_path: Path) -> str:
    path = tmp_path / "mlflow.db"
    shutil.copyfile(migrated_store, path)
    return f"sqlite:///{path}"


@pytest.fixture
def tracker(store_uri: str, tmp_path: Path) -> MLflowTracker:
    return MLflowTracker(store_uri, "wafer_lab", tmp_path / "mlartifacts")


@pytest.fixture
def stored(store_uri: str) -> Callable[[str | None], Any]:
    """Reads a run back with a client of its own."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(store_uri).get_run


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]
