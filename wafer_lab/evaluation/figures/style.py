"""What all figures share: colours, marks, names, legends, axes, and how a figure is saved.

Colours are Okabe and Ito's ("Color universal design", 2008), which colour-blind readers tell apart; a second sign
(dash, marker, side) always says the same as the colour, for readers of grey prints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from wafer_lab.files import replacing

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#767676", "#C4C4C4"
DPI = 200
#: Font sizes wide: with shorter lines in a legend, a marker leaves too little of a dash to tell it from a solid line.
HANDLE = 4.5

_LONGEST_NAME = 32
_COLOURS = (BLUE, VERMILION, GREEN, INK, ORANGE, PURPLE, SKY)
_DASHES = ("-", (0, (5, 1.6)), (0, (5, 1.5, 1.2, 1.5)), (0, (1.4, 1.2)))
_MARKERS = "osD^vPX*"


def canvas(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches that makes room for its labels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    return figure


def line(k: int) -> dict[str, Any]:
    """Colour and dash of the k-th line of a figure; 28 differ."""
    return {"color": _COLOURS[k % len(_COLOURS)], "linestyle": _DASHES[k % len(_DASHES)]}


def mark(k: int) -> dict[str, Any]:
    """Colour and marker of the k-th thing of a figure; 56 differ."""
    return {"color": _COLOURS[k % len(_COLOURS)], "marker": _MARKERS[k % len(_MARKERS)]}


def tidy(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A light grid behind the data, and no frame on the sides without a scale."""
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def rows(axes: Axes, names: Sequence[str], longest: int = _LONGEST_NAME) -> None:
    """Name the rows 0, 1, ... of a horizontal chart, the first on top."""
    labels = [short(name, longest) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def write_value(
    axes: Axes, row: float, value: float, interval: tuple[float, float] | None = None, digits: int = 4
) -> None:
    """Write a number, and its interval where it has one, at the right of a row of a horizontal chart."""
    text = f"{value:.{digits}f}"
    if interval is not None and np.isfinite(interval).all():
        text += f"  [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, family="monospace")


def legend(
    axes: Axes,
    handles: Sequence[Any],
    labels: Sequence[str],
    place: Literal["above", "right"] = "above",
    columns: int = 1,
) -> None:
    """A legend that covers no data, outside the axes."""
    if not handles:
        return
    drawn = axes.legend(
        handles,
        labels,
        loc="lower left" if place == "above" else "upper left",
        bbox_to_anchor=(0, 1) if place == "above" else (1.01, 1.02),
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        handlelength=HANDLE,
        borderaxespad=0.3,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def say(axes: Axes, text: str) -> None:
    """Write in place of data why there are none."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color=GREY, transform=axes.transAxes)


def log_scale(axes: Axes, side: Literal["x", "y"], values: NDArray[Any]) -> bool:
    """A log scale with plain numbers over the positive values; zeros fall off its lower end.

    Returns:
        Whether there was a positive value to make a scale from.
    """
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return False
    low, high = values.min() / 1.3, values.max() * 1.3
    axis = axes.xaxis if side == "x" else axes.yaxis
    (axes.set_xscale if side == "x" else axes.set_yscale)("log", nonpositive="clip")
    (axes.set_xlim if side == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())
    return True


def logit_scale(axes: Axes) -> None:
    """A scale of probabilities that is as wide near 0 and near 1 as between, with plain numbers."""
    axes.set_xscale("logit")
    ticks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def ink_on(shades: Colormap, norm: Normalize, value: Any) -> str:
    """Black or white, whichever shows on a shade."""
    return "black" if float(np.dot(shades(norm(value))[:3], (0.299, 0.587, 0.114))) > 0.5 else "white"


def shades(kind: Literal["counts", "errors"]) -> Colormap:
    """One hue from white, dark for many: blue for counts and shares, orange for errors."""
    return colormaps["Blues" if kind == "counts" else "Oranges"]


def percent(share: float) -> str:
    """Whole percents, but never 0 for something nor 100 for less than all."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return f"{int(share * 1000) / 10:.1f}"
    return f"{100 * share:.0f}"


def score(value: float) -> str:
    """Four decimals, but never 1 for less."""
    return f"{min(value, 0.9999) if value < 1 else value:.4f}"


def short(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name with its middle left out where it is long: both ends of long names tell them apart."""
    end = longest // 2
    return name if len(name) <= longest else f"{name[: longest - end - 1]}…{name[-end:]}"


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG, beside its place and then renamed into it."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    return Path(path)
