"""Semi-supervised classification: what the network is sure of in a weak view is to be found in a strong one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.streams import Stream
from wafer_lab.errors import UserError
from wafer_lab.imbalance.strategy import class_counts
from wafer_lab.metrics.pseudo_labels import PseudoLabels
from wafer_lab.tasks.classification import ClassificationTask

_MOMENTUM = 0.999  # of the running mean of what the network says of unlabelled wafers


class FixMatchTask(ClassificationTask):
    """Train on few labels and many unlabelled wafers.

    Sohn et al., "FixMatch: simplifying semi-supervised learning with consistency and confidence", NeurIPS 2020,
    arXiv:2001.07685. As there, unlabelled wafers are all of the training side, the labelled ones without their label
    among them. Multi-label: a label counts where its probability or its complement reaches the threshold.

    Every epoch logs the share of unlabelled wafers (labels) that counted (`train/mask_rate`), how many of those were
    right where the data know it (`train/pseudo_accuracy`), and how they spread over the classes
    (`train/pseudo/<class>`).

    Args:
        network: (B, C, S, S) images -> (B, num_classes) logits.
        loss: Of the labelled wafers.
        strong: Distortions of the strong view.
        weak: Of the weak view and of the labelled wafers; None is the data's own augmentation.
        threshold: Least probability that counts, in (0.5, 1].
        mu: Unlabelled wafers in a batch for each labelled one.
        weight: Of the unlabelled loss, lambda in the paper.
        align: Distribution alignment (Berthelot et al. 2020, arXiv:1911.09785): scale the probabilities by how much
            less often the network says a class than the labels have it. Of multi-class targets.
        **options: As for `ClassificationTask`.
    """

    kinds = ("maps",)

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        strong: MapAugment,
        weak: MapAugment | None = None,
        threshold: float = 0.95,
        mu: int = 7,
        weight: float = 1.0,
        align: bool = False,
        **options: Any,
    ):
        super().__init__(network=network, loss=loss, **options)
        if self.mixup:
            raise UserError("task.mixup is for task=classification; leave it out")
        if not 0.5 < threshold <= 1 or mu < 1 or weight < 0:
            raise UserError("task.threshold must lie in (0.5, 1], task.mu be at least 1 and task.weight not negative")
        if align and self.target != "multiclass":
            raise UserError("task.align is for multiclass data; set task.align=false")
        self.streams = (Stream("train", (weak,)), Stream("all", (weak, strong), mu))
        self.threshold, self.weight, self.align = threshold, weight, align
        self.says: Tensor
        self.register_buffer("says", torch.full((len(self.class_names),), 1 / len(self.class_names)))
        self.pseudo = PseudoLabels(self.class_names)
        self.unlabelled_loss = MeanMetric(nan_strategy="disable")

    def setup(self, stage: str) -> None:
        """Look at the data.

        Raises:
            UserError: There is no unlabelled wafer.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not len(data.split.unlabelled):
            raise UserError(
                "task=fixmatch learns from unlabelled wafers, and the data have none on the training side; use data "
                "that have some, or hide labels with data.label_fraction=0.1, or use task=classification"
            )
        counts = torch.from_numpy(class_counts(data.labels("train"), len(self.class_names), self.target))
        self._shares = counts / counts.sum()

    def epoch_metrics(self) -> dict[str, Metric]:
        """Of the unlabelled wafers, too."""
        return super().epoch_metrics() | {"pseudo": self.pseudo, "unlabelled_loss": self.unlabelled_loss}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of the labelled wafers and of the strong views, all in one pass."""
        labelled, unlabelled = batch  # of the two streams
        logits = self(torch.cat([labelled.image, unlabelled.image]))
        known, weak, strong = logits.split([len(labelled.row), *[len(unlabelled.row)] * 2])
        guess, counts = self.pseudo_labels(weak.detach())
        loss = self.loss(known, labelled.target)
        consistency = self.consistency(strong, guess, counts)
        self.pseudo.update(guess, counts, self.trainer.datamodule.hidden_labels(unlabelled))  # type: ignore[attr-defined]
        self.unlabelled_loss.update(consistency.detach())
        self.log_train_loss(loss, len(labelled.row))
        total: Tensor = loss + self.weight * consistency
        return total

    def pseudo_labels(self, weak: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says of weak views, and whether it is sure.

        Args:
            weak: (U, C) logits.

        Returns:
            (U,) int64 classes and (U,) bool; of multi-label data (U, C) float32 of 0/1 and (U, C) bool.
        """
        probabilities = self.probabilities(weak)
        if self.target != "multiclass":
            return (probabilities > 0.5).float(), torch.maximum(probabilities, 1 - probabilities) >= self.threshold
        if self.align:
            self.says.lerp_(probabilities.mean(0), 1 - _MOMENTUM if self.global_step else 1.0)
            probabilities = probabilities * (self._shares.to(weak.device) / self.says.clamp(min=1e-6))
            probabilities = probabilities / probabilities.sum(1, keepdim=True)
        most, guess = probabilities.max(1)
        return guess, most >= self.threshold

    def consistency(self, strong: Tensor, guess: Tensor, counts: Tensor) -> Tensor:
        """Mean over all unlabelled wafers (labels) of the cross-entropy of those that count; equation 4 there."""
        if self.target == "multiclass":
            each = F.cross_entropy(strong.float(), guess, reduction="none")
        else:
            each = F.binary_cross_entropy_with_logits(strong.float(), guess, reduction="none")
        return (each * counts).mean()

    def on_validation_start(self) -> None:
        """Log what the pseudo-labels of the epoch were like."""
        super().on_validation_start()
        logged = self.pseudo.compute() | {"unlabelled_loss": self.unlabelled_loss.compute()}
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, sync_dist=True)
        self.pseudo.reset()
        self.unlabelled_loss.reset()

    def on_train_end(self) -> None:
        """Warn where the unlabelled wafers were of no use."""
        super().on_train_end()
        if self.trainer.callback_metrics.get("train/mask_rate") == 0:
            self.print(
                "warning: in the last epoch the network was sure of no unlabelled wafer and learned from the labelled "
                f"ones alone. Train longer, or lower task.threshold={self.threshold:g}"
            )
