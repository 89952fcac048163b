"""Splits of a data set: pure functions from labels, content, lots and a seed to row indices.

Exact duplicates (equal content hash) never stand on two sides of a split. The seed belongs
to the data, not to the model, so that runs with different model seeds are judged on the same wafers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError

Method = Literal["stratified", "lot", "vendor", "kfold"]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row indices into a store, each int64, sorted, and disjoint.

    Attributes:
        train: Rows to fit on.
        val: Rows for selection and for fitting thresholds and temperatures.
        test: Rows to report on, once.
        unlabelled: Rows without a label, and rows whose label `label_fraction` hid.
        unknown: Rows of classes that were left out, see `leave_out`; none in an ordinary split.
    """

    train: Rows
    val: Rows
    test: Rows
    unlabelled: Rows
    unknown: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def digest(self, data: str) -> str:
        """Twelve hex digits that two runs share exactly when they are selected and judged on the same wafers.

        Args:
            data: What identifies the data that the rows count in, such as a store's digest.
        """
        hasher = hashlib.sha256(data.encode())
        for rows in (self.val, self.test, *([self.unknown] if len(self.unknown) else [])):
            hasher.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
        return hasher.hexdigest()[:12]


def strata(label: NDArray[np.integer]) -> NDArray[np.int64]:
    """The stratum of each row: its class, or for multi-label its combination of labels.

    Args:
        label: (N,) class indices, or (N, C) of 0/1; negative entries mean unlabelled.

    Returns:
        (N,) int64, -1 for unlabelled rows.
    """
    if label.ndim == 1:
        return label.astype(np.int64)
    _, combination = np.unique(label, axis=0, return_inverse=True)
    return np.where(label[:, 0] < 0, -1, combination.reshape(-1))


def duplicate_groups(content: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number rows so that exact duplicates share a group.

    Args:
        content: (N,) content hashes.

    Returns:
        (N,) int64 group numbers, 0 .. number of groups - 1.
    """
    return np.unique(content, return_inverse=True)[1].reshape(-1).astype(np.int64)


def position(stratum: NDArray[np.int64], group: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Lay every stratum's rows at random along [0, 1), all rows of a group at one point.

    Cutting the result at fixed fractions gives a stratified split; cutting it into k equal parts gives k folds.

    Args:
        stratum: (N,) int64.
        group: (N,) int64; a group's first row gives its stratum.
        seed: The data seed.

    Returns:
        (N,) float64 in [0, 1).
    """
    _, first, member, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    group_stratum = stratum[first]
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), group_stratum))
    ordered = group_stratum[order]
    end = np.cumsum(size[order]).astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    before = np.r_[0.0, end][starts]
    lengths = np.diff(np.r_[starts, len(ordered)])
    total = np.add.reduceat(size[order], starts) if len(order) else np.empty(0)
    middle = end - size[order] / 2 - np.repeat(before, lengths)
    where = np.empty(len(first))
    where[order] = middle / np.repeat(total, lengths)
    return where[member]


def subset(rows: Rows, stratum: NDArray[np.int64], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Choose a fraction of every stratum, at least one row of each; smaller fractions nest in larger ones.

    Args:
        rows: (n,) row indices.
        stratum: (n,) stratum of each of these rows.
        fraction: In (0, 1].
        seed: The data seed.

    Returns:
        The chosen rows and the remaining rows, both sorted.
    """
    counts = np.unique(stratum, return_counts=True)[1]
    return _choose(rows, stratum, np.maximum(np.round(fraction * counts), 1), seed)


def leave_out(whole: Split, out: NDArray[np.bool_], content: NDArray[np.uint64]) -> Split:
    """Move some labelled rows from train, val and test into `unknown`, as if nobody had ever seen their like.

    The other rows stay where they are, so that runs with and without the classes share their test wafers. An exact
    copy of a wafer that stays is not unknown, whatever its label; it is left out altogether. So are unlabelled copies
    of the rows that move.

    Args:
        whole: The split.
        out: (N,) bool, True for the rows of the data set to move.
        content: (N,) uint64 content hashes.

    Returns:
        The split with `unknown`.

    Raises:
        UserError: No row is left in train, val or test, or none is moved.
    """
    train, val, test = (part[~out[part]] for part in (whole.train, whole.val, whole.test))
    labelled = np.sort(np.concatenate([whole.train, whole.val, whole.test]))
    stays = np.concatenate([train, val, test])
    moved = labelled[out[labelled]]
    unknown = moved[~np.isin(content[moved], content[stays])]
    for name, part in (("train", train), ("val", val), ("test", test)):
        if len(part) == 0:
            raise UserError(f"data.leave_out leaves no wafer for {name}; leave fewer classes out")
    if len(unknown) == 0:
        raise UserError("data.leave_out names classes of which the data has no wafer; leave out one that occurs")
    unlabelled = whole.unlabelled[~np.isin(content[whole.unlabelled], content[moved])]
    return Split(train, val, test, unlabelled, unknown)


def without_judged(whole: Split, content: NDArray[np.uint64], lot: NDArray[np.str_] | None = None) -> Split:
    """Drop the unlabelled rows that would show training what the model is judged on.

    Args:
        whole: The split.
        content: (N,) uint64 content hashes; copies of val and test wafers are dropped.
        lot: (N,) lot names where no lot may stand on two sides; wafers of the lots of val and test are dropped.

    Returns:
        The split with the other unlabelled rows.
    """
    judged, rows = np.concatenate([whole.val, whole.test, whole.unknown]), whole.unlabelled
    seen = np.isin(content[rows], content[judged])
    if lot is not None:
        seen |= np.isin(lot[rows], lot[judged]) & (lot[rows] != "")
    return replace(whole, unlabelled=rows[~seen])


def limited(whole: Split, stratum: NDArray[np.int64], limit: int, seed: int) -> Split:
    """Keep at most `limit` labelled rows in the proportions of parts and strata, and as many unlabelled rows.

    Args:
        whole: The split; no part of it is empty.
        stratum: (N,) stratum of every row of the data set.
        limit: At least 3, with an unknown part 4: every part keeps a row.
        seed: The data seed.

    Returns:
        The smaller split; `whole` itself where it is small enough.
    """
    parts = {name: getattr(whole, name) for name in ("train", "val", "test", "unknown") if len(getattr(whole, name))}
    sizes = np.array([len(part) for part in parts.values()])
    if limit < sizes.sum():
        wanted = np.maximum(_apportion(sizes, limit, seed), 1)
        while wanted.sum() > limit:
            wanted[wanted.argmax()] -= 1
        for (name, part), total in zip(parts.items(), wanted, strict=True):
            counts = np.unique(stratum[part], return_counts=True)[1]
            parts[name], _ = _choose(part, stratum[part], _apportion(counts, int(total), seed), seed)
    unlabelled = np.random.default_rng(seed).permutation(whole.unlabelled)[:limit]
    return replace(whole, **parts, unlabelled=np.sort(unlabelled))


def _choose(rows: Rows, stratum: NDArray[np.int64], wanted: NDArray[Any], seed: int) -> tuple[Rows, Rows]:
    """So many rows of each stratum, at random, and the rest. More of a stratum includes what fewer would give."""
    order = np.lexsort((np.random.default_rng(seed).random(len(rows)), stratum))
    counts = np.unique(stratum, return_counts=True)[1]
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[order] = rank < np.repeat(wanted, counts)
    return np.sort(rows[chosen]), np.sort(rows[~chosen])


def _apportion(counts: NDArray[np.int64], total: int, seed: int) -> NDArray[np.int64]:
    """Whole numbers proportional to `counts` that sum to `total`: floors, then the largest remainders get one more."""
    wanted, remainder = np.divmod(counts * total, counts.sum())
    first = np.lexsort((np.random.default_rng(seed).random(len(counts)), -remainder))
    wanted[first[: total - wanted.sum()]] += 1
    return wanted


def deal(counts: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Deal whole groups to sides so that each side gets its share of every class and of all rows.

    The idea is that of scikit-learn's `StratifiedGroupKFold`: groups come in decreasing spread of their class
    counts, shuffled before, and each goes to the side where the class shares stay closest to what is wanted. Here
    the sides may differ in size, so fractions come out as asked and not as a number of folds, and numpy suffices.

    With h(s, c) the share of class c that side s holds and t(s) what it should hold, the distance is the sum of
    (h - t)^2 / t over sides and classes. A group with shares g(c) adds (2 h.g + g.g) / t to it, but for what is
    the same on every side.

    Args:
        counts: (G, K) rows of each group in each class; every group and class has some.
        shares: Wanted share of each of S sides, positive, summing to 1.
        seed: Of the shuffle.

    Returns:
        (G,) int64 side of each group, 0 .. S - 1. No side is empty where G >= S.
    """
    total = counts.sum(axis=1)
    # All rows count as one more class: many small deviations of one sign would otherwise add up.
    share = np.column_stack([counts / counts.sum(axis=0), total / total.sum()])
    pull = 2 * share / (share**2).sum(axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    spread = counts.shape[1] * (counts**2).sum(axis=1) - total**2
    order = order[np.argsort(-spread[order], kind="stable")]
    wanted = np.asarray(shares)
    held = np.zeros((len(wanted), share.shape[1]))
    side = np.full(len(counts), -1)
    for left, group in zip(range(len(order), 0, -1), order.tolist(), strict=True):
        # Rounded, because ties are common and another processor's last digit must not decide them.
        cost = ((held @ pull[group] + 1) / wanted).round(6)
        empty = held[:, -1] == 0
        if left <= empty.sum():
            cost[~empty] = np.inf
        chosen = int(cost.argmin())
        held[chosen] += share[group]
        side[group] = chosen
    return side


def split(
    label: NDArray[np.integer],
    content: NDArray[np.uint64],
    *,
    method: Method = "stratified",
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    fold: int = 0,
    folds: int = 5,
    lot: NDArray[np.str_] | None = None,
    vendor: NDArray[np.str_] | None = None,
) -> Split:
    """Split the labelled rows of a data set.

    Args:
        label: (N,) class indices or (N, C) of 0/1; negative means unlabelled.
        content: (N,) uint64 content hashes; equal hashes stay on one side.
        method: `stratified` (by class, or by label combination), `lot` (no lot on two sides, see `deal`), `vendor`
            (the parts that came with the data; val is cut from its training part where it has none) or `kfold`
            (test is one of `folds`). `lot` and `vendor` leave out wafers whose exact copy stands on a later side.
        val: Fraction of the labelled rows for validation (of the vendor's training part, and of the rows
            outside the test fold, for `vendor` and `kfold`); unused where the vendor has a val part.
        test: Fraction of the labelled rows for testing; unused by `vendor` and `kfold`.
        seed: The data seed.
        fold: Which fold is the test set, 0 .. folds - 1.
        folds: Number of folds.
        lot: (N,) lot names, for `lot`.
        vendor: (N,) "train", "val", "test" or "", for `vendor`.

    Returns:
        The split; `unlabelled` holds the rows without a label.

    Raises:
        UserError: Fractions or folds out of range, or the method lacks what it needs.
    """
    _check(method, val, test, fold, folds)
    stratum = strata(label)
    rows = np.flatnonzero(stratum >= 0)
    if len(rows) == 0:
        raise UserError("the data set has no labelled wafer; there is nothing to split into train, val and test")
    stratum, content = stratum[rows], content[rows]
    if method == "lot":
        side = _by_lot(stratum, content, _lots(lot, rows), val, test, seed)
    elif method == "vendor":
        side = _by_vendor(stratum, content, _vendor(vendor, rows), val, seed)
    else:
        at = position(stratum, duplicate_groups(content), seed)
        if method == "kfold":
            if len(np.unique(np.floor(at * folds))) < folds:  # said in the first fold, not in the one that is empty
                raise UserError(f"data.folds={folds} leaves folds without a wafer; use fewer data.folds")
            test = 1 / folds
            at, val = (at - fold / folds) % 1.0, val * (1 - test)
        side = np.where(at < test, 2, np.where(at < test + val, 1, 0))
    parts = [np.sort(rows[side == part]) for part in range(3)]
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        if len(part) == 0:
            raise UserError(f"the split leaves no wafer for {name}; use more data or {_remedy(name, method)}")
    return Split(parts[0], parts[1], parts[2], unlabelled=np.flatnonzero(strata(label) < 0))


def _check(method: str, val: float, test: float, fold: int, folds: int) -> None:
    if method not in ("stratified", "lot", "vendor", "kfold"):
        raise UserError(f"unknown split '{method}'; choose stratified, lot, vendor or kfold")
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise UserError(f"data.val={val} and data.test={test} must be positive and together below 1")
    if method == "kfold" and not (folds >= 2 and 0 <= fold < folds):
        raise UserError(f"data.fold={fold} must lie in 0 .. data.folds - 1, with data.folds={folds} at least 2")


def _remedy(part: str, method: str) -> str:
    if part == "train":
        return "a smaller data.val" if method in ("vendor", "kfold") else "smaller data.val and data.test"
    if part == "val" or method in ("stratified", "lot"):
        return f"a larger data.{part}"
    return "fewer data.folds" if method == "kfold" else "data.split=stratified"


def _lots(lot: NDArray[np.str_] | None, rows: Rows) -> NDArray[np.str_]:
    names = set() if lot is None else set(np.unique(lot[rows])) - {""}
    if lot is None or len(names) < 2:
        what = "carries no lot names" if not names else "has one lot only"
        raise UserError(f"a lot split needs several lots, and this data {what}; use data.split=stratified or kfold")
    return lot[rows]


def _vendor(vendor: NDArray[np.str_] | None, rows: Rows) -> NDArray[np.str_]:
    present: Sequence[str] = [] if vendor is None else np.unique(vendor[rows]).tolist()
    if vendor is None or "train" not in present or "test" not in present:
        raise UserError(
            "a vendor split needs rows marked Training and Test, and this data has "
            f"{' and '.join(p for p in present if p) or 'none'} only; use data.split=stratified or kfold"
        )
    return vendor[rows]


def _by_lot(
    stratum: NDArray[np.int64],
    content: NDArray[np.uint64],
    lots: NDArray[np.str_],
    val: float,
    test: float,
    seed: int,
) -> NDArray[np.int64]:
    """0 train, 1 val, 2 test, -1 dropped, by dealing out whole lots."""
    names, group = np.unique(lots, return_inverse=True)
    # A wafer without a lot name is a lot of its own.
    nameless = lots == ""
    group[nameless] = len(names) + np.arange(nameless.sum())
    groups, group = np.unique(group, return_inverse=True)
    if len(groups) < 3:
        raise UserError("a lot split needs at least 3 lots; use data.split=stratified")
    classes, code = np.unique(stratum, return_inverse=True)
    shape = len(groups), len(classes)
    counts = np.bincount(np.ravel_multi_index((group, code), shape), minlength=shape[0] * shape[1]).reshape(shape)
    side = deal(counts, (1 - val - test, val, test), seed)
    return _without_copies(side[group], content)


def _by_vendor(
    stratum: NDArray[np.int64],
    content: NDArray[np.uint64],
    vendor: NDArray[np.str_],
    val: float,
    seed: int,
) -> NDArray[np.int64]:
    """0 train, 1 val, 2 test, -1 dropped: copies that would leak, and rows of no part."""
    side = np.select([vendor == "train", vendor == "val", vendor == "test"], [0, 1, 2], -1)
    if not (side == 1).any():
        fitting = np.flatnonzero(side == 0)
        at = position(stratum[fitting], duplicate_groups(content[fitting]), seed)
        side[fitting] = np.where(at < val, 1, 0)
    return _without_copies(side, content)


def _without_copies(side: NDArray[np.int64], content: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Drop what would leak: copies in train of val or test wafers, copies in val of test wafers.

    Whole lots, or the vendor's parts, cannot move to keep copies together without tying most lots into one.
    """
    group = duplicate_groups(content)
    furthest = np.full(group.max() + 1, -1)
    np.maximum.at(furthest, group, side)
    return np.where(side == furthest[group], side, -1)
