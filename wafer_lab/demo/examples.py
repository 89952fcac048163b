"""Wafers to try a model on: the simulator's, the same every time."""

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.rows import FAIL
from wafer_lab.data.simulator import Simulator
from wafer_lab.evaluation.predictions import TargetKind

_WAFERS = {"multiclass": 90, "multilabel": 380}
# Of about the size of WM-811K's, with few random defects: people shall see the pattern.
_SEED, _SHAPE, _DEFECTS, _LOT = 0, (37, 37), (20.0, 40.0), 5
_NORMAL = "none"


def simulated_examples(target_kind: TargetKind) -> dict[str, NDArray[np.uint8]]:
    """One simulated wafer per class: name -> (H, W) uint8 die states.

    Args:
        target_kind: Of the model: WM-811K's nine classes, or MixedWM38's eight patterns, each alone, and `none`.
    """
    frequencies = "uniform" if target_kind == "multiclass" else None
    source = Simulator(
        _WAFERS[target_kind],
        target_kind,
        frequencies,
        _SEED,
        wafers_per_lot=_LOT,
        random_defects=_DEFECTS,
        shape=_SHAPE,
    )
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for rows in source.rows():
        assert rows.cells is not None
        for label, states in zip(rows.label, rows.cells.reshape(-1, *_SHAPE), strict=True):
            found.setdefault(_name(label, source.class_names), []).append(states)
    return {name: _middle(found[name]) for name in (*source.class_names, _NORMAL) if name in found}


def _middle(maps: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The map of the median number of failing dies: neither the faintest nor the worst of its class."""
    return sorted(maps, key=lambda states: int((states == FAIL).sum()))[len(maps) // 2]


def _name(label: NDArray[np.integer], class_names: tuple[str, ...]) -> str:
    """The class of a label, or of labels the one that there is; empty where there are several."""
    if np.ndim(label) == 0:
        return class_names[int(label)]
    here = np.flatnonzero(label)
    return "" if len(here) > 1 else class_names[here[0]] if len(here) else _NORMAL
