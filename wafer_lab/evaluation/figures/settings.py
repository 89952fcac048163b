"""Settings side by side: every one with its interval and seeds, and what each factor does on average."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from wafer_lab.evaluation.figures import style


def comparison(
    names: Sequence[str],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    seeds: Sequence[Sequence[float]],
    score: str,
    mode: str = "max",
    title: str = "",
) -> Figure:
    """The mean of every setting with its interval, and its single runs as dots; the best on top.

    Args:
        names: of S settings.
        means: (S,) of a score.
        lows: (S,) lower ends of the intervals; nan where there is none.
        highs: (S,) upper ends.
        seeds: (S,) the scores of each setting's runs.
        score: name of the score.
        mode: "max" or "min": which end of the score is the better.
        title: over the panel.
    """
    centre, low, high = (np.asarray(each, dtype=float) for each in (means, lows, highs))
    order = np.argsort(centre if mode == "min" else -centre, kind="stable")
    figure = style.canvas(8.0, 1.5 + 0.36 * max(1, len(names)), title)
    axes = figure.subplots()
    handles: list[Any] = []
    for place, k in enumerate(order):
        own = np.asarray(seeds[k], dtype=float)
        runs = axes.plot(own, np.full(len(own), place + 0.22), "o", color=style.GREY, markersize=3.5, alpha=0.8)
        reach = axes.plot([low[k], high[k]], [place, place], color=style.BLUE, linewidth=1.6, marker="|", markersize=7)
        mean = axes.plot(centre[k], place, "D", color=style.BLUE, markersize=5.5, zorder=3, gid=names[k])
        handles = [(*reach, *mean), *runs]
        style.write_value(axes, place, centre[k], (low[k], high[k]))
    style.legend(axes, handles, ["mean, 95 % interval", "single runs"], columns=2)
    style.rows(axes, [names[k] for k in order], longest=48)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.05)
    axes.set_xlabel(score, parse_math=False)
    style.tidy(axes, "x")
    return figure


def main_effects(
    effects: Mapping[str, Mapping[str, tuple[float, float, float]]], score: str, title: str = ""
) -> Figure:
    """The mean of a score over all settings that share a factor's level, level by level.

    Args:
        effects: factor -> level -> (mean, low, high) over the settings with that level; nan bounds where unknown.
        score: name of the score.
        title: over the panel.
    """
    labels: list[str] = []
    figure = style.canvas(6.8, 1.3 + 0.3 * sum(1 + len(levels) for levels in effects.values()), title)
    axes = figure.subplots()
    headings: list[int] = []
    for place, (factor, levels) in enumerate(effects.items()):
        headings.append(len(labels))
        labels.append(factor)
        rows = [len(labels) + k for k in range(len(levels))]
        values = np.array(list(levels.values()), dtype=float).reshape(-1, 3)
        drawn_as = style.mark(place) | {"markersize": 6}
        axes.hlines(rows, values[:, 1], values[:, 2], color=str(drawn_as["color"]), linewidth=1.6)
        axes.plot(values[:, 0], rows, linestyle="none", gid=factor, **drawn_as)
        for row, (mean, low, high) in zip(rows, values, strict=True):
            style.write_value(axes, row, mean, (low, high))
        labels += list(levels)
        if place:
            axes.axhline(headings[-1] - 0.5, color=style.PALE, linewidth=0.8)
    style.rows(axes, labels, longest=48)
    for row in headings:
        axes.get_yticklabels()[row].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{score}: mean over the settings with that level", parse_math=False)
    style.tidy(axes, "x")
    return figure
