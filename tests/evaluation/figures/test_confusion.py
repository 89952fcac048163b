import numpy as np
import pytest

from wafer_lab.evaluation import figures


def cells(axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_multiclass_counts_and_shares() -> None:
    target = np.repeat([0, 1, 2], [10, 4, 1])
    decisions = target.copy()
    decisions[:3] = 2
    decisions[10] = 0
    left, right = figures.confusion_matrix(target, decisions, ["Loc", "pass $1", "none"], "multiclass").axes[:2]
    assert cells(left) == {(0, 0): "7", (0, 2): "3", (1, 0): "1", (1, 1): "3", (2, 2): "1"}
    assert cells(right) == {(0, 0): "70", (0, 2): "30", (1, 0): "25", (1, 1): "75", (2, 2): "100"}
    np.testing.assert_allclose(right.images[0].get_array(), [[0.7, 0, 0.3], [0.25, 0.75, 0], [0, 0, 1]])
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["Loc", "pass $1", "none"]


def test_many_classes_keep_their_sizes_beside_their_names() -> None:
    target = np.repeat(np.arange(20), 5)
    decisions = target.copy()
    decisions[:2] = 7
    names = [f"class {k}" for k in range(20)]
    axes, scale = figures.confusion_matrix(target, decisions, names, "multiclass").axes
    assert scale.get_ylabel() == "percent of the true class"
    assert cells(axes)[0, 0] == "60"
    assert cells(axes)[0, 7] == "40"
    assert axes.get_yticklabels()[0].get_text() == "class 0  (5)"


def test_multilabel_counts_each_label() -> None:
    target = np.array([[1, 0], [1, 0], [0, 0], [1, 1]])
    decisions = np.array([[1, 0], [0, 0], [1, 0], [1, 1]])
    left, right = figures.confusion_matrix(target, decisions, ["Loc", "Scratch"], "multilabel").axes[:2]
    assert cells(left) == {(0, 0): "2", (0, 1): "1", (0, 2): "1", (1, 0): "1", (1, 3): "3"}
    assert cells(right) == {(0, 0): "67", (0, 1): "33", (0, 2): "100", (1, 0): "100", (1, 3): "100"}


@pytest.mark.parametrize(
    ("kind", "meaning"), [("multiclass", "percent of the true class"), ("multilabel", "percent of present, of absent")]
)
def test_bars_say_what_the_shades_mean(kind, meaning) -> None:
    target = np.repeat([0, 1], [40, 2]) if kind == "multiclass" else np.repeat([[1, 0], [0, 1]], [40, 2], axis=0)
    left, right, counts, shares = figures.confusion_matrix(target, target, ["Loc", "none"], kind).axes
    assert (counts.get_ylabel(), shares.get_ylabel()) == ("wafers", meaning)
    assert [tick.get_text() for tick in counts.get_yticklabels()] == ["0", "10", "40"]
    np.testing.assert_allclose(counts.get_yticks(), [0.5, 10, 40])
    np.testing.assert_allclose(counts.get_ylim(), left.images[0].get_clim())
    assert [tick.get_text() for tick in shares.get_yticklabels()] == ["0", "5", "25", "50", "100"]
    np.testing.assert_allclose(shares.get_yticks(), [0, 0.05, 0.25, 0.5, 1])
    np.testing.assert_allclose(shares.get_ylim(), right.images[0].get_clim(), atol=1e-12)
