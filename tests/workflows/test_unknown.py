import csv
import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from wafer_lab.config.build import build, function
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows import run
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.unknown import _chosen

SMALL = [
    "experiment=unknown_pattern", "workflow.classes=[Donut,Edge-Ring]", "model.width=4", "data.split=stratified",
]  # fmt: skip


def test_each_class_is_asked_about_by_a_model_that_never_saw_it(tiny, capsys, monkeypatch):
    monkeypatch.setattr("wafer_lab.evaluation.figures.style.DPI", 40)
    cfg = tiny(*SMALL, "figures=true")
    before = OmegaConf.to_yaml(cfg)
    result = function(cfg.workflow)(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    metrics = json.loads((result.run_dir / "metrics.json").read_text())
    for name in ("Donut", "Edge-Ring"):
        table = Predictions.read(result.run_dir / f"without_{name}" / "predictions.parquet")
        assert set(table.view) == {0}  # evaluation.tta=none, so no other view is predicted
        strange = table.target == table.class_names.index(name)
        assert np.array_equal(strange, table.split == "unknown")
        asked = table.select(rows=table.split != "val")
        is_strange = asked.split == "unknown"
        scores = {
            "max_probability": -softmax(asked.logits, axis=1).max(1),
            "energy": -np.log(np.exp(asked.logits.astype(float)).sum(1)),
            "knn_distance": asked.knn_distance,
        }
        for score, values in scores.items():
            found = metrics[f"unknown/{score}/auroc/{name}"]
            assert found == pytest.approx(roc_auc_score(is_strange, values), abs=1e-3)
            low, high = (metrics[f"unknown/{score}/auroc/{name}/{side}"] for side in ("low", "high"))
            assert low <= found <= high
    both = [metrics[f"unknown/energy/fpr/{name}"] for name in ("Donut", "Edge-Ring")]
    assert metrics["unknown/energy/fpr"] == pytest.approx(np.mean(both))
    lines = list(csv.DictReader((result.run_dir / "unknown.csv").read_text().splitlines()))
    assert len(lines) == 6
    assert float(lines[1]["auroc"]) == metrics["unknown/energy/auroc/Donut"]
    assert "[Donut](without_Donut/report.md)" in (result.run_dir / "unknown.md").read_text()
    assert len(list((result.run_dir / "figures").glob("*.png"))) == 6
    assert "knn_distance" in capsys.readouterr().out


def test_all_defects_that_the_data_has_are_asked_about(tiny):
    cfg = tiny("experiment=unknown_pattern")
    settings = build(cfg.evaluation)
    names = build(cfg.data), settings, None
    assert _chosen(*names) == ["Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch"]
    cfg = tiny("experiment=unknown_pattern", "evaluation.normal=[none,Loc]", "+data.source.class_frequencies=uniform")
    assert "Loc" not in _chosen(build(cfg.data), build(cfg.evaluation), None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["workflow.classes=[Donnut]"], r"no class Donnut; did you mean Donut\?"),
        (["workflow.classes=[Donut,Donut]"], "names Donut twice"),
        (["workflow.classes=[Donut,none]"], "none is no defect but a normal class"),
        (["data.leave_out=[Donut]"], r"name them in workflow\.classes"),
    ],
)
def test_what_cannot_be_asked_is_said_and_leaves_nothing(tiny, options, says):
    cfg = tiny(*SMALL, *options)
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


@pytest.mark.parametrize("data", ["simulated", "simulated_mixed"])
def test_a_fit_can_leave_a_class_out_by_itself(tiny, data):
    """With every rule, curve and set of its report, some of which never see the class."""
    loss = ["loss=bce"] if data == "simulated_mixed" else []
    result = fit(tiny(f"data={data}", "data.leave_out=[Donut]", "model.width=4", "data.views=hflip", *loss))
    table = result.predictions
    donut = table.class_names.index("Donut")
    out = table.target == donut if data == "simulated" else table.target[:, donut] == 1
    assert np.array_equal(out, table.split == "unknown")
    unknown = table.select(split="unknown")
    assert set(unknown.view) == {0, 2}
    assert np.isfinite(unknown.knn_distance).all()
    assert "Donut" in (result.run_dir / "report.md").read_text()


@pytest.mark.parametrize(
    "overrides",
    [
        ["imbalance=class_weights", "loss=focal"],
        ["imbalance=effective_number", "loss=ldam"],
        ["imbalance=logit_adjustment"],
        ["imbalance=balanced_sampler"],
        ["data=simulated_mixed", "loss=asymmetric", "imbalance=class_weights"],
        ["data=simulated_mixed", "loss=bce", "imbalance=logit_adjustment"],
    ],
    ids=" ".join,
)
def test_a_class_that_training_never_sees_breaks_no_answer_to_imbalance(tiny, overrides):
    result = fit(tiny("data.leave_out=[Donut]", "model.width=4", "data.views=none", *overrides))
    assert np.isfinite(result.predictions.logits).all()
    assert np.isfinite(result.monitored)
