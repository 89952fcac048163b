"""Tests and intervals of differences between models that were judged on the same wafers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.95


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value that two models are right on equally many wafers.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika
    12, 1947: of the wafers that only one gets right, each model gets half. In whole numbers, so exact for any count.

    Args:
        gained: wafers that only the first gets right.
        lost: wafers that only the second gets right.
    """
    term, tail, flips = 1, 1, gained + lost
    for i in range(min(gained, lost)):
        term = term * (flips - i) // (i + 1)
        tail += term
    return float(min(1.0, 2 * tail / 2**flips))


def merged(p_values: Sequence[float]) -> float:
    """One p-value of several that are not independent, such as those of several seeds on the same wafers.

    Twice their mean is valid whatever the dependence: Vovk & Wang, "Combining p-values via averaging", Biometrika
    107(4), 2020. It is small only if nearly all are. It speaks against all of the hypotheses being true at once.
    """
    return p_values[0] if len(p_values) == 1 else min(1.0, 2 * float(np.mean(p_values)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several: below 0.05, the chance of any false claim among them is below 0.05.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979.
    Valid under any dependence.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def exactly_right(decisions: NDArray[Any], target: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether a wafer's class, or every one of its labels, is right."""
    same = np.asarray(decisions == target)
    return same if same.ndim == 1 else np.asarray(same.all(axis=1))


def estimate(value: float, draws: NDArray[np.float64]) -> tuple[float, float, float]:
    """A value with its 95 % percentile interval.

    Args:
        value: the estimate.
        draws: (R,) bootstrap draws of it; nan where a resample does not define it.
    """
    low, high = np.quantile(draws[~np.isnan(draws)], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(value), float(low), float(high)


def two_sided(draws: NDArray[np.float64]) -> float:
    """The p-value that goes with the percentile interval of a difference: it is below 0.05 where that leaves out 0.

    Twice the share of draws on the side of 0 with fewer; one is added to their count, so it is never 0.

    Args:
        draws: (R,) bootstrap draws of the difference; nan where a resample does not define it.
    """
    draws = draws[~np.isnan(draws)]
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))
