"""Wafers to try a model on: the simulator's, the same every time."""

import numpy as np
from numpy.typing import NDArray

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
    found: dict[str, NDArray[np.uint8]] = {}
    for rows in source.rows():
        assert rows.cells is not None
        ends = np.cumsum(rows.height.astype(np.int64) * rows.width)
        for i, label in enumerate(rows.label):
            name = _name(label, source.class_names)
            if name and name not in found:
                start = ends[i] - rows.height[i] * rows.width[i]
                found[name] = rows.cells[start : ends[i]].reshape(rows.height[i], rows.width[i])
    return {name: found[name] for name in (*source.class_names, _NORMAL) if name in found}


def _name(label: NDArray[np.integer], class_names: tuple[str, ...]) -> str:
    """The class of a label, or of labels the one that there is; empty where there are several."""
    if np.ndim(label) == 0:
        return class_names[int(label)]
    here = np.flatnonzero(label)
    return "" if len(here) > 1 else class_names[here[0]] if len(here) else _NORMAL
