"""What an ensemble is worth: over sizes, over its members, and against the best of them chosen on val."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import combinations

import numpy as np

from wafer_lab.evaluation.comparison.significance import estimate, holm, mcnemar, merged, two_sided
from wafer_lab.evaluation.ensembles.diversity import Diversity, diversity
from wafer_lab.evaluation.ensembles.members import Members, Subset, subsets

#: The group of subsets that take members of all groups.
MIXED = "mixed"


@dataclass(frozen=True)
class Size:
    """Ensembles of one size.

    Attributes:
        group: whose members; `mixed` for ensembles of members of several groups.
        size: members in each.
        subsets: how many were judged.
        possible: how many there are.
        mean: of their scores, with its 95 % bootstrap interval `low`, `high` over test wafers.
        worst, best: lowest and highest of their scores.
    """

    group: str
    size: int
    subsets: int
    possible: int
    mean: float
    low: float
    high: float
    worst: float
    best: float


@dataclass(frozen=True)
class Contrast:
    """One way of answering against another, on the same test wafers.

    Attributes:
        what, against: in words.
        difference: of the (mean) scores.
        low, high: 95 % paired bootstrap interval over test wafers.
        p_bootstrap, p_mcnemar: two-sided; pairs of subsets merged.
        adjusted_bootstrap, adjusted_mcnemar: after Holm's correction over all tests of all contrasts.
        gained, lost: wafers that only the one, or only the other, gets right; mean over pairs.
    """

    what: str
    against: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_mcnemar: float
    adjusted_bootstrap: float
    adjusted_mcnemar: float
    gained: float
    lost: float

    @property
    def verdict(self) -> str:
        """What may be claimed."""
        if self.adjusted_bootstrap >= 0.05:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Gain:
    """What one member adds to all the others: the score with it less the score without, with its paired interval."""

    member: str
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Findings:
    """Everything that is known of an ensemble beside its own judgement.

    Attributes:
        members: the members.
        sizes: by group and size.
        contrasts: see `contrasts`.
        gains: of every member in the ensemble of all.
        pairs: (place, place) -> how differently the two answer.
    """

    members: Members
    sizes: tuple[Size, ...]
    contrasts: tuple[Contrast, ...]
    gains: tuple[Gain, ...]
    pairs: dict[tuple[int, int], Diversity]


def find(members: Members, most: int) -> Findings:
    """Judge subsets of the members, at most so many of every size, and compare.

    Args:
        members: two or more.
        most: subsets of a group and size that are judged at most; single members and leave-one-outs always are.
    """
    seed = members.settings.seed
    curves = {group: _curve(members, among, most, seed) for group, among in _groups(members).items()}
    sizes = tuple(_size(members, group, *one) for group, curve in curves.items() for one in curve)
    everyone = tuple(range(len(members.names)))
    gains = tuple(_gain(members, everyone, k) for k in everyone)
    answers = [members.answer((k,)) for k in everyone]
    kind = members.tables[0].target_kind
    pairs = {}
    for a, b in combinations(everyone, 2):
        one, other = answers[a], answers[b]
        decided, sure = (one.decisions, other.decisions), (one.probabilities, other.probabilities)
        pairs[a, b] = diversity(decided, (one.right, other.right), sure, kind)
    return Findings(members, sizes, _contrasts(members, curves), gains, pairs)


def _groups(members: Members) -> dict[str, Subset]:
    """Group -> its members; of several groups, all members as one more, mixed."""
    names = list(dict.fromkeys(members.groups))
    groups = {name: members.of(name) for name in names}
    return groups | ({MIXED: tuple(range(len(members.names)))} if len(names) > 1 else {})


Curve = list[tuple[list[Subset], int]]


def _curve(members: Members, among: Subset, most: int, seed: int) -> Curve:
    """The subsets of every size from 1 on, of mixed ensembles from 2 on, and how many there are of each."""
    first = 1 if len({members.groups[k] for k in among}) == 1 else 2
    found = []
    for size in range(first, len(among) + 1):
        always = len(among) if size in (1, len(among) - 1) else 0
        found.append(subsets(members.groups, among, size, max(most, always), seed))
    return found


def _size(members: Members, group: str, chosen: list[Subset], possible: int) -> Size:
    answers = [members.answer(one) for one in chosen]
    scores = [answer.score for answer in answers]
    mean, low, high = estimate(float(np.mean(scores)), np.mean([answer.draws for answer in answers], axis=0))
    return Size(group, len(chosen[0]), len(chosen), possible, mean, low, high, min(scores), max(scores))


def _gain(members: Members, everyone: Subset, k: int) -> Gain:
    whole, without = members.answer(everyone), members.answer(tuple(other for other in everyone if other != k))
    return Gain(members.names[k], *estimate(whole.score - without.score, whole.draws - without.draws))


def _contrasts(members: Members, curves: dict[str, Curve]) -> tuple[Contrast, ...]:
    found = [_contrast(members, *sides) for sides in _sides(members, curves)]
    adjusted = holm([p for one in found for p in (one.p_bootstrap, one.p_mcnemar)])
    return tuple(
        replace(one, adjusted_bootstrap=adjusted[2 * i], adjusted_mcnemar=adjusted[2 * i + 1])
        for i, one in enumerate(found)
    )


Side = tuple[str, list[Subset]]


def _sides(members: Members, curves: dict[str, Curve]) -> Iterator[tuple[Side, Side]]:
    """What is compared with what: each ensemble with single members, then groups at equal sizes with each other."""
    groups = [group for group in curves if group != MIXED]
    for group in curves:
        among = tuple(k for k, own in enumerate(members.groups) if group in (MIXED, own))
        if len(among) < 2:
            continue
        kind = "" if len(groups) == 1 else f" {group}"
        whole = (f"ensemble of {len(among)}{kind}", [among])
        best = members.best(among)
        yield whole, (f"best member on val ({members.names[best]})", [(best,)])
        yield whole, (f"mean{'' if group == MIXED else kind} member", [(k,) for k in among])
    first = groups[0]
    for group in groups[1:]:
        yield (f"mean {group} member", _of(curves, group, 1)), (f"mean {first} member", _of(curves, first, 1))
        if (size := min(len(curves[first]), len(curves[group]))) > 1:
            other = (f"ensemble of {size} {first}", _of(curves, first, size))
            yield (f"ensemble of {size} {group}", _of(curves, group, size)), other
    size = min(len(curves[group]) for group in groups)
    if len(groups) > 1 and size > 1:
        for group in groups:
            mixed = (f"ensemble of {size} {MIXED}", _of(curves, MIXED, size))
            yield mixed, (f"ensemble of {size} {group}", _of(curves, group, size))


def _of(curves: dict[str, Curve], group: str, size: int) -> list[Subset]:
    """The judged subsets of a group and a size."""
    return next(chosen for chosen, _ in curves[group] if len(chosen[0]) == size)


def _contrast(members: Members, one: Side, other: Side) -> Contrast:
    """Not yet adjusted for being one of several."""
    ours, theirs = ([members.answer(subset) for subset in side[1]] for side in (one, other))
    scores = [float(np.mean([answer.score for answer in side])) for side in (ours, theirs)]
    draws = [np.mean([answer.draws for answer in side], axis=0) for side in (ours, theirs)]
    flips = [(int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())) for a in ours for b in theirs]
    gained, lost = np.mean(flips, axis=0)
    step, p_bootstrap = draws[0] - draws[1], two_sided(draws[0] - draws[1])
    p_mcnemar = merged([mcnemar(*flip) for flip in flips])
    p_values = (p_bootstrap, p_mcnemar, p_bootstrap, p_mcnemar)
    difference = estimate(scores[0] - scores[1], step)
    return Contrast(one[0], other[0], *difference, *p_values, float(gained), float(lost))


def mean_diversity(findings: Findings, group: Sequence[int]) -> Diversity:
    """The mean over all pairs of some members; their number is two or more."""
    own = [pair for (a, b), pair in findings.pairs.items() if a in group and b in group]
    columns = zip(*map(astuple, own), strict=True)
    return Diversity(*(float(np.mean(column)) for column in columns))
