"""The commands as a user types them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wafer_lab.data.simulator import Simulator

REPOSITORY = Path(__file__).resolve().parents[1]
WAFER_LAB = [sys.executable, "-c", "from wafer_lab.cli import main; main()"]
SMALL = ["debug=smoke", "data.source.num_wafers=300", "model=wafer_cnn", "model.width=8", "figures=false"]


@pytest.fixture
def command(tmp_path):
    """Run a command in the repository; what it writes goes to a temporary folder."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"WAFER_LAB_OUTPUTS": str(tmp_path / "outputs"), "OMP_NUM_THREADS": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        words = tuple(map(str, words))
        return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_grid_gives_one_finished_mlflow_run_each_and_predicts(command, tracked_runs, tmp_path):
    done = command(sys.executable, "train.py", "--multirun", "loss=cross_entropy,focal", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
    folders = sorted(p for p in (tmp_path / "outputs/runs").iterdir() if p.is_dir())
    assert [len(list(f.glob("checkpoints/best.ckpt"))) for f in folders] == [1, 1]
    np.save(tmp_path / "wafer.npy", np.ones((30, 30), np.uint8))
    done = command(*WAFER_LAB, "predict", folders[0], tmp_path / "wafer.npy", "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith('"index","path","prediction","p_Center"')
    assert row.startswith('0,"wafer.npy",')
    runs = tracked_runs(tmp_path / "outputs/mlflow.db")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert {run.data.params["loss._target_"].rpartition(".")[2] for run in runs} == {"CrossEntropyLoss", "FocalLoss"}
    assert all("test/f1_macro" in run.data.metrics for run in runs)
    assert all(run.data.tags["split_digest"] for run in runs)


def test_all_mistakes_of_a_command_line_are_one_message(command, tmp_path):
    done = command(sys.executable, "train.py", "model=resnt18", "loss.gama=2", "trainer.max_epochs=ten")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for said in ("resnt18", "resnet18", "loss.gama", "trainer.max_epochs", "ten"):
        assert said in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data=wm811k"], "data.path"),
        (["data=wm811k", "data.path=nothing.pkl"], "nothing.pkl"),
        (["data=simulated_mixed", "loss=ldam"], "multilabel"),
    ],
)
def test_a_mistake_leaves_nothing_behind(command, tmp_path, words, says):
    done = command(sys.executable, "train.py", *words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    runs = tmp_path / "outputs" / "runs"
    assert not runs.exists() or not list(runs.iterdir())


def test_the_wafer_lab_command(command, tmp_path):
    """Prepare, predict, and a mistake: the three ways out."""
    from wafer_lab.data.prepare import prepare

    prepare(Simulator(num_wafers=40), tmp_path / "store")
    done = command(*WAFER_LAB, "data", "prepare", tmp_path / "store", tmp_path / "again")
    assert done.returncode == 2
    assert "prepared store already" in done.stderr
    done = command(*WAFER_LAB, "predict", tmp_path / "no_run", tmp_path / "store", "--out", tmp_path / "out.csv")
    assert done.returncode == 2
    assert "there is no model at" in done.stderr
    assert not (tmp_path / "out.csv").exists()
    assert "predict" in command(*WAFER_LAB, "--help").stdout


# Not matplotlib, scipy, torchvision, rich: torchmetrics and Lightning import them where metadata says they are there.
ABSENT = ["mlflow", "optuna", "albumentations", "cv2", "timm", "sklearn", "typer"]
BARE = f"""
import sys

sys.modules.update(dict.fromkeys({ABSENT}))  # an import of one fails as if it were not installed
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def test_training_needs_few_packages(command):
    """With only torch, lightning, torchmetrics, hydra-core, numpy and pyarrow, the default run still runs."""
    done = command(sys.executable, "-c", BARE, "tracking=none", *[o for o in SMALL if o != "figures=false"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "macro F1" in done.stdout
