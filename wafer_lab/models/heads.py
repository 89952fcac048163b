"""Heads: what turns an encoder's features into the output of a task.

A head names the kinds of target it serves in a literal tuple, `targets`, which the config is checked by.
"""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """Dropout and one linear layer, with PyTorch's default initialisation.

    Args:
        in_features: Width of the encoder's feature vector.
        num_classes: Number of logits.
        dropout: Probability of zeroing a feature during training, in [0, 1].
    """

    targets = ("multiclass", "multilabel")

    def __init__(self, in_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, in_features)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class PixelHead(nn.Module):
    """Dropout of whole channels and a linear layer at every position: a 1x1 convolution.

    Args:
        in_features: Channels of the encoder's feature map.
        num_classes: Number of masks.
        dropout: Probability of zeroing a channel during training, in [0, 1].
    """

    targets = ("mask",)

    def __init__(self, in_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv = nn.Conv2d(in_features, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, in_features, h, w)`` to logits ``(B, num_classes, h, w)``."""
        logits: Tensor = self.conv(self.dropout(features))
        return logits
