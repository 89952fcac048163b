import numpy as np
import pytest

from wafer_lab.evaluation import figures

# Confidences .9 .8 .6 .55, of which the first, third and fourth are right.
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
TARGET = np.array([0, 0, 0, 1])


def test_reliability_points_by_hand(line, words) -> None:
    figure = figures.reliability(None, PROBABILITIES, TARGET, "multiclass", bins=2)
    np.testing.assert_allclose(line(figure, "as used"), [[np.nan, np.nan], [0.7125, 0.75]][1:])
    assert "as used: ECE 0.0375" in words(figure)
    figure = figures.reliability(None, PROBABILITIES, TARGET, "multiclass", bins=4)
    np.testing.assert_allclose(line(figure, "as used"), [[0.575, 1.0], [0.85, 0.5]])
    (counts,) = figure.axes[1].patches
    np.testing.assert_array_equal(counts.get_data().values, [0, 0, 2, 2])


def test_reliability_pools_labels_and_shows_both_curves(line, words) -> None:
    target = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    figure = figures.reliability(np.full((4, 2), 0.5), PROBABILITIES, target, "multilabel", bins=2)
    # (0, .5]: .1 .2 .4 .45, one of which, .2's wafer's first label, is absent as well.
    np.testing.assert_allclose(line(figure, "after calibration"), [[0.2875, 0.0], [0.7125, 0.75]])
    np.testing.assert_allclose(line(figure, "before"), [[0.5, 3 / 8]])
    assert "before: ECE 0.1250" in words(figure)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_certain_probabilities_draw(kind, line) -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    target = np.array([0, 0]) if kind == "multiclass" else np.array([[1, 0], [1, 0]])
    figure = figures.reliability(sure, sure[:, ::-1], target, kind)
    figure.draw_without_rendering()
    for name in ("before", "after calibration"):
        np.testing.assert_allclose(line(figure, name)[-1], [1, 0.5])  # certain, and right half of the time


def test_conformal_coverage_and_sizes(line, words) -> None:
    one, each = {"Loc": 0.6, "none": 0.95, "Donut": np.nan}, {"Loc": 0.91, "none": 0.9, "Donut": np.nan}
    figure = figures.conformal(one, each, 0.9, {"marginal": 1.02, "class": 1.5})
    np.testing.assert_array_equal(line(figure, "one threshold for all")[:, 0], [0.6, 0.95])
    np.testing.assert_array_equal(line(figure, "a threshold each")[:, 0], [0.91, 0.9])
    assert {"Donut", "promised: 90 %", "one threshold for all, 1.02 classes in a set"} <= set(words(figure))
    assert "a threshold each, 1.50 classes in a set" in words(figure)


def test_conformal_with_one_kind_of_set(line, words) -> None:
    figure = figures.conformal({}, {"Loc": 1.0}, 0.95, {"label": 2.25})
    np.testing.assert_array_equal(line(figure, "a threshold each")[:, 0], [1.0])
    assert "a threshold each, 2.25 classes in a set" in words(figure)
    assert not any("one threshold" in text for text in words(figure))
