"""Losses as modules: hyper-parameters come from conf/loss/, the class statistics from the training labels.

To add a loss: a subclass of `Loss` here, or in `segmentation` if it is for masks alone, and one YAML file named as its
`option`. `targets` must stay a literal tuple and the constructor's annotations plain types, because the config is
checked from the source alone, before torch is imported.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.losses import functional


class Loss(nn.Module):
    """What every loss shares: the check of its target, full precision, and the logit adjustment.

    `log_prior` is added to the logits in training mode only: in evaluation mode the loss is that of the
    logits that predictions are made from. The tensors are buffers that move with the module but stay out of
    checkpoints.

    Args:
        target: "multiclass", "multilabel" or "mask".
        class_weights: (C,) class weights, or for multi-label and masks the weights of positives; None for none.
        log_prior: (C,) offset of the training logits, tau included; None for none. Not for masks: it is a prior of
            whole images.

    Subclasses also take `class_counts`, the (C,) training samples of each class, whether they need it or not.

    Raises:
        UserError: the loss does not support the target, or a hyper-parameter is out of range.
    """

    option: ClassVar[str]  # the file name in conf/loss/
    targets: ClassVar[tuple[str, ...]] = ()
    class_weights: Tensor | None
    log_prior: Tensor | None

    def __init__(self, target: str, class_weights: Tensor | None, log_prior: Tensor | None) -> None:
        super().__init__()
        if target not in self.targets:
            raise UserError(_unsupported(self.option, self.targets, target))
        if target == "mask" and log_prior is not None:
            raise UserError("logit adjustment is for whole wafers, but data.target is mask; set imbalance.tau=0")
        self.target = target
        self.register_buffer("class_weights", _statistic(class_weights), persistent=False)
        self.register_buffer("log_prior", _statistic(log_prior), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss, in float32 (float64 for float64 logits) whatever the autocast.

        Args:
            logits: (B, C), for masks (B, C, H, W), any float type.
            target: multi-class: integers (B,), or where the loss allows soft targets floats (B, C).
                Multi-label and masks: the shape of the logits, of 0/1, any type; negative elements count nothing.

        Raises:
            ValueError: the target's shape does not fit the logits.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        hard = self.target == "multiclass" and not target.is_floating_point()
        if target.shape != (logits.shape[:1] if hard else logits.shape):
            raise ValueError(
                f"a {self.target} target of shape {tuple(target.shape)} and type {target.dtype} does not fit "
                f"logits of shape {tuple(logits.shape)}"
            )
        if self.training and self.log_prior is not None:
            logits = logits + self.log_prior
        return self.loss(logits, target.long() if hard else target.to(logits))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of adjusted float logits; `target` is int64 (B,) or float, shaped as they are."""
        raise NotImplementedError


class CrossEntropyLoss(Loss):
    """Cross-entropy: softmax for multi-class, hard or soft; sigmoid per label, or per pixel of every mask.

    Args:
        target: "multiclass", "multilabel" or "mask".
        label_smoothing: share of the target spread evenly over the classes, or over yes and no, in [0, 1].
        class_weights: see `Loss`.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "cross_entropy"
    targets = ("multiclass", "multilabel", "mask")

    def __init__(
        self,
        target: str,
        label_smoothing: float = 0.0,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.label_smoothing = in_range("label_smoothing", label_smoothing, 0, 1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `functional.cross_entropy` and `functional.binary_cross_entropy`."""
        if self.target == "multiclass":
            return functional.cross_entropy(logits, target, self.class_weights, self.label_smoothing)
        if self.label_smoothing:
            smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
            target = torch.where(target < 0, target, smooth)
        return functional.binary_cross_entropy(logits, target, self.class_weights)


class FocalLoss(Loss):
    """Focal loss (Lin et al., ICCV 2017): softmax for multi-class, hard or soft; sigmoid for labels and masks.

    Args:
        target: "multiclass", "multilabel" or "mask".
        gamma: focusing, >= 0; 0 is cross-entropy.
        alpha: multi-label and masks only: weight of positives, 1 - alpha that of negatives, in [0, 1].
        class_weights: see `Loss`.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "focal"
    targets = ("multiclass", "multilabel", "mask")

    def __init__(
        self,
        target: str,
        gamma: float = 2.0,
        alpha: float | None = None,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.gamma = in_range("gamma", gamma, 0)
        self.alpha = None if alpha is None else in_range("alpha", alpha, 0, 1)
        if target == "multiclass" and alpha is not None:
            raise UserError(
                "loss.alpha weighs positives against negatives and means nothing for a multiclass target; "
                "set loss.alpha=null, and weigh classes with imbalance=class_weights"
            )

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `functional.softmax_focal` and `functional.sigmoid_focal`."""
        if self.target == "multiclass":
            return functional.softmax_focal(logits, target, self.gamma, self.class_weights)
        return functional.sigmoid_focal(logits, target, self.gamma, self.alpha, self.class_weights)


class LDAMLoss(Loss):
    """Label-distribution-aware margin loss (Cao et al., NeurIPS 2019); hard targets only.

    The paper's scale of 30 belongs to its cosine classifier, whose logits lie in [-1, 1]. A linear head's
    logits have their scale already, and with s = 1 their softmax stays the model's probability.

    Args:
        target: "multiclass".
        max_m: margin of the rarest class, in logits, >= 0.
        s: scale of the logits, > 0.
        class_weights: see `Loss`.
        log_prior: see `Loss`.
        class_counts: (C,) training samples of each class; required.
    """

    option = "ldam"
    targets = ("multiclass",)
    margins: Tensor

    def __init__(
        self,
        target: str,
        max_m: float = 0.5,
        s: float = 1.0,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        if class_counts is None:
            raise UserError("loss=ldam sets its margins from the training class counts; pass class_counts")
        self.s = in_range("s", s, 0)
        if self.s == 0:
            raise UserError("loss.s is 0, which makes every loss equal; give a positive number, usually 1")
        margins = functional.ldam_margins(torch.as_tensor(class_counts), in_range("max_m", max_m, 0))
        self.register_buffer("margins", margins, persistent=False)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `functional.ldam`."""
        if target.is_floating_point():
            raise UserError("loss=ldam needs one class per sample; turn mixup off, or choose loss=cross_entropy")
        return functional.ldam(logits, target, self.margins, self.s, self.class_weights)


class BCELoss(Loss):
    """Binary cross-entropy of every label, or of every pixel of every mask.

    Multi-class is refused: one sigmoid per class learns log odds, whose softmax, which everything downstream
    takes for the probability, is over-confident.

    Args:
        target: "multilabel" or "mask".
        class_weights: see `Loss`.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "bce"
    targets = ("multilabel", "mask")

    def __init__(
        self,
        target: str,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `functional.binary_cross_entropy`."""
        return functional.binary_cross_entropy(logits, target, self.class_weights)


class AsymmetricLoss(Loss):
    """Asymmetric loss (Ben-Baruch et al., ICCV 2021).

    Multi-class is refused: the authors' single-label form is the focal loss with gamma_pos, since its
    gamma_neg acts only through label smoothing.

    Args:
        target: "multilabel" or "mask".
        gamma_neg: focusing of negatives, >= 0.
        gamma_pos: focusing of positives, >= 0.
        clip: probability below which a negative counts nothing, in [0, 1).
        class_weights: see `Loss`.
        log_prior: see `Loss`.
        class_counts: not needed.
    """

    option = "asymmetric"
    targets = ("multilabel", "mask")

    def __init__(
        self,
        target: str,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        *,
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__(target, class_weights, log_prior)
        self.gamma_neg = in_range("gamma_neg", gamma_neg, 0)
        self.gamma_pos = in_range("gamma_pos", gamma_pos, 0)
        self.clip = in_range("clip", clip, 0, 1)
        if self.clip == 1:
            raise UserError("loss.clip is 1, which drops every negative; give a number below 1, usually 0.05")

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `functional.asymmetric`."""
        return functional.asymmetric(logits, target, self.gamma_neg, self.gamma_pos, self.clip, self.class_weights)


def _statistic(values: Tensor | None) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)


def in_range(key: str, value: float, low: float, high: float = float("inf")) -> float:
    """A hyper-parameter as a float.

    Raises:
        UserError: it is not from `low` to `high`, or not finite.
    """
    if not (low <= value <= high and value < float("inf")):
        wanted = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        raise UserError(f"loss.{key} is {value}; give a number {wanted}")
    return float(value)


def _unsupported(option: str, targets: tuple[str, ...], target: str) -> str:
    others = [loss.option for loss in Loss.__subclasses__() if target in loss.targets]
    advice = f"choose {' or '.join(f'loss={name}' for name in others)}" if others else "choose another data set"
    return f"loss={option} is for {' and '.join(targets)} targets, but data.target is {target!r}; {advice}"
