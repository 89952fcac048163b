"""The members of an ensemble and any of its subsets, judged on the same val and test wafers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, product
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
    of_group = [[k for k in among if groups[k] == group] for group in dict.fromkeys(groups[k] for k in among)]
    mixtures = _Mixtures(of_group, size)
    if mixtures.count <= most:
        return sorted(mixtures), mixtures.count
    random, drawn = np.random.default_rng((seed, size)), set[Subset]()
    while len(drawn) < most:
        drawn.add(mixtures.draw(random))
    return sorted(drawn), mixtures.count


class _Mixtures:
    """Subsets that take as many of every group as of any other, give or take one, as far as the groups reach.

    So every group gives `level` - 1 members, or all that it has, and some of those that have more give one more.

    Args:
        groups: the members of each.
        size: how many members a subset has; at most as many as there are.
    """

    def __init__(self, groups: Sequence[Sequence[int]], size: int) -> None:
        self.groups = groups
        reach = [sum(min(level, len(group)) for group in groups) for level in range(size + 1)]
        self.level = next(level for level, members in enumerate(reach) if members >= size)
        self.more = size - reach[max(self.level - 1, 0)]
        # In how many ways the groups from a place on can give, by how many of them give one more.
        self._ways = [[int(more == 0) for more in range(self.more + 1)] for _ in range(len(groups) + 1)]
        for place in reversed(range(len(groups))):
            usual = comb(len(groups[place]), self._share(place, False))
            for more in range(self.more + 1):
                self._ways[place][more] = usual * self._ways[place + 1][more] + self._giving(place, more)
        self.count = self._ways[0][self.more]

    def __iter__(self) -> Iterator[Subset]:
        able = [place for place, group in enumerate(self.groups) if len(group) >= self.level]
        for chosen in combinations(able, self.more):
            parts = (
                combinations(group, self._share(place, place in chosen)) for place, group in enumerate(self.groups)
            )
            for taken in product(*parts):
                yield tuple(sorted(chain(*taken)))

    def draw(self, random: np.random.Generator) -> Subset:
        """One of them, each as likely as any other."""
        taken: list[int] = []
        more = self.more
        for place, group in enumerate(self.groups):
            gives = random.random() * self._ways[place][more] < self._giving(place, more)
            more -= gives
            taken += random.choice(group, self._share(place, gives), replace=False).tolist()
        return tuple(sorted(taken))

    def _share(self, place: int, gives: bool) -> int:
        return min(self.level - (not gives), len(self.groups[place]))

    def _giving(self, place: int, more: int) -> int:
        """In how many of those ways the first of them does."""
        if not more or len(self.groups[place]) < self.level:
            return 0
        return comb(len(self.groups[place]), self.level) * self._ways[place + 1][more - 1]
