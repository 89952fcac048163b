"""One mask per pattern; patterns overlap, so each has its own sigmoid."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wafer_lab.metrics.collection import mask_metrics
from wafer_lab.tasks.supervised import SupervisedTask


class SegmentationTask(SupervisedTask):
    """Train a network for masks; log its loss, and IoU and Dice pooled over the pixels of the validation wafers.

    Args:
        network: (B, C, S, S) images -> (B, num_classes, S, S) logits.
        loss: (logits, masks) -> scalar; masks are 0/1, negative where not known.
        class_names: Names in the order of the logits.
        monitor: The validation score that chooses the best checkpoint.
        mode: Whether `monitor` is to be maximised or minimised.
        **options: As for `Task`.
    """

    targets = ("mask",)

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        class_names: Sequence[str],
        monitor: str = "val/iou_macro",
        mode: Literal["max", "min"] = "max",
        **options: Any,
    ):
        named: dict[str, Any] = {"class_names": class_names, "monitor": monitor, "mode": mode}
        super().__init__(network=network, loss=loss, scores=mask_metrics(tuple(class_names)), **named, **options)

    def blank(self) -> tuple[Tensor, Tensor]:
        """(1, K, 1, 1) probabilities and masks of one sample."""
        one_pixel = torch.zeros(1, len(self.class_names), 1, 1)
        return one_pixel, one_pixel
