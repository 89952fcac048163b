"""An ensemble's findings as numbers, CSV, Markdown and a figure."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import astuple, fields
from importlib.util import find_spec
from pathlib import Path

from wafer_lab.evaluation.ensembles.findings import MIXED, Contrast, Findings, Size, mean_diversity
from wafer_lab.evaluation.ensembles.members import SCORE
from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.tables import aligned, table, with_interval
from wafer_lab.files import write_text

_HOW = {
    "probabilities": "the mean of the members' calibrated probabilities",
    "logits": "the mean of the members' calibrated logits",
}
_OTHERS = {"exact_match": "exact match", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}

#: What `write` leaves, beside the figure.
FILES = ("ensemble.json", "ensemble.md", "ensemble.html", "members.csv", "sizes.csv", "contrasts.csv", "diversity.csv")
_FIGURE = "figures/ensemble_sizes.png"


def write(folder: Path, name: str, findings: Findings, draws: bool, links: bool) -> Path:
    """Write everything into the ensemble's folder.

    Args:
        folder: where to.
        name: the run's.
        findings: what was found.
        draws: whether a figure is wanted; it takes matplotlib.
        links: whether every member has a folder of its name in this one.

    Returns:
        What a person opens.
    """
    drawn = []
    if draws and find_spec("matplotlib"):
        from wafer_lab.evaluation import figures

        curves: dict[str, list[tuple[int, float, float, float, float, float]]] = {}
        for one in findings.sizes:
            row = (one.size, one.mean, one.low, one.high, one.worst, one.best)
            curves.setdefault(one.group, []).append(row)
        figures.save(figures.ensemble_sizes(curves, "test macro F1"), folder / _FIGURE)
        drawn.append(_FIGURE)
    write_text(folder / "ensemble.json", json.dumps(flat(findings), indent=1))
    write_text(folder / "sizes.csv", sizes_csv(findings))
    write_text(folder / "contrasts.csv", contrasts_csv(findings))
    write_text(folder / "members.csv", members_csv(findings))
    write_text(folder / "diversity.csv", diversity_csv(findings))
    return write_html(write_text(folder / "ensemble.md", report(name, findings, drawn, links)))


def flat(findings: Findings) -> dict[str, float]:
    """The findings by the keys of ensemble.json: `ensemble/<group>/<size>/f1_macro`, `gain/<member>`, ..."""
    values: dict[str, float] = {}
    for one in findings.sizes:
        key = f"ensemble/{one.group}/{one.size}/{SCORE}"
        values |= {key: one.mean, f"{key}/low": one.low, f"{key}/high": one.high}
        values |= {f"{key}/worst": one.worst, f"{key}/best": one.best}
    for gain in findings.gains:
        key = f"gain/{gain.member}/{SCORE}"
        values |= {key: gain.gain, f"{key}/low": gain.low, f"{key}/high": gain.high}
    for contrast in findings.contrasts:
        key = f"difference/{contrast.what} - {contrast.against}/{SCORE}"
        values |= {key: contrast.difference, f"{key}/low": contrast.low, f"{key}/high": contrast.high}
        values |= {f"{key}/p": contrast.adjusted_bootstrap, f"{key}/p_mcnemar": contrast.adjusted_mcnemar}
    everyone = range(len(findings.members.names))
    spread = mean_diversity(findings, everyone)
    return values | {f"diversity/{field.name}": getattr(spread, field.name) for field in fields(spread)}


def sizes_csv(findings: Findings) -> str:
    """One row a group and size."""
    return _csv([[field.name for field in fields(Size)], *map(astuple, findings.sizes)])


def contrasts_csv(findings: Findings) -> str:
    """One row a contrast."""
    names = [field.name for field in fields(Contrast)]
    return _csv([[*names, "verdict"], *((*astuple(one), one.verdict) for one in findings.contrasts)])


def members_csv(findings: Findings) -> str:
    """One row a member: its scores, and what it adds to the others."""
    members = findings.members
    rows: list[Sequence[object]] = [
        ["member", "group", "val", SCORE, *_kept(findings), "gain", "gain_low", "gain_high"]
    ]
    for k, gain in enumerate(findings.gains):
        answer = members.answer((k,))
        others = [answer.scores[key] for key in _kept(findings)]
        rows.append([gain.member, members.groups[k], answer.val, answer.score, *others, gain.gain, gain.low, gain.high])
    return _csv(rows)


def diversity_csv(findings: Findings) -> str:
    """One row a pair of members."""
    names = findings.members.names
    rows: list[Sequence[object]] = [["first", "second", "disagreement", "correlation", "q", "js"]]
    rows += [[names[a], names[b], *astuple(pair)] for (a, b), pair in findings.pairs.items()]
    return _csv(rows)


def headline(findings: Findings) -> list[str]:
    """The comparisons as lines of plain text."""
    rows = [["macro F1, difference", "", "95 %", "p", ""]]
    for one in findings.contrasts:
        step = f"{one.difference:+.4f}"
        bounds = f"[{one.low:+.4f}, {one.high:+.4f}]"
        rows.append([f"{one.what} - {one.against}", step, bounds, _p(one.adjusted_bootstrap), one.verdict])
    return aligned(rows)


def report(name: str, findings: Findings, figures: Sequence[str], links: bool) -> str:
    """The findings as Markdown.

    Args:
        name: the run's.
        findings: what was found.
        figures: files of figures, relative to the report.
        links: whether every member has a folder of its name beside the report.
    """
    members = findings.members
    several = len(set(members.groups)) > 1
    lines = [
        f"# {name}: the ensemble",
        "",
        f"{len(members.names)} members; the ensemble answers with {_HOW[members.how]}. Its scores, calibration and "
        "decision rule are in [report.md](report.md), those of any model. Here: what it gains by being several.",
        "",
        "## Is it better?",
        "",
        *_answers(findings),
        "",
        *table(_CONTRASTS, map(_contrast_row, findings.contrasts)),
        "",
        "## Sizes",
        "",
        *table(_SIZES, map(_size_row, findings.sizes)),
        *(line for file in figures for line in ("", f"![macro F1 over ensemble size]({file})")),
        "",
        "## Members",
        "",
        *_member_table(findings, links, several),
        "",
        "## Diversity",
        "",
        *_diversity_table(findings),
        "",
    ]
    return "\n".join([*lines, *_notes(findings)]) + "\n"


_CONTRASTS = [
    "this",
    "against",
    "macro F1, difference [95 %]",
    "p",
    "McNemar p",
    "only this right",
    "only that right",
    "",
]
_SIZES = ["members of", "size", "macro F1, mean [95 %]", "lowest", "highest", "judged", "possible"]


def _answers(findings: Findings) -> list[str]:
    """The verdicts in sentences: first each ensemble against the best of its members, then groups against groups."""
    said = []
    for one in findings.contrasts:
        bounds = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        verdict = {
            "better": f"is better than the {one.against}",
            "worse": f"is worse than the {one.against}",
            "not told apart": f"cannot be told from the {one.against} on these test wafers",
        }[one.verdict]
        said.append(f"- The {one.what} {verdict}: {bounds} macro F1.")
    return said


def _contrast_row(one: Contrast) -> list[str]:
    bounds = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
    flips = [f"{one.gained:.4g}", f"{one.lost:.4g}"]
    return [one.what, one.against, bounds, _p(one.adjusted_bootstrap), _p(one.adjusted_mcnemar), *flips, one.verdict]


def _size_row(one: Size) -> list[str]:
    mean = with_interval(one.mean, (one.low, one.high))
    return [
        one.group,
        str(one.size),
        mean,
        f"{one.worst:.4f}",
        f"{one.best:.4f}",
        str(one.subsets),
        f"{one.possible:,}",
    ]


def _kept(findings: Findings) -> dict[str, str]:
    """The scores beside the macro F1 that these members have."""
    there = findings.members.answer((0,)).scores
    return {key: label for key, label in _OTHERS.items() if key in there}


def _member_table(findings: Findings, links: bool, several: bool) -> list[str]:
    members, kept = findings.members, _kept(findings)
    best = members.best(range(len(members.names)))
    rows = []
    for k, gain in enumerate(findings.gains):
        answer = members.answer((k,))
        name = f"[{gain.member}]({gain.member}/report.md)" if links else gain.member
        row = [f"{name} (best on val)" if k == best else name, *([members.groups[k]] if several else [])]
        row += [f"{answer.val:.4f}", f"{answer.score:.4f}", *(f"{answer.scores[key]:.4f}" for key in kept)]
        rows.append([*row, f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"])
    heading = ["member", *(["of"] if several else []), "val macro F1", "test macro F1", *kept.values()]
    return table([*heading, "macro F1 that it adds to the others [95 %]"], rows)


def _diversity_table(findings: Findings) -> list[str]:
    groups = list(dict.fromkeys(findings.members.groups))
    everyone = list(range(len(findings.members.names)))
    rows = []
    for group in [*groups, *([MIXED] if len(groups) > 1 else [])]:
        own = everyone if group == MIXED else list(findings.members.of(group))
        if len(own) < 2:
            continue
        mean = mean_diversity(findings, own)
        label = "all members" if len(own) == len(everyone) else group
        numbers = [f"{mean.disagreement:.4f}", f"{mean.correlation:.3f}", f"{mean.q:.3f}", f"{mean.js:.4f}"]
        rows.append([label, str(len(own) * (len(own) - 1) // 2), *numbers])
    return table(["between", "pairs", "disagreement", "correlation of errors", "Q", "JS divergence, nats"], rows)


def _notes(findings: Findings) -> list[str]:
    drawn = "whole lots" if several_lots(findings.members.test.lot) else "wafers"
    return [
        "## How to read this",
        "",
        f"- In brackets: 95 % of {findings.members.resamples:,} bootstrap draws of the {drawn} of the test part, the "
        "same draws for all. They cover other test wafers for these trained members, not other training runs.",
        "- Every ensemble of every size has calibration and decision rule of its own, fitted on val. The best member "
        "was chosen by its val score, out of fold; its test score may be below another member's.",
        "- p: paired bootstrap of the macro F1; McNemar p: exact test that both are right on equally many wafers, "
        "over several pairs twice the mean. All are adjusted together by Holm's rule; `better` and `worse` are said "
        "where the adjusted bootstrap p is below 0.05.",
        "- Sizes: the mean over the ensembles that were judged of all that are possible, the lowest and the highest. "
        "They share members, so lowest and highest are no interval.",
        "- Diversity: mean over pairs of members, on test. Disagreement: share of wafers decided differently. Q: "
        "Yule's, of being right; 1 where one member's errors are among the other's.",
    ]


def _p(value: float) -> str:
    return "<.0001" if value < 0.0001 else f"{value:.4f}"


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
