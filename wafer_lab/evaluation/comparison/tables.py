"""A comparison as text: for the console, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence

from wafer_lab.evaluation.comparison.comparison import Comparison, Difference, Setting
from wafer_lab.evaluation.tables import table

_ALPHA = 0.05
_OTHERS = ("f1_macro", "exact_match", "balanced_accuracy", "accuracy", "escape_rate", "false_alarm_rate", "cost", "ece")


def console(found: Comparison, notes: Sequence[str] = ()) -> str:
    """A compact table, one line a setting, and what has to be known to read it."""
    against = {d.setting: d for d in found.differences}
    heading = [found.score, "95 %", "seeds", "spread", "difference", "95 %", "p", "McNemar p", "", "setting"]
    rows = [heading]
    for s in found.settings:
        row = [f"{s.mean:.4f}", _range(s.low, s.high), str(len(s.scores)), _number(s.spread)]
        if d := against.get(s.name):
            row += [f"{d.difference:+.4f}", _range(d.low, d.high), _p(d.adjusted_bootstrap), _p(d.adjusted_mcnemar)]
            row += [verdict(d, found.lower_is_better), s.name]
        else:
            row += ["", "", "", "", "baseline", s.name]
        rows.append(row)
    widths = [max(len(row[k]) for row in rows) for k in range(len(heading))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *reading(found), *notes])


def markdown(found: Comparison, notes: Sequence[str] = (), figures: Sequence[str] = ()) -> str:
    """The whole comparison as a document.

    Args:
        found: the comparison.
        notes: lines about how it was made.
        figures: file names of figures beside the document.
    """
    direction = "lower" if found.lower_is_better else "higher"
    lines = [f"# Comparison by {found.score} ({direction} is better)", "", _baseline_line(found), "", "## Settings", ""]
    others = [key for key in _OTHERS if key != found.score and key in found.settings[0].means]
    lines += table(
        ["setting", "runs", f"{found.score}, mean", "95 % over wafers", "spread over seeds", "on val", *others],
        [_setting_row(s, others) for s in found.settings],
    )
    if found.differences:
        lines += ["", "## Against the baseline", ""]
        heading = ["setting", "difference", "95 % over wafers", "p", "adjusted", "only it right", "only baseline right"]
        heading += ["McNemar p", "adjusted", "verdict"]
        lines += table(heading, [_difference_row(d, found.lower_is_better) for d in found.differences])
    if found.effects:
        lines += ["", "## Main effects", ""]
        heading = ["factor", "level", "runs", "mean", "95 % over wafers", "difference to the first level"]
        lines += table([*heading, "95 % over wafers", "cells"], _effect_rows(found))
    lines += [line for name in figures for line in ("", f"![{name}]({name})")]
    lines += ["", "## How to read this", "", *(f"- {line}" for line in (*reading(found), *notes))]
    return "\n".join(lines) + "\n"


def settings_csv(found: Comparison) -> str:
    """One row a setting: its score, its difference to the baseline with both tests, and the means of all scores."""
    against = {d.setting: d for d in found.differences}
    tested = ["difference", "low", "high", "p_bootstrap", "adjusted_bootstrap", "p_mcnemar", "adjusted_mcnemar"]
    tested += ["gained", "lost", "pairs", "seed_spread"]
    named = {"low": "difference_low", "high": "difference_high"}
    factors, others = list(found.settings[0].factors), list(found.settings[0].means)
    heading = ["setting", *factors, "baseline", "score", "seeds", "mean", "low", "high", "spread", "val"]
    rows: list[list[object]] = [
        [*heading, *(named.get(key, key) for key in tested), *(f"mean_{key}" for key in others), "runs"]
    ]
    for s in found.settings:
        row: list[object] = [
            s.name,
            *s.factors.values(),
            s.name == found.baseline,
            found.score,
            " ".join(map(str, s.seeds)),
        ]
        row += [s.mean, s.low, s.high, s.spread, s.val]
        row += [getattr(against.get(s.name), key, None) for key in tested]
        rows.append([*row, *(s.means.get(key) for key in others), " ".join(s.runs)])
    return _csv(rows)


def effects_csv(found: Comparison) -> str:
    """One row a level of a factor."""
    keys = (
        "factor",
        "level",
        "runs",
        "mean",
        "low",
        "high",
        "difference",
        "difference_low",
        "difference_high",
        "cells",
    )
    return _csv([keys, *([getattr(effect, key) for key in keys] for effect in found.effects)])


def verdict(difference: Difference, lower_is_better: bool) -> str:
    """What may be claimed: better or worse only where the adjusted bootstrap p-value is below 0.05."""
    if difference.adjusted_bootstrap >= _ALPHA:
        claim = "not told apart"
    else:
        claim = "better" if (difference.difference < 0) == lower_is_better else "worse"
    return f"{claim}, within seed spread" if difference.within_seeds else claim


def reading(found: Comparison) -> list[str]:
    """What the numbers cover and what they do not, as sentences."""
    drawn = f"{found.wafers:,} test wafers" + (f", in {found.lots:,} whole lots" if found.lots else "")
    lines = [
        f"Intervals: 95 % of {found.resamples:,} bootstrap draws of the {drawn}, the same draws for all runs. They "
        "cover other test wafers for these trained models, not other training seeds; the spread is the standard "
        "deviation over the seeds that were run."
    ]
    close = [d.setting for d in found.differences if d.within_seeds]
    if close:
        lines.append(
            "The spread over seeds is larger than the difference, so other seeds may reverse it: " + "; ".join(close)
        )
    single = [s.name for s in found.settings if len(s.scores) == 1]
    if single and found.differences:
        lines.append(
            "One run only, so nothing here says whether another seed would reverse the difference: " + "; ".join(single)
        )
    if not found.differences:
        return [*lines, "There is one setting only, so nothing is compared."]
    lines.append(
        f"p: paired bootstrap of the score. McNemar p: exact test that both are right on equally many wafers"
        f"{', twice the mean over pairs of runs' if any(d.pairs > 1 for d in found.differences) else ''}. Both are "
        f"adjusted together by Holm's rule for {2 * len(found.differences)} tests; `better` and `worse` are said where "
        f"the adjusted bootstrap p is below {_ALPHA}."
    )
    if found.lots:
        lines.append("McNemar's test takes wafers as independent. Those of one lot are not, so its p is too small.")
    if found.effects:
        lines.append(
            "Main effects: a level's mean is over its runs. Its difference to the first level is over the cells that "
            "have both levels with all else equal; their intervals are not adjusted for being several."
        )
    return lines


def _baseline_line(found: Comparison) -> str:
    baseline = next(s for s in found.settings if s.name == found.baseline)
    runs = sum(len(s.runs) for s in found.settings)
    chosen = "named on the command line"
    if found.baseline_from_val:
        chosen = "the best on val" + (f", {baseline.val:.4f}" if baseline.val is not None else "")
    return f"{runs} runs of {len(found.settings)} settings. Baseline: `{found.baseline}` ({chosen})."


def _setting_row(s: Setting, others: Sequence[str]) -> list[str]:
    scores = [f"{s.mean:.4f}", _range(s.low, s.high), _number(s.spread), _number(s.val)]
    return [f"`{s.name}`", str(len(s.runs)), *scores, *(_number(s.means.get(key)) for key in others)]


def _difference_row(d: Difference, lower_is_better: bool) -> list[str]:
    bootstrap = [f"{d.difference:+.4f}", _range(d.low, d.high), _p(d.p_bootstrap), _p(d.adjusted_bootstrap)]
    flips = [f"{d.gained:.4g}", f"{d.lost:.4g}", _p(d.p_mcnemar), _p(d.adjusted_mcnemar)]
    return [f"`{d.setting}`", *bootstrap, *flips, verdict(d, lower_is_better)]


def _effect_rows(found: Comparison) -> list[list[str]]:
    rows = []
    for e in found.effects:
        row = [e.factor, e.level, str(e.runs), f"{e.mean:.4f}", _range(e.low, e.high)]
        if e.difference is None or e.difference_low is None or e.difference_high is None:
            row += ["", "", ""]
        else:
            row += [f"{e.difference:+.4f}", _range(e.difference_low, e.difference_high), str(e.cells)]
        rows.append(row)
    return rows


def _range(low: float, high: float) -> str:
    return f"[{low:.4f}, {high:.4f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _p(value: float) -> str:
    return "<.0001" if value < 0.0001 else f"{value:.4f}"


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
