import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.errors import UserError
from wafer_lab.evaluation.intervals import bootstrap_intervals, count_scores, evaluate
from wafer_lab.evaluation.predictions import Predictions


def test_scores_equal_scikit_learn(multiclass_table) -> None:
    table = multiclass_table(rows=300)
    scores = count_scores(table)
    assert scores["accuracy"] == pytest.approx(accuracy_score(table.target, table.decisions()))
    assert scores["f1_macro"] == pytest.approx(f1_score(table.target, table.decisions(), average="macro"))


def _scikit(table: Predictions, key: str) -> float:
    decisions = table.decisions()
    if key in ("accuracy", "exact_match"):
        return float(accuracy_score(table.target, decisions))
    return float(f1_score(table.target, decisions, average="macro", zero_division=0))


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("multiclass_table", ("accuracy", "f1_macro")), ("multilabel_table", ("exact_match", "f1_macro"))],
)
def test_equal_to_resampling_rows(kind, keys, request) -> None:
    """The textbook bootstrap, a row at a time and scored by scikit-learn, within Monte Carlo noise."""
    table = request.getfixturevalue(kind)(rows=150)
    fast = bootstrap_intervals(table, resamples=20_000)
    random = np.random.default_rng(1)
    slow: dict[str, list[float]] = {key: [] for key in keys}
    for _ in range(500):
        rows = random.integers(0, len(table), len(table))
        drawn = replace(table, target=table.target[rows], logits=table.logits[rows])
        for key in keys:
            slow[key].append(_scikit(drawn, key))
    for key, values in slow.items():
        spread = np.std(values)
        low, high = np.quantile(values, [0.025, 0.975])
        # A 2.5 % quantile of 500 draws has a standard error of about 0.12 spreads.
        assert fast[key] == pytest.approx((low, high), abs=0.5 * spread)


def test_coverage_on_simulated_tables(multiclass_table) -> None:
    """Of 200 test sets drawn from one population, 90 to 99 % must cover the population's score."""
    truth = count_scores(multiclass_table(rows=1_000_000, prior=(1, 2, 7), seed=999))
    keys = ("accuracy", "f1_macro", "balanced_accuracy", "recall/Loc")
    covered = dict.fromkeys(keys, 0)
    for seed in range(200):
        found = bootstrap_intervals(multiclass_table(rows=400, prior=(1, 2, 7), seed=seed), 500, seed=seed)
        for key in keys:
            low, high = found[key]
            covered[key] += low <= truth[key] <= high
    assert all(180 <= count <= 198 for count in covered.values()), covered


@pytest.mark.parametrize("kind", ["multiclass_table", "multilabel_table"])
def test_every_score_has_an_interval_round_it(kind, request) -> None:
    table = request.getfixturevalue(kind)()
    scores, intervals = count_scores(table), bootstrap_intervals(table)
    assert intervals.keys() == scores.keys()
    for key, (low, high) in intervals.items():
        assert 0 <= low <= scores[key] <= high <= 1, key
    assert bootstrap_intervals(table) == intervals
    assert bootstrap_intervals(table, seed=1) != intervals
    narrow = bootstrap_intervals(table, level=0.5)
    assert narrow["f1_macro"][0] > intervals["f1_macro"][0]
    assert narrow["f1_macro"][1] < intervals["f1_macro"][1]


def test_chunks_of_resamples_do_not_change_the_result(multilabel_table, monkeypatch) -> None:
    table = multilabel_table()
    whole = bootstrap_intervals(table, resamples=101)
    monkeypatch.setattr("wafer_lab.evaluation.intervals._DRAWS", 500)
    assert bootstrap_intervals(table, resamples=101) == whole


def test_absent_and_perfect_classes_stay_finite(multiclass_table) -> None:
    table = multiclass_table(rows=60, names=("Donut", "Loc", "none", "Near-full"), prior=(1, 1, 1, 0), right=1.0)
    intervals = bootstrap_intervals(table)
    assert intervals["f1/Donut"] == (1.0, 1.0)
    assert np.isfinite(list(intervals.values())).all()


def test_the_full_test_set_takes_well_under_three_seconds(multiclass_table) -> None:
    table = multiclass_table(rows=34_590, names=WM811K_CLASSES, right=0.95)
    began = time.process_time()
    bootstrap_intervals(table, resamples=2000)
    assert time.process_time() - began < 3


def test_evaluate_keys_every_split_and_ignores_other_views(multiclass_table) -> None:
    val, test = multiclass_table(rows=50, split="val"), multiclass_table(rows=80, seed=1)
    turned = replace(test, view=np.ones(80, np.int8), logits=-test.logits)
    scores, intervals = evaluate(Predictions.concat([val, test, turned]), resamples=50)
    assert scores["val/f1_macro"] == count_scores(val)["f1_macro"]
    assert scores["test/f1_macro"] == count_scores(test)["f1_macro"]
    assert intervals.keys() == scores.keys()


def test_what_cannot_be_scored_is_refused(multiclass_table) -> None:
    table = multiclass_table(rows=10)
    with pytest.raises(UserError, match="no predictions"):
        bootstrap_intervals(table.select(split="nowhere"))
    with pytest.raises(UserError, match="3 of 10 wafers have no label"):
        bootstrap_intervals(replace(table, target=np.r_[[-1] * 3, table.target[3:]]))
    with pytest.raises(ValueError, match="more than once"):
        bootstrap_intervals(Predictions.concat([table, table]))
