"""How differently the members of an ensemble answer.

Kuncheva and Whitaker, "Measures of diversity in classifier ensembles and their relationship with the ensemble
accuracy", Machine Learning 51, 2003.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.settings import TargetKind


@dataclass(frozen=True)
class Diversity:
    """Two members compared on N wafers.

    Attributes:
        disagreement: share of wafers on which they decide differently; multi-label, in any label.
        correlation: of their being right, in [-1, 1]; 0 where one of them is always, or never, right.
        q: Yule's Q of their being right: 1 where one's errors are among the other's, 0 where errors are independent.
        js: mean Jensen-Shannon divergence of their probabilities, in nats, 0 to log 2; multi-label, mean over labels.
    """

    disagreement: float
    correlation: float
    q: float
    js: float


def diversity(
    decisions: tuple[NDArray[Any], NDArray[Any]],
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    probabilities: tuple[NDArray[Any], NDArray[Any]],
    target_kind: TargetKind,
) -> Diversity:
    """Compare two members.

    Args:
        decisions: of both, (N,) classes or (N, C) labels.
        right: (N,) whether each was exactly right.
        probabilities: (N, C).
        target_kind: `multiclass` or `multilabel`.
    """
    differ = decisions[0] != decisions[1]
    share = float((differ.any(axis=1) if differ.ndim == 2 else differ).mean())
    a, b = right
    both, neither = float((a & b).sum()), float((~a & ~b).sum())
    first, second = float((a & ~b).sum()), float((~a & b).sum())
    margins = (both + first) * (both + second) * (neither + first) * (neither + second)
    agree, cross = both * neither - first * second, both * neither + first * second
    return Diversity(
        disagreement=share,
        correlation=agree / margins**0.5 if margins else 0.0,
        q=agree / cross if cross else 0.0,
        js=float(js_divergence(*probabilities, target_kind).mean()),
    )


def js_divergence(p: NDArray[Any], q: NDArray[Any], target_kind: TargetKind) -> NDArray[np.float64]:
    """(N,) Jensen-Shannon divergence of two (N, C) tables of probabilities, in nats; multi-label, mean over labels."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if target_kind == "multilabel":
        return np.asarray((_terms(p, q) + _terms(1 - p, 1 - q)).mean(axis=1))
    return np.asarray(_terms(p, q).sum(axis=1))


def _terms(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each probability adds: half p log(p / m) and half q log(q / m), m their mean."""
    middle = (p + q) / 2
    parts = np.zeros_like(middle)
    for one in (p, q):
        ratio = np.divide(one, middle, out=np.ones_like(middle), where=middle > 0)
        parts += 0.5 * one * np.log(np.where(ratio > 0, ratio, 1.0))
    return parts
