"""Parts of the training labels."""

import numpy as np
import pytest

from wafer_lab.data.split import split
from wafer_lab.data.train_subsets import scarce, without_fold
from wafer_lab.errors import UserError


def test_every_training_row_is_left_out_once_and_copies_together():
    label = np.random.default_rng(0).integers(0, 3, 300)
    content = np.arange(300).astype(np.uint64)
    content[100:110] = 100  # ten copies
    label[100:110] = 0
    whole = split(label, content, val=0.1, test=0.2)
    parts = [without_fold(whole, label, content, 3, fold, seed=0) for fold in range(3)]
    left = [np.setdiff1d(whole.train, part.train) for part in parts]
    assert np.array_equal(np.sort(np.concatenate(left)), whole.train)
    copies = np.intersect1d(whole.train, np.arange(100, 110))
    assert {int(np.isin(copies, rows).sum()) for rows in left} <= {0, len(copies)}
    for part, rows in zip(parts, left, strict=True):
        assert part.digest("x") == whole.digest("x")
        assert np.isin(rows, part.unlabelled).all()
        shares = np.bincount(label[rows], minlength=3) / np.bincount(label[whole.train])
        assert np.abs(shares - 1 / 3).max() < 0.15
    with pytest.raises(UserError, match=r"train_without=3 must lie in 0 \.\. data\.folds - 1"):
        without_fold(whole, label, content, 3, 3, seed=0)


def test_a_fraction_below_one_wafer_of_a_class_is_said():
    label = np.repeat([0, 1, 2], [100, 20, 4])
    assert scarce(label, ("a", "b", "c"), 0.25) == ""
    assert "one training wafer of 2 of 3 classes: b (20), c (4); one of each is kept" in scarce(label, "abc", 0.04)
    labels = np.array([[1, 0]] * 30 + [[1, 1]] * 2)
    assert "1 of 2 combinations of labels;" in scarce(labels, ("a", "b"), 0.1)
