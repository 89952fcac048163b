import sys
import time
import warnings

import numpy as np
import pytest

from wafer_lab.data.split import Split, deal, limited, position, split, strata, subset
from wafer_lab.errors import UserError


@pytest.fixture
def labelled():
    """2,000 wafers of four uneven classes; 300 of them are copies of others; 100 are unlabelled."""
    generator = np.random.default_rng(0)
    label = generator.choice(4, 2000, p=[0.6, 0.25, 0.1, 0.05]).astype(np.int16)
    content = np.arange(2000, dtype=np.uint64)
    copies = generator.choice(2000, 300, replace=False)
    content[copies] = content[generator.integers(0, 2000, 300)]
    label[np.unique(content, return_inverse=True)[1] % 20 == 0] = -1
    return label, content


def sides(result):
    return [set(part.tolist()) for part in (result.train, result.val, result.test, result.unlabelled)]


@pytest.mark.parametrize("method", ["stratified", "kfold", "lot", "vendor"])
def test_parts_are_disjoint_and_copies_stay_together(labelled, method):
    label, content = labelled
    generator = np.random.default_rng(1)
    lot = np.array([f"lot{i}" for i in generator.integers(0, 80, 2000)])
    vendor = np.where(generator.random(2000) < 0.7, "train", "test")
    result = split(label, content, method=method, lot=lot, vendor=vendor)
    parts = sides(result)
    assert sum(map(len, parts)) == len(set().union(*parts))
    if method in ("stratified", "kfold"):  # the others leave out copies that would leak
        assert len(set().union(*parts)) == 2000
    assert parts[3] == set(np.flatnonzero(label < 0).tolist())
    contents = [set(content[part].tolist()) for part in (result.train, result.val, result.test)]
    assert len(set().union(*contents)) == sum(map(len, contents))


def test_stratified_fractions_hold_in_every_class(labelled):
    label, content = labelled
    result = split(label, content, val=0.1, test=0.2)
    for c in range(4):
        total = (label == c).sum()
        assert (label[result.test] == c).sum() == pytest.approx(0.2 * total, abs=0.03 * total + 2)
        assert (label[result.val] == c).sum() == pytest.approx(0.1 * total, abs=0.03 * total + 2)


def production(lots, per_lot, classes, seed):
    """Lots of which each leans to a class of its own; classes are uneven down to 1 %: lot names, class indices."""
    generator = np.random.default_rng(seed)
    share = np.geomspace(1, 100, classes)
    own, any_class = (generator.choice(classes, n, p=share / share.sum()) for n in (lots, lots * per_lot))
    label = np.where(generator.random(lots * per_lot) < 0.6, np.repeat(own, per_lot), any_class)
    return np.repeat([f"lot{i}" for i in range(lots)], per_lot), label.astype(np.int16)


def distinct(label):
    return np.arange(len(label), dtype=np.uint64)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.2), (0.2, 0.3), (0.05, 0.12), (0.17, 0.08)])
def test_a_lot_split_has_whole_lots_and_the_fractions_asked_for(monkeypatch, val, test):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)  # it must do without
    lot, label = production(400, 25, 9, seed=1)
    result = split(label, distinct(label), method="lot", lot=lot, val=val, test=test)
    lots = [set(lot[part]) for part in (result.train, result.val, result.test)]
    assert len(set().union(*lots)) == sum(map(len, lots)) == 400
    for part, wanted in ((result.val, val), (result.test, test)):
        assert len(part) / len(label) == pytest.approx(wanted, abs=0.02)
        shares = np.bincount(label[part], minlength=9) / np.bincount(label)
        assert shares[4:] == pytest.approx(np.full(5, wanted), abs=0.03)
        assert shares.min() > wanted / 2  # a rare class comes in a few lots that cannot be cut
    again, other = (split(label, distinct(label), method="lot", lot=lot, val=val, test=test, seed=s) for s in (0, 1))
    assert np.array_equal(again.test, result.test)
    assert not np.array_equal(other.test, result.test)


def test_few_wafers_of_many_combinations_split_by_lot():
    generator = np.random.default_rng(0)
    kinds = np.unique(generator.integers(0, 2, (200, 8)), axis=0)[:38]
    label = kinds[generator.integers(0, 38, 300)].astype(np.int8)
    lot = np.repeat([f"lot{i}" for i in range(12)], 25)
    result = split(label, distinct(label), method="lot", lot=lot, val=0.2, test=0.3)
    assert [len(part) / 25 for part in (result.train, result.val, result.test)] == pytest.approx([6, 2.4, 3.6], abs=1)


@pytest.mark.parametrize("lots", [3, 4, 5])
def test_few_lots_fill_every_side(lots):
    lot, label = production(lots, 25, 3, seed=2)
    result = split(label, distinct(label), method="lot", lot=lot)
    assert min(len(part) for part in (result.train, result.val, result.test)) >= 25
    with pytest.raises(UserError, match="at least 3 lots"):
        split(label[:50], distinct(label[:50]), method="lot", lot=lot[:50])


def test_a_wafer_without_a_lot_is_a_lot_of_its_own():
    lot, label = production(20, 10, 3, seed=3)
    lot[50:] = ""
    result = split(label, distinct(label), method="lot", lot=lot)
    assert len(result.test) == pytest.approx(40, abs=3)


@pytest.mark.parametrize(("lots", "per_lot", "classes"), [(400, 25, 9), (2000, 4, 9), (40, 25, 20)])
def test_lots_are_dealt_as_evenly_as_scikit_learn_does(lots, per_lot, classes):
    dealer = pytest.importorskip("sklearn.model_selection").StratifiedGroupKFold
    ours, theirs = [], []
    for seed in range(3):
        _, label = production(lots, per_lot, classes, seed)
        label = np.unique(label, return_inverse=True)[1]
        group = np.repeat(np.arange(lots), per_lot)
        counts = np.zeros((lots, label.max() + 1), np.int64)
        np.add.at(counts, (group, label), 1)
        fold = np.empty(len(label), np.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            for number, (_, held) in enumerate(dealer(5, shuffle=True, random_state=seed).split(label, label, group)):
                fold[held] = number
        for found, side in ((ours, deal(counts, [0.2] * 5, seed)[group]), (theirs, fold)):
            inside = np.array([np.bincount(label[side == s], minlength=counts.shape[1]) for s in range(5)])
            found.append(np.abs(inside / counts.sum(0) - 0.2).mean())
    assert np.mean(ours) <= 1.5 * np.mean(theirs)


def test_lots_of_the_whole_of_wm811k_are_dealt_in_seconds():
    generator = np.random.default_rng(0)
    counts = np.zeros((46_000, 9), np.int64)
    share = np.geomspace(1, 1000, 9)
    np.add.at(counts, (generator.integers(0, 46_000, 172_950), generator.choice(9, 172_950, p=share / share.sum())), 1)
    counts = counts[counts.sum(1) > 0]
    began = time.monotonic()
    side = deal(counts, (0.7, 0.1, 0.2), 0)
    assert time.monotonic() - began < 10
    assert np.bincount(side, counts.sum(1)) / 172_950 == pytest.approx([0.7, 0.1, 0.2], abs=0.001)


def test_a_lot_split_leaves_out_copies_that_would_leak():
    lot = np.repeat([f"lot{i}" for i in range(30)], 10)
    content = np.arange(300, dtype=np.uint64)
    content[::10] = 0  # every lot has the same wafer once
    result = split(np.zeros(300, np.int16), content, method="lot", lot=lot)
    holders = [part for part in (result.train, result.val, result.test) if (content[part] == 0).any()]
    assert len(holders) == 1
    assert holders[0] is result.test


def test_folds_partition_the_labelled_rows(labelled):
    label, content = labelled
    tests = [split(label, content, method="kfold", fold=f, folds=4).test for f in range(4)]
    joined = np.sort(np.concatenate(tests))
    assert np.array_equal(joined, np.flatnonzero(label >= 0))


def test_multilabel_stratifies_on_combinations():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, (4000, 3)).astype(np.int8)
    result = split(label, np.arange(4000, dtype=np.uint64))
    for combination in np.unique(label, axis=0):
        is_it = (label == combination).all(1)
        assert is_it[result.test].sum() == pytest.approx(0.2 * is_it.sum(), abs=2)


def test_the_seed_decides_and_the_digest_tells(labelled):
    label, content = labelled
    first, again, other = (split(label, content, seed=s) for s in (0, 0, 1))
    assert first.digest("data") == again.digest("data") != other.digest("data")
    assert first.digest("data") != first.digest("other data")


def test_vendor_drops_training_copies_of_test_wafers():
    label = np.zeros(40, np.int16)
    content = np.arange(40, dtype=np.uint64)
    content[0] = content[39]
    vendor = np.array(["train"] * 20 + ["test"] * 20)
    result = split(label, content, method="vendor", vendor=vendor, val=0.2)
    assert result.test.tolist() == list(range(20, 40))
    assert 0 not in set(result.train) | set(result.val)


def test_vendor_takes_the_publishers_val_where_there_is_one():
    vendor = np.repeat(["train", "val", "test", ""], [20, 7, 10, 3])
    content = np.arange(40, dtype=np.uint64)
    content[20] = content[27]  # a val copy of a test wafer
    content[0] = content[26]  # a training copy of a val wafer
    result = split(np.zeros(40, np.int16), content, method="vendor", vendor=vendor, val=0.5)
    assert result.train.tolist() == list(range(1, 20))
    assert result.val.tolist() == list(range(21, 27))
    assert result.test.tolist() == list(range(27, 37))


def counts_of(result, stratum):
    return [np.bincount(stratum[part], minlength=stratum.max() + 1) for part in (result.train, result.val, result.test)]


@pytest.mark.parametrize("limit", [3, 4, 50, 256, 257, 999])
def test_a_limit_is_never_exceeded(limit):
    generator = np.random.default_rng(0)
    stratum = generator.choice(38, 1000)
    whole = split(stratum.astype(np.int16), distinct(stratum))
    parts = counts_of(limited(whole, stratum, limit, seed=0), stratum)
    assert sum(part.sum() for part in parts) == limit
    assert all(part.sum() for part in parts)
    for part, of in zip(parts, counts_of(whole, stratum), strict=True):
        assert np.abs(part - of * part.sum() / of.sum()).max() < 1


def test_a_limit_follows_the_seed_and_leaves_small_data_alone():
    stratum = np.repeat([0, 1, 2], 100)
    whole = split(stratum.astype(np.int16), distinct(stratum))
    first, again, other = (limited(whole, stratum, 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)
    fewest = [counts_of(limited(whole, stratum, 20, seed), stratum)[0].argmin() for seed in range(20)]
    assert set(fewest) == {0, 1, 2}  # no class always gets the remainder
    assert np.array_equal(limited(whole, stratum, 300, 0).train, whole.train)


def test_a_limit_holds_for_unlabelled_rows_too():
    whole = Split(*(np.arange(i, i + 10) for i in (0, 10, 20)), unlabelled=np.arange(30, 90))
    kept = limited(whole, np.zeros(90, np.int64), 12, seed=0).unlabelled
    assert len(kept) == 12
    assert set(kept) < set(range(30, 90))


def test_subset_keeps_a_floor_and_nests():
    stratum = np.repeat([0, 1, 2], [500, 50, 3])
    rows = np.arange(553) * 2
    small, _ = subset(rows, stratum, 0.01, seed=3)
    large, rest = subset(rows, stratum, 0.1, seed=3)
    assert set(small) <= set(large)
    assert np.bincount(stratum[small // 2]).tolist() == [5, 1, 1]
    assert np.array_equal(np.union1d(large, rest), rows)


def test_position_spreads_each_stratum_evenly():
    stratum = np.repeat([0, 1], [900, 100])
    at = position(stratum, np.arange(1000), seed=0)
    for s in (0, 1):
        mine = np.sort(at[stratum == s])
        assert np.allclose(mine, (np.arange(len(mine)) + 0.5) / len(mine))


def test_strata_mark_unlabelled_rows():
    assert strata(np.array([2, -1, 0], np.int16)).tolist() == [2, -1, 0]
    multi = strata(np.array([[1, 0], [-1, -1], [1, 0], [0, 0]], np.int8))
    assert multi[1] == -1
    assert multi[0] == multi[2] != multi[3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "lot"}, "carries no lot names"),
        ({"method": "lot", "lot": np.full(30, "x")}, "one lot only"),
        ({"method": "vendor"}, "Training and Test"),
        ({"method": "random"}, "unknown split"),
        ({"val": 0.6, "test": 0.5}, "together below 1"),
        ({"method": "kfold", "fold": 5}, "folds"),
    ],
)
def test_what_cannot_be_split_is_said(options, says):
    with pytest.raises(UserError, match=says):
        split(np.zeros(30, np.int16), np.arange(30, dtype=np.uint64), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"val": 0.45, "test": 0.5}, "no wafer for train; use more data or smaller data.val and data.test"),
        ({"val": 0.01}, "no wafer for val; use more data or a larger data.val"),
        ({"val": 0.5, "test": 0.01}, "no wafer for test; use more data or a larger data.test"),
        ({"method": "kfold", "folds": 30, "val": 0.5}, "leaves folds without a wafer; use fewer data.folds"),
    ],
)
def test_an_empty_part_says_which_setting_to_change(options, says):
    with pytest.raises(UserError, match=says):
        split(np.zeros(3, np.int16), np.arange(3, dtype=np.uint64), **options)


def test_no_labels_at_all():
    with pytest.raises(UserError, match="no labelled wafer"):
        split(np.full(5, -1, np.int16), np.arange(5, dtype=np.uint64))
