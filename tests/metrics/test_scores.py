"""Scores of counts against scikit-learn, with absent classes, and batched against a loop."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    hamming_loss,
    precision_recall_fscore_support,
)
from sklearn.metrics import (
    confusion_matrix as sklearn_confusion_matrix,
)

from wafer_lab.errors import UserError
from wafer_lab.metrics.scores import MultilabelCounts, confusion_matrix, multiclass_scores, multilabel_scores

NAMES = ("Center", "Donut", "Loc", "Scratch", "none")
SIZE = len(NAMES)


def predictions(classes: list[int], called: list[int], seed: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    return rng.choice(classes, 200), rng.choice(called, 200)


CASES = [
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
    ([0, 1, 4], [0, 1, 4]),  # two classes nowhere
    ([0, 1, 2, 4], [0, 3, 4]),  # one never predicted, one only predicted
    ([4], [0, 4]),  # no defects
    ([0, 1], [0, 1]),  # no none
    ([2], [2]),
]


@pytest.mark.parametrize(("classes", "called"), CASES)
def test_multiclass_scores_equal_scikit_learn(classes: list[int], called: list[int]) -> None:
    target, predicted = predictions(classes, called, seed=1)
    scores = multiclass_scores(confusion_matrix(target, predicted, SIZE), NAMES)
    precision, recall, f1, _ = precision_recall_fscore_support(target, predicted, average="macro", zero_division=0)
    assert scores["precision_macro"] == pytest.approx(precision)
    assert scores["recall_macro"] == pytest.approx(recall)
    assert scores["f1_macro"] == pytest.approx(f1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(target, predicted))
    each = precision_recall_fscore_support(target, predicted, labels=range(SIZE), zero_division=0)
    for key, values in zip(("precision", "recall", "f1"), each, strict=False):
        np.testing.assert_allclose([scores[f"{key}/{name}"] for name in NAMES], values)


@pytest.mark.parametrize(("classes", "called"), CASES)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_balanced_accuracy_equals_scikit_learn(classes: list[int], called: list[int]) -> None:
    target, predicted = predictions(classes, called, seed=2)
    scores = multiclass_scores(confusion_matrix(target, predicted, SIZE), NAMES)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, predicted))


def test_confusion_matrix_equals_scikit_learn() -> None:
    target, predicted = predictions([0, 1, 3], [1, 2, 4], seed=3)
    expected = sklearn_confusion_matrix(target, predicted, labels=range(SIZE))
    np.testing.assert_array_equal(confusion_matrix(target, predicted, SIZE), expected)


def test_escapes_and_false_alarms_by_hand() -> None:
    # 10 defects: 3 called none, 2 called another defect; 20 none: 4 called a defect
    confusion = np.array([[5, 2, 3], [0, 0, 0], [3, 1, 16]])
    scores = multiclass_scores(confusion, ("Center", "Loc", "none"))
    assert scores["escape_rate"] == pytest.approx(0.3)
    assert scores["false_alarm_rate"] == pytest.approx(0.2)
    assert "escape_rate" not in multiclass_scores(confusion, ("Center", "Loc", "normal"))


def test_several_normal_classes_by_hand() -> None:
    # 6 Center and 4 Loc are defects; none and clean are normal, and calling one the other harms nobody
    confusion = np.array([[2, 1, 1, 2], [0, 3, 1, 0], [1, 0, 7, 2], [3, 1, 4, 12]])
    names = ("Center", "Loc", "none", "clean")
    scores = multiclass_scores(confusion, names, normal=("none", "clean"))
    assert scores["escape_rate"] == pytest.approx(4 / 10)
    assert scores["false_alarm_rate"] == pytest.approx(5 / 30)
    by_default = multiclass_scores(confusion, names)
    assert by_default["escape_rate"] == pytest.approx((1 + 1 + 4) / 30)
    assert by_default["false_alarm_rate"] == pytest.approx(3 / 10)
    others = scores.keys() - {"escape_rate", "false_alarm_rate"}
    assert all(scores[key] == by_default[key] for key in others)
    assert multiclass_scores(confusion, names, normal=()).keys() == others


def test_a_normal_class_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="normal names clear, which is no class here; choose from Center"):
        multiclass_scores(np.ones((SIZE, SIZE)), NAMES, normal=("none", "clear"))


def test_no_samples_score_zero() -> None:
    scores = multiclass_scores(np.zeros((SIZE, SIZE)), NAMES)
    assert set(map(float, scores.values())) == {0.0}


def test_batched_confusions_equal_a_loop() -> None:
    rng = np.random.default_rng(4)
    confusions = rng.integers(0, 5, (2, 30, SIZE, SIZE)) * (rng.random((2, 30, SIZE, 1)) > 0.4)
    batched = multiclass_scores(confusions, NAMES)
    for i in range(2):
        for j in range(30):
            one = multiclass_scores(confusions[i, j], NAMES)
            assert one.keys() == batched.keys()
            for key, value in one.items():
                assert batched[key].shape == (2, 30)
                assert batched[key][i, j] == value


def labels(absent: tuple[int, ...], seed: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    target, predicted = rng.random((100, SIZE)) > 0.8, rng.random((100, SIZE)) > 0.7
    target[:, absent] = False
    predicted[:, absent[1:]] = False  # the first absent label is predicted all the same
    return target, predicted


@pytest.mark.parametrize("absent", [(), (1,), (1, 3)])
def test_multilabel_scores_equal_scikit_learn(absent: tuple[int, ...]) -> None:
    target, predicted = labels(absent, seed=5)
    scores = multilabel_scores(MultilabelCounts.of(target, predicted), NAMES)
    present = np.flatnonzero(target.any(0) | predicted.any(0))
    precision, recall, f1, _ = precision_recall_fscore_support(
        target, predicted, labels=present, average="macro", zero_division=0
    )
    assert scores["precision_macro"] == pytest.approx(precision)
    assert scores["recall_macro"] == pytest.approx(recall)
    assert scores["f1_macro"] == pytest.approx(f1)
    micro = precision_recall_fscore_support(target, predicted, average="micro")[2]
    assert scores["f1_micro"] == pytest.approx(micro)
    assert scores["exact_match"] == pytest.approx(accuracy_score(target, predicted))
    assert scores["hamming_accuracy"] == pytest.approx(1 - hamming_loss(target, predicted))
    each = precision_recall_fscore_support(target, predicted, average=None, zero_division=0)
    for key, values in zip(("precision", "recall", "f1"), each, strict=False):
        np.testing.assert_allclose([scores[f"{key}/{name}"] for name in NAMES], values)


def test_multilabel_escapes_and_false_alarms_by_hand() -> None:
    target = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]])
    predicted = np.array([[0, 0], [1, 0], [1, 0], [1, 1], [0, 0]])
    scores = multilabel_scores(MultilabelCounts.of(target, predicted), ("Center", "Loc"))
    assert scores["escape_rate"] == pytest.approx(1 / 3)
    assert scores["false_alarm_rate"] == pytest.approx(1 / 2)


def test_weighted_counts_equal_repeated_samples() -> None:
    target, predicted = labels((1,), seed=6)
    draws = np.random.default_rng(7).integers(0, 100, (20, 100))
    weights = np.stack([np.bincount(rows, minlength=100) for rows in draws])
    batched = multilabel_scores(MultilabelCounts.of(target, predicted, weights), NAMES)
    for i, rows in enumerate(draws):
        one = multilabel_scores(MultilabelCounts.of(target[rows], predicted[rows]), NAMES)
        assert one.keys() == batched.keys()
        for key, value in one.items():
            assert batched[key][i] == pytest.approx(value)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 classes do not fit 4 class names"):
        multiclass_scores(np.ones((SIZE, SIZE)), NAMES[:4])
