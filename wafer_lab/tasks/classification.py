"""One task for multi-class and multi-label classification."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wafer_lab.data.batches import Batch
from wafer_lab.errors import UserError
from wafer_lab.metrics.collection import classification_metrics
from wafer_lab.tasks.supervised import SupervisedTask


class ClassificationTask(SupervisedTask):
    """Train a classifier; log its loss and scores.

    Args:
        network: (B, C, S, S) images -> (B, num_classes) logits.
        loss: (logits, target) -> scalar.
        target: `multiclass` (softmax) or `multilabel` (sigmoid).
        class_names: Names in the order of the logits.
        monitor: The validation score that chooses the best checkpoint.
        mode: Whether `monitor` is to be maximised or minimised.
        mixup: Train on mixtures of two wafers, whose shares are Beta(mixup, mixup) (Zhang et al. 2018,
            arXiv:1710.09412); 0 for none. The loss must take soft targets.
        normal: Multi-class: the classes that are no defect, for the rates of escapes and false alarms; None: the one
            called none.
        **options: As for `Task`.
    """

    targets = ("multiclass", "multilabel")

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        target: str,
        class_names: Sequence[str],
        monitor: str = "val/f1_macro",
        mode: Literal["max", "min"] = "max",
        mixup: float = 0.0,
        normal: Sequence[str] | None = None,
        **options: Any,
    ):
        if mixup < 0:
            raise UserError(f"task.mixup={mixup} must not be negative; 0 mixes nothing")
        scores = classification_metrics(target, len(class_names), tuple(class_names), ranking=False, normal=normal)
        named: dict[str, Any] = {"class_names": class_names, "monitor": monitor, "mode": mode}
        super().__init__(network=network, loss=loss, scores=scores, **named, **options)
        self.target, self.mixup, self.normal = target, mixup, normal

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, of mixtures where that is asked for."""
        return super().training_step(self._mixed(batch) if self.mixup else batch, batch_idx)

    def _mixed(self, batch: Batch) -> Batch:
        """Every wafer mixed with another one, all of a batch in the same shares."""
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        target = batch.target
        if target.ndim == 1:
            target = nn.functional.one_hot(target, len(self.class_names)).float()
        other = torch.randperm(len(target), device=target.device)
        image, target = (share * part + (1 - share) * part[other] for part in (batch.image, target))
        return batch._replace(image=image.contiguous(memory_format=torch.channels_last), target=target)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) float32 in [0, 1]: softmax over classes, or a sigmoid per label."""
        return logits.float().softmax(-1) if self.target == "multiclass" else super().probabilities(logits)

    def blank(self) -> tuple[Tensor, Tensor]:
        """(1, C) probabilities and the target of one sample."""
        width = len(self.class_names)
        target = torch.zeros(1, dtype=torch.long) if self.target == "multiclass" else torch.zeros(1, width)
        return torch.full((1, width), 1 / width), target
