import numpy as np
import pytest
from matplotlib.collections import LineCollection

from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.evaluation import figures
from wafer_lab.evaluation.figures.masks import _INSIDE, _OUTSIDE, _UNKNOWN, _outline

STATES = np.array([[0, 1, 2], [1, 2, 1], [2, 1, 0]], dtype=np.uint8)
TRUTH = np.array([[0, 1, 1], [0, 1, 0], [-1, 0, 0]])


def example(text: str = "Loc, worst of 12 wafers: IoU 0.500, row 7", truth: np.ndarray = TRUTH) -> figures.MaskExample:
    return figures.MaskExample(STATES, truth, STATES == 2, text)


def lightness(colours: np.ndarray) -> np.ndarray:
    return colours @ (0.2126, 0.7152, 0.0722)


def test_three_panels_show_map_truth_and_prediction() -> None:
    figure = figures.mask_sheet([[example()]])
    plain, truth, found = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_allclose(plain, _OUTSIDE[STATES])
    np.testing.assert_allclose(truth[0, 1], _INSIDE[1])
    np.testing.assert_allclose(truth[2, 0], _UNKNOWN[2])
    np.testing.assert_allclose(truth[2, 1], _OUTSIDE[1])
    np.testing.assert_allclose(found[STATES == 2], np.tile(_INSIDE[2], (3, 1)))
    np.testing.assert_allclose(found[STATES != 2], _OUTSIDE[STATES[STATES != 2]])


def test_the_outline_runs_round_the_truth() -> None:
    lines = {tuple(map(tuple, segment)) for segment in _outline(TRUTH > 0).tolist()}
    inside = {(int(x), int(y)) for y, x in np.argwhere(TRUTH > 0)}
    edges = set()
    for x, y in inside:
        for beside, ends in {
            (x, y - 1): ((x, y), (x + 1, y)),
            (x, y + 1): ((x, y + 1), (x + 1, y + 1)),
            (x - 1, y): ((x, y), (x, y + 1)),
            (x + 1, y): ((x + 1, y), (x + 1, y + 1)),
        }.items():
            edges |= {ends} if beside not in inside else set()
    assert lines == edges
    drawn = [axes.findobj(LineCollection) for axes in figures.mask_sheet([[example()]]).axes]
    assert [len(found) for found in drawn] == [0, 0, 1]


def test_fails_stay_darker_and_masks_are_told_without_colour() -> None:
    for passed, failed in (each[1:] for each in (_OUTSIDE, _INSIDE, _UNKNOWN)):
        assert lightness(passed) > lightness(failed) + 0.25
    assert abs(lightness(_OUTSIDE[1]) - lightness(_INSIDE[1])) > 0.2


@pytest.mark.parametrize(("names", "across"), [(MIXEDWM38_CLASSES, 2), (("Near-full",), 1)])
def test_a_sheet_is_legible(names, across, overlaps, smallest_text, words) -> None:
    pairs = [[example(f"{name}, median of 1,234 wafers: IoU 0.913, row 123456")] * across for name in names]
    figure = figures.mask_sheet(pairs, "test")
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    assert smallest_text(figure) >= 7.5
    assert {"map", "truth", "prediction", "fail, truth not known"} <= set(words(figure))


def test_no_masks_say_so(words) -> None:
    assert "no wafer has a mask" in words(figures.mask_sheet([]))


def test_what_is_all_known_needs_no_word_for_the_unknown(words) -> None:
    assert not any("truth not known" in text for text in words(figures.mask_sheet([[example(truth=np.abs(TRUTH))]])))


def test_the_legend_explains_every_colour() -> None:
    # A corner off the wafer is in the mask; of a pass and of a fail the truth is not known.
    truth = np.array([[1, 1, 1], [0, 1, -1], [-1, 0, 0]])
    figure = figures.mask_sheet([[example(truth=truth)]])
    (key,) = figure.legends
    *names, last = [text.get_text() for text in key.get_texts()]
    assert last == "the truth's outline"
    looks = {patch.get_facecolor()[:3]: name for patch, name in zip(key.get_patches(), names, strict=True)}
    drawn = {tuple(colour) for axes in figure.axes for colour in axes.images[0].get_array().reshape(-1, 3).tolist()}
    assert drawn == set(looks)
    assert looks[tuple(_INSIDE[0])] == "off-wafer in the mask"
    assert looks[tuple(_UNKNOWN[1])] == "pass, truth not known"
    assert looks[tuple(_OUTSIDE[0])] == "off-wafer"


def test_iou_has_a_bar_an_interval_and_its_number(words, overlaps) -> None:
    scores = {"iou_macro": 0.6, "iou/Center": 0.9, "iou/Loc": 0.3, "dice/Loc": 0.4}
    figure = figures.masks_iou(scores, {"iou/Loc": (0.2, 0.45)}, {"Center": 12, "Loc": 3456}, "test")
    figure.draw_without_rendering()
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.9, 0.3]
    assert {"Center  (12)", "Loc  (3,456)", "0.300  [0.200, 0.450]", "mean IoU 0.600"} <= set(words(figure))
    assert overlaps(figure) == []
    figures.masks_iou({}, {}).draw_without_rendering()
