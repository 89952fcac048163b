"""Single wafers: the worst errors, and what the model looked at."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.evaluation.palette import COLD, colours

Colours = NDArray[np.float64]

_SIDE, _LINE = 1.62, 0.125
_COLUMNS, _ROWS = 4, 4


def worst_errors(images: Sequence[NDArray[np.uint8]], texts: Sequence[str], kind: str, title: str = "") -> Figure:
    """Up to 16 wafers in four columns, each with its text above it.

    Args:
        images: (H, W) uint8, sizes may differ: die states 0 to 2, drawn to a square so that wafers look round; or
            grey values.
        texts: of each; lines are wrapped.
        kind: ``maps`` or ``images``.
        title: over all.
    """
    images, texts = images[: _COLUMNS * _ROWS], texts[: _COLUMNS * _ROWS]
    if not images:
        return _nothing("no errors", title)
    figure, panels, below = _tiles(len(images), [_wrapped(text, 26) for text in texts], title)
    for axes, image in zip(panels, images, strict=True):
        _draw(axes, colours(image, np.zeros(image.shape), kind), kind)
    if kind == "maps":
        patches = [Patch(facecolor=COLD[state], edgecolor=style.GREY, linewidth=0.5) for state in (1, 2)]
        axes = figure.add_subplot(below)
        axes.set_axis_off()
        axes.legend(patches, ["pass", "fail"], loc="center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def heatmaps(
    images: Sequence[NDArray[np.uint8]],
    heats: Sequence[NDArray[Any]],
    texts: Sequence[str],
    kind: str,
    title: str = "",
) -> Figure:
    """Up to 8 wafers, each plain and beside it coloured by what mattered to the model.

    A heat is stretched over its wafer, interpolated between its cells, and shown relative to its own maximum; what is
    negative in it counts as nothing. Failed dies stay darker than passed ones whatever the heat.

    Args:
        images: as in `worst_errors`.
        heats: (h, w) float of each, of any resolution, covering the whole map or image.
        texts: of each.
        kind: ``maps`` or ``images``.
        title: over all.
    """
    most = _COLUMNS // 2 * _ROWS
    images, heats, texts = images[:most], heats[:most], texts[:most]
    if not images:
        return _nothing("nothing to explain", title)
    pairs = [text for each in texts for text in (_wrapped(each, 52), "")]
    figure, panels, below = _tiles(2 * len(images), pairs, title)
    for position, (image, heat) in enumerate(zip(images, heats, strict=True)):
        heat = np.maximum(np.nan_to_num(np.asarray(heat, dtype=np.float64)), 0)
        share = _stretched(heat / max(float(heat.max()), np.finfo(float).tiny), image.shape)
        _draw(panels[2 * position], colours(image, np.zeros(image.shape), kind), kind)
        _draw(panels[2 * position + 1], colours(image, share, kind), kind)
    _key(figure.add_subplot(below), kind)
    return figure


def _tiles(count: int, texts: Sequence[str], title: str) -> tuple[Figure, list[Axes], SubplotSpec]:
    """Square panels in up to four columns with a text above each, and a place below them.

    Where every second panel has no text, the others' may be as wide as two.
    """
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    figure = style.canvas(_SIDE * columns + 0.3, rows * (_SIDE + 0.06 + _LINE * lines) + 0.6 + 0.3 * bool(title), title)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[1] * rows, 0.17])
    panels = [figure.add_subplot(grid[divmod(k, columns)]) for k in range(count)]
    for axes in panels:
        axes.set_axis_off()
        axes.set_box_aspect(1)
    paired = any(texts) and not all(texts)
    for axes, text in zip(panels, texts, strict=True):
        axes.set_title(text, fontsize=7.5, loc="left" if paired else "center", pad=3, parse_math=False)
    middle = slice(1, 3) if columns == _COLUMNS else slice(None)
    return figure, panels, grid[rows, middle]


def _wrapped(text: str, width: int) -> str:
    """Lines broken at blanks, and after the + that joins labels; a longer name loses its middle."""
    lines = []
    for whole in text.splitlines():
        line = ""
        for part in re.split(r"(?<=[+ ])", whole):
            if line and len(line) + len(part.rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += style.short(part, width)
        lines.append(line.rstrip())
    return "\n".join(lines)


def _draw(axes: Axes, drawn: Colours, kind: str) -> None:
    """(H, W, 3) colours; maps are stretched to a square."""
    axes.imshow(drawn, extent=(0.0, 1.0, 0.0, 1.0) if kind == "maps" else None, interpolation="nearest")


def _stretched(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Linear interpolation between cell centres, to another number of cells."""
    for axis in (0, 1):
        old, new = values.shape[axis], shape[axis]
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        values = np.apply_along_axis(lambda line, at=centres: np.interp(at, np.arange(len(line)), line), axis, values)
    return values


def _key(axes: Axes, kind: str) -> None:
    """The colours of no to most heat, below the panels: a row per die state, or for dark and bright."""
    names, values = (["pass", "fail"], (1, 2)) if kind == "maps" else (["bright", "dark"], (220, 40))
    ramp = colours(np.repeat(np.array(values)[:, None], 100, axis=1), np.tile(np.linspace(0, 1, 100), (2, 1)), kind)
    axes.imshow(ramp, aspect="auto", extent=(0, 1, 1.5, -0.5), interpolation="nearest")
    axes.set_yticks([])
    # As tick labels the names would push the panels above apart.
    for row, (name, ink) in enumerate(zip(names, ("black", "white"), strict=True)):
        axes.text(0.015, row, name, va="center", fontsize=7.5, color=ink)
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(labelsize=8, length=2)
    axes.set_xlabel("importance, share of the wafer's largest", fontsize=8.5)


def _nothing(text: str, title: str) -> Figure:
    figure = style.canvas(4, 1.6, title)
    style.say(figure.subplots(), text)
    return figure
