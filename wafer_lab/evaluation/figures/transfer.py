"""What more labels are worth, from several starting points."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wafer_lab.evaluation.figures import style


def label_curves(curves: Mapping[str, Sequence[Sequence[float]]], score: str, title: str = "") -> Figure:
    """A score over the number of labels, on a log scale: a line per source with its interval, single runs as dots.

    Args:
        curves: source -> rows of (labels, mean, low, high, score of a run, score of another, ...); nan bounds where
            there is one run only.
        score: name of the score.
        title: over the panel.
    """
    figure = style.canvas(8.2, max(4.0, 0.27 * len(curves)), title)
    axes = figure.subplots()
    handles, labels = [], []
    counts = [row[0] for rows in curves.values() for row in rows]
    for k, (source, rows) in enumerate(curves.items()):
        head = np.array([row[:4] for row in rows], dtype=float).reshape(-1, 4)
        drawn = style.mark(k)
        shift = 1.03 ** (k - (len(curves) - 1) / 2)
        reach = np.nan_to_num(np.abs(head[:, 2:4].T - head[:, 1]))
        bars = axes.errorbar(
            head[:, 0] * shift, head[:, 1], reach, **drawn, linestyle=style.line(k)["linestyle"], linewidth=1.5,
            markersize=5.5, capsize=3,
        )  # fmt: skip
        bars.lines[0].set_gid(source)
        for row in rows:
            single = np.asarray(row[4:], dtype=float)
            axes.plot(np.full(len(single), row[0] * shift), single, ".", color=str(drawn["color"]), alpha=0.5)
        handles.append(bars)
        labels.append(style.short(source))
    style.legend(axes, handles, labels, "right")
    style.log_scale(axes, "x", np.array(counts))
    axes.set_xlabel("labelled training wafers")
    axes.set_ylabel(score, parse_math=False)
    style.tidy(axes)
    return figure
