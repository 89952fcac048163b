"""Rounds of labelling and training: what is chosen, what is kept, who labels, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from wafer_lab.active.acquisition import NAMES, choose
from wafer_lab.config.build import build, function
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows import rounds, run
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.pool import _dropped, ask

CPU = torch.device("cpu")
SMALL = ("workflow=active", "model.width=4", "data.split=stratified")


def indices(file: Path) -> list[int]:
    return [int(line["index"]) for line in csv.DictReader(file.read_text().splitlines())]


def start(cfg):
    return function(cfg.workflow)(cfg)


def test_rounds_grow_out_of_the_training_side_and_survive_a_kill(tiny, monkeypatch, capsys):
    monkeypatch.setattr("wafer_lab.evaluation.figures.style.DPI", 40)
    cfg = tiny(*SMALL, "figures=true")
    before, folder = OmegaConf.to_yaml(cfg), Path(cfg.paths.run)
    real, done = rounds.fit_once, []

    def stopped(child):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(child.name)
        return real(child)

    monkeypatch.setattr(rounds, "fit_once", stopped)
    with pytest.raises(KeyboardInterrupt):
        start(cfg)
    monkeypatch.setattr(rounds, "fit_once", real)
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("*/*.ckpt")}
    result = start(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())

    names = ["start_seed_0", "hybrid_seed_0_round_1", "random_seed_0_round_1"]
    rows = {name: indices(folder / name / "labelled.csv") for name in names}
    whole = build(cfg.data)
    whole.open_and_split()
    assert [len(rows[name]) for name in names] == [20, 30, 30]
    assert set(whole.label[rows["start_seed_0"]]) == set(whole.labels("train"))
    for name in names:
        assert len(set(rows[name])) == len(rows[name])
        assert set(rows["start_seed_0"]) <= set(rows[name]) <= set(whole.split.train)
        table = Predictions.read(folder / name / "predictions.parquet")
        assert not set(table.index) & set(whole.split.train)
        assert table.split_digest == whole.split_digest
        assert OmegaConf.load(folder / name / "config.yaml").data.labelled == str(folder / name / "labelled.csv")
    assert rows["hybrid_seed_0_round_1"] != rows["random_seed_0_round_1"]

    lines = list(csv.DictReader((folder / "curves.csv").read_text().splitlines()))
    assert [(line["acquisition"], line["round"], line["labels"]) for line in lines] == [
        (name, str(r), str(20 + 10 * r)) for name in ("hybrid", "random") for r in (0, 1)
    ]
    for line, name in zip(lines, [names[0], names[1], names[0], names[2]], strict=True):
        assert float(line["test/f1_macro"]) == json.loads((folder / name / "metrics.json").read_text())["test/f1_macro"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["active/random/over_random"] == 0
    assert metrics["active/hybrid/final"] == float(lines[1]["test/f1_macro"])
    assert (folder / "figures" / "active.png").is_file()
    assert "labels to random's final" in (folder / "report.md").read_text()

    # What is chosen is a function of the round, not of what happened before.
    scores = dict(result.points[1].__dict__)
    for file in (folder / names[1]).rglob("*"):
        if file.is_file():
            file.unlink()
    assert start(cfg).points[1].__dict__ == scores
    assert indices(folder / names[1] / "labelled.csv") == rows[names[1]]
    assert "3 fits; finished ones are kept" in capsys.readouterr().out


def test_a_person_labels(tiny, capsys):
    cfg = tiny(*SMALL, "workflow.oracle=file", "workflow.batch=5", "workflow.start=null", "data.label_fraction=0.1")
    folder = Path(cfg.paths.run)
    start(cfg)
    questions = folder / "hybrid_seed_0_round_1" / "to_label.csv"
    asked = list(csv.DictReader(questions.read_text().splitlines()))
    assert len(asked) == 5
    assert all(line["label"] == "" and (questions.parent / line["picture"]).is_file() for line in asked)
    assert f"hydra.run.dir={folder}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"5 of 5 wafers in .* have no label yet"):
        run(cfg)
    answers = ["Donut", "none", "Loc", "Donut"]  # and the last line is deleted
    given = [f"{line['index']},{name}" for line, name in zip(asked, answers, strict=False)]
    questions.write_text("\n".join(["index,label", *given]))
    result = start(cfg)
    known = build(cfg.data)
    known.open_and_split()
    assert [point.labels for point in result.points] == [len(known.split.train), len(known.split.train) + 4]
    assert {int(line["index"]) for line in asked} <= set(known.split.unlabelled)
    trained = build(OmegaConf.load(folder / "hybrid_seed_0_round_1" / "config.yaml").data)
    trained.open_and_split()
    rows = [int(line["index"]) for line in asked[:4]]
    assert [trained.class_names[k] for k in trained.label[rows]] == answers
    assert set(rows) <= set(trained.split.train)
    assert int(asked[4]["index"]) in trained.split.unlabelled
    assert "wait for labels" not in capsys.readouterr().out


@pytest.mark.parametrize("data", ["simulated", "simulated_mixed"])
def test_a_model_is_asked_what_every_acquisition_needs(tiny, data):
    loss = ["loss=bce"] if data == "simulated_mixed" else []
    cfg = tiny(f"data={data}", "head.dropout=0.5", "model.width=4", "data.views=none", "data.split=stratified", *loss)
    run_dir = fit(cfg).run_dir
    datamodule = build(cfg.data)
    datamodule.setup()
    val, train = datamodule.split.val, datamodule.split.train[:15]
    table = Predictions.read(run_dir / "predictions.parquet").select(split="val")
    loaded = load_task(run_dir)
    for name in NAMES:
        pool = ask(run_dir, datamodule, name, val, train, "cpu", 50, 5, seed=1)
        assert len(set(choose(name, pool, 9, np.random.default_rng(0)).tolist())) == 9
        if name == "hybrid":
            assert pool.probabilities == pytest.approx(loaded.predictor.probabilities(table.logits[:, None]), abs=1e-5)
            images = torch.cat([batch.image for batch in datamodule.batches("val", CPU)])
            with torch.inference_mode():
                torch.testing.assert_close(pool.features, loaded.network.encoder(images), rtol=1e-4, atol=1e-5)
            assert len(pool.labelled) == 15
    first, again = (ask(run_dir, datamodule, "bald", val, train, "cpu", 5, 5, seed=1).members for _ in range(2))
    assert np.array_equal(first, again)
    # Under dropout the logits of a linear head are right on average.
    drawn = _dropped(loaded.network, datamodule.over(datamodule.store, val), 1000, 1, CPU)
    error = drawn.std(0) / np.sqrt(1000)
    assert (np.abs(drawn.mean(0) - table.logits) < 5 * error + 1e-5).all()
    assert (error > 0).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["workflow.acquisition=hybird"], r"no acquisition hybird; did you mean hybrid\?"),
        (["workflow.batch=500"], r"500 wafers in workflow.rounds=1, and the pool has \d+ after the start; choose"),
        (["workflow.start=null"], r"the pool has 0 after the start; set workflow\.start"),
        (["workflow.start=5"], r"workflow\.start=5 is too few .* takes 9"),
        (["workflow.acquisition=bald"], r"head\.dropout=0\.0; set head\.dropout=0\.3"),
        (["data.labelled=train.py"], "leave data.labelled out"),
        (["workflow.oracle=file", "workflow.acquisition=[hybrid,margin]"], "one acquisition and one seed"),
        (["workflow.seeds=[1,1]"], "every seed once"),
        (["workflow.rounds=0"], "must be at least 1"),
        (["data=simulated_masks", "task=segmentation", "workflow.acquisition=badge", "loss=dice"], "of pixels here"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(tiny, options, says):
    cfg = tiny(*SMALL, *options)
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()
