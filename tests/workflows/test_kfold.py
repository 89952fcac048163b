import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from wafer_lab.config.build import resolved
from wafer_lab.errors import UserError
from wafer_lab.evaluation.drawings import figures_section, write_fold_figures
from wafer_lab.evaluation.folds import Pooled, headline, out_of_fold, pool, report, score, spread
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.decisions import Thresholds
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers
from wafer_lab.workflows import nested, run
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.kfold import kfold

SMALL = ["workflow=kfold", "data.folds=3", "data.limit=null", "model.width=4"]


@pytest.fixture
def fits(monkeypatch):
    """Count the fits that are started, by folder, and end one as Ctrl-C does: fits.stop = "fold_1"."""

    class Fits(list):
        stop = None

    started, real = Fits(), nested.fit

    def counted(cfg, **options):
        folder = Path(cfg.paths.run).name
        started.append((folder, cfg.ckpt_path))
        if folder == started.stop:
            raise KeyboardInterrupt
        return real(cfg, **options)

    monkeypatch.setattr(nested, "fit", counted)
    return started


def test_every_wafer_is_judged_once_by_a_model_that_never_saw_it(tiny, capsys):
    cfg = tiny(*SMALL, "evaluation.decision=f1", "evaluation.tta=hflip", "figures=true")
    before = OmegaConf.to_yaml(cfg)
    result = kfold(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    table = Predictions.read(result.run_dir / "predictions.parquet")
    assert table.splits() == ("test",)
    as_they_are = table.select(view=0)
    assert np.array_equal(as_they_are.index, np.arange(400))
    assert len(table) == 800  # the two views that evaluation.tta asks for
    right, confident = 0, []
    for fold in range(3):
        folder = result.run_dir / f"fold_{fold}"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["data"]["split"], config["data"]["fold"]) == ("kfold", fold)
        tested = Predictions.read(folder / "predictions.parquet").select(split="test", view=0)
        predictor = Predictor.read(folder / "predictor.json")
        part = wafers(Predictions.read(folder / "predictions.parquet"), "test", "hflip")
        right += (predictor(part.logits) == part.target).sum()
        mine = as_they_are.select(rows=np.isin(as_they_are.index, tested.index))
        assert np.array_equal(mine.logits, tested.logits[np.argsort(tested.index)])
        confident.append(predictor.probabilities(part.logits)[np.arange(len(part)), part.target])
    metrics = json.loads((result.run_dir / "metrics.json").read_text())
    assert metrics == result.scores
    assert metrics["test/accuracy"] == pytest.approx(right / 400)
    assert metrics["test/nll"] == pytest.approx(-np.log(np.concatenate(confident)).mean(), rel=1e-6)
    assert metrics["test/accuracy/low"] < metrics["test/accuracy"] < metrics["test/accuracy/high"]
    of_folds = [json.loads((result.run_dir / f"fold_{i}/metrics.json").read_text())["test/f1_macro"] for i in range(3)]
    assert metrics["folds/f1_macro/mean"] == pytest.approx(np.mean(of_folds))
    assert metrics["folds/f1_macro/sd"] == pytest.approx(np.std(of_folds, ddof=1))
    assert {"folds/auroc_macro/mean", "folds/ece/sd"} < set(metrics)
    assert not [name for name in metrics if name.startswith(("test/auroc", "test/average_precision", "test/ece"))]
    assert not [name for name in metrics if "uncalibrated" in name or name.endswith(("low/mean", "high/mean"))]
    text = (result.run_dir / "report.md").read_text()
    assert f"{metrics['test/accuracy']:.4f} [" in text
    assert all(f"{score:.4f}" in text for score in of_folds)
    drawn = sorted(file.stem for file in (result.run_dir / "figures").iterdir())
    assert drawn == ["confusion_matrix_test", "per_class_f1_test"]
    assert all(f"figures/{name}.png" in text for name in drawn)
    assert str(result.run_dir / "report.html") in capsys.readouterr().out


def test_figures_of_several_labels_and_none_where_they_are_not_wanted(tmp_path):
    target = np.array([[1, 0], [1, 1], [0, 0]])
    decisions = np.array([[1, 0], [1, 0], [0, 1]])
    pooled = Pooled(target, decisions * 0.8 + 0.1, decisions, None, ("Center", "Loc"), "multilabel")
    assert "switched off" in "\n".join(figures_section(tmp_path))
    written = write_fold_figures(tmp_path, pooled, *score(pooled, Evaluation(resamples=100)))
    names = ["confusion_matrix", "per_class_f1", "spurious_labels", "exact_match_by_count", "type_table"]
    assert [file.name for file in written] == [f"{name}_test.png" for name in names]
    section = "\n".join(figures_section(tmp_path))
    assert all(f"(figures/{name}_test.png)" in section for name in names)


def test_a_stopped_run_goes_on_where_it_stopped(tiny, fits, capsys):
    cfg = tiny(*SMALL)
    fits.stop = "fold_1"
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert f"hydra.run.dir={cfg.paths.run}" in capsys.readouterr().out
    assert not (Path(cfg.paths.run) / "metrics.json").exists()
    fits.stop = None
    first = run(cfg)
    assert fits == [("fold_0", None), ("fold_1", None), ("fold_1", None), ("fold_2", None)]
    whole = Predictions.read(Path(cfg.paths.run) / "predictions.parquet")

    folder = Path(cfg.paths.run) / "fold_2"  # stopped after its training, and before its predictions were written
    (folder / "predictions.parquet").unlink()
    (folder / "metrics.json").unlink()
    fits.clear()
    assert run(cfg) == pytest.approx(first)
    assert fits == [("fold_2", str(folder / "checkpoints" / "last.ckpt"))]
    again = Predictions.read(Path(cfg.paths.run) / "predictions.parquet")
    assert np.array_equal(whole.logits, again.logits)

    predictor = Predictor.read(folder / "predictor.json")
    replace(predictor, settings=replace(predictor.settings, cost_ratio=3.0)).write(folder / "predictor.json")
    with pytest.raises(UserError, match=r"fold_2 was evaluated with other settings .*cost_ratio=3\.0, not 10"):
        run(cfg)
    evaluate(folder, {})
    assert run(cfg) == pytest.approx(first)

    (Path(cfg.paths.run) / "metrics.json").unlink()
    moved = tiny(*SMALL, run="moved")
    Path(cfg.paths.run).rename(moved.paths.run)
    fits.clear()
    assert run(tiny(*SMALL, "name=run", run="moved")) == pytest.approx(first)
    assert fits == []

    with pytest.raises(UserError, match=r"other settings of optimizer \(see"):
        run(tiny(*SMALL, "name=run", "optimizer.lr=0.5", run="moved"))


def test_folds_are_runs_within_a_run_in_mlflow(tiny, tracked_runs, fits):
    cfg = tiny(*SMALL, "data.folds=2", "tracking=mlflow")
    fits.stop = "fold_1"
    with pytest.raises(KeyboardInterrupt):
        kfold(cfg)
    fits.stop = None
    kfold(cfg)
    recorded = tracked_runs(Path(cfg.paths.outputs) / "mlflow.db")
    (whole,) = [one for one in recorded if "mlflow.parentRunId" not in one.data.tags]
    folds = [one for one in recorded if "mlflow.parentRunId" in one.data.tags]
    assert {one.data.tags["mlflow.parentRunId"] for one in folds} == {whole.info.run_id}
    assert sorted(one.info.run_name for one in folds) == ["run fold_0", "run fold_1"]
    assert {one.info.status for one in recorded} == {"FINISHED"}
    assert {"test/f1_macro", "folds/f1_macro/mean"} <= set(whole.data.metrics)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["data.split=stratified"], r"set data\.split=kfold"),
        (["data.folds=1"], "at least 2"),
        (["data.folds=401"], "leaves folds without a wafer"),  # of 400
        (["ckpt_path=conf/train.yaml"], r"hydra\.run\.dir"),
    ],
)
def test_what_cannot_be_folded_is_said_and_leaves_nothing(tiny, options, says):
    cfg = tiny(*SMALL, *options)
    with pytest.raises(UserError, match=says):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


def test_a_child_works_by_itself(tiny):
    cfg = tiny(*SMALL)
    child = nested.child(cfg, "fold_1", {"data": {"fold": 1}})
    config = resolved(child)
    assert config["workflow"] == {"_target_": "wafer_lab.workflows.fit.fit"}
    assert config["callbacks"]["best"]["dirpath"] == f"{cfg.paths.run}/fold_1/checkpoints"
    assert (config["data"]["fold"], cfg.data.fold) == (1, 0)
    assert (config["data"]["views"], cfg.data.views) == ("none", "d4")
    assert OmegaConf.is_readonly(child)


def fold_table(index, target, logits, digest="a"):
    count = len(index)
    return Predictions(
        index=np.array(index),
        split=np.full(count, "test"),
        view=np.zeros(count, np.int8),
        target=np.array(target),
        logits=np.array(logits, dtype=np.float32),
        class_names=("a", "b"),
        target_kind="multiclass",
        split_digest=digest,
        data_fingerprint="x",
    )


def predictor(t: float) -> Predictor:
    """Takes class b where its probability is over t."""
    as_it_is = Calibration("none", "multiclass", scale=(1.0, 1.0), bias=(0.0, 0.0))
    return Predictor(
        Evaluation(calibration="none", decision="f1"),
        as_it_is,
        Thresholds("multiclass", (1 - t, t)),
        ("a", "b"),
        "multiclass",
    )


def test_each_folds_predictor_answers_for_its_own_wafers():
    """Both wafers have the same logits, b at 0.62, and the folds' thresholds differ."""
    tables = [fold_table([5], [1], [[0.0, 0.5]]), fold_table([2], [1], [[0.0, 0.5]], "b")]
    found = pool(tables, [predictor(0.3), predictor(0.9)])
    assert found.decisions.tolist() == [1, 0]
    assert found.probabilities[:, 1] == pytest.approx([0.6225, 0.6225], abs=1e-4)
    joined = out_of_fold(tables)
    assert joined.index.tolist() == [2, 5]
    assert joined.split_digest not in ("a", "b")


def test_a_wafer_in_two_folds_is_a_mistake():
    with pytest.raises(ValueError, match="two folds"):
        out_of_fold([fold_table([5], [1], [[0.0, 0.5]]), fold_table([5], [1], [[0.0, 0.5]], "b")])


def test_spread_and_report_of_what_all_folds_have():
    runs = [{"f1_macro": 0.5, "auroc_macro": 0.9}, {"f1_macro": 0.7}]
    assert spread(runs) == {"f1_macro": (pytest.approx(0.6), pytest.approx(np.sqrt(0.02)))}
    text = report("name", {"f1_macro": 0.61}, {"f1_macro": (0.5, 0.7)}, runs, of_lots(None))
    assert "| macro F1 | 0.6100 [0.5000, 0.7000] | 0.6000 ± 0.1414 |" in text
    assert "| [1](fold_1/report.md) | 0.7000 |  |" in text
    runs[1]["auroc_macro"] = 0.8
    assert headline({"f1_macro": 0.61}, {}, runs)[-1].split() == ["macro", "AUROC", "0.8500", "±", "0.0707"]


def of_lots(lots: int | None, class_names=("a", "b")) -> Pooled:
    """120 wafers of two classes, in so many lots."""
    target = np.arange(120) // 60
    right = np.random.default_rng(0).random(120) < 0.8
    decisions = np.where(right, target, 1 - target)
    lot = None if lots is None else np.array([f"lot {i % lots}" for i in range(120)])
    return Pooled(target, np.where(decisions[:, None] == [0, 1], 0.7, 0.3), decisions, lot, class_names, "multiclass")


def test_the_scores_of_all_wafers_leave_out_what_compares_probabilities():
    """Fold means stand for them; a cost needs a normal class, which this data has not."""
    scores, intervals = score(of_lots(None), Evaluation(resamples=100))
    assert {"f1_macro", "accuracy", "brier", "nll", "f1/a"} <= set(scores) == set(intervals)
    assert not {"auroc_macro", "average_precision/a", "ece", "ece_mass", "cost"} & set(scores)
    assert "cost" in score(of_lots(None, ("a", "none")), Evaluation(resamples=100))[0]


@pytest.mark.parametrize(("lots", "drawn"), [(None, "wafers"), (19, "wafers"), (40, "whole lots")])
def test_the_report_says_what_was_drawn(lots, drawn):
    pooled = of_lots(lots)
    scores, intervals = score(pooled, Evaluation(resamples=100))
    text = report("name", scores, intervals, [scores], pooled)
    assert f"bootstrap interval over {drawn}. It covers" in text
    assert ("one by one" in text) == (drawn == "wafers")
    assert ("do not keep lots together" in text) == (lots is not None)
    plain = score(of_lots(None), Evaluation(resamples=100))[1]
    assert (intervals == plain) == (drawn == "wafers")
