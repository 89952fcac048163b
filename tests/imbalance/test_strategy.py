"""Imbalance functions against scikit-learn, hand-worked cases and the papers' limits."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from sklearn.utils.class_weight import compute_class_weight

from wafer_lab.errors import UserError
from wafer_lab.imbalance.strategy import (
    Imbalance,
    balanced_weights,
    class_counts,
    effective_number_pos_weight,
    effective_number_weights,
    log_prior,
    pos_weight,
    sample_weights,
)

CONF = Path(__file__).resolve().parents[2] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "imbalance").glob("*.yaml"))
LABELS = np.array([0] * 50 + [1] * 8 + [3] * 2 + [-1] * 5, dtype=np.int16)  # class 2 does not occur
MULTILABELS = np.array([[0, 0]] * 4 + [[1, 0]] * 3 + [[1, 1]] + [[-1, -1]] * 2, dtype=np.int8)


@cache
def composed(option: str) -> Imbalance:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        strategy = instantiate(compose(overrides=[f"+imbalance={option}"]).imbalance)
    assert isinstance(strategy, Imbalance)
    return strategy


def test_counts_leave_out_the_unlabelled() -> None:
    assert class_counts(LABELS, 4, "multiclass").tolist() == [50, 8, 0, 2]
    assert class_counts(MULTILABELS, 2, "multilabel").tolist() == [4, 1]


def test_counts_include_classes_after_the_last_that_occurs() -> None:
    assert class_counts(np.array([0, 0, 1]), 5, "multiclass").tolist() == [2, 1, 0, 0, 0]


def test_balanced_weights_equal_scikit_learn() -> None:
    labels = LABELS[LABELS >= 0]
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    weights = balanced_weights(class_counts(labels, 4, "multiclass"))
    np.testing.assert_allclose(weights[[0, 1, 3]], expected)
    assert weights[2] == 1
    assert weights[labels].mean() == pytest.approx(1)


def test_pos_weight_by_hand() -> None:
    assert pos_weight(np.array([25, 50, 0, 100]), 100).tolist() == [3, 1, 1, 1]


def test_effective_number_by_hand() -> None:
    # beta .5: E(1) = 1, E(2) = 1.5; weights 1 and 2/3, mean 5/6
    np.testing.assert_allclose(effective_number_weights(np.array([1, 2, 0]), 0.5), [1.2, 0.8, 1])


def test_effective_number_limits() -> None:
    counts = np.array([1000, 30, 4, 0])
    np.testing.assert_allclose(effective_number_weights(counts, 0.0), 1)
    near_one, balanced = effective_number_weights(counts, 1 - 1e-9)[:3], balanced_weights(counts)[:3]
    np.testing.assert_allclose(near_one / near_one.sum(), balanced / balanced.sum(), rtol=1e-5)


def test_effective_number_is_milder_than_balanced() -> None:
    counts = np.array([100_000, 100])
    balanced, effective = balanced_weights(counts), effective_number_weights(counts, 0.999)
    # .999 saturates at 1,000 samples: E(100) = 95.2, so the ratio is 10.5 and not 1,000
    assert balanced[1] / balanced[0] == pytest.approx(1000)
    assert effective[1] / effective[0] == pytest.approx(10.5, abs=0.05)


def test_effective_number_pos_weight_limits() -> None:
    counts, n = np.array([10, 50, 0, 100]), 100
    np.testing.assert_allclose(effective_number_pos_weight(counts, n, 0.0), 1)
    near_one = effective_number_pos_weight(counts, n, 1 - 1e-9)
    np.testing.assert_allclose(near_one, pos_weight(counts, n), rtol=1e-5)


@pytest.mark.parametrize(("power", "expected"), [(1.0, [1 / 3, 1 / 3, 0, 1 / 3]), (0.0, [50, 8, 0, 2])])
def test_share_of_draws_per_class(power: float, expected: list[float]) -> None:
    weights = sample_weights(LABELS, power)
    share = np.array([weights[k == LABELS].sum() for k in range(4)])
    np.testing.assert_allclose(share / share.sum(), np.array(expected) / sum(expected))
    assert (weights[LABELS == -1] == 0).all()


def test_square_root_sampler_draws_classes_by_the_root_of_their_frequency() -> None:
    weights = sample_weights(LABELS, 0.5)
    share = np.array([weights[k == LABELS].sum() for k in (0, 1, 3)])
    np.testing.assert_allclose(share, np.sqrt([50, 8, 2]))


def test_balanced_draws_come_out_balanced() -> None:
    weights = sample_weights(LABELS, 1.0)
    drawn = np.random.default_rng(0).choice(LABELS, size=30_000, p=weights / weights.sum())
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 30_000, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.01)


def test_multilabel_sampler_evens_out_the_combinations() -> None:
    weights = sample_weights(MULTILABELS, 1.0)
    np.testing.assert_allclose(weights, [1 / 4] * 4 + [1 / 3] * 3 + [1] + [0] * 2)


def test_log_prior_by_hand() -> None:
    np.testing.assert_allclose(log_prior(np.array([75, 25]), 2.0, "multiclass", 100), 2 * np.log([0.75, 0.25]))
    # half a sample where none was seen; log odds for labels
    np.testing.assert_allclose(log_prior(np.array([10, 0]), 1.0, "multiclass", 10), np.log([1, 0.05]))
    expected = np.log([3, 1, 0.5 / 99.5, 99.5 / 0.5])
    np.testing.assert_allclose(log_prior(np.array([75, 50, 0, 100]), 1.0, "multilabel", 100), expected)


def test_log_prior_turns_balanced_logits_into_the_biased_posterior() -> None:
    likelihood, counts = np.array([0.2, 0.5, 0.3]), np.array([70, 20, 10])
    logits = np.log(likelihood) + log_prior(counts, 1.0, "multiclass", 100)
    bayes = likelihood * counts / (likelihood * counts).sum()
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), bayes)


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 0, 0], [5, 3, 0], [1_000_000, 1, 0]])
def test_every_option_is_finite_on_every_count(option: str, target: str, counts: list[int]) -> None:
    strategy, array = composed(option), np.array(counts)
    n = max(counts) if target == "multilabel" else sum(counts)
    for values in (strategy.class_weights_for(array, n, target), strategy.log_prior_for(array, n, target)):
        if values is not None:
            assert values.shape == (3,)
            assert np.isfinite(values).all()


def test_every_option_turns_on_what_its_name_says() -> None:
    on = {}
    for option in OPTIONS:
        strategy, counts = composed(option), np.array([50, 8, 0, 2])
        on[option] = [
            strategy.sample_weights_for(LABELS, "multiclass") is not None,
            strategy.class_weights_for(counts, 60, "multiclass") is not None,
            strategy.log_prior_for(counts, 60, "multiclass") is not None,
        ]
    assert on == {
        "none": [False, False, False],
        "balanced_sampler": [True, False, False],
        "sqrt_sampler": [True, False, False],
        "class_weights": [False, True, False],
        "effective_number": [False, True, False],
        "logit_adjustment": [False, False, True],
    }


def test_strategy_methods_choose_the_function_of_the_target() -> None:
    counts, n = np.array([25, 50]), 100
    balanced = Imbalance(class_weights="balanced")
    np.testing.assert_array_equal(balanced.class_weights_for(counts, n, "multilabel"), pos_weight(counts, n))
    np.testing.assert_array_equal(balanced.class_weights_for(counts, n, "multiclass"), balanced_weights(counts))
    effective = Imbalance(class_weights="effective_number", beta=0.9)
    np.testing.assert_array_equal(
        effective.class_weights_for(counts, n, "multilabel"), effective_number_pos_weight(counts, n, 0.9)
    )
    np.testing.assert_array_equal(
        effective.class_weights_for(counts, n, "multiclass"), effective_number_weights(counts, 0.9)
    )
    np.testing.assert_array_equal(
        Imbalance(sampler="sqrt").sample_weights_for(LABELS, "multiclass"), sample_weights(LABELS, 0.5)
    )
    np.testing.assert_array_equal(
        Imbalance(tau=0.7).log_prior_for(counts, n, "multilabel"), log_prior(counts, 0.7, "multilabel", n)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("sampler", "random"), ("class_weights", "inverse"), ("beta", 1.0), ("beta", -0.1), ("tau", -1.0)],
)
def test_impossible_strategies_are_refused_with_the_key(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"imbalance.{key} is"):
        Imbalance(**{key: value})


def test_masks_are_refused_unless_nothing_is_asked() -> None:
    assert Imbalance().class_weights_for(np.array([1, 2]), 3, "mask") is None
    with pytest.raises(UserError, match="imbalance=none"):
        Imbalance(class_weights="balanced").class_weights_for(np.array([1, 2]), 3, "mask")
