import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from wafer_lab.evaluation.figures.curves import binned, claims, ranking_curves


@pytest.mark.parametrize("decimals", [1, 8])
def test_rankings_are_those_of_scikit_learn(decimals) -> None:
    random = np.random.default_rng(0)
    positive = random.random(500) < 0.2
    score = np.round(np.clip(random.normal(0.4 + 0.2 * positive, 0.2), 0, 1), decimals)
    curve = ranking_curves(positive, score)
    false, true, _ = roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, false)
    np.testing.assert_allclose(curve.true_positive_rate, true)
    precision, recall, _ = precision_recall_curve(positive, score)
    np.testing.assert_allclose(curve.precision, precision[::-1])
    np.testing.assert_allclose(curve.true_positive_rate, recall[::-1])
    assert curve.auroc == pytest.approx(roc_auc_score(positive, score))
    assert curve.average_precision == pytest.approx(average_precision_score(positive, score))


@pytest.mark.parametrize("positive", [[], [True], [False, False], [True, True]])
def test_one_kind_alone_has_no_ranking(positive) -> None:
    assert ranking_curves(np.array(positive, dtype=bool), np.zeros(len(positive))) is None


def test_a_constant_score_ranks_at_chance() -> None:
    curve = ranking_curves(np.array([True, False, False, False]), np.ones(4))
    assert curve.auroc == 0.5
    assert curve.average_precision == 0.25


def test_bins_hold_what_lies_up_to_their_upper_edge() -> None:
    stated = np.array([0.0, 0.2, 0.25, 0.5, 0.6, 1.0])
    happened = np.array([False, True, False, True, False, True])
    mean, rate, count = binned(stated, happened, bins=4)
    np.testing.assert_array_equal(count, [3, 1, 1, 1])
    np.testing.assert_allclose(mean, [0.15, 0.5, 0.6, 1.0])
    np.testing.assert_allclose(rate, [1 / 3, 1, 0, 1])
    assert np.isnan(binned(stated[:1], happened[:1], bins=4)[0][1:]).all()


def test_claims_are_top_classes_or_all_labels() -> None:
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
    stated, right = claims(probabilities, np.array([0, 0]), "multiclass")
    np.testing.assert_array_equal(stated, [0.7, 0.6])
    np.testing.assert_array_equal(right, [True, False])
    stated, right = claims(probabilities, np.array([[1, 0], [1, 1]]), "multilabel")
    np.testing.assert_array_equal(stated, [0.7, 0.3, 0.4, 0.6])
    np.testing.assert_array_equal(right, [True, False, True, True])
