"""What every encoder is: canvases in, one feature vector per canvas out."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """A network without its classification layer.

    A subclass sets ``num_features`` and implements ``forward_features``; one with layers between the feature
    map and the feature vector also overrides ``pool``. Then ``encoder(x)`` equals
    ``encoder.pool(encoder.forward_features(x))``, and class activation maps work on the value in between.

    Attributes:
        num_features: Width of the feature vector, which is what a head takes.
    """

    num_features: int

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last convolutional feature map.

        Args:
            x: Canvases, float ``(B, in_channels, S, S)``.

        Returns:
            ``(B, K, h, w)``. K is ``num_features``, except where the network has layers after the pooling.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward_features")

    def pool(self, features: Tensor) -> Tensor:
        """Reduce a feature map ``(B, K, h, w)`` to feature vectors ``(B, num_features)``: here, its mean."""
        return features.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Compute feature vectors: float ``(B, in_channels, S, S)`` to ``(B, num_features)``."""
        return self.pool(self.forward_features(x))
