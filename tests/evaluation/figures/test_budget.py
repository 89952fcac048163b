import numpy as np

from wafer_lab.evaluation import figures


def test_curves_over_labels(words, overlaps) -> None:
    labels, mean = np.array([50, 100, 200]), np.array([0.3, 0.6, 0.8])
    names = ["hybrid", "core_set", "badge", "margin", "entropy", "bald", "random"]
    lines = {name: (labels, mean - k / 50, (mean - 0.1, mean + 0.1)) for k, name in enumerate(names)}
    figure = figures.label_budget(lines, "test macro F1", "random", "a title")
    assert {*names, "labelled wafers", "test macro F1"} <= set(words(figure))
    drawn = [line.get_xydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(drawn[1], np.column_stack([labels, mean - 0.02]))
    assert len(drawn) == 8  # a curve each, and where random ends
    np.testing.assert_allclose(drawn[7][:, 1], mean[-1] - 0.12)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines[:7]}
    assert len(looks) == 7
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    one = figures.label_budget({"hybrid": (labels[:1], mean[:1], None)}, "test macro F1")
    one.draw_without_rendering()
