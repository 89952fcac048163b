"""Reading run folders, which may come from somebody else."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.workflows.finished import (
    datamodule_of,
    find_runs,
    read_config,
    read_run,
    run_id,
    settings_of,
    val_scores,
)

SIMULATED = {"_target_": "wafer_lab.data.simulator.Simulator", "num_wafers": 40}
DATA = {"_target_": "wafer_lab.data.maps.MapDataModule", "source": SIMULATED, "target": "multiclass", "num_classes": 9}


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a config and no more: folder(name="x", ...) -> its path."""

    def made(**config):
        data = {**DATA, "cache": str(tmp_path / "cache"), "in_channels": 3}
        text = json.dumps({"name": "run", "seed": 0, "data": data, "task": {}, "figures": True, **config})
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path

    return made


def evil(tmp_path: Path) -> dict[str, str]:
    return {"_target_": "os.mkdir", "path": str(tmp_path / "ran")}


def test_a_config_is_taken_as_it_stands(folder, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    run = folder(name="${oc.env:SECRET}", note="a $ and \\${b}", path="costs 5 $")
    config = read_config(run)
    assert [config[key] for key in ("name", "note", "path")] == ["${oc.env:SECRET}", "a $ and \\${b}", "costs 5 $"]


def test_what_omegaconf_writes_is_read_alike(tmp_path):
    config = {"name": "2024-01-01", "seed": 0, "task": {"a": 1e-05, "b": "1e5", "c": "yes", "d": None}}
    config |= {"data": {"path": "a: b #c", "e": [1.0, float("inf")]}, "figures": False}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("form", ["node", "elsewhere", "resolver", "escaped", "function", "private"])
def test_data_hides_no_code_to_run(folder, tmp_path, form):
    made = f"${{oc.create:'{{_target_: os.mkdir, path: {tmp_path / 'ran'}}}'}}"
    source = {
        "node": evil(tmp_path),
        "elsewhere": "${evil}",
        "resolver": made,
        "escaped": f"\\{made}",
        "function": {"_target_": "wafer_lab.data.prepare.prepare", "source": SIMULATED, "dest": str(tmp_path / "ran")},
        "private": {"_target_": "wafer_lab.data.readers.unpickle._Unpickler", "file": None},
    }[form]
    run = folder(data={**DATA, "source": source, "cache": "c", "in_channels": 3}, evil=evil(tmp_path))
    with pytest.raises(UserError, match=r"config\.yaml .*not loaded"):
        datamodule_of(read_config(run), run)
    assert not (tmp_path / "ran").exists()


def test_data_of_a_run_can_be_made_again(folder):
    run = folder()
    assert datamodule_of(read_config(run), run).num_classes == 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, "data has no settings"),
        ({"paths": 3}, "paths has no settings"),
        ({"tracking": "x"}, "tracking has no settings"),
        ({"seed": [1]}, "seed is no whole number"),
    ],
)
def test_a_config_of_no_run_is_said(folder, change, said):
    with pytest.raises(UserError, match=rf"{said}; put back"):
        read_config(folder(**change))


@pytest.mark.parametrize("text", ["a: [", "", "- 1", "a: 1", "\x00", "!!python/object/apply:os.getcwd []"])
def test_a_damaged_config_is_said(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"damaged|not the config of a run"):
        read_config(tmp_path)


def test_settings_of_old_and_new_runs():
    assert settings_of({}) == Evaluation()
    stored = {"_target_": "wafer_lab.evaluation.settings.Evaluation", "tta": "d4", "normal": ["none"]}
    assert settings_of({"evaluation": stored}) == Evaluation(tta="d4", normal=("none",))


@pytest.mark.parametrize("stored", [None, "argmax", {"later": 1}, {"max_escape_rate": "low"}])
def test_settings_that_do_not_fit_are_said(stored):
    with pytest.raises(UserError, match=r"config\.yaml: evaluation .*; .*for the defaults"):
        settings_of({"evaluation": stored})


def test_facts_and_scores_are_read_where_they_are(tmp_path):
    assert (run_id(tmp_path), val_scores(tmp_path)) == (None, {})
    (tmp_path / "facts.json").write_text('{"run_id": "abc"}')
    (tmp_path / "metrics.json").write_text(
        '{"val/f1": 0.5, "val/f1/low": 0.4, "test/f1": 1, "val/x": "y", "val/n": NaN}'
    )
    assert run_id(tmp_path) == "abc"
    assert val_scores(tmp_path) == {"f1": 0.5, "f1/low": 0.4}
    (tmp_path / "facts.json").write_text('{"run_id": ["abc"]}')
    assert run_id(tmp_path) is None
    for text in ("{", "[]"):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(UserError, match=r"metrics.json is .*wafer-lab evaluate"):
            val_scores(tmp_path)


@pytest.fixture
def table():
    """Six test wafers of two classes."""
    return Predictions(
        index=np.arange(6),
        split=np.repeat(["test"], 6),
        view=np.zeros(6, np.int8),
        target=np.arange(6) % 2,
        logits=np.zeros((6, 2), np.float32),
        class_names=("a", "b"),
        target_kind="multiclass",
        split_digest="5p117",
        data_fingerprint="da7a",
    )


def test_a_cross_validation_is_refused_with_what_to_name(tmp_path, table):
    table.write(tmp_path / "runs" / "whole" / "predictions.parquet")
    table.write(tmp_path / "runs" / "whole" / "fold_0" / "predictions.parquet")
    for path in (tmp_path / "runs", tmp_path / "runs" / "whole"):
        with pytest.raises(UserError, match=r"whole is a cross-validation.*same fold.*whole/fold_0"):
            find_runs([path])
    assert find_runs([tmp_path / "runs" / "whole" / "fold_0"])[0]


def test_a_run_is_judged_as_its_predictor_was_fitted(folder, table):
    run = folder(evaluation={"cost_ratio": 3.0})
    table.write(run / "predictions.parquet")
    assert read_run(run).settings.cost_ratio == 3
    Predictor.plain(("a", "b"), "multiclass").write(run / "predictor.json")
    assert read_run(run).settings.cost_ratio == 10
    Predictor.plain(("a", "c"), "multiclass").write(run / "predictor.json")
    with pytest.raises(UserError, match=r"different classes; run wafer-lab evaluate"):
        read_run(run)
