"""A judged run told to a person: the console's last lines, report.md and rules.csv."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wafer_lab.evaluation.drawings import figures_section, step_name, support
from wafer_lab.evaluation.external import external_section
from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.judgement import CALIBRATION_SCORES, Judged, Judgement, basis
from wafer_lab.evaluation.masks import masks_section
from wafer_lab.evaluation.predictor.decisions import MinimumCost, RecallConstrained, Thresholds
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.tables import HEADLINE, aligned, table, with_interval
from wafer_lab.files import write_text
from wafer_lab.metrics.proportions import wilson

_CALIBRATION = {
    "ece": "ECE, 15 equal bins",
    "ece_mass": "ECE, 15 bins of equal mass",
    "ece_classwise": "class-wise ECE",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
# Of every alternative: for the table, and for rules.csv with intervals.
_COMPARED = {
    "exact_match": "exact match",
    "f1_macro": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "ece": "ECE",
    "escapes": "escapes",
    "false_alarms": "false alarms",
    "cost": "cost per wafer",
}


def headline(
    scores: Mapping[str, float], intervals: Intervals, splits: Sequence[str] = ("val", "test", "external")
) -> list[str]:
    """The main scores of each split as lines of plain text, each with its 95 % interval.

    Args:
        scores: keyed ``split/name``, as in metrics.json.
        intervals: likewise; a score without one stands alone.
        splits: which to show, where they are there.

    Returns:
        A heading and one line per score that is there.
    """
    there = [split for split in splits if any(key.startswith(f"{split}/") for key in scores)]
    rows = [["", *there], *_headline_rows(scores, intervals, there)]
    return aligned(rows)


def write_report(run_dir: Path | str, judgement: Judgement, facts: Mapping[str, Any]) -> Path:
    """Write ``report.md`` into a run's folder, with the figures found in its ``figures/``, and ``rules.csv``.

    Args:
        run_dir: the run's folder.
        judgement: what is known of the run.
        facts: how the run was made, shown in this order and by these names. `provenance.provenance()` has most; the
            workflow adds ``name`` (the heading), ``seed``, ``data_seed``, ``duration``, ``split_digest``,
            ``data_fingerprint``, and ``monitor`` with ``best_epoch`` and ``best_score``, which say what val chose.

    Returns:
        The report's path.
    """
    run_dir = Path(run_dir)
    sections = [
        [f"# {facts.get('name', run_dir.name)}"],
        _scores_section(judgement),
        [_selection(facts)],
        external_section(judgement),
        masks_section(judgement.masks) if judgement.masks else [],
        _predictor_section(judgement),
        _rules_section(judgement),
        _calibration_section(judgement),
        *(
            _class_section(split, judgement.splits[split])
            for split in ("test", "external", "val")
            if split in judgement.splits
        ),
        _conformal_section(judgement),
        figures_section(run_dir),
        _facts_section(run_dir, facts),
        _notes(judgement),
    ]
    if judgement.steps:
        write_text(run_dir / "rules.csv", _rules_csv(judgement))
    return write_text(run_dir / "report.md", "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n")


def _scores_section(judgement: Judgement) -> list[str]:
    splits = [split for split in ("test", "external", "val") if split in judgement.splits]
    rows = _headline_rows(judgement.scores, judgement.intervals, splits)
    return ["## Scores", "", *table(["score", *splits], rows)]


def _headline_rows(scores: Mapping[str, float], intervals: Intervals, splits: Sequence[str]) -> Iterator[list[str]]:
    for key, label in HEADLINE.items():
        cells = [_score(scores, intervals, f"{split}/{key}") for split in splits]
        if any(cells):
            yield [label, *cells]


def _score(scores: Mapping[str, float], intervals: Intervals, key: str) -> str:
    if key not in scores:
        return ""
    if key.rpartition("/")[2] in ("escapes", "false_alarms"):
        low, high = intervals[key]
        return f"{scores[key]:,.0f} [{low:,.0f}, {high:,.0f}]"
    return with_interval(scores[key], intervals.get(key))


def _selection(facts: Mapping[str, Any]) -> str:
    chosen = "Everything that was chosen or fitted, was on val"
    if "monitor" in facts:
        chosen += f": the checkpoint is the one with the best `{facts['monitor']}`"
        if "best_score" in facts:
            chosen += f" ({facts['best_score']:.4f}"
            chosen += f", epoch {facts['best_epoch']})" if "best_epoch" in facts else ")"
    return (
        f"{chosen}. The val scores are out of fold: each fifth of val is judged by a calibration and a rule fitted on "
        "the other four. Val also chose the checkpoint, so its scores are optimistic. The test wafers chose nothing."
    )


def _predictor_section(judgement: Judgement) -> list[str]:
    predictor, names = judgement.predictor, judgement.test.wafers.class_names
    calibration, decision = predictor.calibration, predictor.decision
    views = "the wafer as it is" if predictor.tta == "none" else f"the mean over the {predictor.tta} views"
    lines = ["## The predictor", "", f"Views: {views}. Calibration: {calibration.kind}"]
    if calibration.kind == "temperature" and predictor.target_kind == "multiclass":
        lines[-1] += f", T = {calibration.temperature:.3f}"
    texts = {
        "argmax": "the most probable class" if predictor.target_kind == "multiclass" else "every label of 0.5 or more",
        "f1": "thresholds fitted for macro F1" + ("; the class of the largest p / threshold" if predictor.target_kind
              == "multiclass" else ""),
        "cost": "the least expected cost",
        "recall": f"flagged where the defect probability reaches {decision.threshold:.4g}"
        if isinstance(decision, RecallConstrained) else "",
    }  # fmt: skip
    lines[-1] += f". Decision: {texts[judgement.settings.decision]}. It is kept in `predictor.json`."
    columns: dict[str, Sequence[float]] = {}
    if calibration.kind == "vector" or (calibration.kind != "none" and predictor.target_kind == "multilabel"):
        columns["temperature"] = calibration.temperatures
    if calibration.kind == "vector":
        columns["bias"] = calibration.bias
    if isinstance(decision, Thresholds) and judgement.settings.decision == "f1":
        columns["threshold"] = decision.values
    if columns:
        rows = zip(names, *([f"{value:.4g}" for value in column] for column in columns.values()), strict=True)
        lines += ["", *table(["class", *columns], rows)]
    if isinstance(decision, MinimumCost) and judgement.settings.cost_matrix is not None:
        costs = np.asarray(judgement.settings.cost_matrix, dtype=float)
        prices = ([name, *(f"{cost:g}" for cost in row)] for name, row in zip(names, costs, strict=True))
        lines += ["", *table(["cost of true, decided", *names], prices)]
    return lines + [line for note in judgement.notes for line in ("", f"Note: {note}.")]


def _rules_section(judgement: Judgement) -> list[str]:
    if not judgement.steps:
        return []
    first = judgement.steps[0].judged.scores
    shown = {key: label for key, label in _COMPARED.items() if key in first}
    rows = [
        [step_name(judgement, step), *(_score(step.judged.scores, step.judged.intervals, key) for key in shown)]
        for step in judgement.steps
    ]
    lines = ["## Other decisions on the same test wafers", "", *table(["predictor", *shown.values()], rows), ""]
    given = basis(judgement.settings)
    lines.append(
        f"Each is fitted on val; rules named alone decide on {given}. They are here to be read: choosing one for its "
        "test score would spoil it."
    )
    return lines + [line for text in judgement.skipped for line in ("", f"Not fitted: {text}.")]


def _rules_csv(judgement: Judgement) -> str:
    text = io.StringIO()
    names = [name for name in _COMPARED if name in judgement.steps[0].judged.scores]
    names += [name for name in CALIBRATION_SCORES if name not in names]
    names += [name for name in ("escape_rate", "false_alarm_rate") if name in judgement.steps[0].judged.scores]
    bounds = [f"{name}{side}" for name in names for side in ("", "_low", "_high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["predictor", "tta", "calibration", "decision", *bounds])
    for step in judgement.steps:
        scores, intervals = step.judged.scores, step.judged.intervals
        values = [f"{value:.6g}" for name in names for value in (scores[name], *intervals[name])]
        writer.writerow([step.name, step.settings.tta, step.settings.calibration, step.settings.decision, *values])
    return text.getvalue()


def _calibration_section(judgement: Judgement) -> list[str]:
    if judgement.predictor.calibration.kind == "none":
        return []
    parts = (judgement.before, judgement.test)
    rows = [
        [label, *(with_interval(part.scores[key], part.intervals[key]) for part in parts)]
        for key, label in _CALIBRATION.items()
    ]
    lines = ["## Calibration, test", "", *table(["lower is better", "before", "after"], rows), ""]
    note = "Of the deployed views. A plug-in ECE is biased upwards, and its resamples more so: where it is small, its "
    return [*lines, note + "interval may lie above it."]


def _class_section(split: str, part: Judged) -> list[str]:
    rows = [
        [name, f"{wafers:,}"]
        + [
            with_interval(part.scores[f"{key}/{name}"], part.intervals.get(f"{key}/{name}")) if wafers else "-"
            for key in ("f1", "precision", "recall")
        ]
        for name, wafers in support(part.wafers).items()
    ]
    return [f"## Classes, {split}", "", *table(["class", "wafers", "F1", "precision", "recall"], rows)]


def _conformal_section(judgement: Judgement) -> list[str]:
    if not judgement.conformal:
        return []
    names = judgement.test.wafers.class_names
    target = judgement.test.wafers.target
    count = int(target.sum()) if target.ndim == 2 else len(target)
    rows = []
    lines = ["", "Fitted on val, which also chose the checkpoint: the promise is nearly kept, not exactly."]
    for mode, (sets, coverage) in judgement.conformal.items():
        least = int(np.nanargmin(coverage.per_class))
        what = {"marginal": "over all wafers", "class": "for every class"}[mode]
        rows.append(
            [what, _share(coverage.overall, count), f"{coverage.per_class[least]:.4f} ({names[least]})",
             f"{coverage.mean_size:.3f}", f"{coverage.singletons:.1%}", f"{coverage.empty:.1%}"]
        )  # fmt: skip
        if sets.always and mode == "class":
            lines += [
                "",
                f"Too few val wafers for a promise: {', '.join(names[k] for k in sets.always)}; in every set.",
            ]
    heading = ["promised", "coverage", "least covered class", "mean size", "one class", "empty"]
    wanted = f"## Prediction sets of {judgement.settings.coverage:.0%} coverage, test"
    return [wanted, "", *table(heading, rows), *lines]


def _share(share: float, count: int) -> str:
    low, high = wilson(share * count, count)
    return with_interval(share, (float(low), float(high)))


def _facts_section(run_dir: Path, facts: Mapping[str, Any]) -> list[str]:
    shown = {key: value for key, value in facts.items() if key not in ("name", "command")}
    lines = ["## How this run was made", ""]
    if "command" in facts:
        lines += ["```", str(facts["command"]), "```", ""]
    rows = [[key.replace("_", " "), _plain(value)] for key, value in shown.items()]
    if (run_dir / "config.yaml").exists():
        rows.insert(0, ["configuration", "[config.yaml](config.yaml)"])
    return lines + table(["fact", "value"], rows)


def _notes(judgement: Judgement) -> list[str]:
    part = judgement.test.wafers
    drawn = "whole lots" if several_lots(part.lot) else "wafers"
    lines = [
        "## Reading the numbers",
        "",
        f"In brackets: 95 % percentile bootstrap over {drawn}. It says how far "
        "a score would move with other test wafers of the same kind, not with another training run. An interval of no "
        "width means that no error was seen, or nothing but errors: among n wafers of a class without an error, up to "
        "about 3 / n may still be wrong. Macro means are over the classes that occur, in truth or in prediction; where "
        "resamples lack a rare class, the interval of a macro mean may lie beside it.",
    ]
    if "escape_rate" in judgement.test.scores:
        lines += ["", "Escape: a defect called normal. False alarm: a normal wafer called a defect."]
        if part.target_kind == "multilabel":
            lines[-1] += " A wafer without any label is normal. The cost counts labels: each missed one, each too many."
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
