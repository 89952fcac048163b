"""One wafer as an array: what is one, and what is wrong with it; numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.rows import FAIL
from wafer_lab.errors import UserError

_MOST_STATE = 3


def as_states(array: NDArray[Any]) -> NDArray[np.uint8]:
    """One wafer map as die states.

    Args:
        array: (H, W) of 0 off-wafer, 1 pass, 2 fail, of any type of number; 3 is read as 2, as in MixedWM38.

    Returns:
        (H, W) uint8 of 0, 1, 2.

    Raises:
        UserError: It is no such map.
    """
    if array.ndim != 2 or array.dtype.kind not in "uifb" or not array.size:
        raise UserError(f"it holds {array.dtype} of shape {array.shape}; a wafer map is (H, W) of 0, 1, 2")
    wrong = ~((array >= 0) & (array <= _MOST_STATE))  # NaN is neither
    if array.dtype.kind == "f" and not wrong.any():
        wrong = array != np.floor(array)
    if wrong.any():
        raise UserError(f"it holds the value {array[wrong][0]:g}; die states are 0 (off-wafer), 1 (pass) and 2 (fail)")
    return np.minimum(array.astype(np.uint8, copy=False), np.uint8(FAIL))


def as_grey(array: NDArray[Any]) -> NDArray[np.uint8]:
    """One image as grey levels.

    Args:
        array: (H, W) uint8.

    Raises:
        UserError: It is no such image.
    """
    if array.ndim != 2 or array.dtype != np.uint8 or not array.size:
        raise UserError(f"it holds {array.dtype} of shape {array.shape}; a grey image is (H, W) uint8")
    return array


def check_dies(states: NDArray[np.uint8]) -> None:
    """Refuse a map on which there is nothing to judge.

    Raises:
        UserError: No die is on it.
    """
    if not states.any():
        raise UserError("no die is on it: every cell is 0 (off-wafer)")
