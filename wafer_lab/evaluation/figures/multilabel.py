"""Wafers with several patterns at once: which were added for nothing, and which combinations are hard."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.metrics.proportions import wilson

# More combinations than this are summed up in a last row.
_MOST_TYPES = 80
# A wafer of no label, as the data sets and the reports call it.
_NOTHING = "none"


def spurious_labels(
    target: NDArray[Any], decisions: NDArray[Any], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Which labels are added to wafers that do not have them, by what the wafers do have.

    A cell is the share, among the wafers that have the row's label and lack the column's, of those given the column's.

    Args:
        target: (N, C) of 0/1.
        decisions: (N, C) of 0/1.
        class_names: the C names.
        title: over the panel.
    """
    true, called = np.asarray(target, dtype=bool), np.asarray(decisions, dtype=bool)
    has = np.column_stack([true, ~true.any(axis=1)]).astype(np.int64)
    added, could = has.T @ (called & ~true), has.T @ ~true
    shares = np.divide(added, could, out=np.full(added.shape, np.nan), where=could > 0)
    names = [*class_names, _NOTHING]
    labels = [f"{style.short(name)}  ({n:,})" for name, n in zip(names, has.sum(axis=0), strict=True)]
    side = 0.44 if len(class_names) <= 14 else 0.25
    figure = style.canvas(max(3.0, side * len(class_names)) + 3.0, max(2.0, side * len(names)) + 2.0, title)
    axes = figure.subplots()
    shades, norm = style.shades("errors"), PowerNorm(0.5, 0, max(0.05, float(np.nanmax(shares, initial=0.0))))
    axes.imshow(np.ma.masked_invalid(shares), cmap=shades, norm=norm, aspect="auto", interpolation="nearest")
    size = 8 if len(class_names) <= 14 else 6
    for (row, column), share in np.ndenumerate(shares):
        if not np.isfinite(share):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#EFEFEF", edgecolor=style.PALE, hatch="////", lw=0))
        elif share > 0:
            text = f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"
            ink = style.ink_on(shades, norm, share)
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)
    axes.set_xticks(range(len(class_names)), [style.short(name) for name in class_names], parse_math=False, rotation=90)
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color=style.PALE, linewidth=0.5)
        if edge < len(class_names):
            axes.axvline(edge - 0.5, color=style.PALE, linewidth=0.5)
    axes.tick_params(length=0, labelsize=9 if len(class_names) <= 14 else 8)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("wafers that have (count)")
    axes.set_xlabel("label added though absent")
    axes.set_title("percent of the row's wafers that lack the label", fontsize=10.5)
    return figure


def exact_match_by_count(target: NDArray[Any], decisions: NDArray[Any], title: str = "") -> Figure:
    """Share of wafers whose every label is right, by how many labels they have; with Wilson's 95 % intervals.

    Args:
        target: (N, C) of 0/1.
        decisions: (N, C) of 0/1.
        title: over the panel.
    """
    counts = np.asarray(target, dtype=np.int64).sum(axis=1)
    exact = (np.asarray(target) == np.asarray(decisions)).all(axis=1)
    kinds, total = np.unique(counts, return_counts=True)
    hits = np.array([exact[counts == kind].sum() for kind in kinds])
    share = hits / total
    low, high = wilson(hits, total)
    figure = style.canvas(max(3.6, 1.6 + 0.95 * len(kinds)), 3.8, title)
    axes = figure.subplots()
    places = np.arange(len(kinds))
    axes.bar(places, share, width=0.6, color=style.SKY)
    # Rounding must not put an end of an interval on the wrong side of its share.
    reach = np.maximum(0, np.stack([share - low, high - share]))
    axes.errorbar(places, share, yerr=reach, fmt="none", ecolor=style.INK, elinewidth=1.2, capsize=4)
    for place, (value, left, right) in enumerate(zip(share, low, high, strict=True)):
        text = f"{100 * value:.1f} %\n[{100 * left:.1f}, {100 * right:.1f}]"
        axes.text(place, 1.03, text, ha="center", fontsize=8.5)
    labels = [f"{kind}\n({n:,})" for kind, n in zip(kinds, total, strict=True)]
    axes.set_xticks(places, labels)
    axes.set_xlim(-0.6, len(kinds) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_xlabel("labels of the wafer (wafers)")
    axes.set_ylabel("every label right")
    style.tidy(axes, "y")
    return figure


def type_table(target: NDArray[Any], decisions: NDArray[Any], class_names: Sequence[str], title: str = "") -> Figure:
    """A table of every combination of labels that occurs: wafers, and the share whose every label is right.

    Single labels come first, then pairs and so on. With more than 80 combinations the rarest share the last row.

    Args:
        target: (N, C) of 0/1.
        decisions: (N, C) of 0/1.
        class_names: the C names.
        title: over the table.
    """
    true = np.asarray(target, dtype=np.int8)
    exact = (true == np.asarray(decisions)).all(axis=1)
    kinds, which, total = np.unique(true, axis=0, return_inverse=True, return_counts=True)
    hits = np.bincount(which.ravel(), weights=exact, minlength=len(kinds)).astype(np.int64)
    kept = np.sort(np.argsort(-total, kind="stable")[: _MOST_TYPES if len(kinds) <= _MOST_TYPES else _MOST_TYPES - 1])
    kept = kept[np.lexsort([*(-kinds[kept].T[::-1]), kinds[kept].sum(axis=1)])]
    names = ["+".join(class_names[c] for c in np.flatnonzero(kinds[k]).tolist()) or _NOTHING for k in kept]
    entries = [(name, int(total[k]), int(hits[k])) for name, k in zip(names, kept, strict=True)]
    if len(kept) < len(kinds):
        seen, right = int(total[kept].sum()), int(hits[kept].sum())
        entries.append((f"{len(kinds) - len(kept):,} rarer combinations", len(true) - seen, int(hits.sum()) - right))
    columns = 1 if len(entries) <= 12 else 2
    tall = -(-len(entries) // columns)
    figure = style.canvas(4.5 * columns, 0.75 + 0.215 * tall, title)
    panels = np.atleast_1d(figure.subplots(1, columns))
    for position, axes in enumerate(panels):
        _table(axes, entries[position * tall : (position + 1) * tall], tall)
    return figure


def _table(axes: Axes, entries: Sequence[tuple[str, int, int]], tall: int) -> None:
    shades, norm = style.shades("errors"), PowerNorm(0.5, 0, 1)
    axes.set_xlim(0, 1)
    axes.set_ylim(tall - 0.4, -1.6)
    axes.set_axis_off()
    heading: dict[str, Any] = {"va": "center", "fontsize": 8.5, "fontweight": "bold", "color": style.INK}
    axes.text(0, -1, "labels", **heading)
    axes.text(0.68, -1, "wafers", ha="right", **heading)
    axes.text(0.85, -1, "all right", ha="center", **heading)
    axes.axhline(-0.55, color=style.INK, linewidth=0.8)
    for row, (name, wafers, hits) in enumerate(entries):
        missed = 1 - hits / wafers
        axes.add_patch(Rectangle((0.71, row - 0.45), 0.28, 0.9, facecolor=shades(norm(missed)), linewidth=0))
        axes.text(0, row, style.short(name, 37), va="center", fontsize=8.5, parse_math=False)
        axes.text(0.68, row, f"{wafers:,}", ha="right", va="center", fontsize=8.5)
        ink = style.ink_on(shades, norm, missed)
        axes.text(0.85, row, f"{100 * hits / wafers:.1f} %", ha="center", va="center", fontsize=8.5, color=ink)
        axes.axhline(row + 0.5, color="#EEEEEE", linewidth=0.5, zorder=0)
