"""A U-Net that works on the canvas itself, for patterns one die wide."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wafer_lab.models.encoder import Encoder
from wafer_lab.models.wafer_cnn import conv_norm_relu


class UNet(Encoder):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with batch norm and padded convolutions.

    Unlike a U-Net on a ResNet, whose stem halves the canvas before anything is looked at, its first and last level
    have the canvas' own resolution, and a skip between them. That is where a scratch lives.

    Args:
        in_channels: Channels of the canvas.
        width: Channels at the canvas' resolution; each level below has twice as many, at most `widest`.
        levels: How often the canvas is halved, 1 or more.
        widest: Most channels of a level.
    """

    def __init__(self, in_channels: int, width: int = 24, levels: int = 4, widest: int = 192) -> None:
        super().__init__()
        widths = [min(width * 2**level, widest) for level in range(levels + 1)]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _double(fine + coarse, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.stride, self.num_features = 2**levels, width
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the feature map at the canvas' resolution.

        Canvases are padded with zeros at the right and the bottom to a multiple of 2 ** levels, never cropped.

        Args:
            x: Canvases, float ``(B, in_channels, S, S)``, S any size.

        Returns:
            ``(B, width, S, S)``.
        """
        side = x.shape[-1]
        padding = math.ceil(side / self.stride) * self.stride - side
        features = F.pad(x, (0, padding, 0, padding)) if padding else x
        kept: list[Tensor] = []
        for level in self.down:
            features = level(F.max_pool2d(features, 2) if kept else features)
            kept.append(features)
        for level, skip in zip(self.up, kept[-2::-1], strict=True):
            features = level(torch.cat([skip, F.interpolate(features, scale_factor=2.0, mode="nearest")], 1))
        return features[:, :, :side, :side]

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """Name the levels on the way down, then those on the way up; see ``Encoder``."""
        levels = {f"down{k}": level for k, level in enumerate(self.down)} | {
            f"up{k}": level for k, level in enumerate(self.up)
        }
        return {name: list(level.parameters()) for name, level in levels.items()}


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3 x 3 with batch norm and ReLU."""
    return nn.Sequential(conv_norm_relu(inputs, outputs, 3, 1), conv_norm_relu(outputs, outputs, 3, 1))
