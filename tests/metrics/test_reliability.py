"""Calibration errors by hand and against torchmetrics, proper scores against scikit-learn."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from wafer_lab.metrics.reliability import (
    brier,
    brier_terms,
    calibration_terms,
    classwise_calibration_error,
    classwise_terms,
    expected_calibration_error,
    nll,
    nll_terms,
)

CLASSES = 5


def multiclass(absent: int | None = None, seed: int = 0) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(400, CLASSES))
    noisy = logits + 2 * rng.normal(size=logits.shape)
    if absent is not None:
        noisy[:, absent] = -100
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), noisy.argmax(1)


def multilabel(seed: int = 0) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 0.8, (400, CLASSES))
    return p, (rng.random(p.shape) < p**1.5).astype(np.int8)


def tensors(p: NDArray, y: NDArray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(p).contiguous(), torch.from_numpy(y).long()


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_equals_torchmetrics(bins: int) -> None:
    p, y = multiclass()
    expected = multiclass_calibration_error(*tensors(p, y), num_classes=CLASSES, n_bins=bins)
    assert expected_calibration_error(p, y, bins) == pytest.approx(expected.item(), abs=1e-6)
    p, y = multilabel()
    pooled = binary_calibration_error(*tensors(p.ravel(), y.ravel()), n_bins=bins)
    assert expected_calibration_error(p, y, bins) == pytest.approx(pooled.item(), abs=1e-6)


@pytest.mark.parametrize("absent", [None, 2])
def test_classwise_error_averages_the_classes_that_occur(absent: int | None) -> None:
    p, y = multiclass(absent)
    each = [
        binary_calibration_error(*tensors(p[:, k], y == k), n_bins=15).item() for k in range(CLASSES) if k != absent
    ]
    assert classwise_calibration_error(p, y) == pytest.approx(np.mean(each), abs=1e-6)


def test_classwise_error_of_labels() -> None:
    p, y = multilabel()
    y[:, 3] = 0
    each = [binary_calibration_error(*tensors(p[:, k], y[:, k]), n_bins=15).item() for k in (0, 1, 2, 4)]
    assert classwise_calibration_error(p, y) == pytest.approx(np.mean(each), abs=1e-6)
    assert classwise_calibration_error(p, np.zeros_like(y)) == 0


# Confidence and whether it is right: .5 (no) .6 (yes) .7 (yes) .8 (no) .9 (yes) 1 (yes)
CONFIDENCE = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
PAIR = np.stack([CONFIDENCE, 1 - CONFIDENCE], axis=1)
TRUE = np.array([1, 0, 0, 1, 0, 0])


def test_ece_of_equal_width_by_hand() -> None:
    # (0, .5] holds .5; (.5, 1] the others: confidence 4.0, right 4 of 5
    assert expected_calibration_error(PAIR, TRUE, bins=2) == pytest.approx((0.5 + abs(4.0 - 4)) / 6)
    # quarters: .5 alone; .6 and .7, both right; .8, .9 and 1 with two right (.75 would belong to the lower bin)
    assert expected_calibration_error(PAIR, TRUE, bins=4) == pytest.approx((0.5 + 0.7 + 0.7) / 6)


def test_ece_of_equal_mass_by_hand() -> None:
    # halves of three wafers: 1.8 with 2 right, 2.7 with 2 right
    assert expected_calibration_error(PAIR, TRUE, bins=2, spacing="mass") == pytest.approx((0.2 + 0.7) / 6)
    # pairs: 1.1 with 1 right, 1.5 with 1 right, 1.9 with 2 right
    assert expected_calibration_error(PAIR, TRUE, bins=3, spacing="mass") == pytest.approx((0.1 + 0.5 + 0.1) / 6)


def test_mass_bins_hold_equally_many_and_keep_equals_together() -> None:
    p, y = multilabel()
    filled = [np.count_nonzero(column) for column in calibration_terms(p[:, :1], y[:, :1], 8, "mass").T]
    assert filled == [50] * 8
    same = np.full((90, 1), 0.7)
    half = np.arange(90)[:, None] % 2
    assert expected_calibration_error(same, half, spacing="mass") == pytest.approx(0.2)


def test_confidence_on_an_edge_belongs_below_it_and_zero_to_the_first_bin() -> None:
    terms = calibration_terms(np.array([[0.0], [0.2], [0.4], [1.0]]), np.array([[1], [0], [0], [0]]), bins=5)
    assert [np.flatnonzero(row).tolist() for row in terms] == [[0], [0], [1], [4]]


def test_proper_scores_equal_scikit_learn() -> None:
    p, y = multiclass()
    assert nll(p, y) == pytest.approx(log_loss(y, p, labels=range(CLASSES)))
    assert brier(p, y) == pytest.approx(((p - np.eye(CLASSES)[y]) ** 2).sum(1).mean())
    p, y = multilabel()
    each = [(log_loss(y[:, k], p[:, k]), brier_score_loss(y[:, k], p[:, k])) for k in range(CLASSES)]
    assert (nll(p, y), brier(p, y)) == pytest.approx(tuple(np.mean(each, axis=0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_impossible_wafer_costs_36_nats(dtype: type) -> None:
    certain = np.eye(2, dtype=dtype)
    worst = -np.log(np.finfo(np.float64).eps)
    assert nll_terms(certain, np.array([0, 0])) == pytest.approx([0, worst])
    assert nll_terms(certain, np.array([[1, 0], [1, 1]])) == pytest.approx([0, worst / 2])


def test_perfect_and_worst() -> None:
    certain, y = np.eye(3), np.arange(3)
    for error in (expected_calibration_error, classwise_calibration_error, brier, nll):
        assert error(certain, y) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(certain, (y + 1) % 3) == 1
    assert brier(certain, (y + 1) % 3) == 2


@pytest.mark.parametrize("case", [multiclass, multilabel])
def test_terms_sum_to_the_scores(case) -> None:
    p, y = case()
    assert brier_terms(p, y).shape == nll_terms(p, y).shape == (400,)
    assert classwise_terms(p, y, 7).shape == (400, CLASSES, 7)
    spread = calibration_terms(p, y, 9, "mass")
    assert np.abs(spread.mean(0)).sum() == pytest.approx(expected_calibration_error(p, y, 9, "mass"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target of shape \(3,\) does not fit probabilities of shape \(2, 2\)"):
        brier(np.eye(2), np.arange(3))
    with pytest.raises(ValueError, match="no wafers"):
        nll(np.empty((0, 2)), np.empty(0, dtype=int))
