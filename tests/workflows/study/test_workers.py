"""Several processes on one study, some of them killed: every trial is finished once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from wafer_lab.workflows.study.storage import WORKER, finished

psycopg = pytest.importorskip("psycopg", reason="study.storage on PostgreSQL needs psycopg")
SCRIPT = Path(__file__).with_name("worker.py")
N_TRIALS, WORKERS = 8, ("die_in", "die_logging", "", "")


def start(storage, uri, artifacts, dies):
    words = [sys.executable, SCRIPT, storage, uri, artifacts, str(N_TRIALS), str(len(WORKERS)), dies]
    return subprocess.Popen(words, cwd=artifacts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_four_workers_on_postgresql_lose_and_double_nothing(postgresql, tmp_path):
    storage, uri = (f"postgresql+psycopg://wafer@{postgresql}/{name}" for name in ("studies", "mlflow"))
    workers = [start(storage, uri, tmp_path, dies) for dies in WORKERS]
    try:
        said = [worker.communicate(timeout=200)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [-9, -9, 0, 0], said
    opened = RDBStorage(storage, engine_kwargs={"poolclass": NullPool})  # none stays open
    study = optuna.load_study(study_name="toy", storage=opened)
    trials = study.get_trials()
    assert len(finished(study)) == N_TRIALS
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: N_TRIALS, TrialState.FAIL: 2}
    lost = {trial.number: trial.params for trial in trials if trial.state == TrialState.FAIL}
    repeated = {trial.user_attrs["repeats"]: trial.params for trial in trials if "repeats" in trial.user_attrs}
    assert repeated == lost
    assert len({trial.params["x"] for trial in finished(study)}) == N_TRIALS
    alive = {str(worker.pid) for worker in workers if worker.returncode == 0}
    assert {trial.user_attrs[WORKER].split()[-1] for trial in finished(study)} <= alive
    runs = mlflow_runs(uri)
    assert runs.pop("toy") == ["FINISHED"]
    assert runs == {
        f"trial_{trial.number}": ["KILLED" if trial.number in lost else "FINISHED"] for trial in trials
    }  # fmt: skip


def mlflow_runs(uri):
    """Statuses of the runs of each name."""
    names: dict[str, list[str]] = {}
    with psycopg.connect(uri.replace("+psycopg", "")) as connection:
        for name, status in connection.execute("SELECT name, status FROM runs"):
            names.setdefault(name, []).append(status)
    return names
