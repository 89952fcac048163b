import numpy as np
import pytest

from wafer_lab.data.split import position, split, strata, subset
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


def test_lots_do_not_straddle():
    generator = np.random.default_rng(0)
    lot = np.array([f"lot{i}" for i in generator.integers(0, 120, 3000)])
    label = generator.integers(0, 3, 3000).astype(np.int16)
    result = split(label, np.arange(3000, dtype=np.uint64), method="lot", lot=lot)
    lots = [set(lot[part]) for part in (result.train, result.val, result.test)]
    assert len(set().union(*lots)) == sum(map(len, lots))
    assert len(result.test) == pytest.approx(600, rel=0.3)
    assert len(result.val) == pytest.approx(300, rel=0.4)


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
    assert first.digest() == again.digest() != other.digest()


def test_vendor_drops_training_copies_of_test_wafers():
    label = np.zeros(40, np.int16)
    content = np.arange(40, dtype=np.uint64)
    content[0] = content[39]
    vendor = np.array(["train"] * 20 + ["test"] * 20)
    result = split(label, content, method="vendor", vendor=vendor, val=0.2)
    assert result.test.tolist() == list(range(20, 40))
    assert 0 not in set(result.train) | set(result.val)


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
        ({"val": 0.6, "test": 0.5}, "leave something for training"),
        ({"method": "kfold", "fold": 5}, "folds"),
    ],
)
def test_what_cannot_be_split_is_said(options, says):
    with pytest.raises(UserError, match=says):
        split(np.zeros(30, np.int16), np.arange(30, dtype=np.uint64), **options)


def test_no_labels_at_all():
    with pytest.raises(UserError, match="no labelled wafer"):
        split(np.full(5, -1, np.int16), np.arange(5, dtype=np.uint64))
