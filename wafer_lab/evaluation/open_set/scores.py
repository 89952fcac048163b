"""Wafers unlike anything in training: scores that flag them, and how well the scores do.

Every score is higher for a wafer less like the known ones. None sees an unknown wafer before it is judged, and none is
fitted.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.views import Wafers
from wafer_lab.metrics.ranking import Ranking, ranking_scores

Floats = NDArray[np.float64]
Drawn = NDArray[np.uint8]
Lots = NDArray[np.str_] | None

#: Which nearest neighbour's distance counts. The paper takes 10 for a bank of 12,000, about the size of ours; the k-th
#: neighbour of a wafer whose class has fewer than k is always of another class.
NEIGHBOUR = 10
# Similarities held at once by the nearest neighbours: 2^24 float32, 64 MiB.
_BLOCK = 2**24
# Weights held at once by the bootstrap, as in `intervals`.
_DRAWS = 250_000


def unknown_scores(wafers: Wafers) -> dict[str, Floats]:
    """Every score that a table offers for its wafers; each is averaged over the views that `wafers` holds.

    Args:
        wafers: N wafers; `views.wafers(..., tta="none")` for the wafer as it is.

    Returns:
        Name -> (N,) float64: `max_probability`, `energy` and, where the table has the column, `knn_distance`.
    """
    found = {
        "max_probability": max_probability(wafers.logits, wafers.target_kind),
        "energy": energy(wafers.logits, wafers.target_kind),
    }
    if wafers.knn_distance is not None:
        found["knn_distance"] = wafers.knn_distance.astype(np.float64)
    return found


def max_probability(logits: NDArray[Any], target_kind: str) -> Floats:
    """1 - the probability of the most probable answer, from uncalibrated probabilities averaged over views.

    Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural networks",
    ICLR 2017. Multi-label: the answer is a whole combination of labels, of probability prod_k max(p_k, 1 - p_k). The
    usual largest p_k would call every wafer without a label unknown, and such wafers are the normal ones.

    Args:
        logits: (N, V, C) of V views.
        target_kind: `multiclass` or `multilabel`.

    Returns:
        (N,) in [0, 1).
    """
    z = np.asarray(logits, dtype=np.float64)
    if target_kind == "multilabel":
        p = (0.5 * (1.0 + np.tanh(0.5 * z))).mean(axis=1)
        return np.asarray(-np.expm1(np.log1p(-np.minimum(p, 1.0 - p)).sum(axis=1)))
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p = (p / p.sum(axis=2, keepdims=True)).mean(axis=1)
    # The sum of the others: 1 - max would round to 0 for every confident wafer.
    np.put_along_axis(p, p.argmax(axis=1)[:, None], 0.0, axis=1)
    return np.asarray(p.sum(axis=1))


def energy(logits: NDArray[Any], target_kind: str, temperature: float = 1.0) -> Floats:
    """Free energy of the logits, averaged over views.

    Multi-class: -T logsumexp(z / T); Liu et al., "Energy-based out-of-distribution detection", NeurIPS 2020.
    Multi-label: the joint energy -T sum_k softplus(z_k / T); Wang et al., "Can multi-label classification networks know
    what they don't know?", NeurIPS 2021. It takes a wafer without any label for unknown.

    Args:
        logits: (N, V, C) of V views.
        target_kind: `multiclass` or `multilabel`.
        temperature: T > 0.

    Returns:
        (N,), any sign.
    """
    z = np.asarray(logits, dtype=np.float64) / temperature
    free = np.logaddexp(0.0, z).sum(axis=2) if target_kind == "multilabel" else np.logaddexp.reduce(z, axis=2)
    return np.asarray(-temperature * free.mean(axis=1))


def knn_distances(bank: NDArray[Any], queries: NDArray[Any], k: int = NEIGHBOUR) -> NDArray[np.float32]:
    """Distance of every query to its k-th nearest feature vector of the bank, all scaled to length 1.

    Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022, arXiv:2204.06507.

    Args:
        bank: (M, D) features of training wafers.
        queries: (N, D) features; a query that is itself in the bank counts as its own first neighbour.
        k: which neighbour; M where the bank has fewer.

    Returns:
        (N,) float32 in [0, 2].

    Raises:
        ValueError: the bank is empty, k is not positive, or the widths differ.
    """
    if k < 1 or not len(bank) or bank.shape[1:] != queries.shape[1:]:
        raise ValueError(f"no {k}-th neighbours of {queries.shape} queries in a bank of {bank.shape}")
    known, asked = _unit(bank), _unit(queries)
    place = len(known) - min(k, len(known))  # of the k-th largest similarity in ascending order
    similarity = np.empty(len(asked), dtype=np.float32)
    step = max(1, _BLOCK // len(known))
    for start in range(0, len(asked), step):
        block = asked[start : start + step] @ known.T
        block.partition(place, axis=1)
        similarity[start : start + step] = block[:, place]
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0)), dtype=np.float32)


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """The chance that an unknown wafer scores higher than a known one, ties counting half (Mann-Whitney).

    Args:
        known: (n,) scores of wafers of trained classes.
        unknown: (m,) scores of wafers of the others.
    """
    _check(known, unknown)
    return ranking_scores(np.concatenate([known, unknown]), _are_unknown(known, unknown))[0]


def fpr_at_tpr(known: NDArray[Any], unknown: NDArray[Any], tpr: float = 0.95) -> float:
    """The share of unknown wafers that pass as known where a share `tpr` of the known ones does: FPR at 95 % TPR.

    Known is positive here, as in Liang et al. (ODIN, ICLR 2018) and in the papers on energy and on neighbours above:
    the threshold comes from known wafers alone, as it must in use, and 1 - tpr of them are flagged for nothing. Some
    papers (outlier exposure) take unknown as positive, which gives another number. Lower is better.

    Args:
        known: (n,) scores of wafers of trained classes.
        unknown: (m,) scores of wafers of the others.
        tpr: share of the known wafers that must pass, in (0, 1].
    """
    _check(known, unknown)
    once = [np.ones((1, len(part)), dtype=np.uint8) for part in (known, unknown)]
    return float(_passing(np.sort(known), np.sort(unknown), once[0], once[1], tpr)[0])


def resampled(
    known: NDArray[Any],
    unknown: NDArray[Any],
    resamples: int = 2000,
    seed: int = 0,
    tpr: float = 0.95,
    known_lot: Lots = None,
    unknown_lot: Lots = None,
) -> dict[str, Floats]:
    """Bootstrap draws of `auroc` and `fpr`, known and unknown wafers drawn apart.

    Args:
        known: (n,) scores of wafers of trained classes.
        unknown: (m,) scores of wafers of the others.
        resamples: R, how many draws.
        seed: of the draws.
        tpr: as in `fpr_at_tpr`.
        known_lot: (n,) the production lots: whole lots are drawn where there are enough (`intervals.several_lots`), ""
            being a lot of its own. None: wafers are drawn.
        unknown_lot: (m,) likewise.

    Returns:
        `auroc` and `fpr`, each (R,).
    """
    _check(known, unknown)
    groups = [_groups(known_lot, len(known)), _groups(unknown_lot, len(unknown))]
    sizes = [np.bincount(group) for group in groups]
    scores, rows = np.concatenate([known, unknown]), np.concatenate([groups[0], len(sizes[0]) + groups[1]])
    ranking = Ranking.of(scores, _are_unknown(known, unknown), rows)
    orders = [np.argsort(part) for part in (known, unknown)]
    ascending = [part[order] for part, order in zip((known, unknown), orders, strict=True)]
    random = np.random.default_rng(seed)
    areas, shares = [], []
    step = max(1, _DRAWS // len(scores))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = [_draw(random, len(size), count) for size in sizes]
        areas.append(ranking.scores(np.concatenate(drawn, axis=1), drawn[0] @ sizes[0] + drawn[1] @ sizes[1])[0])
        weights = [np.take(d, group[order], axis=1) for d, group, order in zip(drawn, groups, orders, strict=True)]
        shares.append(_passing(ascending[0], ascending[1], weights[0], weights[1], tpr))
    return {"auroc": np.concatenate(areas), "fpr": np.concatenate(shares)}


def detection(
    known: NDArray[Any],
    unknown: NDArray[Any],
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    known_lot: Lots = None,
    unknown_lot: Lots = None,
) -> tuple[dict[str, float], Intervals]:
    """How well a score tells unknown wafers from known ones.

    The interval says how much the value would vary with other wafers (or lots) of the same kinds, not with another
    training run or with another unknown class.

    Args:
        known: (n,) scores of wafers of trained classes.
        unknown: (m,) scores of wafers of the others.
        resamples: bootstrap draws.
        level: the share of them that the interval covers, in (0, 1).
        seed: of the draws.
        known_lot: as in `resampled`.
        unknown_lot: as in `resampled`.

    Returns:
        `auroc` and `fpr` (at 95 % TPR), and their percentile bootstrap intervals.
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    drawn = resampled(known, unknown, resamples, seed, known_lot=known_lot, unknown_lot=unknown_lot)
    bounds = {name: np.quantile(draws, tails) for name, draws in drawn.items()}
    values = {"auroc": auroc(known, unknown), "fpr": fpr_at_tpr(known, unknown)}
    return values, {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _check(known: NDArray[Any], unknown: NDArray[Any]) -> None:
    if not len(known) or not len(unknown):
        raise ValueError(f"{len(known)} known and {len(unknown)} unknown wafers cannot be told apart; both need some")


def _are_unknown(known: NDArray[Any], unknown: NDArray[Any]) -> NDArray[np.bool_]:
    return np.repeat([False, True], [len(known), len(unknown)])


def _passing(known: NDArray[Any], unknown: NDArray[Any], of_known: Drawn, of_unknown: Drawn, tpr: float) -> Floats:
    """(R,) share of the unknown wafers up to the score by which the wanted share of the known ones has come.

    Args:
        known: (n,) scores in ascending order.
        unknown: (m,) likewise.
        of_known: (R, n) how often each known wafer was drawn.
        of_unknown: (R, m) likewise.
        tpr: the wanted share.
    """
    passed = of_known.cumsum(axis=1, dtype=np.int32)
    wanted = np.ceil(tpr * passed[:, -1:] - 1e-9)  # 0.95 * 20 is 19, whatever floats say
    threshold = known[(passed >= wanted).argmax(axis=1)]
    reached = np.pad(of_unknown.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    place = np.searchsorted(unknown, threshold, side="right")
    return np.asarray(reached[np.arange(len(place)), place] / reached[:, -1])


def _groups(lot: Lots, wafers: int) -> NDArray[np.intp]:
    """(n,) what each wafer is drawn with, numbered: its lot, or itself where it has none or there are too few."""
    if lot is None or not several_lots(lot):
        return np.arange(wafers)
    alone = np.char.add("\n", np.arange(wafers).astype(str))  # no lot's name
    return np.unique(np.where(lot == "", alone, lot), return_inverse=True)[1].reshape(-1)


def _draw(random: np.random.Generator, groups: int, count: int) -> Drawn:
    """(count, groups) how often each group is drawn in each of `count` draws of as many groups as there are."""
    drawn = random.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.uint8)


def _unit(features: NDArray[Any]) -> NDArray[np.float32]:
    rows = np.asarray(features, dtype=np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
