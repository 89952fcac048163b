from pathlib import Path

import numpy as np
import pytest

from wafer_lab.evaluation import figures
from wafer_lab.evaluation.figures.wafers import _stretched
from wafer_lab.evaluation.palette import COLD, HOT

MAP = np.array([[0, 1, 0], [1, 2, 1]], dtype=np.uint8)


def lightness(colours: np.ndarray) -> np.ndarray:
    return colours @ (0.2126, 0.7152, 0.0722)


def test_tiles_show_the_states_in_a_square() -> None:
    figure = figures.worst_errors([MAP, MAP + 1], ["Loc\ncalled none", "b"], "maps")
    panel = figure.axes[0]
    np.testing.assert_allclose(panel.images[0].get_array(), COLD[MAP])
    assert panel.images[0].get_extent() == [0, 1, 0, 1]
    assert panel.get_box_aspect() == 1
    assert panel.get_title() == "Loc\ncalled none"
    # MixedWM38 holds a few 3s, which mean fail.
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), COLD[np.minimum(MAP + 1, 2)])


def test_images_are_grey() -> None:
    figure = figures.worst_errors([np.array([[0, 51], [255, 102]], dtype=np.uint8)], ["a"], "images")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[..., 1], [[0, 0.2], [1, 0.4]])


def test_long_texts_break_after_plus_and_at_blanks(overlaps) -> None:
    text = "Center+Edge-Ring+Loc+Scratch called Center+Loc (.98)\n" + "x" * 60
    figure = figures.worst_errors([MAP] * 5, [text] * 5, "maps")
    lines = figure.axes[0].get_title().split("\n")
    assert lines[:3] == ["Center+Edge-Ring+Loc+", "Scratch called Center+Loc", "(.98)"]
    assert len(lines[3]) == 26
    figure.draw_without_rendering()
    assert overlaps(figure) == []


@pytest.mark.parametrize(("count", "drawn"), [(1, 1), (5, 5), (20, 16)])
def test_at_most_sixteen_tiles(count, drawn) -> None:
    figure = figures.worst_errors([MAP] * count, ["a"] * count, "maps")
    figure.draw_without_rendering()
    assert sum(bool(axes.images) for axes in figure.axes) == drawn


def test_heat_colours_a_copy_beside_each_wafer() -> None:
    heat = np.array([[0.0, 0.0, 0.0], [-5.0, 2.0, 1.0]])
    figure = figures.heatmaps([MAP], [heat], ["Loc"], "maps")
    plain, heated = (axes.images[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_allclose(plain, COLD[MAP])
    np.testing.assert_allclose(heated[0], COLD[MAP[0]])
    np.testing.assert_allclose(heated[1, 0], COLD[1])
    np.testing.assert_allclose(heated[1, 1], HOT[2])
    np.testing.assert_allclose(heated[1, 2], (COLD[1] + HOT[1]) / 2)
    figure.draw_without_rendering()


@pytest.mark.parametrize("heat", [np.zeros((4, 4)), np.full((1, 1), -3.0)])
@pytest.mark.parametrize("kind", ["maps", "images"])
def test_heat_of_nothing_changes_nothing(heat, kind) -> None:
    figure = figures.heatmaps([MAP], [heat], ["Loc"], kind)
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), figure.axes[0].images[0].get_array())


@pytest.mark.parametrize("kind", ["maps", "images"])
def test_one_pair_keeps_its_key(kind, overlaps) -> None:
    figure = figures.heatmaps([MAP], [np.ones((2, 2))], ["Loc"], kind)
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    assert [text.get_text() for text in figure.axes[-1].texts] == (
        ["pass", "fail"] if kind == "maps" else ["bright", "dark"]
    )


def test_at_most_eight_pairs(overlaps) -> None:
    texts = ["Center+Edge-Ring+Loc+Scratch called Center+Edge-Ring+Loc (.98), wafer 12,345"] * 9
    figure = figures.heatmaps([MAP] * 9, [np.ones((2, 2))] * 9, texts, "maps", "a title")
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    assert sum(axes.get_box_aspect() == 1 for axes in figure.axes) == 16


def test_stretching_keeps_place() -> None:
    np.testing.assert_allclose(_stretched(np.array([[0.0, 1.0]]), (1, 4)), [[0, 0.25, 0.75, 1]])
    values = np.random.default_rng(0).random((5, 7))
    np.testing.assert_allclose(_stretched(values, (5, 7)), values)


def test_failed_dies_stay_darker_whatever_the_heat() -> None:
    heat = np.linspace(0, 1, 11)[:, None]
    passed, failed = (lightness(COLD[state] * (1 - heat) + HOT[state] * heat) for state in (1, 2))
    assert passed.min() > failed.max() + 0.25


@pytest.mark.parametrize("draw", [figures.worst_errors, lambda i, t, kind: figures.heatmaps(i, [], t, kind)])
def test_no_wafers_say_so(draw, words) -> None:
    figure = draw([], [], "maps")
    figure.draw_without_rendering()
    assert {"no errors", "nothing to explain"} & set(words(figure))


def test_real_maps_of_all_shapes(real_data: Path, overlaps) -> None:
    with np.load(real_data / "wm811k_sample.npz") as sample:
        shape, cells = sample["shape"].astype(int), sample["cells"]
    ends = np.cumsum(shape.prod(axis=1))
    chosen = [int(shape.prod(axis=1).argmax()), *range(0, len(shape), len(shape) // 15)][:16]
    maps = [cells[ends[k] - shape[k].prod() : ends[k]].reshape(shape[k]) for k in chosen]
    texts = ["Edge-Ring, called none\np .98, wafer 12,345"] * len(maps)
    figure = figures.worst_errors(maps, texts, "maps", "test")
    figure.draw_without_rendering()
    assert overlaps(figure) == []
