import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.evaluation import figures


def positives(target: np.ndarray, k: int) -> np.ndarray:
    return target == k if target.ndim == 1 else target[:, k] == 1


def legend_value(texts: list[str], name: str) -> float:
    (value,) = [text.split()[0] for text in texts if text.endswith(f"  {name}")]
    return float(value)


@pytest.fixture(params=["multiclass", "multilabel"])
def table(request):
    target, probabilities = request.getfixturevalue(request.param)()
    names = WM811K_CLASSES if request.param == "multiclass" else MIXEDWM38_CLASSES
    return target, probabilities, names, request.param


def test_roc_lines_and_areas_are_those_of_scikit_learn(table, line, words) -> None:
    target, probabilities, names, _ = table
    figure = figures.roc_curves(*table)
    for k, name in enumerate(names):
        expected = roc_curve(positives(target, k), probabilities[:, k], drop_intermediate=False)[:2]
        for panel in (0, 1):
            np.testing.assert_allclose(line(figure, name, panel), np.column_stack(expected))
        area = roc_auc_score(positives(target, k), probabilities[:, k])
        assert legend_value(words(figure), name) == pytest.approx(area, abs=1e-4)
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]


def test_pr_lines_and_areas_are_those_of_scikit_learn(table, line, words) -> None:
    target, probabilities, names, _ = table
    figure = figures.pr_curves(*table)
    for k, name in enumerate(names):
        precision, recall, _ = precision_recall_curve(positives(target, k), probabilities[:, k])
        points = line(figure, name)
        wanted = np.column_stack([recall, precision])[::-1]
        wanted = wanted[wanted[:, 0] > 0]
        np.testing.assert_allclose(points[1:], wanted[: len(points) - 1])
        assert points[-1, 0] == 1
        # The area under the steps is what the legend says.
        area = np.sum(np.diff(points[:, 0]) * points[1:, 1])
        assert area == pytest.approx(average_precision_score(positives(target, k), probabilities[:, k]))
        assert legend_value(words(figure), name) == pytest.approx(area, abs=1e-4)


@pytest.mark.parametrize("draw", [figures.roc_curves, figures.pr_curves])
def test_a_class_without_wafers_is_named_and_not_drawn(draw, multiclass, words) -> None:
    target, probabilities = multiclass(300)
    target = np.where(target == 3, 8, target)
    figure = draw(target, probabilities, WM811K_CLASSES, "multiclass")
    assert "not scored:  Edge-Ring" in words(figure)
    assert "Edge-Ring" not in [drawn.get_gid() for drawn in figure.axes[0].lines]


def test_of_many_classes_the_worst_are_coloured(multiclass, words) -> None:
    target, probabilities = multiclass(4000, classes=30)
    names = [f"c{k}" for k in range(30)]
    figure = figures.roc_curves(target, probabilities, names, "multiclass")
    areas = [roc_auc_score(target == k, probabilities[:, k]) for k in range(30)]
    worst = [f"c{k}" for k in np.argsort(areas)[:9]]
    assert [text.split()[-1] for text in words(figure) if text.startswith("0.") and " c" in text] == worst
    assert any(text.endswith("21 others") for text in words(figure))


def test_a_target_of_the_wrong_kind_is_refused(multiclass) -> None:
    target, probabilities = multiclass(50)
    with pytest.raises(ValueError, match="multilabel target cannot have shape"):
        figures.roc_curves(target, probabilities, WM811K_CLASSES, "multilabel")


def test_f1_bars_carry_scores_intervals_and_support(words) -> None:
    scores = {"f1/Loc": 0.5, "accuracy": 0.9, "f1/none": 0.99, "f1_macro": 0.745}
    figure = figures.per_class_f1(scores, {"f1/Loc": (0.4, 0.65)}, {"Loc": 1234, "none": 7})
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5, 0.99]
    assert {"0.500  [0.400, 0.650]", "0.990", "Loc  (1,234)", "none  (7)", "macro F1 0.745"} <= set(words(figure))
    whiskers = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 0] for segment in whiskers], [[0.4, 0.65], [0.99, 0.99]])
