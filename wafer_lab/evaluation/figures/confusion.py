"""What was taken for what."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.metrics.scores import MultilabelCounts
from wafer_lab.metrics.scores import confusion_matrix as count_pairs

# With more classes, two matrices side by side would be too small to read in print.
_MOST_BESIDE = 14
# Beyond this many classes a number in every cell is a grey smear.
_MOST_NUMBERED = 45
_PERCENTS = {share: f"{100 * share:g}" for share in (0, 0.05, 0.25, 0.5, 1)}


def confusion_matrix(
    target: NDArray[Any], decisions: NDArray[Any], class_names: Sequence[str], target_kind: str, title: str = ""
) -> Figure:
    """What was taken for what: counts on the left, shares of each true class on the right.

    Multiclass: C x C, rows are the truth; the right diagonal is each class's recall. With more than 14 classes only
    the shares are drawn, and the class sizes stand beside the names. Multilabel, where a wafer has any number of
    labels: one row per label, and how often it was found, missed, claimed or rightly left out; the right side has
    shares of the wafers that have the label, and of those that do not.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        decisions: like target.
        class_names: the C names.
        target_kind: ``multiclass`` or ``multilabel``.
        title: over both panels.
    """
    if target_kind == "multilabel":
        counts, groups = _label_counts(target, decisions), [slice(0, 2), slice(2, 4)]
        columns: Sequence[str] = ("present:\nfound", "present:\nmissed", "absent:\nclaimed", "absent:\nleft out")
        texts = ("label", "", "percent of present, of absent")
    else:
        counts, groups = count_pairs(target, decisions, len(class_names)), [slice(None)]
        columns = [style.short(name) for name in class_names]
        texts = ("true class", "decided class", "percent of the true class")
    shares = np.zeros(counts.shape)
    for group in groups:
        whole = counts[:, group].sum(axis=1, keepdims=True)
        np.divide(counts[:, group], whole, out=shares[:, group], where=whole > 0)

    if len(columns) > _MOST_BESIDE:
        return _shares_alone(counts, shares, class_names, columns, texts, title)
    side = 0.42 if len(class_names) <= _MOST_BESIDE else 0.28
    width = max(2.2, len(columns) * (side if len(columns) > 4 else 0.8))
    figure = style.canvas(2 * width + 3.6, max(1.8, len(class_names) * side) + 1.8, title)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
    for axes in (left, right):
        _grid(axes, class_names, columns, tilted=target_kind == "multiclass" and len(columns) > 2)
        axes.set_xlabel(texts[1])
    left.set_ylabel(texts[0])
    left.set_title("wafers", fontsize=10.5)
    right.set_title(texts[2], fontsize=10.5)
    most = max(2, int(counts.max()))
    _cells(left, counts, np.where(counts > 0, counts, 0.5), LogNorm(0.5, most), [f"{n:,}" for n in counts.flat])
    _cells(right, counts, shares, PowerNorm(0.5, 0, 1), [style.percent(share) for share in shares.flat])
    powers = {10.0**k: f"{10**k:,}" for k in range(1, 9) if 10**k <= most / 3}  # nearer ones would touch the largest
    _scale(figure, left, {0.5: "0"} | powers | {most: f"{most:,}"}, "wafers")
    _scale(figure, right, _PERCENTS, texts[2])
    return figure


def _shares_alone(
    counts: NDArray[np.int64],
    shares: NDArray[np.float64],
    names: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[str],
    title: str,
) -> Figure:
    side = 0.22 * len(names)
    figure = style.canvas(side + 3.4, side + 2.4, title)
    axes = figure.subplots()
    labels = [f"{style.short(name)}  ({n:,})" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    _grid(axes, labels, columns, tilted=True)
    axes.set_ylabel(f"{texts[0]} (wafers)")
    axes.set_xlabel(texts[1])
    axes.set_title(texts[2], fontsize=10.5)
    _cells(axes, counts, shares, PowerNorm(0.5, 0, 1), [style.percent(share) for share in shares.flat])
    _scale(figure, axes, _PERCENTS, texts[2])
    return figure


def _label_counts(target: NDArray[Any], decisions: NDArray[Any]) -> NDArray[np.int64]:
    """(C, 4) found, missed, claimed, left out."""
    counts = MultilabelCounts.of(target, decisions)
    found, missed, claimed = counts.true_positives, counts.false_negatives, counts.false_positives
    return np.stack([found, missed, claimed, counts.samples - found - missed - claimed], axis=1).astype(np.int64)


def _grid(axes: Axes, rows: Sequence[str], columns: Sequence[str], tilted: bool) -> None:
    size = 9 if len(rows) <= _MOST_BESIDE else 8
    axes.set_yticks(range(len(rows)), [style.short(name, 44) for name in rows], fontsize=size, parse_math=False)
    turn, size = (90, size) if tilted else (0, 8)
    axes.set_xticks(range(len(columns)), columns, fontsize=size, parse_math=False, rotation=turn)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cells(
    axes: Axes, counts: NDArray[np.int64], values: NDArray[np.float64], norm: Normalize, texts: Sequence[str]
) -> None:
    """Shade the cells and write on those that are not empty, in ink that shows on the shade."""
    shades = style.shades("counts")
    axes.imshow(values, cmap=shades, norm=norm, aspect="auto", interpolation="nearest")
    for row in range(1, counts.shape[0]):
        axes.axhline(row - 0.5, color=style.PALE, linewidth=0.5)
    for column in range(1, counts.shape[1]):
        axes.axvline(column - 0.5, color=style.PALE, linewidth=0.5)
    if counts.shape[1] > _MOST_NUMBERED:
        return
    size = 8 if counts.shape[1] <= _MOST_BESIDE else 6
    for (row, column), text in zip(np.ndindex(counts.shape), texts, strict=True):
        if counts[row, column]:
            ink = style.ink_on(shades, norm, values[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)


def _scale(figure: Figure, axes: Axes, ticks: Mapping[float, str], label: str) -> None:
    """A slim bar beside the cells that says what their shades mean."""
    bar = figure.colorbar(axes.images[0], ax=axes, aspect=32, pad=0.02)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(length=2, labelsize=8)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8.5)
