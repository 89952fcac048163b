"""What labels were worth: scores over the number of labels, compared with labelling at random."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.tables import HEADLINE, aligned, table, with_interval

Floats = NDArray[np.float64]
Interval = tuple[float, float]
RANDOM = "random"


@dataclass(frozen=True)
class Point:
    """One trained model.

    Attributes:
        acquisition: By which its wafers were chosen.
        seed: Of the start, the choices and the training.
        round: 0 for the start.
        labels: How many wafers it was trained on.
        val: Its score on val.
        test: Its score on test.
    """

    acquisition: str
    seed: int
    round: int
    labels: int
    val: float
    test: float


@dataclass(frozen=True)
class Curve:
    """The test scores of one acquisition.

    Attributes:
        labels: (R,) labels of each round, rising.
        scores: (S, R) test scores, a row per seed.
    """

    labels: NDArray[np.int64]
    scores: Floats


@dataclass(frozen=True)
class Worth:
    """What one acquisition's labels were worth; the intervals are over seeds, None where there is one seed.

    Attributes:
        area: Mean score over the labels: area under the mean curve, divided by its width.
        over_random: Its lead over random in that, seed by seed.
        final: Mean score with all labels.
        needed: Labels that the mean curve takes to reach the mean final score of random, inf where it never does.
        wins: In how many seeds its area is larger than that of random.
    """

    area: float
    area_interval: Interval | None
    over_random: float
    over_random_interval: Interval | None
    final: float
    final_interval: Interval | None
    needed: float
    needed_interval: Interval | None
    wins: int


def curves(points: Sequence[Point]) -> dict[str, Curve]:
    """The curve of every acquisition, its seeds in one order for all; rounds that some seed lacks are left out."""
    found = {}
    for name in dict.fromkeys(point.acquisition for point in points):
        own = [point for point in points if point.acquisition == name]
        seeds = sorted({point.seed for point in own})
        at = {(point.seed, point.round): point for point in own}
        rounds = [r for r in sorted({p.round for p in own}) if all((seed, r) in at for seed in seeds)]
        labels = np.array([at[seeds[0], r].labels for r in rounds])
        found[name] = Curve(labels, np.array([[at[seed, r].test for r in rounds] for seed in seeds]))
    return found


def area(labels: NDArray[np.integer], scores: Floats) -> Floats:
    """Area under (..., R) scores by straight lines between R >= 1 numbers of labels, divided by the width."""
    if len(labels) == 1:
        return np.asarray(scores[..., 0])
    return np.asarray(np.trapezoid(scores, labels, axis=-1) / (labels[-1] - labels[0]))


def needed(labels: NDArray[np.integer], scores: Floats, target: float) -> float:
    """Labels at which the line through (R,) scores first reaches the target; inf where it never does."""
    above = np.flatnonzero(scores >= target)
    if len(above) == 0:
        return np.inf
    k = int(above[0])
    if k == 0:
        return float(labels[0])
    share = (target - scores[k - 1]) / (scores[k] - scores[k - 1])
    return float(labels[k - 1] + share * (labels[k] - labels[k - 1]))


def worth(found: dict[str, Curve], resamples: int, seed: int) -> dict[str, Worth]:
    """Compare every acquisition with random.

    Where there are several seeds, they are drawn with replacement, the same ones for every acquisition: a seed's runs
    share their start and first weights, so they are pairs.

    Args:
        found: From `curves`, with `random` among them; all of the same seeds.
        resamples: Bootstrap draws.
        seed: Of the draws.
    """
    count = len(found[RANDOM].scores)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count)) if count > 1 else None
    chance = found[RANDOM]
    target = chance.scores[:, -1].mean()
    areas = {name: area(curve.labels, curve.scores) for name, curve in found.items()}
    result = {}
    for name, curve in found.items():
        lead = areas[name] - areas[RANDOM]
        reach = None
        if drawn is not None:
            means, targets = curve.scores[drawn].mean(1), chance.scores[drawn, -1].mean(1)
            reach = np.array([needed(curve.labels, *pair) for pair in zip(means, targets, strict=True)])
        result[name] = Worth(
            area=float(areas[name].mean()),
            area_interval=_interval(areas[name], drawn),
            over_random=float(lead.mean()),
            over_random_interval=_interval(lead, drawn),
            final=float(curve.scores[:, -1].mean()),
            final_interval=_interval(curve.scores[:, -1], drawn),
            needed=needed(curve.labels, curve.scores.mean(0), target),
            needed_interval=None if reach is None else _ends(reach),
            wins=int((lead > 0).sum()),
        )
    return result


def band(curve: Curve, resamples: int, seed: int) -> tuple[Floats, Floats] | None:
    """95 % bootstrap interval of the mean of each round, (R,) low and high; None where there is one seed."""
    count = len(curve.scores)
    if count == 1:
        return None
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    low, high = np.percentile(curve.scores[drawn].mean(1), [2.5, 97.5], axis=0)
    return low, high


def _interval(values: Floats, drawn: NDArray[np.integer] | None) -> Interval | None:
    return None if drawn is None else _ends(values[drawn].mean(1))


def _ends(values: Floats) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975], method="closest_observation")  # of inf there is no mean
    return float(low), float(high)


def flat(found: dict[str, Worth]) -> dict[str, float]:
    """By the keys of metrics.json: `active/<acquisition>/area`, `/final`, `/over_random`, `/labels_to_random_final`.

    What was never reached is left out.
    """
    values: dict[str, float] = {}
    for name, one in found.items():
        for key, value, interval in (
            ("area", one.area, one.area_interval),
            ("final", one.final, one.final_interval),
            ("over_random", one.over_random, one.over_random_interval),
            ("labels_to_random_final", one.needed, one.needed_interval),
        ):
            ends = dict(zip(("/low", "/high"), interval or (), strict=False))
            values |= {f"active/{name}/{key}{end}": number for end, number in ({"": value} | ends).items()}
    return {key: value for key, value in values.items() if np.isfinite(value)}


def as_csv(points: Sequence[Point], score: str) -> str:
    """The points as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["acquisition", "seed", "round", "labels", f"val/{score}", f"test/{score}"])
    writer.writerows([p.acquisition, p.seed, p.round, p.labels, p.val, p.test] for p in points)
    return text.getvalue()


def _rows(found: dict[str, Curve], worths: dict[str, Worth]) -> list[list[str]]:
    rows = []
    for name, one in worths.items():
        lead = "" if name == RANDOM else f"{one.over_random:+.4f}"
        if lead and one.over_random_interval:
            low, high = one.over_random_interval
            lead += f" [{low:+.4f}, {high:+.4f}], {one.wins} of {len(found[name].scores)}"
        ends = [one.needed, *(one.needed_interval or ())]
        said = [f"{end:.0f}" if np.isfinite(end) else "never" for end in ends]
        reached = said[0] + (f" [{', '.join(said[1:])}]" if said[1:] else "")
        area, final = with_interval(one.area, one.area_interval), with_interval(one.final, one.final_interval)
        rows.append([name, area, lead, final, reached])
    return rows


_HEADING = ["acquisition", "area", "over random, seeds won", "final", "labels to random's final"]


def headline(found: dict[str, Curve], worths: dict[str, Worth]) -> list[str]:
    """What each acquisition was worth, as lines of plain text."""
    return aligned([_HEADING, *_rows(found, worths)])


def report(name: str, found: dict[str, Curve], worths: dict[str, Worth], score: str, figure: bool) -> str:
    """The findings as Markdown.

    Args:
        name: The run's.
        found: From `curves`.
        worths: From `worth`.
        score: Which score of metrics.json it is about.
        figure: Whether figures/active.png was drawn.
    """
    called = HEADLINE.get(score, score)
    chance = found[RANDOM] if RANDOM in found else next(iter(found.values()))
    count = len(chance.scores)
    drawn = ["![score over labels](figures/active.png)", ""] if figure else []
    rounds = [
        [name, *(f"{value:.4f}" for value in curve.scores.mean(0))]
        for name, curve in found.items()
    ]  # fmt: skip
    lines = [
        f"# {name}",
        "",
        f"Test {called} of models trained on {chance.labels[0]:,} to {chance.labels[-1]:,} labels, "
        f"{count} seed{'s' if count > 1 else ''}. Every point is a model of its own.",
        "",
        *drawn,
    ]
    if worths:
        lines += ["## What the labels were worth", "", *table(_HEADING, _rows(found, worths)), ""]
    heading = ["acquisition", *(f"{labels:,} labels" for labels in chance.labels)]
    lines += [f"## Mean test {called} of each round", "", *table(heading, rounds), "", *_NOTES]
    if count > 1:
        lines.append(
            f"- In brackets: 95 % bootstrap interval over the {count} seeds, drawn in pairs. It covers the luck of "
            "start, choice and training, for these test wafers; of fewer than about ten seeds it is too narrow."
        )
    return "\n".join(lines) + "\n"


_NOTES = (
    "## How to read this",
    "",
    "- area: mean score over the range of labels (area under the curve, divided by its width). Over random: the lead "
    "in it, and in how many seeds it is positive.",
    "- labels to random's final: where the mean curve, drawn with straight lines, first reaches the mean score that "
    "random has with all labels; never: not within these rounds.",
    "- The models of a seed share the start. What each was trained on stands in labelled.csv of its folder. "
    "Checkpoints are chosen on val; each model was judged on test once, and nothing was chosen by that.",
)
