"""Cross-validation told as one result: every wafer judged by the one model that never saw it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.intervals import Intervals, judge
from wafer_lab.evaluation.predictions import Predictions, TargetKind
from wafer_lab.evaluation.predictor.decisions import optional_costs
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.tables import HEADLINE, aligned, table, with_deviation, with_interval
from wafer_lab.evaluation.views import Wafers, wafers

# Scores that compare probabilities across wafers. Those of different models are on different scales, and their
# miscalibrations can cancel, so these scores are told as means over folds: Forman and Scholz, "Apples-to-apples in
# cross-validation studies", SIGKDD Explorations 12(1), 2010.
_OF_FOLDS = ("auroc", "average_precision", "ece")


@dataclass(frozen=True)
class Pooled:
    """The test wafers of all folds, each with the answer of its own fold's predictor.

    Attributes:
        target: (N,) int64 or (N, C) int8, as in `Wafers`.
        probabilities: (N, C) float64.
        decisions: (N,) int64 or (N, C) int8.
        lot: (N,) str, or None where the source has no lots.
        class_names: The C names.
        target_kind: `multiclass` or `multilabel`.
    """

    target: NDArray[Any]
    probabilities: NDArray[np.float64]
    decisions: NDArray[Any]
    lot: NDArray[np.str_] | None
    class_names: tuple[str, ...]
    target_kind: TargetKind


def out_of_fold(tables: Sequence[Predictions]) -> Predictions:
    """One table of every fold's test rows.

    Args:
        tables: One per fold, of the same data.

    Returns:
        The test rows, ordered by wafer and view; the split digest is that of all folds together.

    Raises:
        UserError: The tables are of different classes or data.
        ValueError: A wafer is tested in two folds.
    """
    tests = [fold.select(split="test") for fold in tables]
    digest = hashlib.sha256("".join(fold.split_digest for fold in tables).encode()).hexdigest()[:12]
    joined = Predictions.concat([replace(test, split_digest=digest) for test in tests])
    order = np.lexsort((joined.view, joined.index))
    index, view = joined.index[order], joined.view[order]
    if ((index[1:] == index[:-1]) & (view[1:] == view[:-1])).any():
        raise ValueError("a wafer is tested in two folds")
    return joined.take(order)


def pool(tables: Sequence[Predictions], predictors: Sequence[Predictor]) -> Pooled:
    """Let every fold's predictor, fitted on that fold's val, answer for that fold's test wafers.

    Args:
        tables: One per fold.
        predictors: Likewise.
    """
    tests: list[Wafers] = [
        wafers(table, "test", predictor.tta) for table, predictor in zip(tables, predictors, strict=True)
    ]
    answers = list(zip(predictors, tests, strict=True))
    lots = [test.lot for test in tests if test.lot is not None]
    return Pooled(
        target=np.concatenate([test.target for test in tests]),
        probabilities=np.concatenate([predictor.probabilities(test.logits) for predictor, test in answers]),
        decisions=np.concatenate([predictor(test.logits) for predictor, test in answers]),
        lot=np.concatenate(lots) if len(lots) == len(tests) else None,
        class_names=tests[0].class_names,
        target_kind=tests[0].target_kind,
    )


def score(pooled: Pooled, settings: Evaluation) -> tuple[dict[str, float], Intervals]:
    """The scores of all wafers together, with intervals over whole lots where there are enough; see `intervals.judge`.

    AUROC, average precision and ECE are not among them: they compare probabilities across wafers, and those of several
    models do not compare. Take their mean over folds, see `spread`.

    Args:
        pooled: All folds' test wafers.
        settings: Of the evaluation.
    """
    scores, intervals = judge(
        pooled.target,
        pooled.decisions,
        pooled.probabilities,
        pooled.class_names,
        pooled.target_kind,
        normal=settings.normal,
        cost=optional_costs(settings, pooled.class_names, pooled.target_kind),
        lot=pooled.lot,
        ranking=False,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    kept = [name for name in scores if not name.startswith(_OF_FOLDS)]
    return {name: scores[name] for name in kept}, {name: intervals[name] for name in kept}


def spread(runs: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (n - 1; 0 for one run) of every score that all runs have."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    columns = {name: np.array([run[name] for run in runs], dtype=np.float64) for name in shared}
    return {name: (float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0) for name, x in columns.items()}


def headline(scores: Mapping[str, float], intervals: Intervals, folds: Sequence[Mapping[str, float]]) -> list[str]:
    """The main scores as lines of plain text: of all wafers with 95 % intervals, and mean and deviation over folds.

    Arguments as for `report`.
    """
    return aligned(_headline(scores, intervals, folds))


def report(
    name: str,
    scores: Mapping[str, float],
    intervals: Intervals,
    folds: Sequence[Mapping[str, float]],
    pooled: Pooled,
) -> str:
    """The cross-validation as Markdown.

    Args:
        name: The run's.
        scores: Of all wafers together, as `score` gives them.
        intervals: Likewise.
        folds: Every fold's test scores, keys as `intervals.judge` gives them.
        pooled: The wafers.
    """
    heading, *body = _headline(scores, intervals, folds)
    shown = [key for key in HEADLINE if any(key in fold for fold in folds)]
    rows = [
        [f"[{i}](fold_{i}/report.md)", *(f"{fold[key]:.4f}" if key in fold else "" for key in shown)]
        for i, fold in enumerate(folds)
    ]
    columns = {"iou": "IoU", "f1": "F1", "precision": "precision", "recall": "recall"}
    if not any(name.startswith("iou/") for name in scores):
        del columns["iou"]
    classes = [
        [label, *(_cell(scores, intervals, f"{key}/{label}") for key in columns)] for label in pooled.class_names
    ]
    lines = [
        f"# {name}",
        "",
        f"{len(folds)} folds; each of {len(pooled.target):,} wafers is judged once, by the model that saw neither it "
        "nor its fold, with what was fitted on that model's own val wafers.",
        "",
        "## Scores",
        "",
        *table(heading, body),
        "",
        *_covered(pooled),
        "",
        "## Folds",
        "",
        *table(["fold", *(HEADLINE[key] for key in shown)], rows),
        "",
        "## Classes",
        "",
        *table(["class", *columns.values()], classes),
    ]
    return "\n".join(lines) + "\n"


def _covered(pooled: Pooled) -> list[str]:
    """What the intervals and the deviations are over, in plain sentences."""
    by_lot = several_lots(pooled.lot)
    lines = [
        f"- In brackets: 95 % bootstrap interval over {'whole lots' if by_lot else 'wafers'}. It covers the luck of "
        "which wafers were tested, for these trained models. It does not cover another training run.",
        "- The standard deviation over folds has both in it, other test wafers and another training. It is no standard "
        "error of the mean, because the folds share most of their training wafers.",
        "- AUROC, average precision and ECE are means over folds alone: they compare probabilities across wafers, and "
        "the probabilities of different models do not compare.",
    ]
    if pooled.lot is not None and (pooled.lot != "").any():
        lines.append(
            "- Folds do not keep lots together: a model is tested on wafers of lots that it was trained on, so new "
            "lots may score lower. `data.split=lot` tests on lots that training never saw."
        )
    if not by_lot:
        lines.append(
            "- Wafers of one lot look alike. They were drawn one by one, for want of lot names or of 20 lots, so the "
            "interval may be too narrow."
        )
    return lines


def _headline(
    scores: Mapping[str, float], intervals: Intervals, folds: Sequence[Mapping[str, float]]
) -> list[list[str]]:
    """Heading and rows."""
    each = spread(folds)
    rows = [
        [label, _cell(scores, intervals, key), with_deviation(*each[key]) if key in each else ""]
        for key, label in HEADLINE.items()
        if key in scores or key in each
    ]
    return [["score", "all wafers", "mean \N{PLUS-MINUS SIGN} sd of folds"], *rows]


def _cell(scores: Mapping[str, float], intervals: Intervals, key: str) -> str:
    return with_interval(scores[key], intervals.get(key)) if key in scores else ""
