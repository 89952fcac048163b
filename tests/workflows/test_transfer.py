"""The transfer study on simulated wafers, and sources that had seen its test wafers."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from sklearn.metrics import f1_score

from wafer_lab.config.build import build
from wafer_lab.data.prepare import prepare
from wafer_lab.data.rows import Rows
from wafer_lab.errors import UserError
from wafer_lab.evaluation.external import Twins
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.models.wafer_cnn import WaferCNN
from wafer_lab.workflows import nested, run, transfer
from wafer_lab.workflows.finished import datamodule_of, read_config
from wafer_lab.workflows.seen import Seen, seen_by

SMALL = ["workflow=transfer", "model.width=4", "workflow.fractions=[1.0,0.2]", "workflow.seeds=[0]"]


@dataclass
class Maps:
    """A source in memory."""

    batch: Rows
    class_names: tuple[str, ...]
    name: str = "maps"
    kind: str = "maps"
    target: str = "multiclass"
    root: str = ""

    def fingerprint(self):
        return "0123456789abcdef"

    def rows(self):
        yield self.batch

    def notes(self):
        return {}


def end_to_end(maps, label):
    shape = np.array([one.shape for one in maps], np.int32)
    cells = np.concatenate([one.ravel() for one in maps])
    return Rows(label=label, height=shape[:, 0], width=shape[:, 1], cells=cells)


@pytest.fixture
def target(tiny):
    """The data of a study."""
    data = build(tiny("data.limit=null").data)
    data.open_and_split()
    return data


@pytest.fixture
def planted(target, tiny, tmp_path):
    """The folder of a run whose data hold some of the target's test wafers, as they are and at twice the size."""
    test = target.split.test
    patterned = test[np.isin(target.label[test], [0, 3, 6])]  # Center, Edge-Ring, Random: enough dies to know them by
    exact, near = test[:7], np.setdiff1d(patterned, test[:7])[:4]
    strangers = build(tiny("data.limit=null", "data.source.seed=77").data)
    strangers.open_and_split()
    maps = [target.store.map(row) for row in exact]
    maps += [np.kron(target.store.map(row), np.ones((2, 2), np.uint8)) for row in near]
    maps += [strangers.store.map(row) for row in range(200)]
    label = np.concatenate([target.label[exact], target.label[near], strangers.label[:200]]).astype(np.int16)
    prepare(Maps(end_to_end(maps, label), target.class_names), tmp_path / "planted.store")
    folder = tmp_path / "source"
    cfg = tiny(
        "data.limit=null",
        "data.label_fraction=1",
        "data.split=stratified",
        "data.val=0.01",
        "data.test=0.01",
        "data.seed=3",
    )
    config = OmegaConf.to_container(cfg, resolve=True)
    del config["data"]["source"]
    config["data"]["path"] = str(tmp_path / "planted.store")
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    source = datamodule_of(read_config(folder), folder)
    source.open_and_split()
    known = np.isin(np.arange(11), source.split.test, invert=True)  # what the source itself holds back, it did not see
    return folder, exact[known[:7]], near[known[7:]]


def test_copies_of_the_test_wafers_are_found_across_sizes(planted, target, capsys):
    folder, exact, near = planted
    found = seen_by(str(folder), target)
    assert set(found.test.exact) == set(exact)
    assert set(found.test.near) == set(near)
    assert len(exact) + len(near) >= 9
    assert not found.val.rows
    assert found.trained > 190
    assert "looking for near duplicates" in capsys.readouterr().out


def test_weights_have_seen_what_those_had_that_they_began_with(planted, target, tiny, tmp_path):
    folder, exact, near = planted
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    cfg = tiny("data.limit=null", "data.source.seed=77", f"weights={folder}")
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), strangers / "config.yaml")
    found, own = seen_by(str(strangers), target), seen_by(str(folder), target)
    assert set(exact) <= set(found.test.exact)
    assert set(near) <= set(found.test.near)
    assert found.trained > own.trained

    config = OmegaConf.load(folder / "config.yaml")  # a ring, as only changed files have it
    OmegaConf.save(OmegaConf.merge(config, {"weights": str(strangers)}), folder / "config.yaml")
    assert seen_by(str(strangers), target) == found

    OmegaConf.save(OmegaConf.merge(config, {"weights": "imagenet"}), folder / "config.yaml")
    assert "not known" in seen_by(str(strangers), target).test.unknown
    assert set(exact) <= set(seen_by(str(strangers), target).test.exact)


def test_what_is_not_known_of_a_source_is_said(target, tmp_path):
    assert seen_by(None, target).test == Twins(near=())
    file = tmp_path / "weights.safetensors"
    file.write_text("")
    assert "not known" in seen_by(str(file), target).test.unknown
    assert "not known" in seen_by("imagenet", target).test.unknown


def test_sources_are_compared_on_the_same_labels_and_wafers(tiny, monkeypatch, capsys, tmp_path):
    pretrained = tmp_path / "other.pth"
    torch.save(WaferCNN(3, width=4).state_dict(), pretrained)
    cfg = tiny(*SMALL, f"+workflow.sources.other={pretrained}")
    before = OmegaConf.to_yaml(cfg)
    dropped = build(tiny("data.label_fraction=1").data)
    dropped.open_and_split()
    gone = dropped.split.test[:3]
    monkeypatch.setattr(transfer, "seen_by", lambda weights, _: _pretend(weights, gone))
    run(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    folder = Path(cfg.paths.run)
    names = ["scratch_0.2_seed_0", "scratch_1_seed_0", "other_0.2_seed_0", "other_1_seed_0"]
    configs = {name: yaml.safe_load((folder / name / "config.yaml").read_text()) for name in names}
    assert [configs[name]["weights"] for name in names] == [None, None, str(pretrained), str(pretrained)]
    tables = {name: Predictions.read(folder / name / "predictions.parquet") for name in names}
    assert len({table.split_digest for table in tables.values()}) == 1

    def f1(name):
        part = wafers(tables[name], "test")
        part = part.take(~np.isin(part.index, gone))
        return f1_score(part.target, Predictor.read(folder / name / "predictor.json")(part.logits), average="macro")

    found = json.loads((folder / "metrics.json").read_text())
    assert found["transfer/other/0.2/f1_macro"] == pytest.approx(f1("other_0.2_seed_0"))
    step = f1("other_1_seed_0") - f1("scratch_1_seed_0")
    assert found["transfer/other/1/f1_macro/difference"] == pytest.approx(step)
    low, high = (found[f"transfer/other/1/f1_macro/difference/{end}"] for end in ("low", "high"))
    assert low <= step <= high
    rows = list(csv.DictReader((folder / "transfer.csv").read_text().splitlines()))
    few = build(tiny("data.label_fraction=0.2").data)
    few.open_and_split()
    assert [int(row["labels"]) for row in rows] == 2 * [len(few.split.train), len(dropped.split.train)]
    text = (folder / "transfer.md").read_text()
    assert f"Judged on {len(dropped.split.test) - 3} of {len(dropped.split.test)} test wafers" in text
    assert "other was trained on 9 wafers, among them twins of 3 test wafers (exact copies)" in text
    assert "data.label_fraction=0.2 is less than one training wafer of" in text
    said = capsys.readouterr().out
    assert "warning: data.label_fraction=0.2 is less than one training wafer" in said

    monkeypatch.setattr(nested, "fit", None)  # none is started again
    run(cfg)
    assert json.loads((folder / "metrics.json").read_text()) == found


def _pretend(weights, rows):
    if weights is None:
        return Seen(Twins(), Twins())
    return Seen(Twins(), Twins(exact=tuple(rows.tolist())), trained=9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["workflow.fractions=[0.1,1.5]"], r"workflow\.fractions: 1\.5 must lie in"),
        (["workflow.fractions=[0.1,0.1]"], "names 0.1 twice"),
        (["workflow.fractions=[]"], "is empty"),
        (["workflow.seeds=[1,1]"], "names 1 twice"),
        (["workflow.sources.scratch=imagenet"], "scratch stands for random weights"),
        (["+workflow.sources.other=nowhere"], "there is nothing at nowhere"),
        (["+workflow.sources.simclr=simclr"], "needs a command line"),
    ],
)
def test_what_cannot_be_studied_is_said_and_leaves_nothing(tiny, options, says):
    cfg = tiny(*SMALL, *options)
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


def test_weights_of_another_encoder_are_refused_before_anything_is_trained(tiny, monkeypatch, tmp_path):
    torch.save(WaferCNN(3, width=8).state_dict(), tmp_path / "other.pth")
    monkeypatch.setattr(nested, "fit", None)
    cfg = tiny(*SMALL, f"+workflow.sources.other={tmp_path / 'other.pth'}")
    with pytest.raises(UserError, match=r"other\.pth does not fit WaferCNN"):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


def test_a_study_without_an_unseen_wafer_is_refused(tiny, monkeypatch):
    cfg = tiny(*SMALL)
    every = build(cfg.data)
    every.open_and_split()
    monkeypatch.setattr(transfer, "seen_by", lambda *_: _pretend("all", every.split.test))
    with pytest.raises(UserError, match=r"nothing is left to judge on; set workflow\.drop_seen=false"):
        run(cfg)
    assert not Path(cfg.paths.run).exists()
