"""Scores of decisions and probabilities, with bootstrap intervals over wafers or lots.

Every score here is a function of sums over wafers, or of the order of their probabilities. A resample gives each
wafer, or each lot, a weight: how often it was drawn. So the scores of all resamples come from one sparse product of
(resamples, groups) weights with (groups, statistics) sums, and from one weighted walk down each class's order.

An interval says how much the score would vary with another test set of this size, not with another training run.

- One of no width on a rate means that no error was seen among n wafers; up to about 3 / n of them may still be wrong.
- A resample may lack a rare class. Its macro means then leave that class out, as `metrics.scores` does; its
  precision counts as 0 there, and its F1, recall, AUROC and average precision leave the resample out, as escape and
  false alarm rates do where no wafer is defective, or none is normal.
- ECE plugs sample means into absolute values, which is biased upwards: noise in a bin never cancels (Kumar et al.,
  "Verified uncertainty calibration", NeurIPS 2019; Roelofs et al., "Mitigating bias in calibration error estimation",
  AISTATS 2022). A resample adds its own noise to the table's, so the interval sits higher still and can lie wholly
  above the score. Use it to compare two models on the same wafers; where the ECE is near that noise, trust the Brier
  score and the NLL. The bins of `ece_mass` are the table's in every resample.
- Wafers of one lot look alike, so drawing wafers one by one claims more precision than there is; drawing lots does
  not, but it takes 20 lots or more for the interval to mean anything.

Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979. Lots are drawn whole as
in the cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import TargetKind
from wafer_lab.evaluation.resampling import draw_weights, group_numbers, summed
from wafer_lab.metrics import reliability
from wafer_lab.metrics.ranking import Ranking
from wafer_lab.metrics.scores import (
    MultilabelCounts,
    Scores,
    escapes_and_false_alarms,
    multiclass_scores,
    multilabel_scores,
    normal_classes,
)

Intervals = dict[str, tuple[float, float]]

# Weights that a thread works on at once: few enough that they and what is made of them fit into its core's cache.
_WEIGHTS = 250_000
_BINS = 15
_RATES = ("escape_rate", "false_alarm_rate")  # of the defective wafers and of the normal ones, where there are any
_THREADS = min(4, os.cpu_count() or 1)


def judge(
    target: NDArray[Any],
    decisions: NDArray[Any],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    target_kind: TargetKind,
    *,
    normal: Sequence[str] | None = None,
    cost: NDArray[Any] | Sequence[Any] | None = None,
    lot: NDArray[np.str_] | None = None,
    ranking: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, float], Intervals]:
    """Every score of N labelled wafers, and for each a percentile bootstrap interval.

    The intervals of `ece`, `ece_mass` and `ece_classwise` are of a plug-in estimate that is biased upwards; the
    top of this module says how to read them, and all the others.

    Args:
        target: multi-class (N,) class indices; multi-label (N, C) of 0/1.
        decisions: what was decided, shaped like the target.
        probabilities: (N, C) in [0, 1].
        class_names: the C class names.
        target_kind: "multiclass" or "multilabel".
        normal: multi-class: the classes that are no defect; None: the one called none, where there is one.
            Multi-label wafers without a label are normal whatever this says.
        cost: multi-class: (C, C), [true class][decided class]. Multi-label: two numbers, what a missed label and
            what a label too many costs. None: no `cost` among the scores.
        lot: (N,) the production lot of each wafer: whole lots are drawn, as many as there are. "" is a lot of its
            own. None, or fewer than 20 lots: wafers are drawn.
        ranking: whether AUROC and average precision are wanted, which take most of the time.
        resamples: how many test sets to draw.
        level: the share of them that the interval covers, in (0, 1).
        seed: of the draws.

    Returns:
        Scores, and name -> (low, high). The names are those of `multiclass_scores` or `multilabel_scores`, without the
        rate of defective or normal wafers where there are none; `escapes` and `false_alarms`, wafers, where some class
        is normal; `cost`, the mean per wafer; `ece`, `ece_mass`, `ece_classwise`, `brier`, `nll` as in
        `metrics.reliability`; `auroc_macro`, `average_precision_macro`, `auroc/<class>`, `average_precision/<class>`
        for the classes that some wafers are and some are not.

    Raises:
        UserError: there are no wafers, some have no label, a probability is not finite, or a normal class is no
            class.
        ValueError: the shapes disagree.
    """
    table = _Table.of(target, decisions, probabilities, class_names, target_kind, normal, cost, lot, ranking)
    scores = table.of_all()
    drawn = table.resample(resamples, seed)
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = {
        name: np.nanquantile(values, tails) if not np.isnan(values).all() else np.full(2, scores[name][0])
        for name, values in drawn.items()
        if name in scores
    }
    intervals = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    return {name: float(values[0]) for name, values in scores.items()}, intervals


def resampled(
    target: NDArray[Any],
    decisions: NDArray[Any],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    target_kind: TargetKind,
    *,
    normal: Sequence[str] | None = None,
    cost: NDArray[Any] | Sequence[Any] | None = None,
    lot: NDArray[np.str_] | None = None,
    ranking: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Every score of each resample behind `judge`'s intervals.

    The draws depend on the seed and on the number of groups alone. So two calls on the same wafers (or lots) in the
    same order have the same resamples, and the difference of their scores is a paired bootstrap of the difference.

    Args:
        target: see `judge`; so are all the others.
        decisions: likewise.
        probabilities: likewise.
        class_names: likewise.
        target_kind: likewise.
        normal: likewise.
        cost: likewise.
        lot: likewise.
        ranking: likewise.
        resamples: likewise; the first of many draws are those of fewer.
        seed: likewise.

    Returns:
        Name -> (resamples,) float64, the names of `judge`; nan where the resample does not define it: it has no
        wafer of the class, or of a ranking score no other, or no defective or normal one.

    Raises:
        UserError: see `judge`.
        ValueError: see `judge`.
    """
    table = _Table.of(target, decisions, probabilities, class_names, target_kind, normal, cost, lot, ranking)
    return table.resample(resamples, seed)


@dataclass(frozen=True)
class _Columns:
    """Some columns of a sparse (groups, S) matrix.

    Attributes:
        columns: (K,) which, all with an entry.
        starts: (K,) where the entries of each begin.
        rows: (E,) the group of each entry.
        values: (E,) the entries.
    """

    columns: NDArray[np.intp]
    starts: NDArray[np.intp]
    rows: NDArray[np.intp]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: NDArray[Any], first: int) -> "_Columns":
        """The entries of a (groups, K) matrix that are not 0; its first column is number `first`."""
        column, row = np.nonzero(matrix.T)
        columns, starts = np.unique(column, return_index=True)
        return cls(first + columns, starts, row, matrix[row, column].astype(np.float64))

    def add_to(self, sums: NDArray[np.float64], weights: NDArray[np.uint8]) -> None:
        """Write these columns of weights @ matrix into (R, S) sums."""
        if len(self.columns):
            # Not the BLAS: its threads would fight with ours, and there are about 12 entries in a row of 200.
            products = np.take(weights, self.rows, axis=1) * self.values
            sums[:, self.columns] = np.add.reduceat(products, self.starts, axis=1)


@dataclass(frozen=True)
class _Table:
    """What resampling needs to know of N wafers in G groups.

    Attributes:
        class_names: C names.
        multiclass: whether the target is.
        normal: as given to `judge`.
        wafers: N.
        groups: G.
        places: where each statistic lies among the sums, by name.
        statistics: the sums of every group, as sparse columns.
        rankings: of the classes that can be ranked, by name.
    """

    class_names: tuple[str, ...]
    multiclass: bool
    normal: Sequence[str] | None
    wafers: int
    groups: int
    places: Mapping[str, slice]
    statistics: Sequence[_Columns]
    rankings: Mapping[str, Ranking]

    @classmethod
    def of(
        cls,
        target: NDArray[Any],
        decisions: NDArray[Any],
        probabilities: NDArray[Any],
        class_names: Sequence[str],
        target_kind: TargetKind,
        normal: Sequence[str] | None,
        cost: NDArray[Any] | Sequence[Any] | None,
        lot: NDArray[np.str_] | None,
        ranking: bool,
    ) -> "_Table":
        target, decisions, probabilities = map(np.asarray, (target, decisions, probabilities))
        multiclass, classes = target_kind == "multiclass", len(class_names)
        _check(target, decisions, probabilities, multiclass, classes)
        group = group_numbers(lot, len(target))
        present = target[:, None] == np.arange(classes) if multiclass else target > 0
        places, statistics, width = {}, [], 0
        for name, terms in _terms(target, decisions, probabilities, present, cost):
            places[name] = slice(width, width + terms.shape[1])
            entries = terms if np.array_equal(group, np.arange(len(group))) else summed(terms, group)
            # The classes apart where all would not fit into the cache.
            step = terms.shape[1] if np.count_nonzero(entries) <= _WEIGHTS else _BINS
            firsts = range(0, terms.shape[1], step)
            statistics += [_Columns.of(entries[:, first : first + step], width + first) for first in firsts]
            width += terms.shape[1]
        rankings = {
            name: Ranking.of(probabilities[:, k], present[:, k], group)
            for k, name in enumerate(class_names)
            if ranking and 0 < present[:, k].sum() < len(target)
        }
        return cls(
            class_names=tuple(class_names),
            multiclass=multiclass,
            normal=normal,
            wafers=len(target),
            groups=int(group.max()) + 1,
            places=places,
            statistics=statistics,
            rankings=rankings,
        )

    def resample(self, resamples: int, seed: int) -> Scores:
        """Scores (resamples,) of as many draws of the groups."""
        step = max(1, _WEIGHTS // self.wafers)
        chunks = [range(first, min(first + step, resamples)) for first in range(0, resamples, step)]
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(lambda draws: self.walk(draw_weights(self.groups, seed, draws)), chunks))
        sums, ranked = (np.concatenate(part) for part in zip(*parts, strict=True))
        return self._defined(self.scores(sums, ranked), sums)

    def of_all(self) -> Scores:
        """Scores (1,) of all wafers, without the rates of wafers that are not there."""
        sums, ranked = self.walk(np.ones((1, self.groups), dtype=np.uint8))
        scores = self.scores(sums, ranked)
        known = self._defined(scores, sums)
        return {name: value for name, value in scores.items() if name not in _RATES or not np.isnan(known[name]).any()}

    def _defined(self, scores: Scores, sums: NDArray[np.float64]) -> Scores:
        """The same scores, nan where a resample has no wafer that they are about."""
        present = sums[:, self.places["present"]]
        about = {f"{key}/{name}": present[:, k] for k, name in enumerate(self.class_names) for key in ("f1", "recall")}
        if "escape_rate" in scores:
            counts = sums[:, self.places["counts"]]
            if self.multiclass:
                normal = present[:, normal_classes(self.class_names, self.normal)].sum(-1)
                defects = present.sum(-1) - normal
            else:
                defects = np.asarray(MultilabelCounts.of_sums(counts).defects)
                normal = sums[:, self.places["wafers"]][:, 0] - defects
            about |= {"escape_rate": defects, "false_alarm_rate": normal}
        undefined = {name: np.where(count > 0, scores[name], np.nan) for name, count in about.items()}
        return scores | undefined

    def walk(self, weights: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums (R, S) of all statistics and ranking scores (R, K, 2) under each row of (R, G) weights."""
        sums = np.zeros((len(weights), max(place.stop for place in self.places.values())))
        for columns in self.statistics:
            columns.add_to(sums, weights)
        wafers = sums[:, self.places["wafers"]][:, 0]
        ranked = [ranking.scores(weights, wafers) for ranking in self.rankings.values()]
        return sums, np.array(ranked).reshape(-1, 2, len(weights)).transpose(2, 0, 1)

    def scores(self, sums: NDArray[np.float64], ranked: NDArray[np.float64]) -> Scores:
        """Scores (R,) of what `walk` found."""
        found = {name: sums[:, place] for name, place in self.places.items()}
        wafers = found["wafers"][:, 0]
        scores = self._counted(found["counts"])
        scores |= {name: np.abs(found[name]).sum(-1) / wafers for name in ("ece", "ece_mass")}
        gaps = np.abs(found["ece_classwise"].reshape(len(sums), len(self.class_names), -1)).sum(-1)
        scores["ece_classwise"] = _mean(gaps / wafers[:, None], found["present"] > 0, empty=0.0)
        scores |= {name: found[name][:, 0] / wafers for name in ("brier", "nll", "cost") if name in found}
        for k, key in enumerate(("auroc", "average_precision")) if self.rankings else ():
            scores[f"{key}_macro"] = _mean(ranked[..., k], ~np.isnan(ranked[..., k]), empty=np.nan)
            scores |= {f"{key}/{name}": ranked[:, j, k] for j, name in enumerate(self.rankings)}
        return scores

    def _counted(self, counts: NDArray[np.float64]) -> Scores:
        if not self.multiclass:
            labels = MultilabelCounts.of_sums(counts)
            flagged = {"escapes": labels.escapes, "false_alarms": labels.false_alarms}
            return multilabel_scores(labels, self.class_names) | flagged
        confusion = counts.reshape(-1, len(self.class_names), len(self.class_names))
        scores = multiclass_scores(confusion, self.class_names, self.normal)
        normal = normal_classes(self.class_names, self.normal)
        if normal.any():
            scores["escapes"], scores["false_alarms"] = escapes_and_false_alarms(confusion, normal)
        return scores


def _terms(
    target: NDArray[Any],
    decisions: NDArray[Any],
    probabilities: NDArray[Any],
    present: NDArray[np.bool_],
    cost: NDArray[Any] | Sequence[Any] | None,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """What each wafer adds to the statistics: name and (N, columns), one at a time to save memory."""
    wafers, classes = present.shape
    yield "wafers", np.ones((wafers, 1))
    yield "present", present
    if target.ndim == 1:
        pair = target.astype(np.int64) * classes + decisions
        yield "counts", pair[:, None] == np.arange(classes * classes)
    else:
        yield "counts", MultilabelCounts.indicators(target, decisions)
    yield "ece", reliability.calibration_terms(probabilities, target, _BINS)
    yield "ece_mass", reliability.calibration_terms(probabilities, target, _BINS, spacing="mass")
    yield "ece_classwise", reliability.classwise_terms(probabilities, target, _BINS).reshape(wafers, -1)
    yield "brier", reliability.brier_terms(probabilities, target)[:, None]
    yield "nll", reliability.nll_terms(probabilities, target)[:, None]
    if cost is not None:
        yield "cost", _costs(target, decisions, np.asarray(cost, dtype=np.float64), classes)[:, None]


def _check(
    target: NDArray[Any], decisions: NDArray[Any], probabilities: NDArray[Any], multiclass: bool, classes: int
) -> None:
    expected = (len(target),) if multiclass else (len(target), classes)
    if not target.shape == decisions.shape == expected or probabilities.shape != (len(target), classes):
        raise ValueError(
            f"target {target.shape}, decisions {decisions.shape} and probabilities {probabilities.shape} "
            f"do not fit {classes} classes"
        )
    if not len(target):
        raise UserError("there are no wafers to score; check the split that was asked for")
    unlabelled = int((target.reshape(len(target), -1) < 0).any(axis=1).sum())
    if unlabelled:
        raise UserError(f"{unlabelled} of {len(target)} wafers have no label, so they cannot be scored; leave them out")
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise UserError(f"the probabilities of {broken} of {len(target)} wafers are not finite; predict them again")


def _costs(
    target: NDArray[Any], decisions: NDArray[Any], cost: NDArray[np.float64], classes: int
) -> NDArray[np.float64]:
    """(N,) what each wafer's decision costs."""
    expected = (classes, classes) if target.ndim == 1 else (2,)
    if cost.shape != expected:
        raise ValueError(f"cost has shape {cost.shape}, expected {expected}")
    if target.ndim == 1:
        return np.asarray(cost[target, decisions])
    true, called = target > 0, decisions > 0
    return np.asarray(cost[0] * (true & ~called).sum(1) + cost[1] * (~true & called).sum(1))


def _mean(values: NDArray[np.float64], where: NDArray[np.bool_], empty: float) -> NDArray[np.float64]:
    """Mean over the last axis of the values that count."""
    total, count = np.where(where, values, 0.0).sum(-1), where.sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, empty), where=count > 0))
