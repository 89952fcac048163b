"""What a search for the best values of a run's keys found, trial by trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style

_COLUMNS = 3  # of panels
_WIDE = 20  # largest over smallest number, above which only powers of ten are named


@dataclass(frozen=True)
class Slice:
    """One key of a search over N trials.

    Attributes:
        key: its name.
        values: (N,) numbers, or names where it is categorical; None where a trial did not sample it.
        log: whether numbers are drawn on a log scale.
    """

    key: str
    values: Sequence[Any]
    log: bool = False


def search_history(
    numbers: NDArray[Any], scores: NDArray[Any], complete: NDArray[np.bool_], metric: str, mode: str, title: str = ""
) -> Figure:
    """The score of every trial in the order of their numbers, and the best of the complete ones so far.

    Args:
        numbers: (N,) of the trials.
        scores: (N,) of the metric; nan where a trial has none.
        complete: (N,) False where a trial was pruned or failed.
        metric: name of the score.
        mode: "max" or "min".
        title: over the figure.
    """
    figure = style.canvas(6.8, 4.0, title)
    axes = figure.subplots()
    known = np.isfinite(scores)
    pruned = known & ~complete
    _points(axes, numbers, scores, complete & known, "complete", 0)
    _points(axes, numbers, scores, pruned, "pruned, at its last epoch", 1)
    if (~known).any():
        axes.plot(numbers[~known], np.full((~known).sum(), 0.02), "|", color=style.INK, markersize=9, label="failed",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    if (complete & known).any():
        worst = -np.inf if mode == "max" else np.inf
        so_far = (np.maximum if mode == "max" else np.minimum).accumulate(np.where(complete & known, scores, worst))
        shown = np.isfinite(so_far)
        axes.step(numbers[shown], so_far[shown], where="post", color=style.INK, linewidth=1.2, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    style.legend(axes, handles, labels, columns=4)
    return figure


def importance(shares: Mapping[str, float], metric: str, title: str = "") -> Figure:
    """How much of the variation of the score each key explains, largest first.

    Args:
        shares: of each key, summing to 1.
        metric: name of the score.
        title: over the figure.
    """
    figure = style.canvas(6.4, 1.3 + 0.38 * max(1, len(shares)), title)
    axes = figure.subplots()
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    if not ordered:
        style.say(axes, "too few complete trials to tell")
        return figure
    axes.barh(range(len(ordered)), [share for _, share in ordered], color=style.BLUE, height=0.6)
    style.rows(axes, [key for key, _ in ordered])
    for row, (_, share) in enumerate(ordered):
        style.write_value(axes, row, share, digits=2)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of the variation of {metric}")
    style.tidy(axes, "x")
    return figure


def slices(
    keys: Sequence[Slice], scores: NDArray[Any], complete: NDArray[np.bool_], metric: str, mode: str, title: str = ""
) -> Figure:
    """The score against each key by itself, one panel per key; a star marks the best of the complete trials.

    Args:
        keys: what was sampled.
        scores: (N,) of the metric; nan where a trial has none.
        complete: (N,) False where a trial was pruned or failed.
        metric: name of the score.
        mode: "max" or "min".
        title: over the figure.
    """
    columns = min(_COLUMNS, max(1, len(keys)))
    lines = -(-len(keys) // columns)
    figure = style.canvas(max(4.4, 3.3 * columns), 0.9 + 2.9 * lines, title)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    best = _best(scores, complete, mode)
    for axes, one in zip(grid, keys, strict=False):
        _slice(axes, one, scores, complete, best)
    for axes in grid[len(keys) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel(metric)
    known = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    style.legend(grid[0], list(known.values()), list(known))  # wider than its panel it would push the panels apart
    return figure


def pareto(
    first: NDArray[Any],
    second: NDArray[Any],
    front: NDArray[np.bool_],
    numbers: NDArray[Any],
    metrics: tuple[str, str],
    title: str = "",
) -> Figure:
    """Two objectives against each other, with the trials that none beats in both named by their numbers.

    Args:
        first: (N,) of the first objective, on the y axis.
        second: (N,) of the second, on the x axis.
        front: (N,) which trials are on the Pareto front.
        numbers: (N,) of the trials.
        metrics: names of the two.
        title: over the figure.
    """
    figure = style.canvas(6.4, 4.4, title)
    axes = figure.subplots()
    axes.plot(second[~front], first[~front], "o", color=style.PALE, markersize=6, label="beaten by another")
    order = np.flatnonzero(front)[np.argsort(second[front])]
    axes.plot(
        second[order], first[order], color=style.BLUE, marker="D", markersize=6, linewidth=1, label="Pareto front"
    )
    for k in order:
        axes.annotate(f"{numbers[k]:g}", (second[k], first[k]), xytext=(5, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel(metrics[1])
    axes.set_ylabel(metrics[0])
    style.tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    style.legend(axes, handles, labels, columns=2)
    return figure


def _points(axes: Axes, x: NDArray[Any], y: NDArray[Any], chosen: NDArray[np.bool_], label: str, kind: int) -> None:
    """Complete trials as filled circles, pruned ones as open squares."""
    if chosen.any():
        look: dict[str, Any] = {"marker": "o", "markersize": 5.5, "linestyle": "none", "label": label}
        if kind == 0:
            look |= {"color": style.BLUE}
        else:
            look |= {"marker": "s", "color": style.VERMILION, "markerfacecolor": "none"}
        axes.plot(x[chosen], y[chosen], **look)


def _best(scores: NDArray[Any], complete: NDArray[np.bool_], mode: str) -> NDArray[np.bool_]:
    """(N,) True at the best complete trial, the first of equals; nowhere without one."""
    known = np.flatnonzero(complete & np.isfinite(scores))
    best = np.zeros(len(scores), dtype=bool)
    if len(known):
        best[known[(np.argmax if mode == "max" else np.argmin)(scores[known])]] = True
    return best


def _slice(axes: Axes, one: Slice, scores: NDArray[Any], complete: NDArray[np.bool_], best: NDArray[np.bool_]) -> None:
    sampled = np.array([value is not None for value in one.values]) & np.isfinite(scores)
    values = [value for value, there in zip(one.values, sampled, strict=True) if there]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        x = np.array(values, dtype=float)
        if one.log:
            style.log_scale(axes, "x", x)
            if len(x) and x.max() / x.min() > _WIDE:  # a panel has no room for more
                axes.xaxis.set_major_locator(LogLocator(10))
    else:
        names = sorted({str(value) for value in values})
        x = np.array([names.index(str(value)) for value in values], dtype=float)
        x += np.linspace(-0.12, 0.12, len(x)) if len(x) > 1 else 0  # equal choices beside each other
        labels = [style.short(name, 22) for name in names]
        axes.set_xticks(range(len(names)), labels, fontsize=8, rotation=20, ha="right", parse_math=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
    _points(axes, x, scores[sampled], complete[sampled], "complete", 0)
    _points(axes, x, scores[sampled], ~complete[sampled], "pruned, at its last epoch", 1)
    if best[sampled].any():  # over its circle; the white rim parts it from points below
        axes.plot(x[best[sampled]], scores[best], "*", color=style.INK, markersize=14, markeredgecolor="white",
                  label="best complete trial", zorder=3)  # fmt: skip
    axes.set_xlabel(one.key, parse_math=False)
    style.tidy(axes)
