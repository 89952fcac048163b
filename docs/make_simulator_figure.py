"""Draw docs/figures/simulated_beside_real.png: per class, real wafers left and simulated ones right.

    python docs/make_simulator_figure.py SAMPLE.npz

The sample holds labelled WM-811K wafers: `cells` (all maps' die states end to end), `shape` (N, 2), `label` (N,) and
`class_names`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.simulator import Simulator

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).parent / "figures" / "simulated_beside_real.png"
COLOURS = ("#f1f1f1", "#f8e0b0", "#0b3c6f")  # apart in lightness, so that any colour vision tells them
STATES = ("off the wafer", "pass", "fail")
PER_CLASS = 5
SOURCE = (
    "Real maps: WM-811K, © 2015 Jyh-Shing Roger Jang; Wu, Jang and Chen,\n"
    "IEEE Trans. Semiconductor Manufacturing 28(1), 2015.\n"
    "Both sides are drawn at random among maps of 28 to 64 dies a side."
)


def usable(height: int, width: int) -> bool:
    """Grids fine enough to show a pattern, coarse enough to show dies."""
    return min(height, width) >= 28 and max(height, width) <= 64


def real_maps(path: Path, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Random real maps of every class."""
    with np.load(path) as sample:
        cells, shape, label = sample["cells"], sample["shape"].astype(int), sample["label"]
        names = [str(name) for name in sample["class_names"]]
    ends = np.cumsum(shape.prod(axis=1))
    good = np.array([usable(*pair) for pair in shape.tolist()])
    return {
        name: [
            cells[ends[i] - shape[i].prod() : ends[i]].reshape(shape[i])
            for i in rng.permutation(np.flatnonzero(good & (label == names.index(name))))[:PER_CLASS]
        ]
        for name in WM811K_CLASSES
    }


def simulated_maps(seed: int) -> dict[str, list[np.ndarray]]:
    """Simulated maps of every class, one wafer per lot."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in WM811K_CLASSES}
    for rows in Simulator(num_wafers=900, class_frequencies="uniform", wafers_per_lot=1, seed=seed).rows():
        ends = np.cumsum(rows.height * rows.width)
        for label, height, width, end in zip(rows.label, rows.height, rows.width, ends, strict=True):
            maps = found[WM811K_CLASSES[label]]
            if len(maps) < PER_CLASS and usable(height, width):
                maps.append(rows.cells[end - height * width : end].reshape(height, width))
    return found


def draw(real: dict[str, list[np.ndarray]], simulated: dict[str, list[np.ndarray]]) -> None:
    """Write the figure, a row per class."""
    figure, axes = plt.subplots(
        len(WM811K_CLASSES),
        2 * PER_CLASS + 1,
        figsize=(11.2, 10.6),
        gridspec_kw={"width_ratios": [1] * PER_CLASS + [0.25] + [1] * PER_CLASS, "wspace": 0.06, "hspace": 0.06},
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    for row, name in zip(axes, WM811K_CLASSES, strict=True):
        row[0].text(-0.1, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=13)
        for side, maps in ((row[:PER_CLASS], real[name]), (row[PER_CLASS + 1 :], simulated[name])):
            for axis, cells in zip(side, maps, strict=True):
                axis.imshow(cells, cmap=ListedColormap(COLOURS), vmin=0, vmax=2, aspect="auto", interpolation="none")
    for column, title in ((PER_CLASS // 2, "real (WM-811K)"), (PER_CLASS + 1 + PER_CLASS // 2, "simulated")):
        axes[0, column].set_title(title, fontsize=14, pad=8)
    figure.subplots_adjust(left=0.1, right=0.99, top=0.905, bottom=0.085)
    figure.suptitle("Simulated wafer maps beside real ones, five of each class", fontsize=16, y=0.98)
    patches = [Patch(facecolor=c, edgecolor="#888888", label=s) for c, s in zip(COLOURS, STATES, strict=True)]
    figure.legend(handles=patches, ncols=3, loc="lower left", bbox_to_anchor=(0.095, 0.012), frameon=False, fontsize=12)
    figure.text(0.99, 0.015, SOURCE, ha="right", fontsize=9, color="#444444")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=100)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sample", type=Path, help="labelled WM-811K maps, an .npz file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw(real_maps(arguments.sample, np.random.default_rng(arguments.seed)), simulated_maps(arguments.seed))
    print(f"{FIGURE}: {FIGURE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
