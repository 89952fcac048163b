import numpy as np
import pytest
from sklearn.metrics import roc_curve

from wafer_lab.evaluation import figures


def test_histograms_and_roc(line, words, overlaps) -> None:
    random = np.random.default_rng(0)
    known, unknown = random.normal(size=400), random.normal(2, 1, size=50)
    figure = figures.unknown(known, unknown, "kNN distance", 0.921, 0.3)
    expected = roc_curve([0] * 400 + [1] * 50, np.concatenate([known, unknown]), drop_intermediate=False)[:2]
    np.testing.assert_allclose(line(figure, "roc", panel=1), np.column_stack(expected))
    assert {"AUROC 0.921", "30.0 % of unknown missed\nat 5 % of known flagged", "known (400)", "unknown (50)"} <= set(
        words(figure)
    )
    outlines = {patch.get_gid(): patch for patch in figure.axes[0].patches if patch.get_gid()}
    for kind in ("known", "unknown"):
        assert outlines[kind].get_data().values.sum() == pytest.approx(100)
    figure.draw_without_rendering()
    assert overlaps(figure) == []


@pytest.mark.parametrize(
    ("known", "unknown"), [([1.0] * 5, [1.0] * 3), ([0.0], [1.0]), ([], [1.0, 2.0]), ([0.5, 0.1], []), ([], [])]
)
def test_little_data_draws(known, unknown, words) -> None:
    figure = figures.unknown(np.array(known), np.array(unknown), "energy", 0.5, 1.0)
    figure.draw_without_rendering()
    assert {f"known ({len(known)})", f"unknown ({len(unknown)})"} <= set(words(figure))
    assert ("AUROC 0.500" in words(figure)) == bool(known and unknown)
