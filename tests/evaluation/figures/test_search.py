import numpy as np
import pytest

from wafer_lab.evaluation import figures

SCORES = np.array([0.2, 0.6, np.nan, 0.5, 0.9])
COMPLETE = np.array([True, True, False, True, False])


def test_the_best_so_far_counts_complete_trials_only():
    axes = figures.search_history(np.arange(5), SCORES, COMPLETE, "val/f1_macro", "max").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["best so far"].get_ydata().tolist() == [0.2, 0.6, 0.6, 0.6, 0.6]
    assert lines["pruned, at its last epoch"].get_ydata().tolist() == [0.9]
    assert lines["failed"].get_xdata().tolist() == [2]
    axes = figures.search_history(np.arange(5), SCORES, COMPLETE, "val/loss", "min").axes[0]
    assert next(li for li in axes.lines if li.get_label() == "best so far").get_ydata().tolist() == [0.2] * 5


def test_a_slice_leaves_out_trials_that_did_not_sample_it():
    keys = [
        figures.Slice("optimizer.lr", [1e-4, 1e-3, 1e-2, 5e-3, 2e-3], log=True),
        figures.Slice("loss", ["focal", "ldam", "focal", "ldam", "focal"]),
        figures.Slice("loss.gamma", [1.0, None, 2.0, None, 3.0]),
    ]
    first, second, third = figures.slices(keys, SCORES, COMPLETE, "val/f1_macro", "max").axes
    assert first.get_xscale() == "log"
    assert [text.get_text() for text in second.get_xticklabels()] == ["focal", "ldam"]
    assert sum(len(line.get_xdata()) for line in third.lines) == 2


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_a_star_marks_the_best_complete_trial(mode, best):
    lr, gamma = [1e-4, 1e-3, 1e-2, 5e-3, 2e-3], [1.0, None, 2.0, 3.0, 4.0]
    keys = [figures.Slice("optimizer.lr", lr, log=True), figures.Slice("loss.gamma", gamma)]
    first, second = figures.slices(keys, SCORES, COMPLETE, "val/f1_macro", mode).axes
    stars = [[line for line in axes.lines if line.get_marker() == "*"] for axes in (first, second)]
    assert [len(found) for found in stars] == [1, int(gamma[best] is not None)]
    assert stars[0][0].get_xydata().tolist() == [[lr[best], SCORES[best]]]
    assert [text.get_text() for text in first.get_legend().get_texts()].count("best complete trial") == 1


def test_without_a_complete_trial_none_is_the_best():
    key = figures.Slice("optimizer.lr", [1.0, 2.0, 3.0, 4.0, 5.0])
    (axes,) = figures.slices([key], SCORES, np.zeros(5, dtype=bool), "val/f1_macro", "max").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pruned, at its last epoch"]


def test_importance_is_in_order():
    axes = figures.importance({"a": 0.2, "b": 0.8}, "val/f1_macro").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "a"]
    assert "too few" in figures.importance({}, "val/f1_macro").axes[0].texts[0].get_text()


def test_the_front_is_named(tmp_path):
    first, second = np.array([0.9, 0.8, 0.5]), np.array([3.0, 1.0, 2.0])
    figure = figures.pareto(
        first, second, np.array([True, True, False]), np.array([4, 7, 9]), ("val/f1_macro", "latency")
    )
    assert {text.get_text() for text in figure.axes[0].texts} == {"4", "7"}
    assert figures.save(figure, tmp_path / "pareto.png").stat().st_size == pytest.approx(40_000, rel=0.9)
