"""Conformal prediction sets: as many classes as it takes to hold the true one with a promised probability.

Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005; Angelopoulos and Bates, "A gentle introduction
to conformal prediction", arXiv:2107.07511, 2021. The promise holds for wafers drawn as those fitted on were, whatever
the model; it is one on average over val sets, and not one for wafers of new lots or new patterns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["marginal", "class"]


@dataclass(frozen=True)
class Conformal:
    """Thresholds of prediction sets.

    Attributes:
        coverage: what was promised, in (0, 1).
        mode: `marginal` (one threshold, the coverage holds over all wafers) or `class` (one each, it holds for each
            class or label).
        thresholds: C, in [0, 1]: class k is in the set where 1 - p_k is at most thresholds[k].
        always: indices of the classes that are in every set, for want of wafers to fit on.
    """

    coverage: float
    mode: Mode
    thresholds: tuple[float, ...]
    always: tuple[int, ...]

    def sets(self, probabilities: NDArray[Any]) -> NDArray[np.bool_]:
        """The sets of (N, C) probabilities: (N, C) bool."""
        return conformal_sets(probabilities, self.thresholds)


@dataclass(frozen=True)
class Coverage:
    """What prediction sets turn out to hold.

    Attributes:
        overall: share of wafers whose class is in their set; multi-label, of the labels that are present.
        per_class: (C,) the same, wafer by wafer of each class; nan where it does not occur.
        mean_size: mean number of classes in a set.
        singletons: share of the sets with exactly one class.
        empty: share of the sets with none.
    """

    overall: float
    per_class: NDArray[np.float64]
    mean_size: float
    singletons: float
    empty: float


def fit_conformal(
    probabilities: NDArray[Any], target: NDArray[Any], coverage: float, mode: Mode = "marginal"
) -> Conformal:
    """Split conformal prediction with the score 1 - p_true.

    The threshold is the ceil((n + 1) * coverage)-th smallest of n scores. Where n is too small for that, it is 1.

    Args:
        probabilities: (N, C), of wafers that neither the model nor its calibration was fitted on.
        target: (N,) class indices, or (N, C) of 0/1: then every label that is present counts.
        coverage: in (0, 1).
        mode: see `Conformal`.
    """
    classes = probabilities.shape[1]
    present = _present(target, classes)
    scores = 1.0 - np.asarray(probabilities, dtype=np.float64)
    if mode == "class":
        found = [_quantile(scores[present[:, k], k], coverage) for k in range(classes)]
    else:
        found = [_quantile(scores[present], coverage)] * classes
    always = tuple(k for k, threshold in enumerate(found) if threshold is None)
    return Conformal(coverage, mode, tuple(1.0 if one is None else one for one in found), always)


def conformal_sets(probabilities: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Which classes are in each wafer's set.

    Args:
        probabilities: (N, C).
        thresholds: C, as in `Conformal`.

    Returns:
        (N, C) bool.
    """
    return np.asarray(1.0 - np.asarray(probabilities, dtype=np.float64) <= np.asarray(thresholds), dtype=bool)


def measure(sets: NDArray[np.bool_], target: NDArray[Any]) -> Coverage:
    """Compare (N, C) sets with the truth, (N,) class indices or (N, C) of 0/1."""
    present = _present(target, sets.shape[1])
    held, count, size = (sets & present).sum(axis=0), present.sum(axis=0), sets.sum(axis=1)
    per_class = np.full(sets.shape[1], np.nan)
    np.divide(held, count, out=per_class, where=count > 0)
    return Coverage(
        overall=float(held.sum() / count.sum()) if count.any() else math.nan,
        per_class=per_class,
        mean_size=float(size.mean()),
        singletons=float((size == 1).mean()),
        empty=float((size == 0).mean()),
    )


def _present(target: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(N, C) bool, what is true of each wafer."""
    return np.asarray(target == 1 if target.ndim == 2 else target[:, None] == np.arange(classes), dtype=bool)


def _quantile(scores: NDArray[np.float64], coverage: float) -> float | None:
    # The small number undoes what rounding adds to a product that is whole, such as 0.7 * 10.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return None if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])
