"""Splits of a data set: pure functions from labels, content, lots and a seed to row indices.

Exact duplicates (equal content hash) never stand on two sides of a split. The seed belongs
to the data, not to the model, so that runs with different model seeds are judged on the same wafers.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    """

    train: Rows
    val: Rows
    test: Rows
    unlabelled: Rows

    def digest(self) -> str:
        """Twelve hex digits that two runs share exactly when they are selected and judged on the same rows."""
        hasher = hashlib.sha256()
        for rows in (self.val, self.test):
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


def subset(rows: Rows, stratum: NDArray[np.int64], fraction: float, seed: int, floor: int = 1) -> tuple[Rows, Rows]:
    """Choose a fraction of every stratum, at least `floor` rows of each; smaller fractions nest in larger ones.

    Args:
        rows: (n,) row indices.
        stratum: (n,) stratum of each of these rows.
        fraction: In (0, 1].
        seed: The data seed.
        floor: Fewest rows to keep of each stratum that has as many.

    Returns:
        The chosen rows and the remaining rows, both sorted.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(rows)), stratum))
    _, counts = np.unique(stratum, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.maximum(np.round(fraction * counts), floor)
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[order] = rank < np.repeat(wanted, counts)
    return np.sort(rows[chosen]), np.sort(rows[~chosen])


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
        method: `stratified` (by class, or by label combination), `lot` (no lot on two sides), `vendor` (the test
            part that came with the data; val is cut from its training part) or `kfold` (test is one of `folds`).
            `lot` and `vendor` leave out wafers whose exact copy stands on a later side.
        val: Fraction of the labelled rows for validation (of the vendor's training part, and of the rows
            outside the test fold, for `vendor` and `kfold`).
        test: Fraction of the labelled rows for testing; unused by `vendor` and `kfold`.
        seed: The data seed.
        fold: Which fold is the test set, 0 .. folds - 1.
        folds: Number of folds.
        lot: (N,) lot names, for `lot`.
        vendor: (N,) "train", "test" or "", for `vendor`.

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
            test = 1 / folds
            at = (at - fold / folds) % 1.0
            val = val * (1 - test)
        side = np.where(at < test, 2, np.where(at < test + val, 1, 0))
    parts = [np.sort(rows[side == part]) for part in range(3)]
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        if len(part) == 0:
            raise UserError(f"the split leaves no wafer for {name}; use more data or larger data.{name} fractions")
    return Split(parts[0], parts[1], parts[2], unlabelled=np.flatnonzero(strata(label) < 0))


def _check(method: str, val: float, test: float, fold: int, folds: int) -> None:
    if method not in ("stratified", "lot", "vendor", "kfold"):
        raise UserError(f"unknown split '{method}'; choose stratified, lot, vendor or kfold")
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise UserError(f"val={val} and test={test} must be positive and leave something for training")
    if method == "kfold" and not (folds >= 2 and 0 <= fold < folds):
        raise UserError(f"fold={fold} must lie in 0 .. folds - 1, with folds={folds} at least 2")


def _lots(lot: NDArray[np.str_] | None, rows: Rows) -> NDArray[np.str_]:
    names = set() if lot is None else set(np.unique(lot[rows])) - {""}
    if lot is None or len(names) < 2:
        what = "carries no lot names" if not names else "has one lot only"
        raise UserError(f"a lot split needs several lots, and this data {what}; use data.split=stratified or kfold")
    return lot[rows]


def _vendor(vendor: NDArray[np.str_] | None, rows: Rows) -> NDArray[np.str_]:
    present: Sequence[str] = [] if vendor is None else list(np.unique(vendor[rows]))
    if vendor is None or "train" not in present or "test" not in present:
        raise UserError(
            "a vendor split needs rows marked Training and Test, and this data has "
            f"{[p for p in present if p] or 'none'}; use data.split=stratified, lot or kfold"
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
    """0 train, 1 val, 2 test, -1 dropped, by stratified folds of whole lots."""
    from sklearn.model_selection import StratifiedGroupKFold

    names, group = np.unique(lots, return_inverse=True)
    # A wafer without a lot name is a lot of its own.
    nameless = lots == ""
    group[nameless] = len(names) + np.arange(nameless.sum())
    # Folds as fine as the smaller fraction asks, dealt out until each side has its share.
    folds = min(20, max(3, round(1 / min(val, test))), len(np.unique(group)))
    if folds < 3:
        raise UserError("a lot split needs at least 3 lots; use data.split=stratified")
    fold = np.empty(len(stratum), dtype=np.int64)
    with warnings.catch_warnings():
        # Rare classes have fewer wafers than there are folds; that is the data's nature, not a mistake.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        dealer = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(dealer.split(stratum, stratum, group)):
            fold[held] = number
    test_folds = max(1, round(test * folds))
    val_folds = max(1, round(val * folds))
    side = np.where(fold < test_folds, 2, np.where(fold < test_folds + val_folds, 1, 0))
    return _without_copies(side, content)


def _by_vendor(
    stratum: NDArray[np.int64],
    content: NDArray[np.uint64],
    vendor: NDArray[np.str_],
    val: float,
    seed: int,
) -> NDArray[np.int64]:
    """0 train, 1 val, 2 test, -1 dropped: training copies of test wafers, and rows of neither part."""
    side = np.where(vendor == "test", 2, -1)
    fitting = np.flatnonzero(vendor == "train")
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
