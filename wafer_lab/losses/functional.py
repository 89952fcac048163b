"""Classification losses as pure functions of float32 (or float64) logits; each returns a scalar.

Shapes: logits (B, C). A multi-class target is int64 (B,), or float (B, C) with rows that sum to 1 (mixup). A
multi-label target is float (B, C) in [0, 1]; the binary losses also take logits and masks of any further
dimensions, (B, C, H, W). There an element whose target is negative is not known and counts nothing.

Means. Multi-class: the weighted sum over samples divided by the sum of the weights, as
`torch.nn.CrossEntropyLoss` does for hard targets (for soft ones torch divides by B; here a one-hot soft
target gives the hard target's loss). Multi-label and masks: the mean over all elements that count (0 where
none does), as `torch.nn.BCEWithLogitsLoss`, `pos_weight` not in the divisor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Keeps x ** gamma differentiable at 0 for gamma < 1. The factor it meets there is 0: the loss is unchanged.
_FLOOR = 1e-12


def cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Softmax cross-entropy.

    Args:
        logits: (B, C).
        target: int64 (B,) or float (B, C).
        class_weights: (C,) or None.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1].

    Returns:
        Scalar; see the module's note on means.
    """
    weights = None if class_weights is None else class_weights.to(logits)
    total = F.cross_entropy(logits, target, weight=weights, label_smoothing=label_smoothing, reduction="sum")
    return total / _sum_of_weights(target, weights)


def softmax_focal(logits: Tensor, target: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Multi-class focal loss, -(1 - p_t)^gamma * log p_t with a softmax p.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4.

    Args:
        logits: (B, C).
        target: int64 (B,) or float (B, C); soft targets weigh each class's term.
        gamma: focusing, >= 0; 0 is cross-entropy.
        class_weights: (C,) or None.

    Returns:
        Scalar; see the module's note on means.
    """
    weights = None if class_weights is None else class_weights.to(logits)
    log_p = F.log_softmax(logits, dim=-1)
    soft = target if target.is_floating_point() else F.one_hot(target, logits.shape[-1]).to(log_p)
    # -expm1(log p) is 1 - p without the rounding of 1 - exp(log p) near p = 1
    losses = -soft * _power(-torch.expm1(log_p), gamma) * log_p
    if weights is not None:
        losses = losses * weights
    return losses.sum() / _sum_of_weights(target, weights)


def ldam_margins(class_counts: Tensor, max_m: float) -> Tensor:
    """Margins proportional to n_j^(-1/4), the widest of them `max_m`.

    Source: Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss", NeurIPS
    2019.

    Args:
        class_counts: (C,) training samples of each class.
        max_m: margin of the rarest class that occurs; classes that do not occur get it too.

    Returns:
        (C,) float32 margins in logits.
    """
    counts = class_counts.float()
    seen = counts > 0
    margins = torch.where(seen, counts.clamp(min=1) ** -0.25, 0.0)
    return torch.where(seen, max_m * margins / margins.max().clamp(min=_FLOOR), max_m)


def ldam(
    logits: Tensor, target: Tensor, margins: Tensor, s: float = 1.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of s * (logits, the true class's reduced by its margin).

    Source: Cao et al., NeurIPS 2019, equation 13.

    Args:
        logits: (B, C).
        target: int64 (B,).
        margins: (C,) from `ldam_margins`.
        s: scale, > 0.
        class_weights: (C,) or None.

    Returns:
        Scalar; see the module's note on means.
    """
    reduced = logits - F.one_hot(target, logits.shape[-1]) * margins.to(logits)
    return cross_entropy(s * reduced, target, class_weights)


def binary_cross_entropy(logits: Tensor, target: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy of every label.

    Args:
        logits: (B, C, ...).
        target: float (B, C, ...).
        pos_weight: (C,) weight of positives, or None.

    Returns:
        Scalar, the mean over elements.
    """
    weights = None if pos_weight is None else per_class(pos_weight, logits)
    losses = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
    return _mean(losses, target)


def sigmoid_focal(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Multi-label focal loss, -alpha_t * (1 - p_t)^gamma * log p_t with a sigmoid p.

    Source: Lin et al., ICCV 2017, equations 4 (alpha None) and 5.

    Args:
        logits: (B, C, ...).
        target: float (B, C, ...).
        gamma: focusing, >= 0; 0 is binary cross-entropy.
        alpha: weight of positives, 1 - alpha that of negatives, in [0, 1]; None weighs neither.
        pos_weight: (C,) weight of positives, or None.

    Returns:
        Scalar, the mean over elements.
    """
    positive, negative = _binary_terms(logits, gamma, gamma, clip=0.0)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return _binary_mean(positive, negative, target, pos_weight)


def asymmetric(
    logits: Tensor,
    target: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss: focal with its own gamma for negatives, whose probability is lowered by `clip`.

    Source: Ben-Baruch et al., "Asymmetric loss for multi-label classification", ICCV 2021, equations 5 to 7.
    The authors sum over elements; this is the mean, so that learning rates carry over from the other losses.

    Args:
        logits: (B, C, ...).
        target: float (B, C, ...).
        gamma_neg: focusing of negatives, >= 0.
        gamma_pos: focusing of positives, >= 0.
        clip: probability below which a negative counts nothing, in [0, 1).
        pos_weight: (C,) weight of positives, or None.

    Returns:
        Scalar, the mean over elements.
    """
    positive, negative = _binary_terms(logits, gamma_pos, gamma_neg, clip)
    return _binary_mean(positive, negative, target, pos_weight)


def _binary_terms(logits: Tensor, gamma_pos: float, gamma_neg: float, clip: float) -> tuple[Tensor, Tensor]:
    """Losses (B, C, ...) that every element would have as a positive and as a negative."""
    p, not_p = torch.sigmoid(logits), torch.sigmoid(-logits)
    log_not_p = F.logsigmoid(-logits) if clip == 0 else torch.log((not_p + clip).clamp(max=1))
    return -_power(not_p, gamma_pos) * F.logsigmoid(logits), -_power(p - clip, gamma_neg) * log_not_p


def _binary_mean(positive: Tensor, negative: Tensor, target: Tensor, pos_weight: Tensor | None) -> Tensor:
    if pos_weight is not None:
        positive = positive * per_class(pos_weight, positive)
    return _mean(torch.lerp(negative, positive, target), target)


def _mean(losses: Tensor, target: Tensor) -> Tensor:
    """The mean over the elements that are known."""
    known = target >= 0
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


def per_class(weights: Tensor, like: Tensor) -> Tensor:
    """Shape (C,) weights to be multiplied with (B, C, ...), in its type."""
    return weights.to(like).reshape(-1, *[1] * (like.ndim - 2))


def _power(base: Tensor, gamma: float) -> Tensor:
    return base.clamp(min=_FLOOR) ** gamma


def _sum_of_weights(target: Tensor, weights: Tensor | None) -> Tensor | int:
    if weights is None:
        return target.shape[0]
    # no matrix product: autocast would lower its precision
    return (target * weights).sum() if target.is_floating_point() else weights[target].sum()
