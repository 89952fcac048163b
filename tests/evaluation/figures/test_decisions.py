import numpy as np
import pytest
from matplotlib.colors import to_rgba

from wafer_lab.evaluation import figures

CURVE = {
    "threshold": np.array([0.1, 0.5, 0.9]),
    "escape_rate": np.array([0.2, 0.05, 0.0]),
    "false_alarm_rate": np.array([0.0, 0.01, 0.3]),
    "f1_macro": np.array([0.6, 0.8, 0.5]),
}


def test_threshold_lines_are_percents(line, words) -> None:
    figure = figures.threshold_sensitivity(CURVE, chosen=0.4, default=0.5)
    np.testing.assert_allclose(line(figure, "escape_rate"), [[0.1, 20], [0.5, 5], [0.9, 0]])
    np.testing.assert_allclose(line(figure, "false_alarm_rate"), [[0.1, 0], [0.5, 1], [0.9, 30]])
    np.testing.assert_allclose(line(figure, "f1_macro", panel=1), [[0.1, 0.6], [0.5, 0.8], [0.9, 0.5]])
    assert {"in use 0.4", "default 0.5"} <= set(words(figure))
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_xscale() == "linear"
    assert not any("default" in text for text in words(figures.threshold_sensitivity(CURVE, 0.4)))


def test_thresholds_near_zero_and_one_get_a_logit_axis(overlaps) -> None:
    curve = CURVE | {"threshold": np.array([0.001, 0.05, 0.999])}
    figure = figures.threshold_sensitivity(curve, 0.01)
    assert figure.axes[1].get_xscale() == "logit"
    figure.draw_without_rendering()
    assert overlaps(figure) == []


def test_a_curve_without_any_error_draws() -> None:
    curve = CURVE | {"escape_rate": np.zeros(3), "false_alarm_rate": np.zeros(3)}
    figure = figures.threshold_sensitivity(curve, 0.4, 0.5)
    figure.draw_without_rendering()
    assert figure.axes[0].get_yscale() == "linear"


def test_cost_curves_are_named_in_the_order_they_end(line) -> None:
    ratios = np.geomspace(1, 100, 5)
    costs = {"cheap": 0.01 * np.ones(5), "dear": 0.02 * ratios, "free": np.zeros(5)}
    figure = figures.cost_curve(ratios, costs, chosen_ratio=10)
    for name, values in costs.items():
        np.testing.assert_allclose(line(figure, name), np.column_stack([ratios, values]))
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["dear", "cheap", "free", "in use: 10"]
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_rules_share_marks_between_panels(line, words) -> None:
    rows = [
        {"name": "argmax", "escape_rate": 0.05, "false_alarm_rate": 0.01, "cost": 0.4, "cost_interval": (0.3, 0.6)},
        {"name": "least cost", "escape_rate": 0.01, "false_alarm_rate": 0.04, "cost": 0.1},
    ]
    rows[1]["escape_rate_interval"] = (0.005, 0.02)
    figure = figures.rules(rows)
    np.testing.assert_allclose(line(figure, "argmax"), [[5, 1]])
    np.testing.assert_allclose(line(figure, "least cost"), [[1, 4]])
    left, right = figure.axes
    assert {"0.4000  [0.3000, 0.6000]", "0.1000", "argmax", "least cost"} <= set(words(figure))
    np.testing.assert_allclose(left.collections[0].get_segments()[0][:, 0], [0.5, 2])
    for k in (0, 1):
        assert left.containers[k].lines[0].get_marker() == right.containers[k].lines[0].get_marker()
        assert to_rgba(left.containers[k].lines[0].get_color()) == to_rgba(right.containers[k].lines[0].get_color())


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_one_rule_at_the_edge_draws(rate, words) -> None:
    row = {"name": "argmax", "escape_rate": rate, "false_alarm_rate": rate, "cost": rate}
    figure = figures.rules([row])
    figure.draw_without_rendering()
    assert {"argmax", f"{rate:.4f}"} <= set(words(figure))
