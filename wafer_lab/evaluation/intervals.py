"""Confidence intervals of scores, by resampling wafers.

AUROC and average precision have none here: they depend on the order of all probabilities, not on counts.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.metrics.scores import MultilabelCounts, Scores, multiclass_scores, multilabel_scores

Intervals = dict[str, tuple[float, float]]

# Draws held at once: 2,000 resamples of a few hundred cells, or fewer of more.
_DRAWS = 4_000_000


def count_scores(predictions: Predictions) -> dict[str, float]:
    """Every score that the decisions of a table determine; keys as in `metrics.scores`.

    Args:
        predictions: labelled rows, one per wafer.

    Raises:
        UserError: there are no rows, or some have no label.
        ValueError: a wafer is there more than once.
    """
    cells, counts = _cells(predictions)
    return {name: float(values[0]) for name, values in _scores(predictions, cells, counts[None]).items()}


def bootstrap_intervals(
    predictions: Predictions, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Intervals:
    """Percentile bootstrap intervals of every count-based score.

    A score depends on a wafer through its (target, decision) pair alone, so drawing N wafers with replacement
    is drawing the counts of the distinct pairs from one multinomial distribution: the same distribution as
    resampling rows, at a cost that grows with the distinct pairs instead of with N.

    The interval says how much the score would vary with another test set of this size, not with another
    training run. Where a class has no error in the table, neither has any resample: an interval of no width
    means "no error seen in n wafers", and the class may still err on up to about 3 / n of its wafers.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979.

    Args:
        predictions: labelled rows, one per wafer: one split, one view.
        resamples: how many test sets to draw.
        level: the share of them that the interval covers, in (0, 1).
        seed: of the draws.

    Returns:
        Score name -> (low, high), both in [0, 1].

    Raises:
        UserError: there are no rows, or some have no label.
        ValueError: a wafer is there more than once.
    """
    cells, counts = _cells(predictions)
    random = np.random.default_rng(seed)
    total = int(counts.sum())
    drawn: dict[str, list[NDArray[np.float64]]] = {}
    for size in _chunks(resamples, len(counts)):
        draws = random.multinomial(total, counts / total, size=size)
        for name, values in _scores(predictions, cells, draws).items():
            drawn.setdefault(name, []).append(values)
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = {name: np.quantile(np.concatenate(parts), tails) for name, parts in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def evaluate(
    predictions: Predictions, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[dict[str, float], Intervals]:
    """Scores and intervals of every split in the table, on the wafers as they are (view 0).

    Returns:
        Scores and intervals, both keyed ``split/name``, as in a run's metrics.json.
    """
    scores: dict[str, float] = {}
    intervals: Intervals = {}
    for split in predictions.splits():
        table = predictions.select(split=split, view=0)
        found = bootstrap_intervals(table, resamples, level, seed)
        scores |= {f"{split}/{name}": value for name, value in count_scores(table).items()}
        intervals |= {f"{split}/{name}": bounds for name, bounds in found.items()}
    return scores, intervals


def _cells(predictions: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct (target, decision) rows, (K, 2) or (K, 2C), and how often each occurs, (K,)."""
    if not len(predictions):
        raise UserError("there are no predictions to score; check the split and view that were asked for")
    unlabelled = int((~predictions.labelled).sum())
    if unlabelled:
        raise UserError(f"{unlabelled} of {len(predictions)} wafers have no label, so they cannot be scored")
    if len(np.unique(predictions.index)) < len(predictions):
        raise ValueError("a wafer occurs more than once; select one split and one view")
    target = predictions.target.reshape(len(predictions), -1).astype(np.int64)
    decisions = predictions.decisions().reshape(len(predictions), -1).astype(np.int64)
    cells, counts = np.unique(np.hstack([target, decisions]), axis=0, return_counts=True)
    return cells, counts.astype(np.int64)


def _scores(predictions: Predictions, cells: NDArray[np.int64], draws: NDArray[np.int64]) -> Scores:
    """Scores of (R, K) counts of the cells."""
    target, decisions = np.split(cells, 2, axis=1)
    if predictions.target_kind == "multilabel":
        counts = MultilabelCounts.of(target, decisions, weights=draws)
        return multilabel_scores(counts, predictions.class_names)
    confusion = np.zeros((len(draws), predictions.num_classes, predictions.num_classes))
    confusion[:, target[:, 0], decisions[:, 0]] = draws
    return multiclass_scores(confusion, predictions.class_names)


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    most = max(1, _DRAWS // cells)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
