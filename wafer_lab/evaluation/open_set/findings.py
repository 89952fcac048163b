"""What leaving classes out has shown, as numbers and as Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.open_set.scores import NEIGHBOUR, Lots, detection
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.tables import aligned, table, with_deviation, with_interval

_TITLES = {"auroc": "AUROC", "fpr": "FPR at 95 % TPR"}


@dataclass(frozen=True)
class Finding:
    """How well one score flags the wafers of one class that training never saw.

    Attributes:
        left_out: The class.
        score: The score's name, see `unknown.unknown_scores`.
        known: Test wafers of the other classes.
        unknown: Wafers of the class.
        auroc: In [0, 1], see `unknown.auroc`.
        auroc_interval: Its 95 % bootstrap interval.
        fpr: In [0, 1], the unknown wafers that pass where 95 % of the known do, see `unknown.fpr_at_tpr`.
        fpr_interval: Its 95 % bootstrap interval.
        known_drawn: What the bootstrap drew of the known: `lots`, or `wafers` where they have none or too few.
        unknown_drawn: Likewise of the unknown.
    """

    left_out: str
    score: str
    known: int
    unknown: int
    auroc: float
    auroc_interval: tuple[float, float]
    fpr: float
    fpr_interval: tuple[float, float]
    known_drawn: str
    unknown_drawn: str

    @classmethod
    def of(
        cls,
        left_out: str,
        score: str,
        known: NDArray[Any],
        unknown: NDArray[Any],
        resamples: int = 2000,
        seed: int = 0,
        known_lot: Lots = None,
        unknown_lot: Lots = None,
    ) -> "Finding":
        """Measure a score.

        Args:
            left_out: The class.
            score: The score's name.
            known: (n,) scores of the known test wafers.
            unknown: (m,) scores of the wafers of the class.
            resamples: Bootstrap draws.
            seed: Of the draws.
            known_lot: (n,) the production lots of the known wafers, as in `unknown.resampled`.
            unknown_lot: (m,) likewise.
        """
        values, intervals = detection(
            known, unknown, resamples, seed=seed, known_lot=known_lot, unknown_lot=unknown_lot
        )
        return cls(
            left_out,
            score,
            len(known),
            len(unknown),
            values["auroc"],
            intervals["auroc"],
            values["fpr"],
            intervals["fpr"],
            "lots" if several_lots(known_lot) else "wafers",
            "lots" if several_lots(unknown_lot) else "wafers",
        )


def means(findings: Sequence[Finding]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over classes: score -> `auroc` and `fpr` -> (mean, sd); sd is 0 for one class."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for score in dict.fromkeys(finding.score for finding in findings):
        own = [finding for finding in findings if finding.score == score]
        columns = {"auroc": [finding.auroc for finding in own], "fpr": [finding.fpr for finding in own]}
        deviation = {key: float(np.std(values, ddof=1)) if len(own) > 1 else 0.0 for key, values in columns.items()}
        found[score] = {key: (float(np.mean(values)), deviation[key]) for key, values in columns.items()}
    return found


def flat(findings: Sequence[Finding]) -> dict[str, float]:
    """The findings by the keys of metrics.json: `unknown/<score>/auroc` and `/sd`, `unknown/<score>/auroc/<class>`."""
    values: dict[str, float] = {}
    for score, mean in means(findings).items():
        for key, (centre, deviation) in mean.items():
            values |= {f"unknown/{score}/{key}": centre, f"unknown/{score}/{key}/sd": deviation}
    for finding in findings:
        for key, value, (low, high) in (
            ("auroc", finding.auroc, finding.auroc_interval),
            ("fpr", finding.fpr, finding.fpr_interval),
        ):
            name = f"unknown/{finding.score}/{key}/{finding.left_out}"
            values |= {name: value, f"{name}/low": low, f"{name}/high": high}
    return values


def as_csv(findings: Sequence[Finding]) -> str:
    """The findings as the text of a CSV file."""
    heading = ["left_out", "score", "known", "unknown"]
    heading += [f"{name}{end}" for name in ("auroc", "fpr_at_95_tpr") for end in ("", "_low", "_high")]
    heading += ["known_drawn", "unknown_drawn"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(
        (
            *(f.left_out, f.score, f.known, f.unknown, f.auroc, *f.auroc_interval, f.fpr, *f.fpr_interval),
            *(f.known_drawn, f.unknown_drawn),
        )
        for f in findings
    )
    return text.getvalue()


def headline(findings: Sequence[Finding]) -> list[str]:
    """Every score's means over the classes, as lines of plain text."""
    rows = [[score, *(with_deviation(*mean[key]) for key in _TITLES)] for score, mean in means(findings).items()]
    return aligned([["score", *_TITLES.values()], *rows])


def report(name: str, findings: Sequence[Finding]) -> str:
    """The findings as Markdown.

    Args:
        name: The run's.
        findings: One per class and score.
    """
    scores = list(means(findings))
    classes = list(dict.fromkeys(finding.left_out for finding in findings))
    at = {(finding.left_out, finding.score): finding for finding in findings}
    counts = [at[left_out, scores[0]] for left_out in classes]
    heads = [f"[{f.left_out}]({quote(f'without_{f.left_out}')}/report.md)" for f in counts]
    lines = [
        f"# {name}",
        "",
        f"{len(classes)} models, each trained without one class; does a score flag that class's wafers among test "
        "wafers of the classes that the model knows?",
        "",
    ]
    for key, title in _TITLES.items():
        body = [
            [head, f"{f.unknown:,}", f"{f.known:,}", *(_cell(at[f.left_out, score], key) for score in scores)]
            for head, f in zip(heads, counts, strict=True)
        ]
        mean = [with_deviation(*means(findings)[score][key]) for score in scores]
        body.append(["mean \N{PLUS-MINUS SIGN} sd", "", "", *mean])
        lines += [f"## {title}", "", *table(["left out", "unknown", "known", *scores], body), ""]
    return "\n".join([*lines, *_NOTES, *_covered(counts)]) + "\n"


def _covered(counts: Sequence[Finding]) -> list[str]:
    """What the intervals and the deviation are over, in plain sentences.

    Args:
        counts: One finding per class.
    """
    known = _drawn({f.left_out: f.known_drawn for f in counts})
    unknown = _drawn({f.left_out: f.unknown_drawn for f in counts})
    lines = [
        "- In brackets: 95 % bootstrap interval. It covers the luck of which wafers were tested, for this one trained "
        f"model. Known wafers are drawn {known}, unknown ones {unknown}.",
        "- The interval covers neither another training run nor an unknown pattern of another kind. The standard "
        "deviation is over the classes left out, one training run each.",
    ]
    if "one by one" in known + unknown:
        lines.append(
            "- Wafers of one lot look alike. Where they are drawn one by one, for want of lot names or of 20 lots, the "
            "interval may be too narrow."
        )
    return lines


def _drawn(by_class: Mapping[str, str]) -> str:
    """How wafers are drawn, class by class where that differs."""
    ways = {"lots": "as whole lots", "wafers": "one by one"}
    named = {way: [name for name, drawn in by_class.items() if drawn == key] for key, way in ways.items()}
    used = {way: names for way, names in named.items() if names}
    if len(used) == 1:
        return next(iter(used))
    return " and ".join(f"{way} for {', '.join(names)}" for way, names in used.items())


def _cell(finding: Finding, key: str) -> str:
    if key == "auroc":
        return with_interval(finding.auroc, finding.auroc_interval)
    return with_interval(finding.fpr, finding.fpr_interval)


_NOTES = (
    "## How to read this",
    "",
    "- AUROC: the chance that an unknown wafer scores higher than a known one; 0.5 is a coin.",
    "- FPR at 95 % TPR: the share of unknown wafers that pass as known where 95 % of the known ones pass, so that 5 % "
    "of them are flagged for nothing. Known is the positive class, as in the papers on ODIN, energy and nearest "
    "neighbours. Lower is better.",
    "- max_probability: 1 - probability of the most probable answer. energy: -logsumexp of the logits, or minus the "
    "sum of softplus where multi-label. knn_distance: distance of the features, scaled to length 1, to those of the "
    f"{NEIGHBOUR}th nearest training wafer.",
    "- Unknown wafers are all those of the class, since none was used to train or choose; known ones are of the test "
    "part.",
)
