import numpy as np
import pytest
from sklearn.metrics import f1_score

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.decisions import Thresholds, defect_probability
from wafer_lab.evaluation.predictor.thresholds import fit_recall, fit_thresholds


def macro_f1(target, decisions, classes):
    """(...,) over the classes that occur in the target, from (..., N) decisions."""
    scores = []
    for k in np.unique(target):
        hits = ((decisions == k) & (target == k)).sum(-1)
        scores.append(2 * hits / ((decisions == k).sum(-1) + (target == k).sum()))
    return np.mean(scores, axis=0)


def cells(points):
    """A point below, between and above all points."""
    ordered = np.unique(points)
    return np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])


def best_of_all(probabilities, target):
    """Brute force: the macro F1 of the best of every distinct outcome of 2 or 3 thresholds."""
    z = np.log(probabilities)
    first = z[:, 1] - z[:, 0]
    if z.shape[1] == 2:
        offsets = np.stack([np.zeros(len(target) + 1), cells(first)], axis=1)
    else:
        second, between = z[:, 2] - z[:, 0], z[:, 2] - z[:, 1]
        # Outcomes along the second offset change their order where the first one passes these.
        corners = cells(np.concatenate([first, (second[:, None] - between).ravel()]))
        offsets = np.array([(0, a, b) for a in corners for b in cells(np.concatenate([second, between + a]))])
    return macro_f1(target, (z - offsets[:, None]).argmax(-1), z.shape[1]).max()


def draw(seed, rows, classes, informative=True):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), rows)
    if informative:
        return probabilities, (probabilities.cumsum(1) > random.random((rows, 1))).argmax(1)
    return probabilities, random.integers(0, classes, rows)


def decided(probabilities, thresholds):
    return Thresholds("multiclass", tuple(thresholds))(probabilities)


@pytest.mark.parametrize("informative", [True, False])
def test_two_classes_equal_brute_force(informative):
    for seed in range(40):
        probabilities, target = draw(seed, 25, 2, informative)
        thresholds = fit_thresholds(probabilities, target)
        found = macro_f1(target, decided(probabilities, thresholds), 2)
        assert found == pytest.approx(best_of_all(probabilities, target), abs=1e-9)
        # On the simplex: the usual threshold of the second class.
        usual = (probabilities[:, 1] > thresholds[1]).astype(int)
        np.testing.assert_array_equal(usual, decided(probabilities, thresholds))


def test_three_classes_nearly_equal_brute_force_and_stand_at_a_peak():
    equal = 0
    for seed in range(100):
        probabilities, target = draw(seed, 12, 3, informative=seed % 2 == 0)
        thresholds = fit_thresholds(probabilities, target)
        found = macro_f1(target, decided(probabilities, thresholds), 3)
        best = best_of_all(probabilities, target)
        assert found <= best + 1e-9
        equal += found >= best - 1e-9
        for k in np.unique(target):
            others = np.delete(np.arange(3), k)
            turn = np.log(probabilities[:, k]) - np.log(probabilities[:, others] / thresholds[others]).max(axis=1)
            for cut in cells(turn):
                moved = thresholds.copy()
                moved[k] = np.exp(cut)
                assert macro_f1(target, decided(probabilities, moved), 3) <= found + 1e-9
    assert equal >= 95


@pytest.mark.parametrize("sharpness", [0.2, 1, 30])
def test_never_worse_than_argmax_where_it_was_fitted(sharpness):
    for seed in range(8):
        random = np.random.default_rng(seed)
        logits = random.normal(size=(150, 6)) * sharpness + np.arange(6) / 2
        target = random.integers(0, 6, 150)
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        thresholds = fit_thresholds(probabilities, target, seed=seed)
        scores = [f1_score(target, d, average="macro") for d in (decided(probabilities, thresholds), logits.argmax(1))]
        assert scores[0] >= scores[1]
        assert thresholds.sum() == pytest.approx(1)
        assert thresholds.min() > 0


def test_thresholds_undo_a_shifted_prior():
    probabilities, target = draw(0, 4000, 4)
    shifted = probabilities * [1, 1, 1, 50]
    shifted /= shifted.sum(1, keepdims=True)
    thresholds = fit_thresholds(shifted, target)
    assert np.log(thresholds[3] / thresholds[:3]) == pytest.approx(np.log(50), abs=0.4)
    assert thresholds.tolist() == fit_thresholds(shifted, target).tolist()


def test_saturated_and_equal_probabilities():
    certain = np.eye(3)[[0, 1, 2, 0, 0]]
    target = np.array([0, 1, 2, 1, 2])
    thresholds = fit_thresholds(certain, target)
    np.testing.assert_array_equal(decided(certain, thresholds), [0, 1, 2, 0, 0])
    same = fit_thresholds(np.full((10, 2), 0.5), np.arange(10) % 2)
    assert np.isfinite(same).all()
    lost = fit_thresholds(np.array([[0.9], [0.8], [0.0], [0.0]]), np.ones((4, 1), np.int8))  # sigmoids that underflow
    assert 0 < lost[0] < 1e-100


def test_frozen_and_absent_classes_stay_neutral():
    probabilities, target = draw(3, 60, 5)
    target[target == 4] = 0
    thresholds = fit_thresholds(probabilities, target, frozen=[1])
    assert thresholds[4] == thresholds[1]
    assert len(set(thresholds.round(12))) > 2
    np.testing.assert_allclose(fit_thresholds(probabilities, target, frozen=range(5)), 0.2)


def test_every_label_gets_its_exact_best_threshold():
    random = np.random.default_rng(5)
    probabilities = random.random((40, 6)).round(2)  # with ties
    target = (random.random((40, 6)) < probabilities * [1, 0.3, 0.5, 1, 1, 0]).astype(np.int8)
    thresholds = fit_thresholds(probabilities, target, frozen=[4])
    assert thresholds[4:].tolist() == [0.5, 0.5]  # frozen; no such label
    for k in range(4):
        scores = [f1_score(target[:, k], probabilities[:, k] >= t) for t in (*np.unique(probabilities[:, k]), 0.5)]
        assert f1_score(target[:, k], probabilities[:, k] >= thresholds[k]) == pytest.approx(max(scores))
        below, above = (
            probabilities[probabilities[:, k] < thresholds[k], k].max(initial=0),
            probabilities[probabilities[:, k] >= thresholds[k], k].min(),
        )
        assert thresholds[k] == pytest.approx(np.sqrt(below * above))


def test_recall_threshold_by_hand():
    scores = np.array([0.9, 0.2, 0.4, 0.6, 0.8, 0.05, 0.99, 0.7, 0.5, 0.3, 0.01])
    defect = np.array([1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0], dtype=bool)  # 9 of them
    assert fit_recall(scores, defect, 0.1) == 0.2  # (0 + 1) / 10
    assert fit_recall(scores, defect, 0.2999) == 0.3
    assert fit_recall(scores, defect, 0.3) == 0.4  # two escape: (2 + 1) / 10
    with pytest.raises(UserError, match=r"takes 10 val wafers .* 9 are there .*max_escape_rate to 0\.112"):
        fit_recall(scores, defect, 0.0999)
    with pytest.raises(UserError, match="0 are there"):
        fit_recall(scores, defect & False, 0.5)


@pytest.mark.parametrize(("defects", "rate"), [(30, 0.05), (200, 0.03), (999, 0.01)])
def test_recall_rule_keeps_the_mean_escape_rate_on_fresh_wafers(defects, rate):
    random = np.random.default_rng(defects)
    # Scores of defects are uniform, so a threshold t lets exactly the share t of fresh defects escape.
    escapes = [fit_recall(random.random(defects), np.ones(defects, dtype=bool), rate) for _ in range(2000)]
    promised = np.floor(rate * (defects + 1)) / (defects + 1)
    error = np.std(escapes) / np.sqrt(len(escapes))
    assert promised <= rate
    assert np.mean(escapes) == pytest.approx(promised, abs=4 * error)


def test_defect_probability_tells_small_ones_apart():
    probabilities = np.array([[1e-20, 2e-20, 1.0], [3e-20, 1e-20, 1.0]])
    np.testing.assert_allclose(defect_probability(probabilities, [2]), [3e-20, 4e-20], rtol=1e-12)
    labels = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 0.3]])
    np.testing.assert_allclose(defect_probability(labels, []), [0.75, 0, 1])
