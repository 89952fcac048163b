import numpy as np
import pytest

from wafer_lab.evaluation import figures


def test_each_group_is_a_line_over_sizes_beside_the_others(line) -> None:
    rows = {
        "scratch": [(1, 0.8, 0.7, 0.9, 0.75, 0.85), (2, 0.9, 0.8, 0.95, 0.9, 0.9)],
        "mixed": [(2, 0.85, 0.8, 0.9, 0.8, 0.9)],
    }
    figure = figures.ensemble_sizes(rows, "f1")
    first, second = line(figure, "scratch"), line(figure, "mixed")
    np.testing.assert_allclose(first[:, 1], [0.8, 0.9])
    np.testing.assert_allclose(second[:, 1], [0.85])
    assert 0 < second[0, 0] - first[1, 0] < 0.2


def test_label_curves_have_their_runs_as_dots_and_bear_one_seed(line) -> None:
    rows = {
        "scratch": [(90, 0.5, 0.4, 0.6, 0.45, 0.55), (900, 0.8, 0.7, 0.9, 0.8, 0.8)],
        "one": [(90, 0.6, np.nan, np.nan, 0.6)],
    }
    figure = figures.label_curves(rows, "f1")
    np.testing.assert_allclose(line(figure, "scratch")[:, 1], [0.5, 0.8])
    dots = [one.get_ydata().tolist() for one in figure.axes[0].lines if one.get_marker() == "."]
    assert dots == [[0.45, 0.55], [0.8, 0.8], [0.6]]
    assert figure.axes[0].get_xscale() == "log"
    assert line(figure, "one")[0, 1] == pytest.approx(0.6)
    figure.draw_without_rendering()
