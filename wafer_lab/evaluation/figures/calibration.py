"""Whether stated probabilities come true, and whether prediction sets cover what they promise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.evaluation.figures.curves import binned, claims
from wafer_lab.metrics.proportions import wilson
from wafer_lab.metrics.reliability import expected_calibration_error

_HOLLOW: dict[str, Any] = {"marker": "s", "color": style.VERMILION, "markerfacecolor": "white"}
_SOLID: dict[str, Any] = {"marker": "o", "color": style.BLUE}


def reliability(
    before: NDArray[Any] | None,
    after: NDArray[Any],
    target: NDArray[Any],
    target_kind: str,
    bins: int = 15,
    title: str = "",
) -> Figure:
    """How often what was stated with some probability came true, and below how often that much was stated.

    On the diagonal, probabilities mean what they say; below it the model is too sure. Multiclass: the top class and
    its probability. Multilabel: all labels of all wafers, pooled. Bars through the points are Wilson's 95 % intervals.

    Args:
        before: (N, C) probabilities before calibration, or None.
        after: (N, C) probabilities that are used.
        target: (N,) class indices, or (N, C) of 0/1.
        target_kind: ``multiclass`` or ``multilabel``.
        bins: of equal width.
        title: over both panels.
    """
    figure = style.canvas(5.4, 6.2, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":", gid="perfect")
    series = [
        ("before", before, style.VERMILION, "s", "--"),
        ("as used" if before is None else "after calibration", after, style.BLUE, "o", "-"),
    ]
    handles, labels = [], []
    for name, probabilities, colour, marker, dash in series:
        if probabilities is None:
            continue
        stated, happened = claims(probabilities, target, target_kind)
        mean, rate, count = binned(stated, happened, bins)
        seen = count > 0
        low, high = wilson(np.round(rate[seen] * count[seen]), count[seen])
        upper.vlines(mean[seen], low, high, color=colour, linewidth=1, alpha=0.5)
        handles += upper.plot(mean[seen], rate[seen], color=colour, marker=marker, linestyle=dash, gid=name)
        error = expected_calibration_error(probabilities, target, bins=bins)
        labels.append(f"{name}: ECE {error:.4f}")
        edges = np.linspace(0, 1, bins + 1)
        lower.stairs(count, edges, color=colour, linestyle=dash, linewidth=1.4, fill=False, label=name)
    style.legend(upper, handles, labels, columns=2)
    style.log_scale(lower, "y", np.array([1, len(stated)]))
    for axes in (upper, lower):
        style.tidy(axes)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    multilabel = target_kind == "multilabel"
    upper.set_ylabel("share of labels present" if multilabel else "share decided right")
    lower.set_ylabel("labels" if multilabel else "wafers")
    lower.set_xlabel("stated probability of the label" if multilabel else "stated probability of the likeliest class")
    return figure


def conformal(
    coverage_marginal: Mapping[str, float],
    coverage_class: Mapping[str, float],
    wanted: float,
    sizes: Mapping[str, float],
    title: str = "",
) -> Figure:
    """How often the prediction set holds the truth, class by class, against what was promised.

    Args:
        coverage_marginal: class -> share of its wafers covered, with one threshold for all; may be empty. nan where
            the class has no wafer.
        coverage_class: likewise, with a threshold per class or label.
        wanted: the coverage promised, in (0, 1).
        sizes: mean number of classes in a set, for the legend: of ``marginal`` and of ``class`` or ``label``.
        title: over the panel.
    """
    names = list(dict.fromkeys([*coverage_marginal, *coverage_class]))
    figure = style.canvas(6.6, 1.9 + 0.3 * len(names), title)
    axes = figure.subplots()
    handles, labels, lowest = [], [], wanted
    for keys, coverage, shift, name, drawn_as in (
        (("marginal",), coverage_marginal, -0.13, "one threshold for all", _HOLLOW),
        (("class", "label"), coverage_class, 0.13, "a threshold each", _SOLID),
    ):
        shares = np.array([coverage.get(key, np.nan) for key in names], dtype=float)
        seen = np.isfinite(shares)
        if not seen.any():
            continue
        places, shares = np.arange(len(names))[seen] + shift, shares[seen]
        lowest = min(lowest, float(shares.min()))
        axes.hlines(places, np.minimum(shares, wanted), np.maximum(shares, wanted), color=style.PALE)
        handles += axes.plot(shares, places, linestyle="none", gid=name, zorder=3, **drawn_as)
        size = [f", {sizes[key]:.2f} classes in a set" for key in keys if key in sizes]
        labels.append(name + "".join(size))
    handles.append(axes.axvline(wanted, color=style.INK, linestyle="--", linewidth=1.2))
    style.legend(axes, handles, [*labels, f"promised: {100 * wanted:g} %"])
    style.rows(axes, names)
    reach = 1 - lowest
    axes.set_xlim(lowest - 0.06 * reach, 1 + 0.06 * reach)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_xlabel("wafers whose set holds the truth")
    style.tidy(axes)
    return figure
