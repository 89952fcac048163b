"""What an ensemble gains with its size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wafer_lab.evaluation.figures import style

Row = tuple[int, float, float, float, float, float]


def ensemble_sizes(curves: Mapping[str, Sequence[Row]], score: str, title: str = "") -> Figure:
    """A score over the number of members, a line per group with its interval; the range over subsets as a pale bar.

    Args:
        curves: group -> rows of (size, mean, low, high, worst, best).
        score: name of the score.
        title: over the panel.
    """
    figure = style.canvas(8.2, max(4.0, 0.27 * len(curves)), title)
    axes = figure.subplots()
    handles: list[Any] = []
    labels: list[str] = []
    step = 0.06
    for k, (group, rows) in enumerate(curves.items()):
        size, mean, low, high, worst, best = np.array(list(rows), dtype=float).reshape(-1, 6).T
        drawn = style.mark(k)
        place = size + step * (k - (len(curves) - 1) / 2)  # side by side, so that none hides another
        reach = axes.vlines(place, worst, best, color=str(drawn["color"]), linewidth=7, alpha=0.2)
        bars = axes.errorbar(
            place, mean, [mean - low, high - mean], **drawn, linestyle=style.line(k)["linestyle"], linewidth=1.5,
            markersize=5.5, capsize=3,
        )  # fmt: skip
        bars.lines[0].set_gid(group)
        handles.append(bars)
        labels.append(style.short(group))
    if handles:
        handles, labels = [*handles, reach], [*labels, "pale: lowest to highest"]
    style.legend(axes, handles, labels, "right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("members")
    axes.set_ylabel(score, parse_math=False)
    style.tidy(axes)
    return figure
