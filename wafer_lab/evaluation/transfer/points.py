"""The transfer study: what starting from each source is worth at each number of labels, on the same test wafers.

Subsets of the labels nest, and every source sees the same ones, so sources are compared run by run: same labels, same
seed, same test wafers. Two intervals say two things. Over seeds: would other training runs say so too? Over wafers:
would other test wafers?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.comparison.significance import (
    estimate,
    exactly_right,
    holm,
    mcnemar,
    merged,
    over_runs,
    resamples_for,
    two_sided,
)
from wafer_lab.evaluation.intervals import judge, resampled
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.views import Wafers

#: The score that sources are compared by.
SCORE = "f1_macro"
# Where judge's scores alone are wanted.
_FEW = 20
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One training run, judged.

    Attributes:
        source: where its encoder started.
        fraction: of the training labels.
        seed: of the run.
        score: `SCORE` on test.
        draws: (R,) its bootstrap draws, paired over runs.
        right: (N,) whether it is right of each test wafer.
    """

    source: str
    fraction: float
    seed: int
    score: float
    draws: NDArray[np.float64]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, source: str, fraction: float, seed: int, part: Wafers, predictor: Predictor, tests: int) -> "Run":
        """Judge a run.

        Args:
            source: see `Run`; so are the next two.
            fraction: likewise.
            seed: likewise.
            part: the test wafers that all runs are judged on, in the predictor's views.
            predictor: the run's own.
            tests: how many tests the draws have to serve.
        """
        probabilities = predictor.probabilities(part.logits)
        decisions, settings = predictor.decision(probabilities), predictor.settings
        what = (part.target, decisions, probabilities, part.class_names, part.target_kind)
        options: dict[str, Any] = {"normal": settings.normal, "lot": part.lot, "ranking": False}
        score = judge(*what, **options, resamples=_FEW)[0][SCORE]
        resamples = resamples_for(tests, settings.resamples)
        draws = resampled(*what, **options, resamples=resamples, seed=settings.seed)[SCORE]
        return cls(source, fraction, seed, score, draws, exactly_right(decisions, part.target))


@dataclass(frozen=True)
class Point:
    """A source at a number of labels.

    Attributes:
        source: its name.
        fraction: of the training labels.
        labels: how many that is.
        scores: of its runs, by seed.
        mean: of these.
        seeds: 95 % interval of the mean over training seeds (Student's t); nan for one seed.
        wafers: 95 % bootstrap interval over test wafers.
        difference: to the first source at the same labels, paired by seed; None for the first source itself.
        difference_seeds, difference_wafers: its intervals.
        p_bootstrap, p_mcnemar: adjusted together by Holm's rule over all points.
    """

    source: str
    fraction: float
    labels: int
    scores: tuple[float, ...]
    mean: float
    seeds: Bounds
    wafers: Bounds
    difference: float | None = None
    difference_seeds: Bounds | None = None
    difference_wafers: Bounds | None = None
    p_bootstrap: float | None = None
    p_mcnemar: float | None = None


def points(runs: Sequence[Run], labels: Mapping[float, int]) -> list[Point]:
    """Judge every source at every fraction of the labels against the first source.

    Args:
        runs: every source, fraction and seed, in the order of sources.
        labels: fraction -> number of labelled training wafers.
    """
    cells: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.source, run.fraction), []).append(run)
    first = runs[0].source
    found = [_point(own, cells[first, fraction], labels[fraction]) for (_, fraction), own in cells.items()]
    tested = [k for k, (point, _) in enumerate(found) if point.difference is not None]
    adjusted = holm([p for k in tested for p in found[k][1]])
    p_values = {k: (adjusted[2 * i], adjusted[2 * i + 1]) for i, k in enumerate(tested)}
    return [_with_p(point, p_values.get(k)) for k, (point, _) in enumerate(found)]


def _point(own: Sequence[Run], base: Sequence[Run], labels: int) -> tuple[Point, tuple[float, float]]:
    scores = tuple(run.score for run in own)
    mean, low, high = estimate(float(np.mean(scores)), np.mean([run.draws for run in own], axis=0))
    facts: dict[str, Any] = {"source": own[0].source, "fraction": own[0].fraction, "labels": labels, "scores": scores}
    facts |= {"mean": mean, "seeds": _within(over_runs(scores)), "wafers": (low, high)}
    if own[0].source == base[0].source:
        return Point(**facts), (1.0, 1.0)
    pairs = list(zip(own, base, strict=True))
    steps = [run.score - other.score for run, other in pairs]
    draws = np.mean([run.draws - other.draws for run, other in pairs], axis=0)
    difference, low, high = estimate(float(np.mean(steps)), draws)
    flips = [(int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())) for a, b in pairs]
    facts |= {"difference": difference, "difference_seeds": over_runs(steps), "difference_wafers": (low, high)}
    return Point(**facts), (two_sided(draws), merged([mcnemar(*flip) for flip in flips]))


def _within(bounds: Bounds) -> Bounds:
    """Student's t knows no bounds, but a score lies in [0, 1]."""
    low, high = np.clip(bounds, 0, 1)
    return float(low), float(high)


def _with_p(point: Point, p_values: tuple[float, float] | None) -> Point:
    if p_values is None:
        return point
    return replace(point, p_bootstrap=p_values[0], p_mcnemar=p_values[1])
