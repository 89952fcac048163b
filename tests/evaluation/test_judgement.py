from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from wafer_lab.errors import UserError
from wafer_lab.evaluation.judgement import Judgement, judge_predictions
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers


@pytest.fixture(scope="module")
def judgement(judged_table) -> Judgement:
    return judge_predictions(judged_table(), Evaluation(tta="d4", resamples=200))


def test_scores_are_those_of_the_deployed_predictor(judged_table, judgement) -> None:
    part = wafers(judged_table(), "test", "d4")
    decided = judgement.predictor(part.logits)
    scores = judgement.scores
    assert scores["test/f1_macro"] == pytest.approx(f1_score(part.target, decided, average="macro"))
    assert scores["test/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(part.target, decided))
    confusion = confusion_matrix(part.target, decided, labels=range(9))
    escapes, alarms = confusion[:8, 8].sum(), confusion[8, :8].sum()
    assert (scores["test/escapes"], scores["test/false_alarms"]) == (escapes, alarms)
    assert scores["test/cost"] == pytest.approx((10 * escapes + alarms) / len(part))
    assert set(judgement.intervals) == set(scores)  # every score has one


def test_calibration_is_fitted_on_val_and_helps_on_test(judgement) -> None:
    assert judgement.predictor.calibration.temperature == pytest.approx(3, rel=0.35)
    scores = judgement.scores
    assert scores["test/nll"] < scores["test/uncalibrated/nll"]
    assert scores["test/ece"] < 0.5 * scores["test/uncalibrated/ece"]


def test_test_rows_fit_nothing(judged_table, judgement) -> None:
    table = judged_table()
    logits = table.logits.copy()
    logits[table.split == "test"] = np.random.default_rng(0).normal(size=logits[table.split == "test"].shape)
    other = judge_predictions(replace(table, logits=logits), Evaluation(tta="d4", resamples=200))
    assert other.predictor == judgement.predictor
    assert other.val.decisions.tolist() == judgement.val.decisions.tolist()


def test_the_steps_build_on_each_other(judgement) -> None:
    names = [step.name for step in judgement.steps]
    assert names == [
        "one view, argmax",
        "d4 views, argmax",
        "d4 views, temperature, argmax",
        "thresholds for F1",
        "least cost at 10:1",
        "1 % escapes expected",
    ]
    deployed = judgement.steps[2].judged
    assert deployed.scores == judgement.test.scores
    cost = {step.settings.decision: step.judged.scores["cost"] for step in judgement.steps[2:]}
    assert cost["cost"] < cost["argmax"]
    assert judgement.costs["cost, fixed ratio"].shape == judgement.costs["argmax"].shape
    assert {"marginal", "class"} == set(judgement.conformal)
    assert judgement.conformal["marginal"][1].overall == pytest.approx(0.95, abs=0.03)


def test_one_view_shows_what_more_would_add(judged_table) -> None:
    judgement = judge_predictions(judged_table(), Evaluation(resamples=100))
    assert judgement.steps[-1].name == "d4 views, temperature, argmax"
    assert judgement.test.scores == judgement.steps[1].judged.scores


def test_labels(judged_table) -> None:
    table = judged_table(names=("Center", "Donut", "Scratch"), target_kind="multilabel", rows=900)
    judgement = judge_predictions(table, Evaluation(tta="hflip", decision="f1", resamples=100))
    scores = judgement.scores
    part = judgement.test
    assert scores["test/exact_match"] == (part.decisions == part.wafers.target).all(axis=1).mean()
    assert scores["test/cost"] == pytest.approx(
        (10 * (part.wafers.target > part.decisions).sum() + (part.wafers.target < part.decisions).sum())
        / len(part.wafers)
    )
    assert len(judgement.predictor.calibration.temperatures) == 3


def test_few_classes_few_wafers_no_normal_class(judged_table) -> None:
    table = judged_table(names=("A", "B", "C"), rows=60)
    judgement = judge_predictions(table, Evaluation(resamples=100))
    assert "cost" not in judgement.test.scores
    assert not judgement.costs
    assert [step.settings.decision for step in judgement.steps] == ["argmax", "argmax", "f1", "argmax"]
    assert len(judgement.skipped) == 2
    with pytest.raises(UserError, match=r"evaluation\.normal"):
        judge_predictions(table, Evaluation(decision="cost"))
    costed = judge_predictions(table, Evaluation(normal=["C"], decision="cost", resamples=100))
    assert costed.test.scores["cost"] >= 0


def test_absent_classes_are_named(judged_table) -> None:
    table = judged_table()
    without = table.select(rows=~((table.target == 0) & (table.split == "val") | (table.target == 1)))
    notes = judge_predictions(without, Evaluation(resamples=100, decision="f1", calibration="vector")).notes
    assert "no val wafer is Center or Donut: nothing was tuned for it" in notes
    assert any("threshold not tuned: Center (0), Donut (0)" in note for note in notes)
    assert "no test wafer is Donut: calling one so lowers the macro F1" in notes


def test_a_table_without_val_rows(judged_table) -> None:
    with pytest.raises(UserError, match="no val rows"):
        judge_predictions(judged_table().select(split="test"), Evaluation())
