"""A whole study with real fits, in miniature."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows.study import trial as trials

REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = ["debug=smoke", "data.source.num_wafers=300", "model=wafer_cnn", "study.name=small"]


@pytest.fixture
def sweep(tmp_path, stores, monkeypatch):
    """Run sweep.py in this process: sweep("study=loss", ...) -> the study's folder."""
    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sweep.py", *SMALL, f"paths.cache={stores}", *words])
        GlobalHydra.instance().clear()
        runpy.run_path(str(REPOSITORY / "sweep.py"), run_name="__main__")
        return tmp_path / "sweeps" / "small"

    return run


def rows(folder):
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))


def test_a_study_from_command_line_to_best_experiment(sweep, tracked_runs, tmp_path):
    words = ["study=loss", "study.n_trials=3", "optimizer.weight_decay=0.01"]
    folder = sweep(*words)
    found = rows(folder)
    assert [row["state"] for row in found] == ["complete"] * 3
    assert all(bool(row["loss.gamma"]) == (row["loss"] == "focal") for row in found)
    for row in found:  # judged on val alone
        place = folder / f"trial_{row['trial']}"
        assert Predictions.read(place / "predictions.parquet").splits() == ("val",)
        assert "test/" not in (place / "metrics.json").read_text()
        config = OmegaConf.load(place / "config.yaml")
        assert config.optimizer.lr == float(row["optimizer.lr"])
        assert ("gamma" in config.loss) == (row["loss"] == "focal")
    best = max(found, key=lambda row: float(row["val/f1_macro"]))
    config = OmegaConf.load(folder / f"trial_{best['trial']}" / "config.yaml")
    for name in ("history.png", "slices.png"):
        assert (folder / "figures" / name).stat().st_size > 1000
    assert f"best    trial {best['trial']}" in (folder / "report.md").read_text()
    composed = as_experiment(folder)
    for group in ("model", "loss", "optimizer", "imbalance", "trainer", "task"):
        assert OmegaConf.to_container(composed[group], resolve=True) == OmegaConf.to_container(config[group])

    runs = {run.info.run_name: run for run in tracked_runs(tmp_path / "mlflow.db")}
    parent = runs.pop("small")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.data.tags["trial"] for run in runs.values()} == {"0", "1", "2"}
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert parent.data.metrics["best/val/f1_macro"] == float(best["val/f1_macro"])


def test_an_interrupted_study_reports_what_is_finished(sweep, tmp_path, monkeypatch, capsys):
    def judged_once(cfg, settings, trial):
        if trial.number:
            raise KeyboardInterrupt
        return [0.5]

    monkeypatch.setattr("wafer_lab.workflows.study.run.run_trial", judged_once)
    with pytest.raises(SystemExit) as stopped:
        sweep("study=loss", "study.n_trials=3", "tracking=none")
    assert stopped.value.code == 130
    folder = tmp_path / "sweeps" / "small"
    assert [row["state"] for row in rows(folder)] == ["complete"]
    assert (folder / "experiment" / "best.yaml").is_file()
    assert "to go on: the same command" in capsys.readouterr().out


def as_experiment(folder):
    """The config that `train.py --config-dir FOLDER experiment=best debug=smoke` composes."""
    assert "# Needs on the command line too: debug=smoke" in (folder / "experiment" / "best.yaml").read_text()
    search = f"hydra.searchpath=[file://{folder}]"
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", overrides=["experiment=best", "debug=smoke", "name=best", search])


def test_seeds_objectives_and_a_diverged_trial(sweep, monkeypatch):
    calls = []
    fit = trials.fit

    def counted(cfg, **kwargs):
        calls.append((Path(cfg.paths.run).parts[-2:], cfg.seed))
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return fit(cfg, **kwargs)

    monkeypatch.setattr(trials, "fit", counted)
    metrics = {"val/f1_macro": "max", "parameters": "min", "latency": "min", "cost": "min"}
    objectives = ", ".join(f"{{metric: {name}, direction: {side}}}" for name, side in metrics.items())
    space = "optimizer.lr: null, optimizer.weight_decay: null, model.width: [4, 8]"
    words = [f"study.objectives=[{objectives}]", f"+study.space={{{space}}}", "study.seeds=2", "study.pruner=none"]
    folder = sweep(*words, "study.n_trials=2", "tracking=none")
    found = rows(folder)
    assert [row["state"] for row in found] == ["fail", "complete"]
    assert "can't allocate memory" in found[0]["reason"]
    assert calls[2:] == [(("trial_1", "seed_0"), 0), (("trial_1", "seed_1"), 1)]
    assert float(found[1]["parameters"]) > 0 < float(found[1]["latency"])
    assert (folder / "figures" / "pareto.png").exists()
