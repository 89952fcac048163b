"""Whether a score tells wafers of an unknown pattern from those of known classes."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wafer_lab.evaluation.figures import style
from wafer_lab.evaluation.figures.curves import ranking_curves


def unknown(known: NDArray[Any], unknown: NDArray[Any], name: str, auroc: float, fpr: float, title: str = "") -> Figure:
    """Histograms of a score over known and unknown wafers, and the ROC curve of telling them apart by it.

    The outermost bins hold what lies beyond them: at most 0.5 % of either kind at either end.

    Args:
        known: (N,) scores of wafers of known classes.
        unknown: (M,) scores of wafers of the pattern left out; higher means less like the known.
        name: of the score.
        auroc: area under the curve.
        fpr: share of unknown wafers that pass where 95 % of the known do.
        title: over both panels.
    """
    figure = style.canvas(8.2, 3.9, title)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    both = np.concatenate([known, unknown]).astype(float)
    # A few far wafers must not press all others into one bin.
    ends = [np.quantile(scores, [0.005, 0.995]) for scores in (known, unknown) if len(scores)]
    low, high = (np.min(ends), np.max(ends)) if ends else (0.0, 1.0)
    edges = np.linspace(low, high, 41) if high > low else np.linspace(low - 0.5, low + 0.5, 41)
    handles, labels = [], []
    for kind, scores, colour, hatch in (("known", known, style.BLUE, ""), ("unknown", unknown, style.VERMILION, "///")):
        inside = np.clip(np.asarray(scores, dtype=float), edges[0], edges[-1])
        share = 100 * np.histogram(inside, edges)[0] / max(1, len(inside))
        shade = left.stairs(share, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
        outline = left.stairs(share, edges, color=colour, linewidth=1.4, hatch=hatch, facecolor="none", gid=kind)
        handles.append((shade, outline))
        labels.append(f"{kind} ({len(inside):,})")
    style.legend(left, handles, labels, columns=2)
    left.set_xlabel(name, parse_math=False)
    left.set_ylabel("percent of the wafers of a kind")
    style.tidy(left)

    positive = np.append(np.zeros(len(known), dtype=bool), np.ones(len(unknown), dtype=bool))
    curve = ranking_curves(positive, both)
    if curve is None:
        style.say(right, "no ROC curve:\nneeds known and unknown wafers")
        return figure
    right.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=":")
    drawn = right.plot(curve.false_positive_rate, curve.true_positive_rate, color=style.INK, linewidth=1.6, gid="roc")
    point = right.plot([0.05], [1 - fpr], "o", color=style.VERMILION, zorder=3)
    operating = f"{100 * fpr:.1f} % of unknown missed\nat 5 % of known flagged"
    style.legend(right, [*drawn, *point], [f"AUROC {auroc:.3f}", operating])
    right.set_xlim(-0.02, 1.02)
    right.set_ylim(-0.02, 1.02)
    right.set_xlabel("known wafers flagged")
    right.set_ylabel("unknown wafers flagged")
    style.tidy(right)
    return figure
