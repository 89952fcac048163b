"""How far probabilities can be trusted: calibration errors and proper scores, on numpy arrays.

Every function takes probabilities (N, C) with either class indices (N,), multi-class, or 0/1 labels (N, C),
multi-label. A multi-label wafer is C separate yes-or-no questions, and a single number pools them all.

Each score is a mean over wafers, or bins of such means, so it comes in two halves: the `*_terms` that each wafer
adds, which a bootstrap re-weights (`wafer_lab.evaluation.intervals`), and the score of all wafers, each once.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Spacing = Literal["width", "mass"]
Floats = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


def expected_calibration_error(
    probabilities: NDArray[Any], target: NDArray[Any], bins: int = 15, spacing: Spacing = "width"
) -> float:
    """Expected calibration error (ECE): how far confidence is from the share that is right, on average.

    Multi-class: of the most probable class. Multi-label: of every label's probability, all labels pooled.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, has 15 bins of equal width, (low, high];
    Nguyen and O'Connor, EMNLP 2015, bins of equal mass.

    Args:
        probabilities: (N, C) in [0, 1].
        target: (N,) class indices or (N, C) labels of 0/1.
        bins: how many.
        spacing: "width" for bins of equal width in [0, 1]; "mass" for as many wafers in each. Equal confidences
            always share a bin, so where many are equal there are fewer bins of unequal mass.

    Returns:
        In [0, 1]; 0 is best. With few wafers a bin it is biased upwards: see `evaluation.intervals`.

    Raises:
        ValueError: the shapes do not fit, or there are no wafers.
    """
    gaps = calibration_terms(probabilities, target, bins, spacing)
    return float(np.abs(gaps.sum(0)).sum() / len(gaps))


def calibration_terms(
    probabilities: NDArray[Any], target: NDArray[Any], bins: int = 15, spacing: Spacing = "width"
) -> Floats:
    """What each wafer adds to the bins of the ECE: confidence minus correctness, in the bin of the confidence.

    Returns:
        (N, bins); the ECE is the sum over bins of the absolute value of their mean over wafers. Multi-label rows
        hold the mean over labels.
    """
    p, y = _checked(probabilities, target)
    if np.ndim(target) == 1:
        top = p.argmax(axis=1)[:, None]
        p, y = np.take_along_axis(p, top, axis=1), np.take_along_axis(y, top, axis=1)
    edges = _edges(p, bins, spacing)
    return np.asarray(sum(_binned(p[:, k], y[:, k], edges) for k in range(p.shape[1])) / p.shape[1])


def classwise_calibration_error(probabilities: NDArray[Any], target: NDArray[Any], bins: int = 15) -> float:
    """Calibration error of every class's probability in equal-width bins, averaged over classes.

    The mean is over the classes that occur in the target: one that a small test set lacks is easily given a
    probability near 0, and would flatter the rest.

    Kull et al., "Beyond temperature scaling", NeurIPS 2019.

    Args:
        probabilities: (N, C) in [0, 1].
        target: (N,) class indices or (N, C) labels of 0/1.
        bins: how many, of equal width.

    Returns:
        In [0, 1]; 0 is best; 0 where no class occurs.

    Raises:
        ValueError: the shapes do not fit, or there are no wafers.
    """
    errors = np.abs(classwise_terms(probabilities, target, bins).mean(0)).sum(-1)
    occurs = _checked(probabilities, target)[1].any(0)
    return float(errors[occurs].mean()) if occurs.any() else 0.0


def classwise_terms(probabilities: NDArray[Any], target: NDArray[Any], bins: int = 15) -> Floats:
    """What each wafer adds to the bins of every class: (N, C, bins), see `calibration_terms`."""
    p, y = _checked(probabilities, target)
    edges = _edges(p, bins, "width")
    return np.stack([_binned(p[:, k], y[:, k], edges) for k in range(p.shape[1])], axis=1)


def brier(probabilities: NDArray[Any], target: NDArray[Any]) -> float:
    """Brier score: the mean squared distance of the probabilities from what is true.

    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78(1), 1950.

    Args:
        probabilities: (N, C) in [0, 1].
        target: (N,) class indices or (N, C) labels of 0/1.

    Returns:
        Multi-class: the sum over classes, in [0, 2]. Multi-label: the mean over labels, in [0, 1]. 0 is best.

    Raises:
        ValueError: the shapes do not fit, or there are no wafers.
    """
    return float(brier_terms(probabilities, target).mean())


def brier_terms(probabilities: NDArray[Any], target: NDArray[Any]) -> Floats:
    """The squared distance of each wafer, (N,); `brier` is its mean."""
    p, y = _checked(probabilities, target)
    squares = np.square(p - y)
    return np.asarray(squares.sum(axis=1) if np.ndim(target) == 1 else squares.mean(axis=1))


def nll(probabilities: NDArray[Any], target: NDArray[Any]) -> float:
    """Negative log-likelihood in nats: minus the mean log probability of what is true.

    Probabilities are clipped to [eps, 1 - eps] with float64's eps, 2.2e-16, so that one wafer that was called
    impossible costs 36 nats and not infinitely many.

    Args:
        probabilities: (N, C) in [0, 1].
        target: (N,) class indices or (N, C) labels of 0/1.

    Returns:
        0 or more; 0 is best. Multi-label: the mean over labels.

    Raises:
        ValueError: the shapes do not fit, or there are no wafers.
    """
    return float(nll_terms(probabilities, target).mean())


def nll_terms(probabilities: NDArray[Any], target: NDArray[Any]) -> Floats:
    """The negative log-likelihood of each wafer, (N,); `nll` is its mean."""
    p, y = _checked(probabilities, target)
    p = np.clip(p, _EPS, 1 - _EPS)
    if np.ndim(target) == 1:
        return np.asarray(-np.log(np.take_along_axis(p, np.asarray(target)[:, None], axis=1)[:, 0]))
    return np.asarray(-np.where(y, np.log(p), np.log1p(-p)).mean(axis=1))


def _checked(probabilities: NDArray[Any], target: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Probabilities as float64 and the target as (N, C) truths."""
    p, target = np.asarray(probabilities, dtype=np.float64), np.asarray(target)
    if p.ndim != 2 or target.shape not in (p.shape[:1], p.shape):
        raise ValueError(f"a target of shape {target.shape} does not fit probabilities of shape {p.shape}")
    if not len(p):
        raise ValueError("there are no wafers to score")
    return p, target > 0 if target.ndim == 2 else target[:, None] == np.arange(p.shape[1])


def _edges(values: Floats, bins: int, spacing: Spacing) -> Floats:
    """The inner edges of the bins, (bins - 1,)."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.asarray(inner if spacing == "width" else np.quantile(values, inner, method="inverted_cdf"))


def _binned(p: Floats, y: NDArray[np.bool_], edges: Floats) -> Floats:
    terms = np.zeros((len(p), len(edges) + 1))
    terms[np.arange(len(p)), np.searchsorted(edges, p, side="left")] = p - y
    return terms
