"""Draw docs/figures/segmentation_real.png: masks that a model trained on simulated wafers draws on real ones.

    python docs/make_segmentation_figure.py outputs/runs/<run> Wafer_Map_Datasets.npz

Real maps drawn at random, one row each for normal wafers and one, two, three and four patterns. Their labels are
MixedWM38's; the outlines and the names below are what the model says.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from wafer_lab.data.canvas import encode
from wafer_lab.data.rows import FAIL
from wafer_lab.workflows.checkpoint import load_task

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).parent / "figures" / "segmentation_real.png"
PER_ROW = 8
# Okabe and Ito's colours, which colour-blind people can tell apart, in the order of the patterns.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#000000", "#CC79A7", "#8B6F00")
STATES = ListedColormap(("#ffffff", "#e8e8e8", "#9a9a9a"))
SOURCE = "MixedWM38: Wang, Xu, Yang, Zhang and Li, IEEE Trans. Semiconductor Manufacturing 33(4), 2020; maps at random."


def chosen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Random maps (5 * PER_ROW, 52, 52) of none to four patterns, and their labels."""
    with np.load(path) as file:
        maps, label = np.minimum(file["arr_0"], FAIL).astype(np.uint8), file["arr_1"]
    rng, count = np.random.default_rng(7), label.sum(axis=1)
    rows = np.concatenate([rng.permutation(np.flatnonzero(count == k))[:PER_ROW] for k in range(5)])
    return maps[rows], label[rows]


def words(names: tuple[str, ...], there: np.ndarray) -> str:
    """Names of the patterns of a wafer, two to a line."""
    held = [name for name, yes in zip(names, there, strict=True) if yes] or ["none"]
    return "\n".join(" + ".join(held[k : k + 2]) for k in range(0, len(held), 2))


def main() -> None:
    """Load the run, ask it about the maps, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("mixedwm38", type=Path)
    arguments = parser.parse_args()
    loaded = load_task(arguments.run)
    names = tuple(loaded.record["class_names"])
    maps, label = chosen(arguments.mixedwm38)
    side, canvas = maps.shape[1], loaded.config.data.canvas
    pixel = (2 * np.arange(canvas) + 1) * side // (2 * canvas)  # nearest die, as in training
    states = torch.from_numpy(maps[:, pixel][:, :, pixel])
    with torch.inference_mode():
        logits = loaded.network(encode(states, loaded.config.data.encoding))
        seen = loaded.predictor.decision(
            loaded.predictor.probabilities(loaded.network.image_logits(logits).numpy()[:, None])
        )
    masks = (logits > 0).numpy()
    figure, axes = plt.subplots(5, PER_ROW, figsize=(15, 12))
    for axis, shown, drawn, true, said in zip(axes.flat, states.numpy(), masks, label, seen, strict=True):
        axis.imshow(shown, cmap=STATES, vmin=0, vmax=FAIL, interpolation="nearest")
        for mask, colour in zip(drawn, COLOURS, strict=True):
            if mask.any():
                axis.contour(np.pad(mask, 1)[1:-1, 1:-1], levels=[0.5], colors=colour, linewidths=1.8)
        axis.set_title(f"label: {words(names, true)}", fontsize=7.5)
        axis.set_xlabel(
            f"masks: {words(names, said)}", fontsize=7.5, color="black" if (true == said).all() else "#B22222"
        )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    handles = [Line2D([], [], color=colour, lw=2.5, label=name) for colour, name in zip(COLOURS, names, strict=True)]
    figure.legend(handles=handles, loc="lower center", ncols=8, frameon=False, bbox_to_anchor=(0.5, -0.02))
    figure.text(0.5, -0.03, f"{SOURCE} Names in red differ from the label.", ha="center", va="top", fontsize=8)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()
