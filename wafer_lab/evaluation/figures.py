"""Figures of a run, drawn for paper: dark ink, colours that colour-blind readers tell apart, no global state.

Colours: one hue from white for shades, and Okabe and Ito's palette ("Color universal design", 2008) for lines and bars.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.metrics.scores import MultilabelCounts
from wafer_lab.metrics.scores import confusion_matrix as count_pairs

_BLUE, _VERMILION, _GREEN, _INK = "#0072B2", "#D55E00", "#009E73", "#222222"
_DPI = 150
_LONGEST_NAME = 32
# Beyond this many classes a number in every cell is a grey smear.
_MOST_NUMBERED = 45


def confusion_matrix(predictions: Predictions, title: str = "") -> Figure:
    """What was taken for what: counts on the left, shares of each true class on the right.

    Multiclass: C x C, rows are the truth; the right diagonal is each class's recall. Multilabel, where a wafer
    has any number of labels: one row per label, and how often it was found, missed, claimed or rightly left
    out; the right side has shares of the wafers that have the label, and of those that do not.

    Args:
        predictions: labelled rows, one per wafer: one split, one view.
        title: over both panels.
    """
    names = predictions.class_names
    if predictions.target_kind == "multilabel":
        counts, groups = _label_counts(predictions), [slice(0, 2), slice(2, 4)]
        columns: Sequence[str] = ("present:\nfound", "present:\nmissed", "absent:\nclaimed", "absent:\nleft out")
        texts = ("label", "")
    else:
        counts = count_pairs(predictions.target, predictions.decisions(), len(names))
        groups, columns, texts = [slice(None)], [_short(name) for name in names], ("true class", "predicted class")
    shares = np.zeros(counts.shape)
    for group in groups:
        whole = counts[:, group].sum(axis=1, keepdims=True)
        np.divide(counts[:, group], whole, out=shares[:, group], where=whole > 0)

    figure = _confusion_canvas(len(names), len(columns))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        _grid(axes, names, columns, tilted=predictions.target_kind == "multiclass")
        axes.set_xlabel(texts[1])
    left.set_ylabel(texts[0])
    left.set_title("wafers")
    right.set_title("percent of the true class" if texts[1] else "percent of present, of absent")
    most = max(2, int(counts.max()))
    _cells(left, counts, np.where(counts > 0, counts, 0.5), LogNorm(0.5, most), [f"{n:,}" for n in counts.flat])
    _cells(right, counts, shares, PowerNorm(0.5, 0, 1), [_percent(share) for share in shares.flat])
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def learning_curves(
    history: Sequence[Mapping[str, float]], monitor: str = "val/f1_macro", mode: str = "max", title: str = ""
) -> Figure:
    """Losses and the monitored score against the epoch, with the best epoch marked.

    Args:
        history: one mapping per epoch, of ``train/loss``, ``val/loss`` and the monitor's name to values, and
            of ``epoch`` to its number (else counted from 0); missing values leave gaps.
        monitor: the score that chose the checkpoint.
        mode: "max" or "min": which end of the monitor is the better.
        title: over both panels.
    """
    epochs = np.array([row.get("epoch", position) for position, row in enumerate(history)], dtype=float)
    series = {
        name: np.array([row.get(name, np.nan) for row in history], dtype=float)
        for name in ("train/loss", "val/loss", monitor)
    }
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, colour, marker in (("train/loss", _BLUE, "o"), ("val/loss", _VERMILION, "s")):
        if np.isfinite(series[name]).any():
            upper.plot(epochs, series[name], color=colour, marker=marker, markersize=3, label=name)
    score = series[monitor]
    lower.plot(epochs, score, color=_GREEN, marker="o", markersize=3, label=monitor)
    if np.isfinite(score).any():
        best = int(np.nanargmax(score) if mode == "max" else np.nanargmin(score))
        for axes in (upper, lower):
            axes.axvline(epochs[best], color=_INK, linestyle="--", linewidth=1)
        label = f"best: epoch {epochs[best]:g}, {score[best]:.4f}"
        lower.plot(epochs[best], score[best], "*", color=_VERMILION, markersize=12, label=label)
    upper.set_ylabel("loss")
    lower.set_ylabel(monitor)
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) == 1:
        lower.set_xlim(epochs[0] - 1, epochs[0] + 1)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def per_class_f1(
    scores: Mapping[str, float],
    intervals: Intervals,
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
    names = [key.removeprefix("f1/") for key in scores if key.startswith("f1/")]
    values = np.array([scores[f"f1/{name}"] for name in names])
    bounds = np.array([intervals.get(f"f1/{name}", (value, value)) for name, value in zip(names, values, strict=True)])
    labels = [_short(name) + (f"  ({support[name]:,})" if support else "") for name in names]

    figure = Figure(figsize=(6.8, 1.5 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    # The interval of a score at its limit may end at the bar itself, never on its other side.
    reach = np.abs(np.stack([values - np.minimum(bounds[:, 0], values), np.maximum(bounds[:, 1], values) - values]))
    axes.barh(rows, values, height=0.7, color="#56B4E9", edgecolor="none")
    axes.errorbar(values, rows, xerr=reach, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)
    for row, (value, (low, high)) in enumerate(zip(values, bounds, strict=True)):
        axes.text(1.03, row, f"{value:.3f}  [{low:.3f}, {high:.3f}]", va="center", fontsize=8, family="monospace")
    if "f1_macro" in scores:
        mean = scores["f1_macro"]
        axes.axvline(mean, color=_VERMILION, linestyle="--", linewidth=1.2, label=f"macro F1 {mean:.3f}")
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    axes.set_yticks(rows, labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.0)
    axes.set_xlabel("F1, with 95 % interval" if intervals else "F1")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG, beside its place and then renamed into it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        figure.savefig(beside, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _label_counts(predictions: Predictions) -> NDArray[np.int64]:
    """(C, 4) found, missed, claimed, left out."""
    counts = MultilabelCounts.of(predictions.target, predictions.decisions())
    found, missed, claimed = counts.true_positives, counts.false_negatives, counts.false_positives
    return np.stack([found, missed, claimed, counts.samples - found - missed - claimed], axis=1).astype(np.int64)


def _confusion_canvas(rows: int, columns: int) -> Figure:
    side = 0.5 if rows <= 14 else 0.28
    width = max(2.2, columns * (side if columns > 4 else 0.9))
    return Figure(figsize=(2 * width + 2.4, max(1.8, rows * side) + 1.8), layout="constrained")


def _grid(axes: Axes, rows: Sequence[str], columns: Sequence[str], tilted: bool) -> None:
    size = 9 if len(rows) <= 14 else 7
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows], fontsize=size, parse_math=False)
    turn = 90 if tilted and len(columns) > 2 else 0
    axes.set_xticks(range(len(columns)), columns, fontsize=size if tilted else 8, parse_math=False, rotation=turn)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cells(
    axes: Axes, counts: NDArray[np.int64], values: NDArray[np.float64], norm: Normalize, texts: Sequence[str]
) -> None:
    """Shade the cells and write on those that are not empty, in ink that shows on the shade."""
    shades = colormaps["Blues"]
    axes.imshow(values, cmap=shades, norm=norm, aspect="auto", interpolation="nearest")
    for line in range(1, max(counts.shape)):
        if line < counts.shape[0]:
            axes.axhline(line - 0.5, color="#BBBBBB", linewidth=0.5)
        if line < counts.shape[1]:
            axes.axvline(line - 0.5, color="#BBBBBB", linewidth=0.5)
    if len(counts) > _MOST_NUMBERED:
        return
    size = 8 if len(counts) <= 14 else 5.5
    for (row, column), text in zip(np.ndindex(counts.shape), texts, strict=True):
        if counts[row, column]:
            light = np.dot(shades(norm(values[row, column]))[:3], (0.299, 0.587, 0.114)) > 0.5
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color="black" if light else "white")


def _percent(share: float) -> str:
    """Whole percents, but never 0 for something nor 100 for less than all."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return f"{int(share * 1000) / 10:.1f}"
    return f"{100 * share:.0f}"


def _short(name: str) -> str:
    """The name with its middle left out where it is long: both ends of long names tell them apart."""
    end = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: end - 1]}…{name[-end:]}"
