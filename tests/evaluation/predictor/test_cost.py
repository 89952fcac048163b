import numpy as np
import pytest
from sklearn.metrics import f1_score

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.cost import (
    AT_EACH_RATIO,
    RATIOS,
    cost_curve,
    mean_cost,
    normal_threshold,
    threshold_sensitivity,
)
from wafer_lab.evaluation.predictor.decisions import Argmax, MinimumCost, Thresholds, cost_matrix
from wafer_lab.evaluation.settings import Evaluation

NAMES = ("Center", "Loc", "none")


@pytest.fixture(scope="module")
def classes():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.3, 0.4, 1.5], 8000)
    return probabilities, (probabilities.cumsum(1) > random.random((8000, 1))).argmax(1)


@pytest.fixture(scope="module")
def labels():
    random = np.random.default_rng(1)
    probabilities = random.random((3000, 3)) ** 2
    return probabilities, (random.random(probabilities.shape) < probabilities).astype(np.int8)


def test_mean_cost_by_hand():
    costs = cost_matrix(Evaluation(wrong_defect_cost=3), NAMES)
    target, decided = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 0, 2, 1, 0])
    assert mean_cost(target, decided, costs) == pytest.approx((0 + 10 + 3 + 0 + 1 + 1) / 6)
    true = np.array([[1, 1, 0], [0, 0, 0]], dtype=np.int8)
    called = np.array([[0, 1, 1], [1, 1, 0]], dtype=np.int8)
    assert mean_cost(true, called, np.array([10, 1])) == pytest.approx((10 + 3) / 2)


def test_the_curve_is_the_cost_at_each_ratio(classes):
    probabilities, target = classes
    settings = Evaluation(wrong_defect_cost=0.5, cost_ratio=5)
    fixed = MinimumCost.of(cost_matrix(settings, NAMES), "multiclass")(probabilities)
    decisions = {"argmax": Argmax("multiclass")(probabilities), "cost": fixed}
    curves = cost_curve(target, probabilities, decisions, settings, NAMES, "multiclass")
    assert list(curves) == ["argmax", "cost", AT_EACH_RATIO]
    for place in (0, 7, 24):
        costs = cost_matrix(Evaluation(wrong_defect_cost=0.5, cost_ratio=RATIOS[place]), NAMES)
        for rule, decided in decisions.items():
            assert curves[rule][place] == pytest.approx(costs[target, decided].mean())
        anew = (probabilities @ costs).argmin(1)
        assert curves[AT_EACH_RATIO][place] == pytest.approx(costs[target, anew].mean())
    # Knowing the price is never much worse, and far from the fixed price much better.
    for curve in curves.values():
        assert (curves[AT_EACH_RATIO] <= curve * 1.02 + 1e-3).all()
    assert curves[AT_EACH_RATIO][-1] < 0.5 * curves["argmax"][-1]
    assert (RATIOS[0], RATIOS[-1], len(RATIOS)) == (1, pytest.approx(100), 25)


def test_a_cost_matrix_has_no_ratio(classes):
    probabilities, target = classes
    given = Evaluation(cost_matrix=np.ones((3, 3)).tolist())
    curves = cost_curve(target, probabilities, {}, given, NAMES, "multiclass", np.array([1.0, 4.0]))
    plain = cost_curve(target, probabilities, {}, Evaluation(), NAMES, "multiclass", np.array([1.0, 4.0]))
    np.testing.assert_array_equal(curves[AT_EACH_RATIO], plain[AT_EACH_RATIO])


def test_the_curve_of_labels(labels):
    probabilities, target = labels
    called = (probabilities >= 0.5).astype(np.int8)
    curves = cost_curve(target, probabilities, {"argmax": called}, Evaluation(), ("a", "b", "c"), "multilabel")
    missed, needless = ((target == 1) & (called == 0)).sum(), ((target == 0) & (called == 1)).sum()
    np.testing.assert_allclose(curves["argmax"], (RATIOS * missed + needless) / 3000)
    assert curves[AT_EACH_RATIO][0] == pytest.approx(curves["argmax"][0])  # at 1 : 1 a half is right
    assert curves[AT_EACH_RATIO][-1] < 0.5 * curves["argmax"][-1]


@pytest.mark.parametrize("base", [None, (0.2, 0.1, 0.7), (2.0, 1.0, 7.0)])
def test_sensitivity_is_that_of_thresholds_with_another_one_for_normal(classes, base):
    probabilities, target = classes
    found = threshold_sensitivity(target, probabilities, Evaluation(), NAMES, "multiclass", base)
    others = np.array([0.5, 0.5] if base is None else [2 / 3, 1 / 3])
    for place in (0, 20, 35, 70):
        t = found["threshold"][place]
        decided = Thresholds("multiclass", (*((1 - t) * others), t))(probabilities)
        defect = target != 2
        assert found["escape_rate"][place] == pytest.approx((decided[defect] == 2).mean())
        assert found["false_alarm_rate"][place] == pytest.approx((decided[~defect] != 2).mean())
        assert found["f1_macro"][place] == pytest.approx(f1_score(target, decided, average="macro"))
    assert (np.diff(found["escape_rate"]) <= 0).all()
    assert (np.diff(found["false_alarm_rate"]) >= 0).all()


def test_the_thresholds_themselves_are_one_point_of_the_curve(classes):
    probabilities, target = classes
    base = (0.05, 0.15, 0.8)
    at = normal_threshold(base, [2])
    assert at == pytest.approx(0.8)
    found = threshold_sensitivity(target, probabilities, Evaluation(), NAMES, "multiclass", base, np.array([at]))
    decided = Thresholds("multiclass", base)(probabilities)
    assert found["f1_macro"][0] == pytest.approx(f1_score(target, decided, average="macro"))


def test_sensitivity_with_several_normal_classes():
    probabilities = np.array([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    settings, names, target = Evaluation(normal=["a", "c"]), ("a", "b", "c"), np.array([0, 1, 1])
    found = threshold_sensitivity(
        target, probabilities, settings, names, "multiclass", thresholds=np.array([0.5, 0.7, 0.99])
    )
    # Two normal classes share t: the wafer is normal where p_normal / (t / 2) >= p_b / (1 - t).
    np.testing.assert_allclose(found["escape_rate"], [1, 0.5, 0])
    np.testing.assert_allclose(found["false_alarm_rate"], [0, 0, 1])


def test_sensitivity_of_labels_is_one_threshold_for_all(labels):
    probabilities, target = labels
    found = threshold_sensitivity(
        target, probabilities, Evaluation(), ("a", "b", "c"), "multilabel", thresholds=np.array([0.2, 0.5])
    )
    for place, t in enumerate([0.2, 0.5]):
        called = probabilities >= t
        assert found["f1_macro"][place] == pytest.approx(f1_score(target, called, average="macro"))
        defect = target.any(1)
        assert found["escape_rate"][place] == pytest.approx((~called[defect].any(1)).mean())
        assert found["false_alarm_rate"][place] == pytest.approx(called[~defect].any(1).mean())


def test_both_need_a_normal_class(classes):
    probabilities, target = classes
    with pytest.raises(UserError, match=r"evaluation\.normal"):
        cost_curve(target, probabilities, {}, Evaluation(), ("a", "b", "c"), "multiclass")
    with pytest.raises(UserError, match=r"evaluation\.normal"):
        threshold_sensitivity(target, probabilities, Evaluation(), ("a", "b", "c"), "multiclass")
