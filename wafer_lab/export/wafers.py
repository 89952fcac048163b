"""Single wafers as a line drops them: what is one, what is wrong with it, and how it is drawn; numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError

_MOST_STATE = 3


def as_states(array: NDArray[Any]) -> NDArray[np.uint8]:
    """One wafer map as die states.

    Args:
        array: (H, W) of 0 off-wafer, 1 pass, 2 fail, of any type of number; 3 is read as 2, as in MixedWM38.

    Returns:
        (H, W) uint8 of 0, 1, 2.

    Raises:
        UserError: It is no such map, or there is no die on it.
    """
    if array.ndim != 2 or array.dtype.kind not in "uifb":
        raise UserError(f"{array.dtype} of shape {array.shape} is no wafer map; one is (H, W) of 0, 1, 2")
    if not array.any():
        raise UserError("the map holds no die, so there is nothing to judge")
    wrong = ~((array >= 0) & (array <= _MOST_STATE))  # NaN is neither
    if array.dtype.kind == "f" and not wrong.any():
        wrong = array != np.floor(array)
    if wrong.any():
        raise UserError(
            f"the map holds the value {array[wrong][0]:g}; die states are 0 (off-wafer), 1 (pass) and 2 (fail)"
        )
    return np.minimum(array.astype(np.uint8, copy=False), 2)


def as_grey(array: NDArray[Any]) -> NDArray[np.uint8]:
    """One image as grey levels.

    Args:
        array: (H, W) uint8.

    Raises:
        UserError: It is no such image.
    """
    if array.ndim != 2 or array.dtype != np.uint8 or not array.size:
        raise UserError(f"{array.dtype} of shape {array.shape} is no grey image; one is (H, W) uint8")
    return array


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
    return states[rows[:, None], columns]


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
