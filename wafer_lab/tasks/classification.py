"""One task for multi-class and multi-label classification."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wafer_lab.data.batches import Batch
from wafer_lab.errors import UserError
from wafer_lab.metrics.collection import classification_metrics
from wafer_lab.tasks.base import Task


class ClassificationTask(Task):
    """Train a classifier; log its loss and scores.

    Args:
        network: (B, C, S, S) images -> (B, num_classes) logits.
        loss: (logits, target) -> scalar.
        target: `multiclass` (softmax) or `multilabel` (sigmoid).
        class_names: Names in the order of the logits.
        monitor: The validation score that chooses the best checkpoint.
        mode: Whether `monitor` is to be maximised or minimised.
        **options: As for `Task`.
    """

    targets = ("multiclass", "multilabel")

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        target: Literal["multiclass", "multilabel"],
        class_names: Sequence[str],
        monitor: str = "val/f1_macro",
        mode: Literal["max", "min"] = "max",
        **options: Any,
    ):
        super().__init__(network, **options)
        self.loss, self.target, self.monitor, self.mode = loss, target, monitor, mode
        self.class_names = tuple(class_names)
        self.scores = classification_metrics(target, len(class_names), tuple(class_names), ranking=False)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) float32 in [0, 1]: softmax over classes, or a sigmoid per label."""
        logits = logits.float()
        return logits.softmax(-1) if self.target == "multiclass" else logits.sigmoid()

    def monitors(self) -> list[str]:
        """Names that `monitor` may have."""
        scores = self.scores.clone(prefix="val/")
        width = len(self.class_names)
        target = torch.zeros(1, dtype=torch.long) if self.target == "multiclass" else torch.zeros(1, width)
        scores.update(torch.full((1, width), 1 / width), target.long())
        return ["val/loss", *scores.compute()]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss: Tensor = self.loss(self(batch.image), batch.target)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.row))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the batch into the epoch's loss and scores."""
        logits = self(batch.image)
        if not logits.isfinite().all():
            raise UserError(
                f"training diverged: the network's outputs are not finite in epoch {self.current_epoch + 1}; lower "
                "optimizer.lr, or try trainer.precision=32-true"
            )
        self.log("val/loss", self.loss(logits, batch.target), batch_size=len(batch.row))
        self.scores.update(self.probabilities(logits), batch.target.long())

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the epoch."""
        scores = self.scores.compute()
        self.log_dict({f"val/{name}": value for name, value in scores.items()})
        self.scores.reset()
