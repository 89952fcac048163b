"""Attention gates for convolutional feature maps: CBAM, squeeze-and-excitation, ECA.

Each takes and returns ``(B, C, h, w)``, and only scales its input by factors in (0, 1).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from wafer_lab.errors import UserError

AttentionName = Literal["cbam", "se", "eca"]


class ChannelMLP(nn.Sequential):
    """Bottleneck MLP over channels without biases, ``(B, C)`` to ``(B, C)``."""

    def __init__(self, channels: int, reduction: int) -> None:
        hidden = max(channels // reduction, 1)
        super().__init__(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
        )


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507): channels gated by an MLP of their means.

    Args:
        channels: C.
        reduction: The MLP's hidden layer has C / reduction units.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = ChannelMLP(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels of ``(B, C, h, w)``."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))))
        return x * gate[:, :, None, None]


class EfficientChannelAttention(nn.Module):
    """ECA (Wang et al. 2020, arXiv:1910.03151): a 1-D convolution across the channel means, no reduction.

    The kernel grows with C: the odd number next to (log2(C) + 1) / 2.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels of ``(B, C, h, w)``."""
        gate = torch.sigmoid(self.conv(x.mean((2, 3))[:, None]))
        return x * gate[:, 0, :, None, None]


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al. 2018, arXiv:1807.06521): channels first, then positions.

    Channels are gated by one MLP shared by the averages and the maxima over positions; positions by a 7x7
    convolution over the mean and the maximum across channels. No biases.

    Args:
        channels: C.
        reduction: The MLP's hidden layer has C / reduction units.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = ChannelMLP(channels, reduction)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels, then the positions of ``(B, C, h, w)``."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        x = x * gate[:, :, None, None]
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(summary))


def build_attention(name: AttentionName | None, channels: int, reduction: int) -> nn.Module:
    """Build the gate called ``name`` for C = ``channels``; None builds one that passes its input through.

    Raises:
        UserError: No such gate.
    """
    match name:
        case None:
            return nn.Identity()
        case "cbam":
            return CBAM(channels, reduction)
        case "se":
            return SqueezeExcitation(channels, reduction)
        case "eca":
            return EfficientChannelAttention(channels)
    raise UserError(f"attention is {name!r}; choose cbam, se, eca or null")
