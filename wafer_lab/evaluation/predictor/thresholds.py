"""Decision thresholds fitted on labelled probabilities: for macro F1, or for a bound on the escape rate.

A tuned threshold is put midway (geometrically) between two neighbouring scores: every distinct outcome is tried, and
none hangs on the last digit of one wafer's probability.
"""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError

Floats = NDArray[np.float64]

# log of the largest ratio between two classes' thresholds: keeps wafers that no sane threshold moves out of the search.
_SPAN = math.log(1e6)
_TINY = 1e-300
# F1 sums are differences of sums: what is smaller is rounding.
_GAIN = 1e-9
# Log scores closer than this cannot be told apart.
_APART = 1e-9
# Random starts: as many as there is time for, which few wafers need and leave.
_LEAST_STARTS, _MOST_STARTS, _WAFERS_CLIMBED = 3, 20, 20_000


def fit_thresholds(
    probabilities: NDArray[Any], target: NDArray[Any], frozen: Collection[int] = (), seed: int = 0
) -> Floats:
    """Thresholds that maximise macro F1 on labelled wafers, over the classes that occur among them.

    Multi-class, the decision is the argmax of p_k / t_k, so thresholds act together: a wafer that one class gains is
    one that another loses. Coordinate ascent tries every distinct value of one threshold with the others fixed (both
    classes' changed counts enter) until no single change helps, from several starts; the best is kept. The result is
    never worse than argmax on these wafers. Multi-label, the labels do not interact and each optimum is exact.

    Lipton, Elkan, Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", ECML 2014.

    Args:
        probabilities: (N, C) in [0, 1].
        target: (N,) class indices, or (N, C) of 0/1.
        frozen: classes that keep the neutral threshold (that of argmax, or 0.5), as do those that do not occur.
        seed: of the random starts.

    Returns:
        (C,) positive. Multi-class, they sum to 1 (1 / C each is argmax) and none is more than a million times another.
        Multi-label, each lies in (0, 1].
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    if target.ndim == 2:
        labels = range(scores.shape[1])
        found = [0.5 if k in frozen else _best_cut(scores[:, k], target[:, k] == 1) for k in labels]
        return np.asarray(found, dtype=np.float64)
    search = _Search(np.log(np.maximum(scores.T, _TINY)), np.asarray(target, dtype=np.int64), frozen)
    return to_simplex(search.best(np.random.default_rng(seed)))


def to_simplex(log_thresholds: Floats) -> Floats:
    """Thresholds that sum to 1 from their logarithms, which may all be shifted by a constant."""
    thresholds = np.exp(log_thresholds - log_thresholds.max())
    return np.asarray(thresholds / thresholds.sum(), dtype=np.float64)


def fit_recall(defect: NDArray[Any], is_defect: NDArray[Any], max_escape_rate: float) -> float:
    """The largest threshold on the defect probability that keeps the expected escape rate within a bound.

    Conformal risk control: with e of n defects below the threshold, the escape rate of new wafers is at most
    (e + 1) / (n + 1) on average over val sets, if new wafers are drawn as these were (not from new lots, say).

    Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", arXiv:2208.02814, 2022.

    Args:
        defect: (N,) probability that the wafer has a defect.
        is_defect: (N,) bool, whether it has.
        max_escape_rate: in (0, 1).

    Returns:
        t: wafers of defect probability t or more are to be flagged.

    Raises:
        UserError: there are too few defects to promise so small a rate.
    """
    scores = np.sort(np.asarray(defect, dtype=np.float64)[is_defect])
    needed = max(1, math.ceil(1 / max_escape_rate - 1e-9) - 1)
    if len(scores) < needed:
        possible = math.ceil(1e3 / max(1, len(scores))) / 1e3
        raise UserError(
            f"to promise an escape rate of {max_escape_rate:g} takes {needed} val wafers with a defect, a quarter more "
            f"to judge it out of fold, and {len(scores)} are there to fit on; use another evaluation.decision"
            + (f", or raise evaluation.max_escape_rate to {possible:g}" if possible < 1 else "")
        )
    allowed = math.floor(max_escape_rate * (len(scores) + 1) + 1e-9) - 1
    return float(scores[allowed])


def _best_cut(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The threshold of the best F1 of one label; 0.5 where the label never occurs."""
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = np.maximum(scores[order], _TINY)
    f1 = 2 * np.cumsum(positive[order]) / (np.arange(1, len(scores) + 1) + positive.sum())
    below = np.append(ranked[1:], ranked[-1] / 4)
    cuts = np.sqrt(ranked) * np.sqrt(below)  # whose product would be too small for a number
    f1[ranked <= cuts] = -1  # equal scores cannot be told apart
    best = np.flatnonzero(f1 >= f1.max() - _GAIN)
    return float(cuts[best[np.argmin(np.abs(np.log(cuts[best] / 0.5)))]])


class _Search:
    """Coordinate ascent on macro F1 over log thresholds."""

    def __init__(self, log_probabilities: Floats, target: NDArray[np.int64], frozen: Collection[int]) -> None:
        classes = len(log_probabilities)
        self.actual = np.bincount(target, minlength=classes).astype(np.float64)
        self.present = np.flatnonzero(self.actual)
        self.free = [k for k in self.present.tolist() if k not in frozen and classes > 1]
        # Wafers that no thresholds within the span can move: only their counts matter.
        first = log_probabilities.argmax(axis=0)
        ranked = np.sort(log_probabilities, axis=0)
        moves = ranked[-1] - ranked[max(-2, -classes)] <= _SPAN
        self.called = np.bincount(first[~moves], minlength=classes).astype(np.float64)
        self.hits = np.bincount(first[~moves & (first == target)], minlength=classes).astype(np.float64)
        self.log_probabilities = np.ascontiguousarray(log_probabilities[:, moves])
        self.target = target[moves]

    def value(self, log_thresholds: Floats) -> float:
        """Macro F1 of some thresholds."""
        decided = (self.log_probabilities - log_thresholds[:, None]).argmax(axis=0)
        called, hits = self._counts(decided)
        return float((2 * hits[self.present] / (called + self.actual)[self.present]).mean())

    def best(self, random: np.random.Generator) -> Floats:
        """The best log thresholds of several climbs: from argmax, towards and from equal priors, from near the best."""
        prior = np.log((self.actual + 1) / (self.actual + 1).sum())
        best, value = self.ascend(np.zeros(len(prior)))
        starts = np.clip(_WAFERS_CLIMBED // max(1, len(self.target)), _LEAST_STARTS, _MOST_STARTS)
        for attempt in range(2 + int(starts)):
            start = np.zeros(len(prior))
            wanted = prior / (2 - attempt) if attempt < 2 else best + random.normal(size=len(prior))
            start[self.free] = wanted[self.free].clip(-_SPAN / 2, _SPAN / 2)
            found, reached = self.ascend(start)
            if reached > value + _GAIN:
                best, value = found, reached
        return best

    def ascend(self, start: Floats) -> tuple[Floats, float]:
        """Climb until no single threshold's change helps."""
        current, value = start.copy(), self.value(start)
        since = 0
        while since < len(self.free):
            for k in self.free:
                threshold, reached = self._best(current, k)
                since += 1
                if reached > value + _GAIN:
                    current[k], value, since = threshold, reached, 0
                if since >= len(self.free):
                    break
        return current, value

    def _counts(self, decided: NDArray[np.int64]) -> tuple[Floats, Floats]:
        classes = len(self.actual)
        called = self.called + np.bincount(decided, minlength=classes)
        return called, self.hits + np.bincount(decided[decided == self.target], minlength=classes)

    def _best(self, log_thresholds: Floats, k: int) -> tuple[float, float]:
        """The best log threshold of class k given the others', and the macro F1 it reaches."""
        others = np.delete(np.arange(len(self.actual)), k)
        scores = self.log_probabilities[others] - log_thresholds[others, None]
        rival = others[scores.argmax(axis=0)]
        turn = self.log_probabilities[k] - scores.max(axis=0)  # class k wins below this log threshold
        called, hits = self._counts(rival)

        order = np.argsort(-turn, kind="stable")
        turn, rival, target = turn[order], rival[order], self.target[order]
        # The sum of F1 as class k takes the first 0, 1, ... of these wafers: its own, and what each rival loses.
        taken = np.arange(len(turn) + 1)
        change = np.zeros(len(turn) + 1)
        for j in self.present[self.present != k]:
            at = np.flatnonzero(rival == j)
            lost = np.concatenate([[0], np.cumsum(target[at] == j)])
            f1 = 2 * (hits[j] - lost) / (called[j] - taken[: len(lost)] + self.actual[j])
            change[0] += f1[0]
            change[at + 1] = np.diff(f1)
        total = np.cumsum(change)
        if self.actual[k]:
            gained = np.concatenate([[0], np.cumsum(target == k)])
            total += 2 * (hits[k] + gained) / (called[k] + taken + self.actual[k])
        low, high = log_thresholds[others].max() - _SPAN, log_thresholds[others].min() + _SPAN
        return _pick(total / len(self.present), np.clip(turn, low, high), (low, high), log_thresholds[k])


def _pick(values: Floats, turn: Floats, span: tuple[float, float], present: float) -> tuple[float, float]:
    """Of the cuts that reach the highest value, the one nearest the present threshold, and that value.

    `values[c]` is reached by cuts between `turn[c]` and `turn[c - 1]`, which are in decreasing order.
    """
    above = np.concatenate([[span[1]], turn])
    below = np.concatenate([turn, [span[0]]])
    cuts = (above + below) / 2
    if len(turn):  # beyond the outermost score, but not far
        cuts[0], cuts[-1] = min(cuts[0], turn[0] + 1), max(cuts[-1], turn[-1] - 1)
    values = np.where(above - below > _APART, values, -1)
    best = np.flatnonzero(values >= values.max() - _GAIN)
    chosen = best[np.argmin(np.abs(cuts[best] - present))]
    return float(cuts[chosen]), float(values[chosen])
