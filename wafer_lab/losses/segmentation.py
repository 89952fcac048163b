"""Region losses for masks: dice, tversky, dice_focal.

The element-wise losses of `modules` serve masks too. Logits and masks are (B, K, H, W); an element of a mask that is
negative is not known and counts nothing.
"""

from torch import Tensor

from wafer_lab.errors import UserError
from wafer_lab.losses import functional
from wafer_lab.losses.modules import Loss, in_range

_FLOOR = 1e-7  # keeps 0 / 0 away where smooth is 0 and all that is known is right


def tversky(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """One minus the Tversky index, (TP + s) / (TP + alpha * FP + beta * FN + s), of sigmoid probabilities.

    The sums run over the pixels of the whole batch, and the index is taken per class: over single wafers, one false
    pixel on a wafer without the pattern would cost as much as missing a pattern. A class without a pixel in the masks
    of the batch is left out of the mean, because any prediction of it has index near 0; what is called there
    counts as soon as a batch has the class. If no class is left, the loss is 0.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
    MLMI 2017.

    Args:
        logits: (B, K, H, W).
        target: (B, K, H, W) of 0/1, float; negative where not known.
        alpha: weight of false positives, >= 0.
        beta: weight of false negatives, >= 0.
        smooth: s, in pixels, >= 0.
        class_weights: (K,) weights of the classes in the mean, or None.

    Returns:
        Scalar in [0, 1].
    """
    known = (target >= 0).to(logits)
    p, true = logits.sigmoid() * known, target * known
    over = [d for d in range(logits.ndim) if d != 1]
    hits, called, actual = (p * true).sum(over), p.sum(over), true.sum(over)
    whole = hits + alpha * (called - hits) + beta * (actual - hits) + smooth
    losses = 1 - (hits + smooth) / whole.clamp(min=_FLOOR)
    weights = (actual > 0).to(losses)
    if class_weights is not None:
        weights = weights * class_weights.to(losses)
    return (losses * weights).sum() / weights.sum().clamp(min=_FLOOR)


def dice(logits: Tensor, target: Tensor, smooth: float = 1.0, class_weights: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient, (2 TP + s) / (2 TP + FP + FN + s); see `tversky`, of which it is a case.

    Source: Milletari et al., "V-Net", 3DV 2016 (without the squares).

    Args:
        logits: (B, K, H, W).
        target: (B, K, H, W) of 0/1, float; negative where not known.
        smooth: s, in pixels, >= 0.
        class_weights: (K,) weights of the classes in the mean, or None.

    Returns:
        Scalar in [0, 1].
    """
    return tversky(logits, target, 0.5, 0.5, smooth / 2, class_weights)


class TverskyLoss(Loss):
    """Tversky loss (Salehi et al. 2017): Dice with its own weights for false positives and false negatives.

    Args:
        target: "mask".
        alpha: weight of false positives, >= 0.
        beta: weight of false negatives, >= 0; above alpha it favours recall.
        smooth: pixels added above and below the line, >= 0.
        class_weights: (K,) weights of the classes in the mean.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "tversky"
    targets = ("mask",)

    def __init__(
        self,
        target: str,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.alpha, self.beta = in_range("alpha", alpha, 0), in_range("beta", beta, 0)
        self.smooth = in_range("smooth", smooth, 0)
        if self.alpha + self.beta == 0:
            raise UserError("loss.alpha and loss.beta are both 0, so no mistake costs anything; raise one of them")

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `tversky`."""
        return tversky(logits, target, self.alpha, self.beta, self.smooth, self.class_weights)


class DiceLoss(Loss):
    """Soft Dice loss (Milletari et al. 2016), per class over the batch.

    Args:
        target: "mask".
        smooth: pixels added above and below the line, >= 0.
        class_weights: (K,) weights of the classes in the mean.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "dice"
    targets = ("mask",)

    def __init__(
        self,
        target: str,
        smooth: float = 1.0,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.smooth = in_range("smooth", smooth, 0)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `dice`."""
        return dice(logits, target, self.smooth, self.class_weights)


class DiceFocalLoss(Loss):
    """Dice plus focal loss: the first sees whole regions, the second every pixel, also of absent classes.

    Args:
        target: "mask".
        gamma: focusing of the focal loss, >= 0; 0 is cross-entropy.
        alpha: its weight of positives, 1 - alpha that of negatives, in [0, 1]; None weighs neither.
        focal_weight: weight of the focal loss; Dice has weight 1. >= 0.
        smooth: pixels added above and below the line of Dice, >= 0.
        class_weights: (K,) weights of the classes in the mean of Dice, and of positives in the focal loss.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "dice_focal"
    targets = ("mask",)

    def __init__(
        self,
        target: str,
        gamma: float = 2.0,
        alpha: float | None = None,
        focal_weight: float = 1.0,
        smooth: float = 1.0,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.gamma = in_range("gamma", gamma, 0)
        self.alpha = None if alpha is None else in_range("alpha", alpha, 0, 1)
        self.focal_weight = in_range("focal_weight", focal_weight, 0)
        self.smooth = in_range("smooth", smooth, 0)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `dice` and `functional.sigmoid_focal`."""
        focal = functional.sigmoid_focal(logits, target, self.gamma, self.alpha, self.class_weights)
        return dice(logits, target, self.smooth, self.class_weights) + self.focal_weight * focal
