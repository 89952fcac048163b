"""One task for multi-class and multi-label classification."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
        **options: Any,
    ):
        scores = classification_metrics(target, len(class_names), tuple(class_names), ranking=False)
        named: dict[str, Any] = {"class_names": class_names, "monitor": monitor, "mode": mode}
        super().__init__(network=network, loss=loss, scores=scores, **named, **options)
        self.target = target

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) float32 in [0, 1]: softmax over classes, or a sigmoid per label."""
        return logits.float().softmax(-1) if self.target == "multiclass" else super().probabilities(logits)

    def blank(self) -> tuple[Tensor, Tensor]:
        """(1, C) probabilities and the target of one sample."""
        width = len(self.class_names)
        target = torch.zeros(1, dtype=torch.long) if self.target == "multiclass" else torch.zeros(1, width)
        return torch.full((1, width), 1 / width), target
