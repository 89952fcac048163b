"""The colours of single wafers, in figures and in the demo; numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Die state (0 off-wafer, 1 pass, 2 fail) -> its colour as a person writes it.
LEGEND = {"off-wafer": "#FFFFFF", "pass": "#CFD6DD", "fail": "#16243A"}


def _rgb(colours: Any) -> NDArray[np.float64]:
    return np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])


# Off the wafer, pass, fail: without heat and in full heat. Pass and fail are far apart in lightness in both, and
# heat turns blue-greys to oranges, so that any colour vision tells all four.
COLD = _rgb(LEGEND.values())
HOT = _rgb(("#FFD79A", "#FFA01E", "#A02C00"))


def colours(image: NDArray[Any], heat: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """(H, W, 3) colours in [0, 1] of die states (`maps`) or grey levels (`images`) under an (H, W) heat in [0, 1]."""
    weight = heat[..., None]
    if kind == "maps":
        states = np.clip(image, 0, 2).astype(int)
        return np.asarray(COLD[states] * (1 - weight) + HOT[states] * weight)
    grey = np.repeat(image[..., None] / 255.0, 3, axis=-1)
    return np.asarray(grey * (1 - 0.65 * weight) + HOT[1] * 0.65 * weight)
