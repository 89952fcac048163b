"""An encoder and a head for pixels as one network."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wafer_lab.models.encoder import Encoder

# The part of a canvas that must be called for the wafer to be called: 16 pixels of 64 x 64.
CALLED_SHARE = 0.004
CALLED_LEAST = 8


class Segmenter(nn.Module):
    """The network that is trained, saved and exported for masks.

    Any encoder with a feature map will do; U-Nets have one as fine as the canvas.

    Args:
        encoder: Canvases to feature maps.
        head: Feature maps to maps of logits.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Map canvases, float ``(B, in_channels, S, S)``, to logits of every pixel, ``(B, num_classes, S, S)``.

        A coarser map of h cells shows h * stride pixels, of which the canvas may fill fewer: it is resized
        (bilinear) to those and cut, so that cells stay over the pixels that they were computed from.
        """
        side = x.shape[-1]
        logits: Tensor = self.head(self.encoder.forward_features(x))
        if logits.shape[-1] == side:
            return logits
        covered = logits.shape[-1] * 2 ** max(0, math.ceil(math.log2(side / logits.shape[-1])))
        return F.interpolate(logits, size=(covered, covered), mode="bilinear")[:, :, :side, :side]

    @staticmethod
    def image_logits(logits: Tensor) -> Tensor:
        """One logit per image and class: the mean of the largest 0.4 % (at least 8) of its pixels' logits.

        It is positive about where that many pixels are called, so a stray pixel does not call a wafer.

        Args:
            logits: ``(B, K, S, S)``.

        Returns:
            ``(B, K)``, of the same type.
        """
        pixels = logits.flatten(2)
        largest = min(max(CALLED_LEAST, round(CALLED_SHARE * pixels.shape[-1])), pixels.shape[-1])
        return pixels.topk(largest, dim=-1).values.mean(-1)


def map_features(encoder: Encoder, in_channels: int, side: int) -> int:
    """The channels of an encoder's feature map, found by what comes out; they may differ from ``num_features``.

    Args:
        encoder: Any; left as it was.
        in_channels: Channels of the canvas.
        side: Side of a canvas that the encoder takes.

    Raises:
        UserError: The encoder has no feature map but tokens, as ViTs do.
    """
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            return int(encoder.forward_features(torch.zeros(1, in_channels, side, side)).shape[1])
    finally:
        encoder.train(training)
