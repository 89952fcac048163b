"""Self-training: a student learns from the labels there are and from what a finished teacher is sure of."""

from typing import Any

from torch import nn

from wafer_lab.errors import UserError
from wafer_lab.tasks.classification import ClassificationTask


class PseudoLabelTask(ClassificationTask):
    """Train a student on labels and pseudo-labels alike.

    Lee, "Pseudo-label: the simple and efficient semi-supervised learning method for deep neural networks", 2013, with a
    teacher in place of the student's own past. Which wafers get a pseudo-label is settled before training, see
    `wafer_lab.workflows.pseudo_labels`.

    Args:
        network: (B, C, S, S) images -> (B, num_classes) logits.
        loss: (logits, target) -> scalar.
        teacher: Folder of a finished run on the same split.
        threshold: Least calibrated probability of the teacher that makes a label, in (0.5, 1].
        cap: Most pseudo-labels of a class, as a multiple of its labels; None is that of all unlabelled wafers to all
            labelled ones, so that no class can grow beyond its share.
        **options: As for `ClassificationTask`.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        teacher: str,
        threshold: float = 0.95,
        cap: float | None = None,
        **options: Any,
    ):
        if not 0.5 < threshold <= 1 or (cap is not None and cap <= 0):
            raise UserError("task.threshold must lie in (0.5, 1], and task.cap be above 0 or null")
        super().__init__(network=network, loss=loss, **options)
        self.teacher, self.threshold, self.cap = teacher, threshold, cap
