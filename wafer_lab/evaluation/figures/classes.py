"""How well each class is told from the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.evaluation.figures.curves import RankingCurves, one_against_rest, ranking_curves

# More coloured lines than this cannot be told apart; the others are drawn grey.
_MOST_COLOURED = 10


def per_class_f1(
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    support: Mapping[str, int] | None = None,
    title: str = "",
) -> Figure:
    """F1 of every class as a bar, with its interval, and the macro mean as a line.

    Args:
        scores: ``f1/<class>`` and ``f1_macro`` of one split, classes in the order they are drawn.
        intervals: of those scores; a class without one gets a bar alone.
        support: wafers of each class, written beside its name.
        title: of the figure.
    """
    return _bars("f1", ("F1", "macro F1"), scores, intervals, support, title)


def masks_iou(
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    support: Mapping[str, int] | None = None,
    title: str = "",
) -> Figure:
    """IoU of every class's masks as a bar, with its interval, and the mean as a line.

    Args:
        scores: ``iou/<class>`` and ``iou_macro`` of one split, classes in the order they are drawn.
        intervals: of those scores.
        support: wafers with a mask of each class, written beside its name.
        title: of the figure.
    """
    return _bars("iou", ("IoU", "mean IoU"), scores, intervals, support, title)


def _bars(
    key: str,
    labels: tuple[str, str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    support: Mapping[str, int] | None,
    title: str,
) -> Figure:
    """A score of every class in [0, 1] as a bar; `labels` name it and its mean."""
    names = [name.removeprefix(f"{key}/") for name in scores if name.startswith(f"{key}/")]
    values = np.array([scores[f"{key}/{name}"] for name in names])
    ends = [intervals.get(f"{key}/{name}", (value, value)) for name, value in zip(names, values, strict=True)]
    bounds: NDArray[np.float64] = np.array(ends).reshape(-1, 2)
    rows = np.arange(len(names))

    figure = style.canvas(6.8, 1.5 + 0.3 * len(names), title)
    axes = figure.subplots()
    # The interval of a score at its limit may end at the bar itself, never on its other side.
    reach = np.abs(np.stack([values - np.minimum(bounds[:, 0], values), np.maximum(bounds[:, 1], values) - values]))
    axes.barh(rows, values, height=0.7, color=style.SKY, edgecolor="none")
    axes.errorbar(values, rows, xerr=reach, fmt="none", ecolor=style.INK, elinewidth=1.2, capsize=3)
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        style.write_value(axes, row, value, intervals.get(f"{key}/{name}"), digits=3)
    if f"{key}_macro" in scores:
        mean = scores[f"{key}_macro"]
        drawn = axes.axvline(mean, color=style.VERMILION, linestyle="--", linewidth=1.4)
        style.legend(axes, [drawn], [f"{labels[1]} {mean:.3f}"])
    style.tidy(axes, "x")
    beside = [style.short(name) + (f"  ({support[name]:,})" if support else "") for name in names]
    style.rows(axes, beside, longest=48)
    axes.set_xlim(0, 1.0)
    axes.set_xlabel(f"{labels[0]}, with 95 % interval" if intervals else labels[0])
    return figure


def roc_curves(
    target: NDArray[Any], probabilities: NDArray[Any], class_names: Sequence[str], target_kind: str, title: str = ""
) -> Figure:
    """ROC curve of every class against the rest, AUROC in the legend; right the same on a log axis.

    The log axis shows the corner where good classifiers differ. With more than ten classes the nine of lowest AUROC
    are coloured and the others grey. A class with no wafer, or with all of them, has no curve and is named as such.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        probabilities: (N, C).
        class_names: the C names.
        target_kind: ``multiclass`` or ``multilabel``.
        title: over both panels.
    """
    found = _rankings(target, probabilities, target_kind)
    figure = style.canvas(8.6, 4.3 + 0.2 * np.ceil(min(len(class_names), _MOST_COLOURED) / 3), title)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
    areas = [curve.auroc if curve else None for curve in found]
    for axes in (left, right):
        for k, drawn_as in _line_styles(areas):
            curve = found[k]
            if curve:
                axes.plot(curve.false_positive_rate, curve.true_positive_rate, gid=class_names[k], **drawn_as)
        style.tidy(axes)
        axes.set_xlabel("false positive rate")
        axes.set_ylim(-0.02, 1.02)
    left.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=":", gid="chance")
    left.set_xlim(-0.02, 1.02)
    left.set_ylabel("true positive rate")
    smallest = [curve.false_positive_rate[curve.false_positive_rate > 0].min() for curve in found if curve]
    style.log_scale(right, "x", np.array([max(1e-5, min(smallest, default=0.1)), 1.0]))
    right.set_xlim(right=1.0)
    _name_lines(figure, left, areas, class_names, "AUROC", columns=3)
    return figure


def pr_curves(
    target: NDArray[Any], probabilities: NDArray[Any], class_names: Sequence[str], target_kind: str, title: str = ""
) -> Figure:
    """Precision against recall of every class against the rest, average precision (AP) in the legend.

    Drawn in steps, so that the area under a line is its AP, and up to the threshold that finds all. Colours as in
    `roc_curves`.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        probabilities: (N, C).
        class_names: the C names.
        target_kind: ``multiclass`` or ``multilabel``.
        title: over the panel.
    """
    found = _rankings(target, probabilities, target_kind)
    figure = style.canvas(6.4, 4.6 + 0.2 * np.ceil(min(len(class_names), _MOST_COLOURED) / 2), title)
    axes = figure.subplots()
    areas = [curve.average_precision if curve else None for curve in found]
    for k, drawn_as in _line_styles(areas):
        curve = found[k]
        if curve:
            recall, precision = _steps(curve)
            axes.plot(recall, precision, drawstyle="steps-pre", gid=class_names[k], **drawn_as)
    style.tidy(axes)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    _name_lines(figure, axes, areas, class_names, "AP", columns=2)
    return figure


def _rankings(target: NDArray[Any], probabilities: NDArray[Any], target_kind: str) -> list[RankingCurves | None]:
    if (target.ndim == 2) != (target_kind == "multilabel"):
        raise ValueError(f"a {target_kind} target cannot have shape {target.shape}")
    return [ranking_curves(one_against_rest(target, k), probabilities[:, k]) for k in range(probabilities.shape[1])]


def _steps(curve: RankingCurves) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision from recall 0, at the first hit's precision, to the first threshold that finds all."""
    first = int(np.argmax(curve.true_positive_rate > 0))
    last = int(np.argmax(curve.true_positive_rate >= 1)) + 1
    recall, precision = curve.true_positive_rate[first:last], curve.precision[first:last]
    return np.append(0.0, recall), np.append(precision[0], precision)


def _coloured(areas: Sequence[float | None]) -> list[int]:
    """The classes whose lines get a colour, in the order of the legend."""
    scored = [k for k, area in enumerate(areas) if area is not None]
    if len(scored) <= _MOST_COLOURED:
        return scored
    return sorted(scored, key=lambda k: areas[k] or 0.0)[: _MOST_COLOURED - 1]


def _line_styles(areas: Sequence[float | None]) -> list[tuple[int, dict[str, Any]]]:
    """Class and style of every line, grey ones first so that they lie below."""
    coloured = _coloured(areas)
    grey = {"color": style.PALE, "linestyle": "-", "linewidth": 0.9}
    others = [(k, grey) for k, area in enumerate(areas) if area is not None and k not in coloured]
    return others + [(k, style.line(place) | {"linewidth": 1.6}) for place, k in enumerate(coloured)]


def _name_lines(
    figure: Figure, axes: Axes, areas: Sequence[float | None], names: Sequence[str], score: str, columns: int
) -> None:
    """A legend below the figure: the score, then the class."""
    lines = {drawn.get_gid(): drawn for drawn in axes.get_lines()}
    coloured = _coloured(areas)
    handles = [lines[names[k]] for k in coloured]
    labels = [f"{style.score(areas[k] or 0.0)}  {style.short(names[k], 26)}" for k in coloured]
    others = [area for k, area in enumerate(areas) if area is not None and k not in coloured]
    if others:
        handles += [next(drawn for drawn in axes.get_lines() if drawn.get_color() == style.PALE)]
        labels += [f"{style.score(min(others))} to {style.score(max(others))}  {len(others)} others"]
    missing = [style.short(name) for name, area in zip(names, areas, strict=True) if area is None]
    if missing:
        handles += axes.plot([], [], linestyle="none")
        labels += ["not scored:  " + style.short(", ".join(missing), 30)]
    drawn = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        handlelength=style.HANDLE,
        title=f"{score}  class",
        title_fontsize=8.5,
        alignment="left",
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)
