"""What the labels are like that a network gives to unlabelled wafers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class PseudoLabels(Metric):
    """Counts pseudo-labels: how many were sure enough to count, of which classes, and how many of those were right.

    `compute()` gives `mask_rate`, the share of wafers (of multi-label data, labels) that counted; `pseudo_accuracy`,
    the share of those that were right where the truth is known; and `pseudo/<class>`, how the counted ones spread over
    the classes. All in [0, 1], 0 where there was nothing.

    Args:
        class_names: C names.
    """

    full_state_update = False
    offered: Tensor
    counted: Tensor
    known: Tensor
    right: Tensor
    said: Tensor

    def __init__(self, class_names: Sequence[str]):
        super().__init__()
        self.class_names = tuple(class_names)
        for name in ("offered", "counted", "known", "right"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("said", torch.zeros(len(self.class_names), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, guess: Tensor, counts: Tensor, truth: Tensor) -> None:
        """Count a batch.

        Args:
            guess: (U,) int64 classes or (U, C) of 0/1.
            counts: Bool, like `guess`.
            truth: Like `guess`; negative where nobody knows.
        """
        known = counts & (truth >= 0)
        self.offered += counts.numel()
        self.counted += counts.sum()
        self.known += known.sum()
        self.right += (known & (guess == truth)).sum()
        said = F.one_hot(guess, len(self.class_names)) * counts[:, None] if guess.ndim == 1 else guess.long() * counts
        self.said += said.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """The shares."""
        spread = self.said / self.said.sum().clamp(min=1)
        return {
            "mask_rate": self.counted / self.offered.clamp(min=1),
            "pseudo_accuracy": self.right / self.known.clamp(min=1),
            **{f"pseudo/{name}": share for name, share in zip(self.class_names, spread, strict=True)},
        }
