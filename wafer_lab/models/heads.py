"""Heads: what turns an encoder's feature vector into the output of a task."""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """Dropout and one linear layer, with PyTorch's default initialisation.

    Args:
        in_features: Width of the encoder's feature vector.
        num_classes: Number of logits.
        dropout: Probability of zeroing a feature during training, in [0, 1].
    """

    def __init__(self, in_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, in_features)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits
