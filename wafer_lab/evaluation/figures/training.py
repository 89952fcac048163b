"""How a run learned."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wafer_lab.evaluation.figures import style


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
    marked = {"markersize": 3.5, "markevery": max(1, len(epochs) // 40)}
    figure = style.canvas(6.4, 5.4, title)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, colour, marker, dash in (
        ("train/loss", style.BLUE, "o", "-"),
        ("val/loss", style.VERMILION, "s", (0, (5, 1.6))),
    ):
        if np.isfinite(series[name]).any():
            upper.plot(epochs, series[name], color=colour, linestyle=dash, marker=marker, label=name, **marked)
    score = series[monitor]
    if np.isfinite(score).any():
        lower.plot(epochs, score, color=style.GREEN, marker="o", label=monitor, **marked)
        best = int(np.nanargmax(score) if mode == "max" else np.nanargmin(score))
        for axes in (upper, lower):
            axes.axvline(epochs[best], color=style.INK, linestyle="--", linewidth=1, zorder=1)
        label = f"best: epoch {epochs[best]:g}, {score[best]:.4f}"
        lower.plot(epochs[best], score[best], "*", color=style.INK, markersize=11, label=label)
    upper.set_ylabel("loss")
    lower.set_ylabel(monitor)
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) == 1:
        lower.set_xlim(epochs[0] - 1, epochs[0] + 1)
    for axes in (upper, lower):
        style.tidy(axes)
        handles, labels = axes.get_legend_handles_labels()
        style.legend(axes, handles, labels, columns=2)
    return figure
