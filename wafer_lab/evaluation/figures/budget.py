"""What labels are worth."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style

Band = tuple[NDArray[Any], NDArray[Any]] | None


def label_budget(
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any], Band]], score: str, baseline: str = "random", title: str = ""
) -> Figure:
    """A score over the number of labels, a line per way of choosing them.

    Args:
        curves: name -> (R,) labels, (R,) mean scores, and (R,) low and high ends of their intervals or None.
        score: its name.
        baseline: the curve to compare with, drawn in grey, with its last score as a line across.
        title: over the figure.
    """
    figure = style.canvas(6.4, 4.4, title)
    axes = figure.subplots()
    handles, others = [], [name for name in curves if name != baseline]
    for name, (labels, mean, band) in curves.items():
        look: dict[str, Any] = {"color": style.GREY, "linestyle": (0, (4, 2)), "marker": "x"}
        if name != baseline:
            place = others.index(name)
            look = style.mark(place) | style.line(place)
        if band is not None:
            axes.fill_between(labels, *band, color=look["color"], alpha=0.16, linewidth=0)
        handles += axes.plot(labels, mean, markersize=5, linewidth=1.6, **look)
        if name == baseline:
            axes.axhline(mean[-1], color=style.GREY, linewidth=0.8, linestyle=":")
    style.legend(axes, handles, list(curves), columns=4)
    axes.set_xlabel("labelled wafers")
    axes.set_ylabel(score)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.tidy(axes)
    return figure
