"""Ensembles that train their members, and ensembles of finished runs made by hand."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from scipy.special import softmax

from wafer_lab.config.build import build
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.tracking.tracker import NullRun
from wafer_lab.workflows import nested, run
from wafer_lab.workflows.compare import compare
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.finished import read_config
from wafer_lab.workflows.members import finished, plan

CONF = Path(__file__).resolve().parents[2] / "conf"
SMALL = ["workflow=ensemble", "workflow.seeds=[0,1]", "model.width=4"]
NAMES = ("Donut", "Loc", "none")


class Recorder:
    """A tracker that keeps what it is told, in a list of the class."""

    runs: ClassVar[list] = []

    @contextmanager
    def run(self, name, config, tags, nested=False, resumes=None):
        self.runs.append((name, nested, tags))
        yield NullRun()


@pytest.fixture
def recorded(monkeypatch):
    """A config whose runs are recorded in Recorder.runs."""
    monkeypatch.setattr(Recorder, "runs", [])

    def tracked(cfg):
        cfg.tracking = {"_target_": f"{__name__}.Recorder"}
        return cfg

    return tracked


@pytest.fixture
def fits(monkeypatch):
    """Folders of the fits that are started."""
    started, real = [], nested.fit

    def counted(cfg, **options):
        started.append(Path(cfg.paths.run).name)
        return real(cfg, **options)

    monkeypatch.setattr(nested, "fit", counted)
    return started


@pytest.fixture
def commanded(tmp_path, stores):
    """A run of train.py with its command line at hand, as models and pretraining sources need: commanded("a=b")."""

    @contextmanager
    def composed(*overrides):
        from wafer_lab.config.resolvers import register

        register()
        places = [f"paths.outputs={tmp_path}", "name=run", "tracking=none"]
        small = ["debug=smoke", "data.source.num_wafers=400", f"paths.cache={stores}", "figures=false"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            whole = compose("train", overrides=[*places, *small, *overrides], return_hydra_config=True)
            with open_dict(whole):
                whole.hydra.runtime.output_dir = str(tmp_path / "run")  # as hydra.main does, for paths.run
            HydraConfig.instance().set_config(whole)
            plain = OmegaConf.to_container(whole, resolve=False)
            del plain["hydra"]
            yield OmegaConf.create(plain)

    return composed


def scores(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_members_answer_together_and_are_kept(tiny, fits, recorded, capsys):
    cfg = recorded(tiny(*SMALL, "evaluation.tta=hflip"))
    before = OmegaConf.to_yaml(cfg)
    run(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    assert fits == ["seed_0", "seed_1"]
    assert [(name, inside) for name, inside, _ in Recorder.runs] == [
        ("run", False), ("run seed_0", True), ("run seed_1", True),
    ]  # fmt: skip
    folder = Path(cfg.paths.run)
    table = Predictions.read(folder / "predictions.parquet")
    said = []
    for seed in range(2):
        own = folder / f"seed_{seed}"
        assert yaml.safe_load((own / "config.yaml").read_text())["seed"] == seed
        predictor = Predictor.read(own / "predictor.json")
        part = wafers(Predictions.read(own / "predictions.parquet"), "test", "hflip")
        said.append(predictor.probabilities(part.logits))  # each at its own temperature, over its views
    together = softmax(wafers(table, "test", "hflip").logits.astype(float), axis=-1).mean(1)
    assert together == pytest.approx(np.mean(said, axis=0), abs=1e-5)
    assert "ensemble of 2 - mean member" in capsys.readouterr().out

    first = scores(folder)
    assert {"test/f1_macro", "test/f1_macro/low", "val/f1_macro"} <= first.keys()
    worth = json.loads((folder / "ensemble.json").read_text())
    assert worth["ensemble/members/2/f1_macro"] == pytest.approx(first["test/f1_macro"])
    of_members = [scores(folder / f"seed_{k}")["test/f1_macro"] for k in range(2)]
    assert worth["ensemble/members/1/f1_macro"] == pytest.approx(np.mean(of_members))
    assert "[ensemble.md](ensemble.md)" in (folder / "report.md").read_text()

    run(cfg)
    assert fits == ["seed_0", "seed_1"]
    assert scores(folder) == pytest.approx(first)
    assert evaluate(folder, {}).scores["test/f1_macro"] == pytest.approx(first["test/f1_macro"])
    found, _ = compare([folder, folder / "seed_0", folder / "seed_1"], out=folder.parent / "compared", mlflow=False)
    assert len(found.settings) == 2
    assert found.settings[0].scores[0] in (pytest.approx(first["test/f1_macro"]), pytest.approx(of_members[0]))


def test_members_by_fold_share_val_and_test_and_go_without_different_wafers(tiny):
    cfg = tiny("workflow=ensemble", "data.limit=null", "data.label_fraction=1", "data.split=stratified")
    whole: WaferDataModule = build(cfg.data)
    whole.open_and_split()
    left = []
    for fold, member in enumerate(plan(cfg, None, None, None, folds=3)):
        assert (member.name, member.config.seed) == (f"fold_{fold}", 0)
        data: WaferDataModule = build(member.config.data)
        data.open_and_split()
        assert data.split_digest == whole.split_digest
        assert set(data.split.train) < set(whole.split.train)
        left.append(np.setdiff1d(whole.split.train, data.split.train))
        assert np.isin(left[-1], data.split.unlabelled).all()
    assert np.array_equal(np.sort(np.concatenate(left)), whole.split.train)  # each wafer is left out once
    common = np.bincount(whole.label[whole.split.train]) > 30
    shares = [
        np.bincount(whole.label[rows], minlength=9) / np.bincount(whole.label[whole.split.train]) for rows in left
    ]
    assert np.abs(np.array(shares)[:, common] - 1 / 3).max() < 0.06


def test_members_of_several_models_and_from_a_pretraining(commanded, fits):
    choices = ["workflow=ensemble", "model.width=4", "workflow.sources={first: ['loss=focal']}"]
    with commanded(*choices, "workflow.seeds=[0]", "workflow.models=[wafer_cnn,resnet18]") as cfg:
        large = plan(cfg, [0], ["wafer_cnn", "resnet18"], None, None)[1]
        assert (large.name, large.config.model.depth, large.config.model.width) == ("resnet18", 18, 4)
        with pytest.raises(UserError, match=r"trains the encoder of WaferCNN\(.* first, .* not fit resnet\("):
            run(cfg)
        assert fits == []
        assert not Path(cfg.paths.run).exists()
    with commanded(*choices, "workflow.seeds=[0,1]", "workflow.models=[wafer_cnn]") as cfg:
        before = OmegaConf.to_yaml(cfg)
        run(cfg)
        assert OmegaConf.to_yaml(cfg) == before
    assert fits == ["pretrain_first", "first_wafer_cnn_seed_0", "first_wafer_cnn_seed_1"]
    folder = Path(cfg.paths.run)
    first, second = (yaml.safe_load((folder / name / "config.yaml").read_text()) for name in fits[:2])
    assert first["loss"]["_target_"].endswith("FocalLoss")
    assert second["loss"]["_target_"].endswith("CrossEntropyLoss")
    assert (first["weights"], second["weights"]) == (None, str(folder / "pretrain_first"))


def test_the_run_of_an_ensemble_names_its_finished_members(tiny, recorded, leave, table):
    folders = [leave("one", table()), leave("two", table(seed=1))]
    for folder in folders:
        (folder / "facts.json").write_text(json.dumps({"run_id": f"id_of_{folder.name}"}))
    run(recorded(tiny("workflow=ensemble", f"workflow.runs=[{','.join(map(str, folders))}]")))
    assert [(name, tags["members"]) for name, _, tags in Recorder.runs] == [("run", "id_of_one id_of_two")]


@pytest.fixture
def table():
    """Val and test rows of one view: table(right=0.8, seed=1)."""

    def make(right=0.6, seed=0, names=NAMES, kind="multiclass"):
        target = np.random.default_rng(99).integers(0, 3, 600)
        random = np.random.default_rng(seed)
        called = np.where(random.random(600) < right, target, (target + 1) % 3)
        logits = random.normal(size=(600, 3)) + 2 * np.eye(3)[called]
        return Predictions(
            index=np.arange(600),
            split=np.repeat(["val", "test"], 300),
            view=np.zeros(600, np.int8),
            target=target if kind == "multiclass" else np.eye(3, dtype=np.int8)[target],
            logits=logits.astype(np.float32),
            class_names=names,
            target_kind=kind,
            split_digest="5p117",
            data_fingerprint="da7a",
        )

    return make


@pytest.fixture
def leave(tmp_path):
    """Leave a finished run's folder."""

    def made(name, table):
        folder = tmp_path / "runs" / "members" / name
        folder.mkdir(parents=True)
        config = {"name": name, "seed": 0, "loss": {"_target_": "losses.Focal"}, "figures": False}
        config |= {"data": {"path": "theirs.npz", "seed": 0, "target": "multiclass"}, "paths": {"run": str(folder)}}
        config |= {"task": {"monitor": "val/f1_macro", "mode": "max"}}
        OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
        table.write(folder / "predictions.parquet")
        return folder

    return made


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_finished_runs_answer_together(tiny, leave, table, kind, fits):
    folders = [leave(name, table(seed=k, kind=kind)) for k, name in enumerate("abc")]
    cfg = tiny("workflow=ensemble", f"workflow.runs=[{','.join(map(str, folders))}]", "workflow.combine=logits")
    run(cfg)
    assert fits == []
    folder = Path(cfg.paths.run)
    worth = json.loads((folder / "ensemble.json").read_text())
    assert worth["ensemble/members/3/f1_macro"] > worth["ensemble/members/1/f1_macro/best"]
    assert worth["difference/ensemble of 3 - mean member/f1_macro/p"] < 0.05
    assert "The ensemble of 3 is better than the mean member" in (folder / "ensemble.md").read_text()
    assert read_config(folder)["data"]["path"] == "theirs.npz"  # of the members, whatever data the command named
    changed = evaluate(folder, {"decision": "f1"})
    assert changed.scores["test/f1_macro"] > worth["ensemble/members/1/f1_macro"]


def test_finished_runs_may_come_in_groups(leave, table):
    folders = [str(leave(name, table(seed=k))) for k, name in enumerate("abc")]
    members, groups = finished({"scratch": folders[:2], "pretrained": folders[2:]})
    assert [(run.folder.name, group) for run, group in zip(members, groups, strict=True)] == [
        ("a", "scratch"), ("b", "scratch"), ("c", "pretrained"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="the same run is given twice"):
        finished({"scratch": folders[:2], "pretrained": folders[1:]})


@pytest.mark.parametrize(
    ("options", "changes", "says"),
    [
        ([], {"split_digest": "0ther"}, r"different splits \(5p117 and 0ther\).*data\.seed"),
        ([], {"class_names": ("Donut", "Ring", "none")}, "of different classes"),
        ([], {"data_fingerprint": "0ther"}, "of different data"),
        (["workflow.combine=median"], {}, r"no workflow\.combine=median; choose probabilities or logits"),
        (["evaluation.tta=d4"], {}, r"needs views that not every member has predicted; choose one of none"),
        (["workflow.subsets=0"], {}, "at least 1"),
    ],
)
def test_members_that_do_not_go_together_are_refused(tiny, leave, table, options, changes, says):
    folders = [leave("one", table()), leave("two", replace(table(seed=1), **changes))]
    cfg = tiny("workflow=ensemble", f"workflow.runs=[{','.join(map(str, folders))}]", *options)
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["workflow.seeds=[3]"], "at least two members"),
        (["workflow.seeds=[3,3]"], r"workflow\.seeds names 3 twice"),
        (["workflow.seeds=null"], "at least two members"),
        (["workflow.folds=1"], r"workflow\.folds=1 must be at least 2"),
        (["workflow.models=[wafer_cnn]"], "needs a command line"),
        (["+workflow.sources={a/b: null}"], "letters, digits"),
        (["+workflow.sources={a: [1]}"], r"workflow\.sources\.a must be null, imagenet"),
        (["data=simulated_masks", "task=segmentation", "model=unet"], "not masks"),
        (["workflow.runs=[nowhere]"], "no folder nowhere"),
    ],
)
def test_what_cannot_be_an_ensemble_is_said_and_leaves_nothing(tiny, options, says):
    width = [] if "model=unet" in options else ["model.width=4"]
    cfg = tiny("workflow=ensemble", *width, *(text.removeprefix("+") for text in options))
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


def test_one_finished_run_is_no_ensemble(tiny, leave, table):
    cfg = tiny("workflow=ensemble", f"workflow.runs=[{leave('one', table())}]")
    with pytest.raises(UserError, match=r"at least two members, and workflow\.runs has 1"):
        run(cfg)
