"""Masks of single wafers: the map, the truth and the prediction side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style

# Off the wafer, pass, fail: outside a mask, inside, and where nobody knows. Pass and fail are far apart in lightness in
# all three; a mask turns blue-greys to oranges, so that any colour vision tells them.
_OUTSIDE = np.array([to_rgb(colour) for colour in ("#FFFFFF", "#CFD6DD", "#16243A")])
_INSIDE = np.array([to_rgb(colour) for colour in ("#FFE3BF", "#F28C00", "#8A2600")])
_UNKNOWN = np.array([to_rgb(colour) for colour in ("#FFFFFF", "#ECEFF2", "#8D98A8")])
_PANEL, _TEXT = 1.5, 0.3
_HEADINGS = ("map", "truth", "prediction")
_STATES = ("off-wafer", "pass", "fail")
_PLACES = (("", _OUTSIDE), (" in the mask", _INSIDE), (", truth not known", _UNKNOWN))


class MaskExample(NamedTuple):
    """One class's mask on one wafer.

    Attributes:
        states: (S, S) uint8 die states on the network's canvas.
        truth: (S, S) integers, 1 inside the mask, 0 outside, -1 where not known.
        predicted: (S, S) bool.
        text: above the three panels.
    """

    states: NDArray[Any]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    text: str


def mask_sheet(pairs: Sequence[Sequence[MaskExample]], title: str = "") -> Figure:
    """Wafers in rows, each as map, truth and prediction; the truth's outline lies over the prediction.

    Args:
        pairs: one row per class, of one or two wafers.
        title: over all.
    """
    across = max((len(row) for row in pairs), default=0)
    if not across:
        figure = style.canvas(4, 1.6, title)
        style.say(figure.subplots(), "no wafer has a mask")
        return figure
    width, height = 3 * across * _PANEL + 0.4 * (across - 1), len(pairs) * (_PANEL + _TEXT)
    figure = style.canvas(width + 0.3, height + 0.75 + 0.3 * bool(title), title)
    ratios = ([1.0, 1.0, 1.0, 0.2] * across)[:-1]  # an empty column between the wafers of a row
    grid = figure.add_gridspec(len(pairs), len(ratios), width_ratios=ratios)
    for k, row in enumerate(pairs):
        for place, example in enumerate(row):
            panels = [figure.add_subplot(grid[k, 4 * place + column]) for column in range(3)]
            _draw(panels, example, headings=k == 0)
    _key(figure, [one for row in pairs for one in row])
    return figure


def _draw(panels: Sequence[Axes], example: MaskExample, headings: bool) -> None:
    for axes, mask, heading in zip(panels, (None, example.truth, example.predicted), _HEADINGS, strict=True):
        axes.set_axis_off()
        axes.set_box_aspect(1)
        side = len(example.states)
        axes.imshow(_colours(example.states, mask), extent=(0, side, side, 0), interpolation="nearest")
        if headings:
            axes.text(0.5, 1.02, heading, transform=axes.transAxes, ha="center", va="bottom", fontsize=8)
    panels[2].add_collection(LineCollection(list(_outline(example.truth > 0)), colors=style.BLUE, linewidths=0.9))
    # As wide as three panels: as a title it would push them apart, so an empty one makes room for it.
    above = 15 if headings else 3
    panels[0].set_title(" ", fontsize=8.5, pad=above)
    text = panels[0].annotate(
        example.text, (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", fontsize=8.5
    )
    text.set_parse_math(False)
    text.set_in_layout(False)


def _colours(states: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.float64]:
    """(S, S, 3) colours of die states under a mask of 1, 0 and -1."""
    shown = np.clip(states, 0, 2).astype(int)
    if mask is None:
        return np.asarray(_OUTSIDE[shown])
    value = np.asarray(mask, dtype=int)[..., None]
    return np.asarray(np.where(value > 0, _INSIDE[shown], np.where(value < 0, _UNKNOWN[shown], _OUTSIDE[shown])))


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(L, 2, 2) pixel edges between inside and outside, as pairs of (x, y)."""
    padded = np.pad(mask, 1).astype(int)
    down, right = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    flat = np.stack([np.stack([right, down], -1), np.stack([right + 1, down], -1)], axis=1)
    down, right = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.stack([np.stack([right, down], -1), np.stack([right, down + 1], -1)], axis=1)
    return np.concatenate([flat, upright]).astype(float)


def _key(figure: Figure, examples: Sequence[MaskExample]) -> None:
    """What every colour on the sheet means, below the panels."""
    sheets = [_colours(one.states, mask) for one in examples for mask in (None, one.truth, one.predicted)]
    drawn = {tuple(colour) for sheet in sheets for colour in np.unique(sheet.reshape(-1, 3), axis=0).tolist()}
    looks: dict[Any, str] = {}
    for place, palette in _PLACES:
        for state, colour in zip(_STATES, palette.tolist(), strict=True):
            if tuple(colour) in drawn:  # off the wafer a truth that is not known looks like one outside the mask
                looks.setdefault(tuple(colour), state + place)
    handles: list[Any] = [Patch(facecolor=look, edgecolor=style.GREY, linewidth=0.5) for look in looks]
    handles.append(Line2D([], [], color=style.BLUE, linewidth=1.2))
    names = [*looks.values(), "the truth's outline"]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
