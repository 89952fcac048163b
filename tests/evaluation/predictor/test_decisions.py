import json

import numpy as np
import pytest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.decisions import (
    Argmax,
    MinimumCost,
    RecallConstrained,
    Thresholds,
    cost_matrix,
    decision_from,
    normal_indices,
)
from wafer_lab.evaluation.settings import Evaluation

WAFERS = ("Center", "Loc", "none")
SEM = ("CLEAN_LAYER", "BRIDGE", "CLEAN_VIA", "OPEN")
CLEAN = Evaluation(normal=["CLEAN_LAYER", "CLEAN_VIA"], cost_ratio=20, wrong_defect_cost=2)

RULES = [
    Argmax("multiclass"),
    Argmax("multilabel"),
    Thresholds("multiclass", (0.2, 0.3, 0.5)),
    Thresholds("multilabel", (0.2, 1.0, 0.5)),
    MinimumCost("multiclass", ((0.0, 1.5, 10.0), (1.0, 0.0, 10.0), (1.0, 1.0, 0.0))),
    MinimumCost("multilabel", ((10.0, 1.0),)),
    RecallConstrained("multiclass", 0.03, (2,)),
    RecallConstrained("multilabel", 1e-9, ()),
]


def simulated(rows=5000, classes=3, seed=0):
    """Calibrated probabilities and what then happens."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.5), rows)
    return probabilities, (probabilities.cumsum(1) > random.random((rows, 1))).argmax(1)


def test_argmax_takes_the_first_of_equals_and_labels_from_a_half():
    probabilities = np.array([[0.4, 0.4, 0.2], [0.1, 0.3, 0.6], [0.5, 0.49, 0.9]])
    assert Argmax("multiclass")(probabilities).tolist() == [0, 2, 2]
    assert Argmax("multilabel")(probabilities).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]


def test_thresholds_by_hand():
    rule = Thresholds("multiclass", (0.6, 0.1, 0.3))
    assert rule(np.array([[0.7, 0.1, 0.2], [0.7, 0.12, 0.18], [0.5, 0.05, 0.45]])).tolist() == [0, 1, 2]
    labels = Thresholds("multilabel", (0.6, 0.1, 0.3))
    assert labels(np.array([[0.6, 0.09, 0.3], [0.59, 0.1, 0.0]])).tolist() == [[1, 0, 1], [0, 1, 0]]
    probabilities, _ = simulated()
    even = Thresholds("multiclass", (1 / 3,) * 3)
    np.testing.assert_array_equal(even(probabilities), Argmax("multiclass")(probabilities))


def test_expected_costs_by_hand():
    rule = MinimumCost("multiclass", ((0, 5, 10), (3, 0, 10), (1, 1, 0)))
    # Costs of deciding 0, 1, 2: (.6, 1.5, 3), (.7, .5, 2), (.98, 1.03, .4).
    probabilities = np.array([[0.3, 0.0, 0.6], [0.1, 0.1, 0.8], [0.01, 0.0, 0.99]])
    expected = probabilities @ np.array([[0, 5, 10], [3, 0, 10], [1, 1, 0]])
    np.testing.assert_allclose(expected, [[0.6, 2.1, 3], [1.1, 1.3, 2], [0.99, 1.04, 0.1]])
    assert rule(probabilities).tolist() == [0, 0, 2]


def test_of_equally_dear_decisions_the_more_probable_is_taken():
    rule = MinimumCost.of(cost_matrix(Evaluation(), WAFERS), "multiclass")
    assert rule(np.array([[0.1, 0.3, 0.6], [0.3, 0.1, 0.6], [0.02, 0.03, 0.95]])).tolist() == [1, 0, 2]
    clean = MinimumCost.of(cost_matrix(CLEAN, SEM), "multiclass")
    random = np.random.default_rng(1)
    normal = np.array([0.97, 0.01, 0.97, 0.01]) * random.random((500, 4))
    normal[:, [1, 3]] *= 0.1
    normal /= normal.sum(1, keepdims=True)
    decided = clean(normal)
    called_normal = np.isin(decided, [0, 2])
    assert called_normal.any()
    np.testing.assert_array_equal(decided[called_normal], np.where(normal[:, 0] >= normal[:, 2], 0, 2)[called_normal])


def test_the_cost_rule_is_the_cheapest_of_all():
    probabilities, target = simulated(60000)
    costs = cost_matrix(Evaluation(cost_ratio=8, wrong_defect_cost=0.5), WAFERS)
    expected = probabilities @ costs
    rows = np.arange(len(target))
    cheapest = MinimumCost.of(costs, "multiclass")(probabilities)
    assert (expected[rows, cheapest][:, None] <= expected + 1e-9).all()
    others = [
        Argmax("multiclass"),
        Thresholds("multiclass", (0.4, 0.3, 0.3)),
        RecallConstrained("multiclass", 0.4, (2,)),
    ]
    for rule in others:
        assert costs[target, cheapest].mean() < costs[target, rule(probabilities)].mean() - 0.01


def test_the_cost_rule_of_labels_is_the_cheapest_of_all():
    random = np.random.default_rng(0)
    probabilities = random.random((20000, 4))
    target = random.random(probabilities.shape) < probabilities
    missed, needless = cost_matrix(Evaluation(cost_ratio=9), ("a", "b", "c", "d"), "multilabel")
    assert (missed, needless) == (9, 1)

    def cost(called):
        return (missed * (target & ~called) + needless * (~target & called)).sum(1).mean()

    rule = MinimumCost.of(np.array([9.0, 1.0]), "multilabel")
    np.testing.assert_array_equal(rule(probabilities), probabilities >= 0.1)
    assert cost(rule(probabilities) == 1) < min(cost(probabilities >= t) for t in (0.05, 0.2, 0.5))


def test_recall_constrained_by_hand():
    rule = RecallConstrained("multiclass", 0.25, (0, 2))
    probabilities = np.array(
        [[0.5, 0.2, 0.25, 0.05], [0.3, 0.1, 0.5, 0.1], [0.6, 0.1, 0.15, 0.15], [0.1, 0.2, 0.1, 0.6]]
    )
    assert rule(probabilities).tolist() == [1, 2, 3, 3]  # defect probability .25, .2, .25, .8
    labels = RecallConstrained("multilabel", 0.27, ())
    # 1 - prod(1 - p) = .28, .19, .85
    assert labels(np.array([[0.1, 0.2], [0.1, 0.1], [0.5, 0.7]])).tolist() == [[0, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rule}-{rule.target_kind}")
def test_rules_survive_json_and_give_the_right_kind(rule):
    again = decision_from(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    probabilities, _ = simulated(50)
    decided = again(probabilities)
    multilabel = rule.target_kind == "multilabel"
    assert (decided.dtype, decided.shape) == ((np.int8, (50, 3)) if multilabel else (np.int64, (50,)))
    assert again(probabilities[:0]).shape == decided[:0].shape
    assert rule.fits(3)


def test_rules_know_for_how_many_classes_they_are():
    assert [rule.fits(2) for rule in RULES] == [True, True, False, False, False, True, False, True]
    assert not RecallConstrained("multiclass", 0.5, (0, 1)).fits(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rule": "best"},
        {"rule": "argmax"},
        {"rule": "argmax", "target_kind": "mask"},
        {"rule": "argmax", "target_kind": "multiclass", "values": [1]},
        {"rule": "thresholds", "target_kind": "multiclass", "values": [0.5, 0.0]},
        {"rule": "thresholds", "target_kind": "multiclass", "values": [0.5, None]},
        {"rule": "thresholds", "target_kind": "multiclass", "values": 0.5},
        {"rule": "thresholds", "target_kind": "multiclass", "values": [float("nan"), 1]},
        {"rule": "minimum_cost", "target_kind": "multiclass", "costs": [[0, 1]]},
        {"rule": "minimum_cost", "target_kind": "multiclass", "costs": [[0, -1], [1, 0]]},
        {"rule": "minimum_cost", "target_kind": "multilabel", "costs": [[0, 0]]},
        {"rule": "minimum_cost", "target_kind": "multilabel", "costs": [[0, 1], [1, 0]]},
        {"rule": "recall_constrained", "target_kind": "multiclass", "threshold": 0.5, "normal": []},
        {"rule": "recall_constrained", "target_kind": "multilabel", "threshold": 0.5, "normal": [1]},
        {"rule": "recall_constrained", "target_kind": "multiclass", "threshold": float("inf"), "normal": [1]},
        {"rule": "recall_constrained", "target_kind": "multiclass", "threshold": 0.5, "normal": ["none"]},
    ],
)
def test_nonsense_is_no_rule(wrong):
    with pytest.raises(UserError, match=r"no decision rule .* fit it again"):
        decision_from(wrong)


def test_costs_of_an_escape_a_false_alarm_and_a_wrong_defect():
    assert cost_matrix(CLEAN, SEM).tolist() == [[0, 1, 0, 1], [20, 0, 20, 2], [0, 1, 0, 1], [20, 2, 20, 0]]
    assert cost_matrix(Evaluation(), WAFERS).tolist() == [[0, 0, 10], [0, 0, 10], [1, 1, 0]]
    given = [[0, 1, 2], [3, 0.5, 5], [6, 7, 0]]
    found = cost_matrix(Evaluation(cost_matrix=given), ("a", "b", "c"))  # needs no normal class
    assert found.tolist() == given
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    "matrix",
    [[[0, 1], [1, 0]], [[0, 1, 2], [1, 0]], [[0, 1, -2]] * 3, [[0, 1, float("nan")]] * 3, [["a"] * 3] * 3, [1, 2, 3]],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix):
    with pytest.raises(UserError, match=r"3 rows of 3 numbers .* Center, Loc, none"):
        cost_matrix(Evaluation(cost_matrix=matrix), WAFERS)


def test_costs_need_a_normal_class_or_a_matrix():
    with pytest.raises(UserError, match=r"none of a, b is called none; name them in evaluation.normal"):
        cost_matrix(Evaluation(), ("a", "b"))
    with pytest.raises(UserError, match="cost_ratio"):
        cost_matrix(Evaluation(cost_matrix=[[0]]), ("a",), "multilabel")


def test_normal_classes_by_name():
    assert normal_indices(Evaluation(), WAFERS) == (2,)
    assert normal_indices(Evaluation(), SEM) == ()
    assert normal_indices(CLEAN, SEM) == (0, 2)
    assert normal_indices(Evaluation(normal=["clean*"]), SEM) == (0, 2)
    assert normal_indices(Evaluation(normal=["*via", "clean_layer"]), SEM) == (0, 2)
    assert normal_indices(Evaluation(normal=["open"]), ("open", "OPEN", "b")) == (0,)  # a name is no pattern
    with pytest.raises(UserError, match=r"names clear\*, which is no class of this data"):
        normal_indices(Evaluation(normal=["clean*", "clear*"]), SEM)
    with pytest.raises(UserError, match=r"names clean_vias, which .* did you mean CLEAN_VIA?"):
        normal_indices(Evaluation(normal=["CLEAN_LAYER", "clean_vias"]), SEM)
    with pytest.raises(UserError, match="choose from Center, Loc, none"):
        normal_indices(Evaluation(normal=["xyz"]), WAFERS)
    with pytest.raises(UserError, match="every class"):
        normal_indices(Evaluation(normal=list(WAFERS)), WAFERS)
