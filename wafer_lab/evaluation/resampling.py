"""Bootstrap resamples as weights of wafers, or of whole lots."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Fewer lots say nothing of how lots vary.
_FEWEST_LOTS = 20


def several_lots(lot: NDArray[np.str_] | None) -> bool:
    """Whether wafers come from so many lots that lots can be drawn; a wafer without a lot name is a lot of its own.

    Where no wafer has a name, as in a file with an empty column, nothing is known of lots.
    """
    if lot is None or not (named := lot != "").any():
        return False
    return len(np.unique(lot[named])) + int((~named).sum()) >= _FEWEST_LOTS


def group_numbers(lot: NDArray[np.str_] | None, wafers: int) -> NDArray[np.intp]:
    """(N,) which group each wafer is drawn with."""
    if lot is not None and np.shape(lot) != (wafers,):
        raise ValueError(f"lot has shape {np.shape(lot)}, expected ({wafers},)")
    if lot is None or not several_lots(lot):
        return np.arange(wafers)
    known = lot != ""
    names, member = np.unique(lot[known], return_inverse=True)
    group = np.empty(wafers, dtype=np.intp)
    group[known] = member
    group[~known] = len(names) + np.arange(wafers - known.sum())
    return group


def summed(statistics: NDArray[Any], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """(G, S) sums of (N, S) statistics over each group."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.asarray(np.add.reduceat(statistics[order].astype(np.float64), starts, axis=0))


def draw_weights(groups: int, seed: int, draws: range) -> NDArray[np.uint8]:
    """(R, G) how often each group was drawn; each draw has its own generator, so none depends on the others."""
    weights = np.empty((len(draws), groups), dtype=np.uint8)
    for row, draw in enumerate(draws):
        drawn = np.random.default_rng((seed, draw)).integers(0, groups, groups, dtype=np.int32)
        # One of more than 255 groups is drawn more than 255 times in 1 of 10^500 resamples.
        weights[row] = np.bincount(drawn, minlength=groups)
    return weights
