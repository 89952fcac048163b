"""Scores and resamples against scikit-learn on repeated rows; coverage on simulated populations."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.errors import UserError
from wafer_lab.evaluation.intervals import judge, resampled
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.metrics import reliability

NAMES = ("Donut", "Loc", "none")
COST = np.array([[0, 2, 10], [3, 0, 10], [1, 1, 0]])
LABEL_COST = (10.0, 1.0)
Table = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def multiclass(seed: int = 0, rows: int = 150, prior: tuple[float, ...] = (0.1, 0.2, 0.7)) -> Table:
    """Target, decisions and probabilities, which have many ties and whose argmax the decisions are not."""
    random = np.random.default_rng(seed)
    target = random.choice(3, rows, p=prior)
    logits = random.normal(size=(rows, 3)) + 2 * np.eye(3)[target]
    exponentials = np.exp(logits.round(1))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    return target, (probabilities * [2, 1, 1]).argmax(1), probabilities


def multilabel(seed: int = 0, rows: int = 150) -> Table:
    random = np.random.default_rng(seed)
    target = (random.random((rows, 3)) < 0.35).astype(np.int8)
    logits = random.normal(size=(rows, 3)) + 2 * target - 1
    probabilities = 1 / (1 + np.exp(-logits.round(1)))
    return target, (probabilities >= 0.4).astype(np.int8), probabilities


KINDS: dict[str, tuple[Callable[..., Table], dict[str, Any]]] = {
    "multiclass": (multiclass, {"cost": COST}),
    "multilabel": (multilabel, {"cost": LABEL_COST}),
}


def scikit(target: NDArray, decisions: NDArray, probabilities: NDArray, scorable: list[int]) -> dict[str, float]:
    """Every score of some rows, `ece_mass` apart, by scikit-learn where it has it; ranking scores of some classes."""
    single = target.ndim == 1
    truth = target[:, None] == np.arange(3) if single else target == 1
    called = decisions[:, None] == np.arange(3) if single else decisions == 1
    defect, alarm = (truth[:, :2].any(1), called[:, :2].any(1)) if single else (truth.any(1), called.any(1))
    occurs = np.flatnonzero(truth.any(0) | called.any(0))
    settings = {"labels": occurs, "average": "macro", "zero_division": 0}
    macro = precision_recall_fscore_support(target, decisions, **settings)
    each = precision_recall_fscore_support(target, decisions, labels=range(3), zero_division=0)
    scores = {
        "escapes": (defect & ~alarm).sum(),
        "false_alarms": (alarm & ~defect).sum(),
        "escape_rate": (defect & ~alarm).sum() / defect.sum(),
        "false_alarm_rate": (alarm & ~defect).sum() / (~defect).sum(),
        "ece": reliability.expected_calibration_error(probabilities, target),
        "ece_classwise": reliability.classwise_calibration_error(probabilities, target),
        "brier": reliability.brier(probabilities, target),
        **{f"{name}_macro": macro[i] for i, name in enumerate(("precision", "recall", "f1"))},
        **{f"{k}/{NAMES[j]}": each[i][j] for i, k in enumerate(("precision", "recall", "f1")) for j in range(3)},
    }
    if single:
        scores["accuracy"] = accuracy_score(target, decisions)
        scores["balanced_accuracy"] = balanced_accuracy_score(target, decisions)
        scores["nll"] = log_loss(target, probabilities, labels=range(3))
        scores["cost"] = COST[target, decisions].mean()
    else:
        scores["exact_match"] = accuracy_score(target, decisions)
        scores["hamming_accuracy"] = 1 - hamming_loss(target, decisions)
        scores["f1_micro"] = precision_recall_fscore_support(target, decisions, average="micro")[2]
        scores["nll"] = np.mean([log_loss(target[:, k], probabilities[:, k]) for k in range(3)])
        missed, added = (target > decisions).sum(), (target < decisions).sum()
        scores["cost"] = (LABEL_COST[0] * missed + LABEL_COST[1] * added) / len(target)
    for key, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        ranked = {f"{key}/{NAMES[k]}": score(truth[:, k], probabilities[:, k]) for k in scorable}
        scores |= ranked | {f"{key}_macro": np.mean(list(ranked.values()))}
    return scores


def drawn(groups: int, draw: int, seed: int = 0) -> NDArray:
    return np.random.default_rng((seed, draw)).integers(0, groups, groups, dtype=np.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_scikit_learn(kind: str, seed: int) -> None:
    make, options = KINDS[kind]
    table = make(seed)
    scores, intervals = judge(*table, NAMES, kind, **options, resamples=50)
    expected = scikit(*table, [0, 1, 2])
    expected["ece_mass"] = reliability.expected_calibration_error(table[2], table[0], spacing="mass")
    assert scores == pytest.approx(expected)
    assert intervals.keys() == scores.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_resamples_equal_scikit_learn_on_repeated_rows(kind: str) -> None:
    make, options = KINDS[kind]
    table = make(2)
    found = resampled(*table, NAMES, kind, **options, resamples=8, seed=3)
    for draw in range(8):
        rows = drawn(150, draw, seed=3)
        expected = scikit(*(column[rows] for column in table), [0, 1, 2])
        assert {name: values[draw] for name, values in found.items() if name != "ece_mass"} == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_lots_are_drawn_whole_and_unknown_ones_alone(kind: str) -> None:
    make, options = KINDS[kind]
    table = make(4)
    lot = np.random.default_rng(5).choice(["", "L9", "L10", "L2", "L77"], 150)
    blank = np.flatnonzero(lot == "")
    groups = [np.flatnonzero(lot == name) for name in sorted({"L9", "L10", "L2", "L77"})] + [
        blank[[i]] for i in range(len(blank))
    ]
    found = resampled(*table, NAMES, kind, **options, lot=lot, resamples=8)
    sizes = set()
    for draw in range(8):
        rows = np.concatenate([groups[g] for g in drawn(len(groups), draw)])
        sizes.add(len(rows))
        expected = scikit(*(column[rows] for column in table), [0, 1, 2])
        assert {name: values[draw] for name, values in found.items() if name != "ece_mass"} == pytest.approx(expected)
    assert len(sizes) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_rate_is_told_of_wafers_that_are_not_there(kind: str) -> None:
    make, options = KINDS[kind]
    target, decisions, probabilities = make(0)
    normal = ~target.astype(bool).any(1) if kind == "multilabel" else target == 2
    for rows, told in ((normal, "false_alarm_rate"), (~normal, "escape_rate")):
        part = (target[rows], decisions[rows], probabilities[rows])
        scores, intervals = judge(*part, NAMES, kind, **options, resamples=20)
        assert {"escape_rate", "false_alarm_rate"} & scores.keys() == {told}
        assert scores.keys() == intervals.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_lots_of_one_wafer_each_are_drawn_in_one_order(kind: str) -> None:
    make, options = KINDS[kind]
    table = make(6)
    order = np.random.default_rng(7).permutation(150)
    found = resampled(*table, NAMES, kind, **options, lot=np.array([f"L{place:03}" for place in order]), resamples=4)
    for draw in range(4):
        rows = np.argsort(order)[drawn(150, draw)]  # of lots by name
        expected = scikit(*(column[rows] for column in table), [0, 1, 2])
        assert {name: values[draw] for name, values in found.items() if name != "ece_mass"} == pytest.approx(expected)


def test_a_resample_without_a_rare_class_leaves_it_out() -> None:
    target, decisions, probabilities = multiclass(6)
    target[target == 0] = 1
    target[0] = 0
    decisions[decisions == 0] = 2
    found = resampled(target, decisions, probabilities, NAMES, "multiclass", resamples=20)
    lacking = [draw for draw in range(20) if 0 not in drawn(150, draw)]
    assert 3 < len(lacking) < 15  # about 37 % of them
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found["auroc/Donut"])), lacking)
    for draw in range(20):
        rows = drawn(150, draw)
        present = [1, 2] if draw in lacking else [0, 1, 2]
        with np.errstate(all="ignore"):
            f1 = precision_recall_fscore_support(target[rows], decisions[rows], average="macro", zero_division=0)[2]
        assert found["f1_macro"][draw] == pytest.approx(f1)
        one_hot = np.eye(3)[target[rows]]
        each = [roc_auc_score(one_hot[:, k], probabilities[rows, k]) for k in present]
        assert found["auroc_macro"][draw] == pytest.approx(np.mean(each))
    scores, intervals = judge(target, decisions, probabilities, NAMES, "multiclass", resamples=200)
    assert np.isfinite(list(intervals.values())).all()
    assert 0 < scores["auroc/Donut"] < 1


def test_classes_that_cannot_be_ranked_are_left_out() -> None:
    target, decisions, probabilities = multiclass(7)
    scores, intervals = judge(np.maximum(target, 1), decisions, probabilities, NAMES, "multiclass", resamples=20)
    assert not {"auroc/Donut", "average_precision/Donut"} & (scores.keys() | intervals.keys())
    assert scores["auroc_macro"] == pytest.approx((scores["auroc/Loc"] + scores["auroc/none"]) / 2)
    alone, _ = judge(np.full(150, 2), decisions, probabilities, NAMES, "multiclass", resamples=20)
    assert not [name for name in alone if name.startswith(("auroc", "average_precision"))]


def test_normal_classes_decide_what_an_escape_is() -> None:
    table = multiclass(8)
    scores, _ = judge(*table, NAMES, "multiclass", normal=("Loc", "none"), resamples=20)
    assert scores["escapes"] == ((table[0] == 0) & (table[1] != 0)).sum()
    assert scores["false_alarms"] == ((table[0] != 0) & (table[1] == 0)).sum()
    scores, _ = judge(*table, ("Donut", "Loc", "Scratch"), "multiclass", resamples=20)
    assert not {"escapes", "false_alarms", "escape_rate", "false_alarm_rate"} & scores.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_lie_round_the_scores(kind: str) -> None:
    make, options = KINDS[kind]
    table = make(9)
    scores, intervals = judge(*table, NAMES, kind, **options, resamples=400)
    for name, (low, high) in intervals.items():
        assert 0 <= low <= high, name
        assert low <= scores[name] <= high or name.startswith("ece"), name
    assert judge(*table, NAMES, kind, **options, resamples=400) == (scores, intervals)
    assert judge(*table, NAMES, kind, **options, resamples=400, seed=1)[1] != intervals
    narrow = judge(*table, NAMES, kind, **options, resamples=400, level=0.5)[1]
    assert intervals["f1_macro"][0] < narrow["f1_macro"][0] < narrow["f1_macro"][1] < intervals["f1_macro"][1]
    draws = resampled(*table, NAMES, kind, **options, resamples=400)
    assert intervals["nll"] == pytest.approx(tuple(np.quantile(draws["nll"], [0.025, 0.975])))


def test_chunks_and_threads_do_not_change_the_draws(monkeypatch) -> None:
    table = multiclass(10)
    whole = resampled(*table, NAMES, "multiclass", resamples=101)
    monkeypatch.setattr("wafer_lab.evaluation.intervals._WEIGHTS", 500)
    monkeypatch.setattr("wafer_lab.evaluation.intervals._THREADS", 1)
    small = resampled(*table, NAMES, "multiclass", resamples=101)
    fewer = resampled(*table, NAMES, "multiclass", resamples=40)
    for name, values in whole.items():
        np.testing.assert_array_equal(small[name], values)
        np.testing.assert_array_equal(fewer[name], values[:40])


def test_equal_decisions_differ_by_exactly_nothing() -> None:
    target, decisions, probabilities = multiclass(11)
    sharper = probabilities**2 / (probabilities**2).sum(1, keepdims=True)
    first = resampled(target, decisions, probabilities, NAMES, "multiclass", cost=COST, resamples=300)
    second = resampled(target, decisions, sharper, NAMES, "multiclass", cost=COST, resamples=300)
    third = resampled(target, probabilities.argmax(1), probabilities, NAMES, "multiclass", cost=COST, resamples=300)
    for name in ("f1_macro", "accuracy", "escapes", "cost", "recall/Loc"):
        assert not (first[name] - second[name]).any()
    assert (first["nll"] != second["nll"]).all()
    # most decisions are shared, so the difference varies less in pairs than between other resamples
    paired, apart = (np.std(first["accuracy"] - np.roll(third["accuracy"], by)) for by in (0, 1))
    assert paired < 0.8 * apart


def test_ece_is_biased_upwards_and_its_resamples_more_so() -> None:
    random = np.random.default_rng(12)
    probabilities = random.beta(2, 2, (400, 1))
    target = (random.random((400, 1)) < probabilities).astype(np.int8)
    draws = resampled(target, target, probabilities, ("Loc",), "multilabel", resamples=400)
    score = reliability.expected_calibration_error(probabilities, target)
    assert 0 < score < np.median(draws["ece"])


def _population(seed: int, rows: int) -> Table:
    random = np.random.default_rng(seed)
    target = random.choice(3, rows, p=(0.1, 0.2, 0.7))
    logits = random.normal(size=(rows, 3)) + 1.8 * np.eye(3)[target]
    exponentials = np.exp(1.5 * logits)
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    return target, logits.argmax(1), probabilities


def _covered(intervals: dict[str, tuple[float, float]], truth: dict[str, float]) -> NDArray:
    return np.array([intervals[name][0] <= value <= intervals[name][1] for name, value in truth.items()])


def test_coverage_of_wafer_intervals() -> None:
    """Of 300 test sets from one population, the intervals of 90 to 99 % must cover the population's score."""
    options = {"cost": COST, "resamples": 250}
    whole, _ = judge(*_population(999, 500_000), NAMES, "multiclass", cost=COST, resamples=1)
    truth = {name: whole[name] for name in ("accuracy", "f1_macro", "auroc_macro", "nll", "cost")}
    covered = [
        _covered(judge(*_population(seed, 400), NAMES, "multiclass", **options)[1], truth) for seed in range(300)
    ]
    share = dict(zip(truth, np.mean(covered, axis=0), strict=True))
    assert all(0.9 <= value <= 0.99 for value in share.values()), share


@pytest.mark.parametrize(
    ("lot", "known"),
    [
        (None, False),
        ([""] * 30, False),  # a file with an empty column: nothing is known
        ([str(k) for k in range(19)], False),
        ([str(k) for k in range(20)], True),
        (["a"] + [""] * 19, True),
    ],
)
def test_lots_are_drawn_where_enough_are_known(lot: list[str] | None, known: bool) -> None:
    assert several_lots(None if lot is None else np.array(lot)) is known


def _lots(seed: int, lots: int, wafers: int = 10) -> tuple[Table, NDArray]:
    """Lots that are easy or hard as a whole."""
    random = np.random.default_rng(seed)
    lot = np.repeat(np.arange(lots), wafers)
    target = random.choice(3, lots * wafers, p=(0.2, 0.3, 0.5))
    skill = random.normal(1.5, 1.5, lots)[lot]
    logits = random.normal(size=(len(target), 3)) + skill[:, None] * np.eye(3)[target]
    exponentials = np.exp(logits)
    return (target, logits.argmax(1), exponentials / exponentials.sum(1, keepdims=True)), lot.astype(str)


def test_coverage_with_lots() -> None:
    """Where lots differ, drawing lots covers and drawing wafers claims too much."""
    whole, _ = judge(*_lots(999, 50_000)[0], NAMES, "multiclass", resamples=1)
    truth = {name: whole[name] for name in ("accuracy", "f1_macro", "auroc_macro", "nll")}
    by_lot, by_wafer = [], []
    for seed in range(300):
        table, lot = _lots(seed, 50)
        by_lot.append(_covered(judge(*table, NAMES, "multiclass", lot=lot, resamples=200)[1], truth))
        if seed < 100:
            by_wafer.append(_covered(judge(*table, NAMES, "multiclass", resamples=200)[1], truth))
    share = dict(zip(truth, np.mean(by_lot, axis=0), strict=True))
    assert all(0.9 <= value <= 0.99 for value in share.values()), share
    assert (np.mean(by_wafer, axis=0) < 0.85).all(), np.mean(by_wafer, axis=0)


def test_the_full_test_set_is_quick(multiclass_table) -> None:
    table: Predictions = multiclass_table(rows=34_590, names=WM811K_CLASSES, right=0.95)
    began = time.process_time()
    judge(table.target, table.decisions(), table.probabilities(), table.class_names, table.target_kind, resamples=200)
    assert time.process_time() - began < 3


def test_what_cannot_be_scored_is_refused() -> None:
    target, decisions, probabilities = multiclass(13)
    with pytest.raises(UserError, match="no wafers to score"):
        judge(target[:0], decisions[:0], probabilities[:0], NAMES, "multiclass")
    with pytest.raises(UserError, match="3 of 150 wafers have no label"):
        judge(np.r_[[-1] * 3, target[3:]], decisions, probabilities, NAMES, "multiclass")
    with pytest.raises(UserError, match="2 of 150 wafers are not finite"):
        judge(target, decisions, np.r_[[[np.nan, 0, 1]] * 2, probabilities[2:]], NAMES, "multiclass")
    with pytest.raises(UserError, match="normal names Clean"):
        judge(target, decisions, probabilities, NAMES, "multiclass", normal=["Clean"])
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        judge(target, decisions[1:], probabilities, NAMES, "multiclass")
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        judge(target, decisions, probabilities, NAMES, "multilabel")
    with pytest.raises(ValueError, match=r"cost has shape \(2, 2\), expected \(3, 3\)"):
        judge(target, decisions, probabilities, NAMES, "multiclass", cost=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"cost has shape \(3,\), expected \(2,\)"):
        judge(*multilabel(), NAMES, "multilabel", cost=[1, 2, 3])
    with pytest.raises(ValueError, match=r"lot has shape \(4,\), expected \(150,\)"):
        judge(target, decisions, probabilities, NAMES, "multiclass", lot=np.array(["a"] * 4))


def test_resamples_without_a_wafer_of_the_kind_do_not_count_for_its_rates() -> None:
    """One normal wafer, called a defect: the rate is 1 in every resample that has it, and undefined in the others."""
    target = np.array([0, 0, 0, 1, 1, 2])
    decisions = np.array([0, 0, 1, 1, 1, 0])
    probabilities = np.eye(3)[decisions] * 0.8 + 0.1
    names = ("Loc", "Scratch", "none")
    scores, intervals = judge(target, decisions, probabilities, names, "multiclass", resamples=300)
    assert (scores["false_alarm_rate"], intervals["false_alarm_rate"]) == (1, (1, 1))
    assert intervals["recall/none"] == (0, 0)
    labels, called = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 0], [1, 1], [0, 1]])
    _, intervals = judge(labels, called, called * 0.8 + 0.1, ("a", "b"), "multilabel", resamples=300)
    assert intervals["false_alarm_rate"] == (1, 1)
