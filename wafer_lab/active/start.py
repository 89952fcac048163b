"""The wafers that are labelled first, before there is a model to ask."""

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError


def start(label: NDArray[np.integer], count: int, balanced: bool, seed: int) -> NDArray[np.int64]:
    """Choose the first wafers at random.

    Args:
        label: (N,) class indices or (N, C) of 0/1.
        count: How many.
        balanced: Whether every class that occurs, or every label, stands among them at least once; the others are
            drawn at random, as classes occur.
        seed: Of the draw.

    Returns:
        (count,) sorted positions.

    Raises:
        UserError: There are fewer wafers, or fewer are asked for than it takes to have one of every class.
    """
    if count > len(label):
        raise UserError(f"workflow.start={count} is more than the {len(label)} training wafers; start with fewer")
    order = np.random.default_rng(seed).permutation(len(label))
    has = label[:, None] == np.unique(label) if label.ndim == 1 else label == 1
    has = has[order]
    chosen = np.zeros(len(label), dtype=bool)
    if balanced:
        for k in np.argsort(has.sum(0), kind="stable"):  # a rare label first: its wafer may have others too
            if has[:, k].any() and not has[chosen, k].any():
                chosen[has[:, k].argmax()] = True
        if (found := int(chosen.sum())) > count:
            raise UserError(
                f"workflow.start={count} is too few for one wafer of every class, which takes {found}; start with "
                "more, or set workflow.balanced=false"
            )
    rest = np.flatnonzero(~chosen)[: count - chosen.sum()]
    chosen[rest] = True
    return np.sort(order[chosen]).astype(np.int64)
