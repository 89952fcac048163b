"""Weighted AUROC and average precision against scikit-learn with sample weights, ties included."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from wafer_lab.metrics.ranking import Ranking


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("digits", [0, 1, 8])
@pytest.mark.parametrize("skill", [-1.0, 0.0, 3.0])
def test_every_weighting_equals_scikit_learn(share: float, digits: int, skill: float) -> None:
    """With 0 digits nearly all wafers are ties."""
    rng = np.random.default_rng(0)
    positive = rng.random(200) < share
    scores = (rng.normal(size=200) + skill * positive).round(digits)
    weights = rng.integers(0, 4, (20, 200)).astype(np.uint8)
    weights[0] = 1
    weights[1, np.argsort(scores)[-5:]] = 0  # nothing at the top
    auroc, precision = Ranking.of(scores, positive, np.arange(200)).scores(weights, weights.sum(1))
    for i, row in enumerate(weights):
        assert auroc[i] == pytest.approx(roc_auc_score(positive, scores, sample_weight=row))
        assert precision[i] == pytest.approx(average_precision_score(positive, scores, sample_weight=row))


def test_wafers_of_a_lot_share_its_weight() -> None:
    rng = np.random.default_rng(1)
    positive, lot = rng.random(200) < 0.3, rng.integers(0, 12, 200)
    scores = rng.normal(size=200) + positive
    weights = rng.integers(0, 4, (5, 12)).astype(np.uint8)
    each = weights[:, lot]
    by_lot = Ranking.of(scores, positive, lot).scores(weights, each.sum(1))
    by_wafer = Ranking.of(scores, positive, np.arange(200)).scores(each, each.sum(1))
    np.testing.assert_array_equal(by_lot, by_wafer)


def test_nothing_left_to_rank_is_nan() -> None:
    ranking = Ranking.of(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]), np.arange(3))
    weights = np.array([[0, 2, 0], [1, 0, 1], [1, 1, 1]], dtype=np.uint8)
    auroc, precision = ranking.scores(weights, weights.sum(1))
    np.testing.assert_array_equal(auroc, [np.nan, np.nan, 0.5])
    np.testing.assert_allclose(precision, [np.nan, 1, (1 + 2 / 3) / 2])
