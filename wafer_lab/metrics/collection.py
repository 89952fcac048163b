"""Metrics over a loader: torchmetrics that accumulate counts, fed with probabilities, never with logits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from wafer_lab.metrics.masks import MaskCounts, mask_scores
from wafer_lab.metrics.scores import MultilabelCounts, Scores, multiclass_scores, multilabel_scores, normal_classes

# Half-precision softmax and means over views can pass 1 by a rounding error.
_TOLERANCE = 1e-3


def classification_metrics(
    target: str,
    num_classes: int,
    class_names: Sequence[str],
    threshold: float = 0.5,
    ranking: bool = True,
    normal: Sequence[str] | None = None,
) -> MetricCollection:
    """Build the metrics of a classification task; feed them (probabilities, target).

    `update(probabilities, target)` takes probabilities (B, C) and a target of class indices (B,) or of 0/1
    (B, C). `compute()` returns a flat dict of scalar tensors: the keys of `multiclass_scores` or
    `multilabel_scores`, and with `ranking` those of `RankingScores`. `clone(prefix="val/")` gives keys a
    prefix. Under DDP, counts are summed and stored probabilities gathered.

    Args:
        target: "multiclass" or "multilabel".
        num_classes: C.
        class_names: C names.
        threshold: multi-label: a label is predicted where its probability reaches this, in [0, 1].
        ranking: with AUROC and average precision, which store every probability; leave out where scores are
            wanted every epoch.
        normal: multi-class: the classes that are no defect, as for `multiclass_scores`.

    Raises:
        UserError: a normal class is not one of the classes.
        ValueError: another target, or names that do not fit num_classes.
    """
    if target not in ("multiclass", "multilabel"):
        raise ValueError(f"classification metrics are for multiclass and multilabel targets, not {target!r}")
    if len(class_names) != num_classes:
        raise ValueError(f"{len(class_names)} class names do not fit {num_classes} classes")
    counts: Metric
    if target == "multiclass":
        counts = MulticlassScores(class_names, normal)
    else:
        counts = MultilabelScores(class_names, threshold)
    metrics = [counts, RankingScores(class_names)] if ranking else [counts]
    return MetricCollection(metrics, compute_groups=False)


class MulticlassScores(Metric):
    """`multiclass_scores` of the most probable class.

    Args:
        class_names: C names.
        normal: the classes that are no defect; None: the one called none.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    confusion: Tensor

    def __init__(self, class_names: Sequence[str], normal: Sequence[str] | None = None) -> None:
        super().__init__()
        self.class_names, self.normal = tuple(class_names), normal
        normal_classes(class_names, normal)  # an unknown one is refused before the first epoch
        size = len(self.class_names)
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count a batch of (B, C) probabilities and (B,) class indices."""
        _check_probabilities(probabilities)
        size = len(self.class_names)
        pairs = target.long() * size + probabilities.argmax(dim=-1)
        self.confusion += torch.bincount(pairs, minlength=size * size).reshape(size, size)

    def compute(self) -> dict[str, Tensor]:
        """Return scalar tensors under the keys of `multiclass_scores`."""
        scores = multiclass_scores(self.confusion.cpu().numpy(), self.class_names, self.normal)
        return _tensors(scores, self.confusion.device)


class MultilabelScores(Metric):
    """`multilabel_scores` of the labels whose probability reaches the threshold.

    Args:
        class_names: C names.
        threshold: in [0, 1].
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    per_label: Tensor
    per_sample: Tensor

    def __init__(self, class_names: Sequence[str], threshold: float = 0.5) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.threshold = threshold
        # true positives, false positives, false negatives
        self.add_state("per_label", torch.zeros(3, len(class_names), dtype=torch.long), dist_reduce_fx="sum")
        # samples, exact, defects, escapes, false alarms
        self.add_state("per_sample", torch.zeros(5, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count a batch of (B, C) probabilities and (B, C) labels of 0/1."""
        _check_probabilities(probabilities)
        true, called = target > 0.5, probabilities >= self.threshold
        self.per_label += torch.stack([true & called, ~true & called, true & ~called]).sum(dim=1)
        defect, alarm = true.any(dim=1), called.any(dim=1)
        exact = (true == called).all(dim=1)
        flags = [torch.ones_like(defect), exact, defect, defect & ~alarm, ~defect & alarm]
        self.per_sample += torch.stack(flags).sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Return scalar tensors under the keys of `multilabel_scores`."""
        counts = MultilabelCounts(*self.per_label.cpu().numpy(), *self.per_sample.cpu().numpy())
        return _tensors(multilabel_scores(counts, self.class_names), self.per_label.device)


class RankingScores(Metric):
    """Exact AUROC and average precision of every class against the rest, and their macro means.

    `compute()` gives `auroc_macro`, `average_precision_macro`, `auroc/<class>` and `average_precision/<class>`. A class
    without both positives and negatives has neither score: its keys are left out, and the means are over the
    others (0 if none).

    Probabilities stay where the model is (36 bytes a sample for 9 classes), because NCCL cannot gather from
    the CPU; the sorting is done on the CPU.

    Args:
        class_names: C names.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    probabilities: list[Tensor]
    target: list[Tensor]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Store a batch of (B, C) probabilities with (B,) class indices or (B, C) labels of 0/1."""
        _check_probabilities(probabilities)
        self.probabilities.append(probabilities.detach().float())
        self.target.append(target.detach() if target.ndim == 1 else target.detach() > 0.5)

    def compute(self) -> dict[str, Tensor]:
        """Return scalar tensors."""
        probabilities, target = dim_zero_cat(self.probabilities), dim_zero_cat(self.target)
        scores: Scores = {}
        means: dict[str, list[float]] = {"auroc_macro": [], "average_precision_macro": []}
        device, probabilities, target = probabilities.device, probabilities.cpu(), target.cpu()
        for k, name in enumerate(self.class_names):
            positive = (target == k if target.ndim == 1 else target[:, k]).long()
            if not 0 < int(positive.sum()) < len(positive):
                continue
            auroc = binary_auroc(probabilities[:, k], positive, validate_args=False)
            precision = binary_average_precision(probabilities[:, k], positive, validate_args=False)
            scores |= {f"auroc/{name}": np.asarray(auroc), f"average_precision/{name}": np.asarray(precision)}
            means["auroc_macro"].append(float(auroc))
            means["average_precision_macro"].append(float(precision))
        scores |= {key: np.asarray(np.mean(values or [0.0])) for key, values in means.items()}
        return _tensors(scores, device)


class MaskScores(Metric):
    """`mask_scores` of the pixels whose probability reaches the threshold, pooled over all updates.

    Args:
        class_names: K names.
        threshold: in [0, 1].
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, class_names: Sequence[str], threshold: float = 0.5) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.threshold = threshold
        # intersection, predicted, true
        self.add_state("counts", torch.zeros(3, len(self.class_names), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Count a batch of (B, K, H, W) probabilities and masks of 0/1, negative where not known."""
        _check_probabilities(probabilities)
        self.counts += mask_counts(probabilities >= self.threshold, target).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return scalar tensors under the keys of `mask_scores`."""
        counts = MaskCounts(*self.counts.cpu().numpy())
        return _tensors(mask_scores(counts, self.class_names), self.counts.device)


def mask_metrics(class_names: Sequence[str]) -> MetricCollection:
    """Build the metrics of a segmentation task; feed them (probabilities, target), (B, K, H, W) each.

    `compute()` returns a flat dict of scalar tensors under the keys of `mask_scores`; `clone(prefix="val/")` gives
    them a prefix.
    """
    return MetricCollection([MaskScores(class_names)], compute_groups=False)


def mask_counts(called: Tensor, target: Tensor) -> Tensor:
    """Count the pixels of masks, each wafer by itself; `MaskCounts(*counts)` for the scores.

    Args:
        called: (B, K, H, W) bool, what is predicted.
        target: (B, K, H, W) of 0/1; negative where not known, which counts nothing.

    Returns:
        (3, B, K) int64: intersection, predicted, true.
    """
    true, found = target > 0, called & (target >= 0)
    return torch.stack([mask.sum((2, 3)) for mask in (true & found, found, true)])


def _check_probabilities(probabilities: Tensor) -> None:
    low, high = probabilities.aminmax()
    # written so that nan fails too
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"metrics take probabilities in [0, 1], not values from {low.item():.4g} to {high.item():.4g}: "
            "apply softmax or sigmoid to logits; nan means that training diverged"
        )


def _tensors(scores: Scores, device: torch.device) -> dict[str, Tensor]:
    return {key: torch.tensor(float(value), dtype=torch.float32, device=device) for key, value in scores.items()}
