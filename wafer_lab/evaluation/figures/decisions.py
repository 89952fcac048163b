"""What a threshold, a price or a rule does to escapes and false alarms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style


def threshold_sensitivity(
    curve: Mapping[str, NDArray[Any]], chosen: float | None = None, default: float | None = None, title: str = ""
) -> Figure:
    """Escape and false alarm rate (in percent, log scale) and macro F1 against a threshold.

    Thresholds that come near both 0 and 1 are drawn on a logit scale. Rates of 0 fall off the lower end.

    Args:
        curve: ``threshold``, ``escape_rate``, ``false_alarm_rate`` and ``f1_macro``, each (K,), rates in [0, 1].
        chosen: the threshold in use; None where the rule in use has none of this kind.
        default: what would be used without tuning, or None.
        title: over both panels.
    """
    thresholds = np.asarray(curve["threshold"], dtype=float)
    figure = style.canvas(6.4, 5.4, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    marked = {"markersize": 4, "markevery": max(1, len(thresholds) // 12)}
    for key, name, colour, marker, dash in (
        ("escape_rate", "escapes, % of defects", style.VERMILION, "o", "-"),
        ("false_alarm_rate", "false alarms, % of normal wafers", style.BLUE, "s", (0, (5, 1.6))),
    ):
        rate = 100 * np.asarray(curve[key], dtype=float)
        upper.plot(thresholds, rate, color=colour, marker=marker, linestyle=dash, label=name, gid=key, **marked)
    score = np.asarray(curve["f1_macro"], dtype=float)
    lower.plot(thresholds, score, color=style.GREEN, marker="^", gid="f1_macro", **marked)
    both = np.concatenate([curve["escape_rate"], curve["false_alarm_rate"]])
    style.log_scale(upper, "y", 100 * np.asarray(both, dtype=float))
    for axes in (upper, lower):
        if chosen is not None:
            axes.axvline(chosen, color=style.INK, linewidth=1.2, label=f"in use {chosen:.3g}")
        if default is not None:
            axes.axvline(default, color=style.GREY, linewidth=1.2, linestyle=":", label=f"default {default:.3g}")
        style.tidy(axes)
    if 0 < thresholds.min() < 0.02 and 0.98 < thresholds.max() < 1:
        style.logit_scale(lower)
    handles, labels = upper.get_legend_handles_labels()
    style.legend(upper, handles, labels, columns=2)
    upper.set_ylabel("percent")
    lower.set_ylabel("macro F1")
    lower.set_xlabel("threshold")
    return figure


def cost_curve(
    ratios: NDArray[Any], costs: Mapping[str, NDArray[Any]], chosen_ratio: float | None = None, title: str = ""
) -> Figure:
    """Mean cost per wafer of every decision rule against the price of an escape, both on log scales.

    Args:
        ratios: (K,) what an escape costs, in false alarms.
        costs: rule -> (K,) mean cost per wafer, in false alarms.
        chosen_ratio: the price the run was judged with, or None.
        title: over the panel.
    """
    ratios = np.asarray(ratios, dtype=float)
    figure = style.canvas(7.2, max(4.2, 1.2 + 0.19 * len(costs)), title)
    axes = figure.subplots()
    # In the legend the lines stand as they end at the right.
    names = sorted(costs, key=lambda name: -float(costs[name][-1]))
    handles = []
    for place, name in enumerate(costs):
        drawn_as = style.line(place) | style.mark(place) | {"markersize": 4.5, "linewidth": 1.6}
        every = (place % 4, max(1, len(ratios) // 6))
        handles += axes.plot(ratios, costs[name], gid=name, markevery=every if len(ratios) > 6 else None, **drawn_as)
    handles.sort(key=lambda drawn: names.index(str(drawn.get_gid())))
    labels = [style.short(name) for name in names]
    style.log_scale(axes, "x", ratios)
    axes.set_xlim(ratios.min() / 1.08, ratios.max() * 1.08)
    style.log_scale(axes, "y", np.concatenate([np.asarray(each, dtype=float) for each in costs.values()]))
    if chosen_ratio is not None:
        handles.append(axes.axvline(chosen_ratio, color=style.GREY, linewidth=1.2, linestyle=":", zorder=1))
        labels.append(f"in use: {chosen_ratio:g}")
    style.tidy(axes)
    style.legend(axes, handles, labels, "right")
    axes.set_xlabel("cost of an escape, in false alarms")
    axes.set_ylabel("mean cost per wafer, in false alarms")
    return figure


def rules(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Escapes against false alarms of every decision rule, with intervals, and beside it what each costs.

    Both panels show a rule by one marker; the names stand at the right panel. Lower left is better.

    Args:
        rows: of each rule ``name``, ``escape_rate`` and ``false_alarm_rate`` in [0, 1], ``cost`` per wafer; and,
            where known, ``escape_rate_interval``, ``false_alarm_rate_interval``, ``cost_interval`` (low, high).
        title: over both panels.
    """
    figure = style.canvas(10.2, max(3.6, 1.2 + 0.3 * len(rows)), title)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    for place, row in enumerate(rows):
        # Where rules agree, the earlier one still shows round the later.
        size = max(4.0, 9.0 - 0.9 * place)
        drawn_as = style.mark(place) | {"linestyle": "none", "markersize": size, "capsize": 2.5, "elinewidth": 1.1}
        x, x_reach = _with_reach(row, "escape_rate", 100)
        y, y_reach = _with_reach(row, "false_alarm_rate", 100)
        left.errorbar([x], [y], xerr=x_reach, yerr=y_reach, **drawn_as).lines[0].set_gid(row["name"])
        cost, cost_reach = _with_reach(row, "cost", 1)
        right.errorbar([cost], [place], xerr=cost_reach, **drawn_as)
        style.write_value(right, place, cost, row.get("cost_interval"))
    style.rows(right, [str(row["name"]) for row in rows], longest=48)
    style.tidy(left)
    style.tidy(right, "x")
    for axes in (left, right):
        axes.margins(x=0.12)
        _from_zero(axes, "x")
    _from_zero(left, "y")
    left.set_xlabel("escapes, % of defects")
    left.set_ylabel("false alarms, % of normal wafers")
    right.set_xlabel("mean cost per wafer")
    return figure


def _with_reach(row: Mapping[str, Any], key: str, scale: float) -> tuple[float, NDArray[np.float64] | None]:
    """A value, and how far its interval reaches below and above it, (2, 1)."""
    value = float(row[key])
    low, high = row.get(f"{key}_interval") or (value, value)
    reach = np.array([[max(0.0, value - low)], [max(0.0, high - value)]])
    return scale * value, (scale * reach if reach.any() else None)


def _from_zero(axes: Axes, side: str) -> None:
    """Begin a scale at zero, or just below it so that marks at zero are whole."""
    high = (axes.get_xlim() if side == "x" else axes.get_ylim())[1]
    high = high if high > 0 else 1.0
    (axes.set_xlim if side == "x" else axes.set_ylim)(-0.04 * high, high)
