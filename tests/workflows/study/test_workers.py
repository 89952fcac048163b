"""Several processes on one study, some of them killed: every trial is finished once."""

import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from wafer_lab.workflows.study.storage import WORKER, finished

SCRIPT = Path(__file__).with_name("worker.py")
N_TRIALS = 12


def start(storage, uri, artifacts, *dies):
    words = [sys.executable, SCRIPT, storage, uri, artifacts, str(N_TRIALS), *dies]
    return subprocess.Popen(words, cwd=artifacts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_four_workers_on_postgresql_lose_and_double_nothing(postgresql, tmp_path):
    pytest.importorskip("psycopg", reason="study.storage on PostgreSQL needs psycopg")
    storage, uri = (f"postgresql+psycopg://wafer@{postgresql}/{name}" for name in ("studies", "mlflow"))
    workers = [start(storage, uri, tmp_path, *dies) for dies in (["die_in"], ["die_logging"], [], [])]
    said = [worker.communicate(timeout=540)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [-9, -9, 0, 0], said
    study = optuna.load_study(study_name="toy", storage=storage)
    trials = study.get_trials()
    assert len(finished(study)) == N_TRIALS
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: N_TRIALS, TrialState.FAIL: 2}
    lost = {trial.number: trial.params for trial in trials if trial.state == TrialState.FAIL}
    repeated = {trial.user_attrs["repeats"]: trial.params for trial in trials if "repeats" in trial.user_attrs}
    assert repeated == lost
    assert len({trial.params["x"] for trial in finished(study)}) == N_TRIALS
    assert len({trial.user_attrs[WORKER] for trial in finished(study)}) == 2
    runs = mlflow_runs(uri)
    assert runs.pop("toy") == ["FINISHED"]
    assert runs == {
        f"trial_{trial.number}": ["KILLED" if trial.number in lost else "FINISHED"] for trial in trials
    }  # fmt: skip


def mlflow_runs(uri):
    """Statuses of the runs of each name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        found = client.search_runs([client.get_experiment_by_name("wafer_lab").experiment_id])
    names: dict[str, list[str]] = {}
    for run in found:
        names.setdefault(run.info.run_name, []).append(run.info.status)
    return names
