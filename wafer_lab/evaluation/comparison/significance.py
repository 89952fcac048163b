"""Tests and intervals of differences between models that were judged on the same wafers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.95
# A bootstrap p-value is at least 2 / (R + 1). With R this many times the tests, Holm's correction can still find one.
_RESAMPLES_PER_TEST = 80


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


def resamples_for(tests: int, least: int) -> int:
    """How many bootstrap resamples it takes for Holm's correction over so many tests to be able to find one."""
    return max(least, _RESAMPLES_PER_TEST * tests)


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


def over_runs(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over training runs, by Student's t: it covers other runs, not other test wafers.

    Args:
        values: a score, or a difference, of each of n runs; nan bounds for one run.

    Returns:
        Low and high.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    reach = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


# Of 1 to 9 degrees of freedom.
_T = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216)
_Z = 1.959964


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; the expansion is Fisher and Cornish's, Technometrics 2, 1960, to 2e-4."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = _Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def two_sided(draws: NDArray[np.float64]) -> float:
    """The p-value that goes with the percentile interval of a difference: it is below 0.05 where that leaves out 0.

    Twice the share of draws on the side of 0 with fewer; one is added to their count, so it is never 0.

    Args:
        draws: (R,) bootstrap draws of the difference; nan where a resample does not define it.
    """
    draws = draws[~np.isnan(draws)]
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))
