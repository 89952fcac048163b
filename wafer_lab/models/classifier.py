"""An encoder and a head as one network."""

from torch import Tensor, nn

from wafer_lab.models.encoder import Encoder


class Classifier(nn.Module):
    """The network that is trained, saved and exported.

    Args:
        encoder: Canvases to feature vectors.
        head: Feature vectors to logits.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Map canvases, float ``(B, in_channels, S, S)``, to logits ``(B, num_classes)``."""
        logits: Tensor = self.head(self.encoder(x))
        return logits
