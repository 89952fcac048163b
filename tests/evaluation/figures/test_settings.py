import numpy as np

from wafer_lab.evaluation import figures

NAMES, MEANS, SEEDS = ["a", "b", "c"], [0.8, 0.9, 0.7], [[0.79, 0.81], [0.9], []]


def test_settings_are_sorted_best_first(line, words) -> None:
    figure = figures.comparison(NAMES, MEANS, [0.75, np.nan, 0.6], [0.85, np.nan, 0.8], SEEDS, "test/f1_macro")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    np.testing.assert_allclose(line(figure, "b"), [[0.9, 0]])
    np.testing.assert_allclose(line(figure, "a"), [[0.8, 1]])
    assert {"0.8000  [0.7500, 0.8500]", "0.9000", "test/f1_macro"} <= set(words(figure))
    dots = [drawn.get_xdata().tolist() for drawn in figure.axes[0].lines if drawn.get_marker() == "o"]
    assert dots == [[0.9], [0.79, 0.81], []]


def test_of_costs_the_lowest_is_best() -> None:
    figure = figures.comparison(NAMES, MEANS, MEANS, MEANS, SEEDS, "test/cost", mode="min")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["c", "a", "b"]


def test_no_settings_draw() -> None:
    for figure in (figures.comparison([], [], [], [], [], "f1_macro"), figures.main_effects({}, "f1_macro")):
        figure.draw_without_rendering()
        assert not [tick for axes in figure.axes for tick in axes.get_yticklabels() if tick.get_text()]


def test_main_effects_are_grouped_by_factor(line, words) -> None:
    effects = {"model": {"small": (0.8, 0.7, 0.9), "large": (0.9, np.nan, np.nan)}, "loss": {"focal": (0.85, 0.8, 0.9)}}
    figure = figures.main_effects(effects, "f1_macro")
    figure.draw_without_rendering()
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["model", "small", "large", "loss", "focal"]
    np.testing.assert_allclose(line(figure, "model"), [[0.8, 1], [0.9, 2]])
    np.testing.assert_allclose(line(figure, "loss"), [[0.85, 4]])
    assert {"0.8000  [0.7000, 0.9000]", "0.9000"} <= set(words(figure))
