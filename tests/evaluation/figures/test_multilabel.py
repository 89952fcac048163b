import numpy as np
import pytest

from wafer_lab.evaluation import figures
from wafer_lab.metrics.proportions import wilson

NAMES = ("Center", "Loc", "Scratch")
TARGET = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
DECISIONS = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_spurious_labels_by_hand() -> None:
    (axes,) = figures.spurious_labels(TARGET, DECISIONS, NAMES).axes
    shares = axes.images[0].get_array()
    # Of the three with Center two lack Loc, and one of them was given it; all lack Scratch, and one was given it.
    expected = [[np.nan, 0.5, 1 / 3], [0, np.nan, 0.5], [np.nan] * 3, [0, 0, 0.25]]
    np.testing.assert_allclose(shares.filled(np.nan), expected)
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["Center  (3)", "Loc  (2)", "Scratch  (0)", "none  (4)"]
    assert sorted(text.get_text() for text in axes.texts) == ["25.0", "33.3", "50.0", "50.0"]


def test_exact_match_by_count_by_hand(words) -> None:
    figure = figures.exact_match_by_count(TARGET, DECISIONS)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.75, pytest.approx(2 / 3), 0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0\n(4)", "1\n(3)", "2\n(1)"]
    low, high = wilson(np.array([3, 2, 0]), np.array([4, 3, 1]))
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], np.column_stack([low, high]), atol=1e-12)


def rows(figure) -> list[tuple[str, str, str]]:
    found = []
    for axes in figure.axes:
        texts = [text.get_text() for text in axes.texts[3:]]
        found += list(zip(texts[::3], texts[1::3], texts[2::3], strict=True))
    return found


def test_type_table_has_a_row_per_combination() -> None:
    assert rows(figures.type_table(TARGET, DECISIONS, NAMES)) == [
        ("none", "4", "75.0 %"),
        ("Center", "2", "50.0 %"),
        ("Loc", "1", "100.0 %"),
        ("Center+Loc", "1", "0.0 %"),
    ]


def test_type_table_sums_up_rare_combinations() -> None:
    random = np.random.default_rng(0)
    target = (random.random((500, 12)) < 0.4).astype(np.int8)
    decisions = target.copy()
    decisions[::2, 0] ^= 1
    kinds = len(np.unique(target, axis=0))
    found = rows(figures.type_table(target, decisions, [f"c{k}" for k in range(12)]))
    assert len(found) == 80
    assert found[-1][0] == f"{kinds - 79} rarer combinations"
    assert sum(int(wafers) for _, wafers, _ in found) == 500
