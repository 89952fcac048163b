"""Draw docs/figures/weak_masks.png: real wafers with one pattern each, and the weak masks made of them.

    python docs/make_masks_figure.py WM811K_SAMPLE.npz Wafer_Map_Datasets.npz

The sample holds labelled WM-811K wafers: `cells` (all maps' die states end to end), `shape` (N, 2), `label` (N,) and
`class_names`. The other file is MixedWM38 as distributed, or a part of it.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.rows import FAIL
from wafer_lab.data.weak_masks import region

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).parent / "figures" / "weak_masks.png"
NAMES = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Scratch")
PER_SOURCE = 7
# Off the wafer, pass, fail, and the same two inside a mask; apart in lightness too.
COLOURS = ("#ffffff", "#e4e4e4", "#707070", "#9ecae1", "#08306b")
STATES = ("off the wafer", "pass", "fail", "pass, in the mask", "fail, in the mask")
SOURCE = (
    "WM-811K (left): © 2015 Jyh-Shing Roger Jang; Wu, Jang and Chen, IEEE Trans. Semiconductor Manufacturing 28(1), "
    "2015.\nMixedWM38 (right): Wang, Xu, Yang, Zhang and Li, IEEE Trans. Semiconductor Manufacturing 33(4), 2020. "
    "Maps drawn at random."
)


def wm811k(path: Path, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Random WM-811K maps of each pattern."""
    with np.load(path) as sample:
        cells, shape, label = sample["cells"], sample["shape"].astype(int), sample["label"]
        names = [str(name) for name in sample["class_names"]]
    ends = np.cumsum(shape.prod(axis=1))
    return {
        name: [
            cells[ends[i] - shape[i].prod() : ends[i]].reshape(shape[i])
            for i in rng.permutation(np.flatnonzero(label == names.index(name)))[:PER_SOURCE]
        ]
        for name in NAMES
    }


def mixedwm38(path: Path, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Random MixedWM38 maps that have one pattern only."""
    with np.load(path) as file:
        maps, label = np.minimum(file["arr_0"], FAIL), file["arr_1"]
    alone = label.sum(axis=1) == 1
    return {
        name: list(
            maps[rng.permutation(np.flatnonzero(alone & (label[:, MIXEDWM38_CLASSES.index(name)] == 1)))[:PER_SOURCE]]
        )
        for name in NAMES
    }


def main() -> None:
    """Read both files and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wm811k", type=Path)
    parser.add_argument("mixedwm38", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(5)
    sides = (wm811k(arguments.wm811k, rng), mixedwm38(arguments.mixedwm38, rng))
    figure, axes = plt.subplots(
        len(NAMES),
        2 * PER_SOURCE + 1,
        figsize=(13, 6),
        gridspec_kw={"width_ratios": [1] * PER_SOURCE + [0.25] + [1] * PER_SOURCE, "wspace": 0.06, "hspace": 0.06},
    )
    colours = ListedColormap(COLOURS)
    for axis in axes.ravel():
        axis.set_axis_off()
    for row, name in zip(axes, NAMES, strict=True):
        row[0].text(-0.1, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=11)
        for side, maps in ((row[:PER_SOURCE], sides[0][name]), (row[PER_SOURCE + 1 :], sides[1][name])):
            for axis, cells in zip(side, maps, strict=True):
                inside = region(name, cells[None] == FAIL, cells[None] > 0)[0]
                axis.imshow(cells + 2 * inside, cmap=colours, vmin=0, vmax=4, interpolation="nearest", aspect="auto")
    patches = [
        Patch(facecolor=colour, edgecolor="#888888", label=state) for colour, state in zip(COLOURS, STATES, strict=True)
    ]
    figure.legend(handles=patches, loc="lower center", ncols=5, frameon=False, bbox_to_anchor=(0.5, 0.045))
    figure.text(0.5, 0.045, SOURCE, ha="center", va="top", fontsize=7)
    figure.savefig(FIGURE, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
