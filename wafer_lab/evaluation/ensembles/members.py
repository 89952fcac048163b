"""The members of an ensemble and any of its subsets, judged on the same val and test wafers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.comparison.significance import exactly_right, resamples_for
from wafer_lab.evaluation.ensembles.combination import Combine, ensemble_of
from wafer_lab.evaluation.intervals import judge, resampled
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import fit_predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers, wafers

#: The score that members and ensembles are compared by.
SCORE = "f1_macro"
Subset = tuple[int, ...]

# Where only judge's scores are wanted.
_FEW = 20
# Subsets that are listed before some are drawn; of more, they are drawn one by one.
_LISTED = 20_000


@dataclass(frozen=True)
class Answer:
    """What a subset of the members says of the test wafers, by a predictor fitted on val for that subset.

    Attributes:
        score: `SCORE` on test.
        draws: (R,) its bootstrap draws, paired over subsets.
        scores: every score on test.
        val: `SCORE` on val, out of fold.
        decisions: (N,) or (N, C).
        probabilities: (N, C).
        right: (N,) whether class, or every label, is right.
    """

    score: float
    draws: NDArray[np.float64]
    scores: dict[str, float]
    val: float
    decisions: NDArray[Any]
    probabilities: NDArray[Any]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Members:
    """M trained models that answer together.

    Attributes:
        names: of the members.
        groups: where each comes from, such as `scratch`; the first group is what others are compared with.
        tables: of the members, calibrated and in one order.
        how: the way they are combined.
        settings: how each subset is calibrated, decides and is judged.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    tables: tuple[Predictions, ...]
    how: Combine
    settings: Evaluation
    _known: dict[Subset, Answer] = field(default_factory=dict, repr=False)

    @property
    def test(self) -> Wafers:
        """The test wafers, as the first member sees them."""
        return wafers(self.tables[0], "test", self.settings.tta)

    @property
    def resamples(self) -> int:
        """Bootstrap draws: as many as the settings say, or as the tests of all contrasts need."""
        groups = len(set(self.groups))
        contrasts = 2 if groups == 1 else 2 * (groups + 1) + 2 * (groups - 1) + groups
        return resamples_for(2 * contrasts, self.settings.resamples)

    def of(self, group: str) -> Subset:
        """The members of a group."""
        return tuple(k for k, own in enumerate(self.groups) if own == group)

    def answer(self, subset: Subset) -> Answer:
        """The answer of some of the members; it is worked out once."""
        if subset not in self._known:
            self._known[subset] = self._answer(ensemble_of([self.tables[k] for k in subset], self.how))
        return self._known[subset]

    def _answer(self, table: Predictions) -> Answer:
        settings = self.settings
        val, test = (wafers(table, part, settings.tta) for part in ("val", "test"))
        fitted = fit_predictor(val, settings)
        probabilities = fitted.predictor.probabilities(test.logits)
        decisions = fitted.predictor.decision(probabilities)
        what = (test.target, decisions, probabilities, test.class_names, test.target_kind)
        options: dict[str, Any] = {"normal": settings.normal, "lot": test.lot, "ranking": False}
        draws = resampled(*what, **options, resamples=self.resamples, seed=settings.seed)[SCORE]
        scores, _ = judge(*what, **options, resamples=_FEW)
        known = (val.target, fitted.decisions, fitted.probabilities, val.class_names, val.target_kind)
        on_val = judge(*known, normal=settings.normal, ranking=False, resamples=_FEW)[0][SCORE]
        right = exactly_right(decisions, test.target)
        return Answer(scores[SCORE], draws, scores, on_val, decisions, probabilities, right)

    def best(self, among: Sequence[int]) -> int:
        """The member with the best score on val; the first of equals."""
        return max(among, key=lambda k: self.answer((k,)).val)


def subsets(groups: Sequence[str], among: Subset, size: int, most: int, seed: int) -> tuple[list[Subset], int]:
    """Subsets of one size, all of them or some drawn at random; of members of several groups, evenly mixed ones.

    Args:
        groups: of all members.
        among: the members to choose from.
        size: how many.
        most: how many subsets at most.
        seed: of the draw.

    Returns:
        The subsets, each sorted, and how many there are in all (of all mixtures).
    """
    random = np.random.default_rng((seed, size))
    several = len({groups[k] for k in among}) > 1
    if comb(len(among), size) <= _LISTED:
        found = [one for one in combinations(among, size) if not several or _even(groups, among, one)]
        if len(found) <= most:
            return found, len(found)
        return [found[k] for k in sorted(random.choice(len(found), most, replace=False))], len(found)
    drawn: set[Subset] = set()
    for _ in range(50 * most):
        one = tuple(sorted(random.choice(among, size, replace=False).tolist()))
        if not several or _even(groups, among, one):
            drawn.add(one)
        if len(drawn) == most:
            break
    return sorted(drawn), comb(len(among), size)


def _even(groups: Sequence[str], among: Subset, subset: Subset) -> bool:
    """Whether a subset takes as many of every group as of any other, give or take one, as far as the groups reach."""
    counts = dict.fromkeys(dict.fromkeys(groups[k] for k in among), 0)
    there = dict(counts)
    for k in among:
        there[groups[k]] += 1
    for k in subset:
        counts[groups[k]] += 1
    most = max(counts.values())
    return all(count >= min(most - 1, there[group]) for group, count in counts.items())
