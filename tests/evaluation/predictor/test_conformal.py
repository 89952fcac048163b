import numpy as np
import pytest

from wafer_lab.evaluation.predictor.conformal import Conformal, conformal_sets, fit_conformal, measure


def simulated(random, rows, classes=4):
    logits = random.normal(size=(rows, classes)) * 1.5 + [1, 0, 0, -1]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Overconfident: conformal sets cover whether or not the model is calibrated.
    target = (probabilities.cumsum(1) > random.random((rows, 1))).argmax(1)
    sharp = probabilities**2
    return sharp / sharp.sum(1, keepdims=True), target


def test_by_hand():
    p_true = np.array([0.9, 0.8, 0.7, 0.4, 0.2])
    probabilities = np.stack([p_true, 1 - p_true], axis=1)
    target = np.zeros(5, dtype=int)
    # Scores .1 .2 .3 .6 .8; ceil(6 * .6) = 4th, ceil(6 * .5) = 3rd, ceil(6 * .8) = 5th.
    for coverage, threshold in [(0.6, 0.6), (0.5, 0.3), (0.8, 0.8)]:
        found = fit_conformal(probabilities, target, coverage)
        assert found.thresholds == pytest.approx((threshold, threshold))
        assert (found.mode, found.always) == ("marginal", ())
        assert found.sets(probabilities)[:, 0].mean() >= coverage
    assert fit_conformal(probabilities, target, 0.9) == Conformal(0.9, "marginal", (1.0, 1.0), (0, 1))
    by_class = fit_conformal(probabilities, target, 0.5, "class")
    assert by_class.thresholds == (pytest.approx(0.3), 1.0)
    assert by_class.always == (1,)


def test_rounding_does_not_raise_the_rank():
    # 0.7 * (9 + 1) is 7.000000000000001 in some orders and exactly the 7th is meant.
    for rank in range(1, 10):
        scores = np.arange(1, 10) / 10
        probabilities = np.stack([1 - scores, scores], axis=1)
        found = fit_conformal(probabilities, np.zeros(9, dtype=int), rank / 10)
        assert found.thresholds[0] == pytest.approx(rank / 10)


def test_sets_hold_what_reaches_the_threshold():
    sets = conformal_sets(np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.0, 0.0, 1.0]]), (0.6, 0.8, 1.0))
    assert sets.tolist() == [[True, True, True], [True, True, True], [False, False, True]]


def test_marginal_coverage_is_kept_on_average():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        probabilities, target = simulated(random, 60)
        fresh, truth = simulated(random, 500)
        covered.append(measure(fit_conformal(probabilities, target, 0.85).sets(fresh), truth).overall)
    promised = np.ceil(61 * 0.85) / 61
    assert np.mean(covered) == pytest.approx(promised, abs=4 * np.std(covered) / 20)
    assert promised >= 0.85


def test_coverage_by_class_is_kept_for_every_class():
    random = np.random.default_rng(1)
    by_class, marginal = [], []
    fresh, truth = simulated(random, 4000)
    for _ in range(200):
        probabilities, target = simulated(random, 300)
        by_class.append(measure(fit_conformal(probabilities, target, 0.9, "class").sets(fresh), truth).per_class)
        marginal.append(measure(fit_conformal(probabilities, target, 0.9).sets(fresh), truth).per_class)
    assert np.mean(by_class, axis=0) == pytest.approx(0.91, abs=0.025)
    assert np.mean(marginal, axis=0).min() < 0.85  # which one threshold for all does not


def test_each_label_that_is_present_is_covered():
    random = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        probabilities = random.random((400, 3)) ** [1, 2, 0.5]
        target = (random.random(probabilities.shape) < probabilities).astype(np.int8)
        found = fit_conformal(probabilities[:200], target[:200], 0.8, "class")
        covered.append(measure(found.sets(probabilities[200:]), target[200:]).per_class)
    assert np.mean(covered, axis=0) == pytest.approx(0.805, abs=0.015)
    pooled = fit_conformal(probabilities, target, 0.8)
    assert len(set(pooled.thresholds)) == 1
    assert measure(pooled.sets(probabilities), target).overall == pytest.approx(0.8, abs=0.01)


def test_measures_by_hand():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    found = measure(sets, np.array([0, 0, 0, 1]))
    assert (found.overall, found.mean_size, found.singletons, found.empty) == (0.75, 1.25, 0.25, 0.25)
    np.testing.assert_array_equal(found.per_class, [2 / 3, 1, np.nan])
    labels = measure(sets, np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=np.int8))
    assert labels.overall == 0.75
    np.testing.assert_array_equal(labels.per_class, [1, 2 / 3, np.nan])
    assert np.isnan(measure(sets, np.zeros((4, 3), dtype=np.int8)).overall)
