"""The numbers behind the curves, on numpy arrays: ranking curves, binned frequencies, intervals of shares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.metrics.ranking import ranking_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankingCurves:
    """What every threshold on a score gives, from calling nothing to calling everything.

    Attributes:
        false_positive_rate: (K + 1,) rising from 0 to 1; K distinct scores.
        true_positive_rate: (K + 1,) rising from 0 to 1; also the recall.
        precision: (K + 1,); the first, of no call at all, is 1 by convention.
        auroc: area under true against false positive rate; ties count half.
        average_precision: sum of precision times the gain in recall.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    precision: Floats
    auroc: float
    average_precision: float


def ranking_curves(positive: NDArray[Any], score: NDArray[Any]) -> RankingCurves | None:
    """The ranking curves of N scores, or None where there are no positives or no negatives.

    Args:
        positive: (N,) bool.
        score: (N,), higher for positives.
    """
    positive = np.asarray(positive, dtype=bool)
    if not 0 < positive.sum() < len(positive):
        return None
    score = np.asarray(score, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    sorted_score = score[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(sorted_score)), len(order) - 1)
    hits = np.append(0, np.cumsum(positive[order])[last_of_tie]).astype(np.float64)
    called = np.append(0, last_of_tie + 1).astype(np.float64)
    recall, false = hits / hits[-1], (called - hits) / (called[-1] - hits[-1])
    precision = np.append(1.0, hits[1:] / called[1:])
    return RankingCurves(false, recall, precision, *ranking_scores(score, positive))


def one_against_rest(target: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """(N,) whether each wafer is, or has, class k; target is (N,) indices or (N, C) of 0/1."""
    return np.asarray(target == k if target.ndim == 1 else target[:, k] == 1)


def claims(probabilities: NDArray[Any], target: NDArray[Any], target_kind: str) -> tuple[Floats, NDArray[np.bool_]]:
    """Stated probabilities and whether each came true: of the top class, or of every label of every wafer.

    Args:
        probabilities: (N, C).
        target: (N,) class indices or (N, C) of 0/1.
        target_kind: ``multiclass`` or ``multilabel``.

    Returns:
        (N,) each where multiclass, (N * C,) where multilabel.
    """
    if target_kind == "multilabel":
        return np.asarray(probabilities, np.float64).ravel(), np.asarray(target == 1).ravel()
    return np.asarray(probabilities.max(axis=1), np.float64), np.asarray(probabilities.argmax(axis=1) == target)


def binned(stated: Floats, happened: NDArray[np.bool_], bins: int) -> tuple[Floats, Floats, Floats]:
    """Mean stated probability, frequency and count in equal bins (low, high]; nan for the means of an empty one."""
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], stated, side="left")
    count = np.bincount(place, minlength=bins).astype(np.float64)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (stated, happened)]
    means = [np.divide(each, count, out=np.full(bins, np.nan), where=count > 0) for each in sums]
    return means[0], means[1], count
