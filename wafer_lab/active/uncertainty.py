"""How unsure a model is of each wafer: pure functions of probabilities; the higher, the more there is to learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def entropy(probabilities: NDArray[Any], target: str) -> Floats:
    """Entropy in nats of what the model says: of the classes, or summed over labels, of each label.

    Args:
        probabilities: (..., C).
        target: `multiclass`: they sum to 1; `multilabel`: each is of a label of its own.

    Returns:
        (...).
    """
    p = np.asarray(probabilities, np.float64)
    summed: Floats = _surprise(p).sum(-1)
    return summed if target == "multiclass" else summed + _surprise(1 - p).sum(-1)


def margin(probabilities: NDArray[Any], target: str) -> Floats:
    """How close the second answer comes to the first: 1 - (p1 - p2); of labels, 1 - 2 |p - 0.5| of the least sure one.

    Args:
        probabilities: (..., C), C at least 2 for `multiclass`.
        target: As for `entropy`.

    Returns:
        (...), in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    if target == "multiclass":
        best = np.partition(p, -2, axis=-1)
        return np.asarray(1 - (best[..., -1] - best[..., -2]))
    return np.asarray(1 - 2 * np.abs(p - 0.5).min(-1))


def bald(members: NDArray[Any], target: str) -> Floats:
    """What the members disagree about: entropy of their mean less their mean entropy (Houlsby et al. 2011, BALD).

    Args:
        members: (M, N, C) probabilities of M networks, or of one under M draws of its dropout (Gal et al. 2017,
            arXiv:1703.02910).
        target: As for `entropy`.

    Returns:
        (N,) nats, 0 where all members say the same.
    """
    members = np.asarray(members, np.float64)
    disagreement: Floats = entropy(members.mean(0), target) - entropy(members, target).mean(0)
    return disagreement


def _surprise(p: Floats) -> Floats:
    """-p log p, 0 at 0."""
    logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -p * logarithm
