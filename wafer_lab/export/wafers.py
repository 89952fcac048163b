"""Drawing maps on canvases, and what a network saw back on the dies; numpy only."""

import numpy as np
from numpy.typing import NDArray


def draw(states: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Draw a map on a square canvas as `wafer_lab.data.canvas.render` does: the die under each pixel's centre.

    A canvas is drawn on a canvas of its own size as it is, so a graph gives the same answer for either.

    Args:
        states: (H, W) uint8.
        size: Side S of the canvas.

    Returns:
        (S, S) uint8.
    """
    height, width = states.shape
    pixel = 2 * np.arange(size) + 1
    rows, columns = pixel * height // (2 * size), pixel * width // (2 * size)
    return np.asarray(states[rows[:, None], columns])


def enlarge(maps: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """Enlarge maps of (C, h, w) to (C, side, side): bilinear between the centres of cells, constant beyond them."""
    return np.asarray(np.einsum("ih,chw,jw->cij", _between(maps.shape[1], side), maps, _between(maps.shape[2], side)))


def _between(cells: int, side: int) -> NDArray[np.float64]:
    """(side, cells): how much of each cell a place takes."""
    place = np.clip((np.arange(side) + 0.5) * cells / side - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(np.int64), cells - 1)
    part = place - low
    weights = np.zeros((side, cells))
    weights[np.arange(side), low] = 1 - part
    weights[np.arange(side), np.minimum(low + 1, cells - 1)] += part
    return weights
