"""What to do about rare classes: weights, priors and sampling, computed from the training labels.

Labels are those of the store: multi-class (N,) integers with -1 for unlabelled, multi-label (N, C) of 0/1
with a row of -1 for unlabelled. Unlabelled rows are never counted and never drawn. No function here returns
inf or nan.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A class never seen enters a prior as half a sample: log 0 would make its logits infinite.
_UNSEEN = 0.5


def class_counts(labels: NDArray[Any], num_classes: int, target: str) -> Integers:
    """Count the samples of each class (multi-class) or the positives of each label (multi-label).

    Args:
        labels: (N,) class indices, or (N, C) of 0/1; -1 is unlabelled.
        num_classes: C.
        target: "multiclass" or "multilabel".

    Returns:
        (C,) int64 counts; a class that does not occur counts 0.
    """
    _check_target(target)
    if target == "multilabel":
        return np.asarray((labels == 1).sum(axis=0), dtype=np.int64)
    return np.bincount(labels[labels >= 0], minlength=num_classes).astype(np.int64)


def balanced_weights(counts: NDArray[Any]) -> Floats:
    """Class weights n / (C * n_j), scikit-learn's "balanced".

    As there, C is the number of classes that occur, so the mean weight of a sample is 1.

    Args:
        counts: (C,) samples of each class.

    Returns:
        (C,) weights; 1 for a class that does not occur (no sample uses it).
    """
    counts = np.asarray(counts, dtype=np.float64)
    seen = counts > 0
    return np.where(seen, counts.sum() / (max(seen.sum(), 1) * np.maximum(counts, 1)), 1.0)


def effective_number_weights(counts: NDArray[Any], beta: float) -> Floats:
    """Class weights (1 - beta) / (1 - beta^n_j), normalised to mean 1 over the classes that occur.

    Source: Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019. beta 0 gives
    equal weights, beta towards 1 the inverse frequency; 1 / (1 - beta) is the count beyond which more samples
    no longer matter.

    Args:
        counts: (C,) samples of each class.
        beta: in [0, 1).

    Returns:
        (C,) weights; 1 for a class that does not occur.
    """
    counts = np.asarray(counts, dtype=np.float64)
    seen = counts > 0
    weights = 1.0 / _effective_number(np.maximum(counts, 1), beta)
    return np.where(seen, weights / (weights[seen].mean() if seen.any() else 1.0), 1.0)


def pos_weight(counts: NDArray[Any], n: int) -> Floats:
    """Weight of a positive, per label: negatives / positives.

    Args:
        counts: (C,) positives of each label.
        n: number of labelled samples.

    Returns:
        (C,) weights; 1 for a label that is never, or always, positive: it has no imbalance to correct.
    """
    counts = np.asarray(counts, dtype=np.float64)
    two_sided = (counts > 0) & (counts < n)
    return np.where(two_sided, (n - counts) / np.maximum(counts, 1), 1.0)


def effective_number_pos_weight(counts: NDArray[Any], n: int, beta: float) -> Floats:
    """`pos_weight` with effective numbers (Cui 2019) in place of counts: E(negatives) / E(positives).

    Args:
        counts: (C,) positives of each label.
        n: number of labelled samples.
        beta: in [0, 1); 0 gives 1 everywhere, towards 1 gives `pos_weight`.

    Returns:
        (C,) weights; 1 for a label that is never, or always, positive.
    """
    counts = np.asarray(counts, dtype=np.float64)
    two_sided = (counts > 0) & (counts < n)
    positives = _effective_number(np.maximum(counts, 1), beta)
    return np.where(two_sided, _effective_number(np.maximum(n - counts, 1), beta) / positives, 1.0)


def sample_weights(labels: NDArray[Any], power: float) -> Floats:
    """Weight of each sample in a sampler with replacement: (samples of its kind) ** -power.

    A sample's kind is its class, or, for multi-label, its exact combination of labels (MixedWM38 has 38):
    every combination is then drawn equally often at power 1. Single labels cannot be evened out by drawing
    samples, since most samples carry several.

    Args:
        labels: (N,) class indices or (N, C) of 0/1; -1 is unlabelled.
        power: 1 draws every kind equally often, 0.5 is half way (square root), 0 changes nothing.

    Returns:
        (N,) weights, not normalised; 0 for an unlabelled sample.
    """
    _, kind = np.unique(labels, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    labelled = labels >= 0 if labels.ndim == 1 else (labels >= 0).all(axis=1)
    weights = np.bincount(kind).astype(np.float64)[kind] ** -power
    return np.where(labelled, weights, 0.0)


def log_prior(counts: NDArray[Any], tau: float, target: str, n: int) -> Floats:
    """What to add to the logits in training so that the trained logits forget the class frequencies.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10: tau * log p_j.
    For multi-label each label is a question of its own, so it is tau times its log odds, log(p_j / (1 -
    p_j)).

    Args:
        counts: (C,) samples of each class, or positives of each label.
        tau: strength; 1 aims at balanced accuracy, 0 changes nothing.
        target: "multiclass" or "multilabel".
        n: number of labelled samples.

    Returns:
        (C,) offsets. A class never seen (or a label always positive) counts as half a sample.
    """
    _check_target(target)
    n = max(int(n), 1)
    seen = np.clip(np.asarray(counts, dtype=np.float64), _UNSEEN, None)
    if target == "multiclass":
        return tau * np.log(seen / n)
    seen = np.minimum(seen, n - _UNSEEN)
    return tau * np.log(seen / (n - seen))


@dataclass(frozen=True)
class Imbalance:
    """One imbalance strategy: which of the functions above a run applies to its training labels.

    Attributes:
        sampler: draw training samples in proportion ("none"), every kind equally often ("balanced"), or in
            proportion to the square root of its frequency ("sqrt").
        class_weights: weights in the loss: "none", "balanced", or "effective_number". Multi-label: the weight
            of positives.
        beta: of "effective_number", in [0, 1).
        tau: strength of the logit adjustment; 0 is off.

    Raises:
        UserError: an option that does not exist, or a number out of range.
    """

    sampler: Literal["none", "balanced", "sqrt"] = "none"
    class_weights: Literal["none", "balanced", "effective_number"] = "none"
    beta: float = 0.999
    tau: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no method could honour."""
        _check_choice("sampler", self.sampler, ("none", "balanced", "sqrt"))
        _check_choice("class_weights", self.class_weights, ("none", "balanced", "effective_number"))
        if not 0 <= self.beta < 1:
            raise UserError(f"imbalance.beta is {self.beta}; give a number from 0 up to, not including, 1")
        if not 0 <= self.tau < float("inf"):
            raise UserError(f"imbalance.tau is {self.tau}; give 0 (off) or a positive number, usually 1")

    def class_weights_for(self, counts: NDArray[Any], n: int, target: str) -> Floats | None:
        """Weights for the loss: (C,) per class, or per label the weight of a positive; None where off.

        Args:
            counts: (C,) as `class_counts` gives them.
            n: number of labelled training samples.
            target: "multiclass" or "multilabel".
        """
        if self.class_weights == "none":
            return None
        _check_target(target)
        if self.class_weights == "balanced":
            return pos_weight(counts, n) if target == "multilabel" else balanced_weights(counts)
        if target == "multilabel":
            return effective_number_pos_weight(counts, n, self.beta)
        return effective_number_weights(counts, self.beta)

    def sample_weights_for(self, labels: NDArray[Any], target: str) -> Floats | None:
        """Weights for a sampler with replacement: (N,) per training sample; None where off."""
        if self.sampler == "none":
            return None
        _check_target(target)
        return sample_weights(labels, power=1.0 if self.sampler == "balanced" else 0.5)

    def log_prior_for(self, counts: NDArray[Any], n: int, target: str) -> Floats | None:
        """Offsets for the training logits: (C,); None where off. Arguments as in `class_weights_for`."""
        return None if self.tau == 0 else log_prior(counts, self.tau, target, n)


def _effective_number(counts: Floats, beta: float) -> Floats:
    return np.asarray((1.0 - beta**counts) / (1.0 - beta), dtype=np.float64)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"imbalance.{key} is {value!r}; choose one of {', '.join(choices)}")


def _check_target(target: str) -> None:
    if target not in ("multiclass", "multilabel"):
        raise UserError(f"imbalance needs a label per sample, but data.target is {target!r}; choose imbalance=none")
