import numpy as np
import pytest

from wafer_lab.evaluation import figures

HISTORY = [
    {"epoch": e, "train/loss": 1 / (e + 1), "val/loss": 1.1 / (e + 1), "val/f1_macro": 0.9 - (e - 6) ** 2 / 100}
    for e in range(10)
]


def test_the_best_epoch_is_marked(words, overlaps) -> None:
    figure = figures.learning_curves(HISTORY)
    assert "best: epoch 6, 0.9000" in words(figure)
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    upper, lower = figure.axes
    np.testing.assert_allclose(upper.lines[0].get_ydata(), [1 / (e + 1) for e in range(10)])
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [row["val/f1_macro"] for row in HISTORY])
    assert "best: epoch 9, 0.1100" in words(figures.learning_curves(HISTORY, monitor="val/loss", mode="min"))


@pytest.mark.parametrize("history", [HISTORY[:1], [{"train/loss": 1.0}, {"val/f1_macro": 0.5}], [{}], []])
def test_little_history_draws(history, words) -> None:
    figure = figures.learning_curves(history)
    figure.draw_without_rendering()
    assert {"loss", "val/f1_macro", "epoch"} <= set(words(figure))
    scored = [row for row in history if "val/f1_macro" in row]
    assert any(text.startswith("best: ") for text in words(figure)) == bool(scored)
