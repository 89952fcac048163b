"""DC-Net: feature maps resampled at learned offsets before each ordinary convolution.

After the deformable convolutional network for mixed-type wafer defects of Wang et al. 2020 (IEEE Transactions on
Semiconductor Manufacturing 33(4), doi:10.1109/TSM.2020.3020985).
"""

import torch
from torch import Tensor, nn

from wafer_lab.models.deformable import offsets_of, sample
from wafer_lab.models.encoder import Encoder


class ChannelOffset(nn.Module):
    """Read every pixel of every channel from a position of its own, moved by a (row, column) in pixels.

    A 3x3 convolution predicts the 2 * channels offsets. It starts at zero, where this is the identity.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]  # a convolution with bias has one

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, h, w)`` to the same shape."""
        height, width = x.shape[2:]
        # a channel with its own offsets is to grid_sample an image of its own
        moves = offsets_of(self.offset, x).reshape(-1, 2, height, width)
        rows = moves[:, 0] + torch.arange(height, device=x.device)[:, None]
        columns = moves[:, 1] + torch.arange(width, device=x.device)
        return sample(x.flatten(0, 1)[:, None], rows, columns).reshape(x.shape)


class DCNet(Encoder):
    """Five blocks of resampling, 3x3 convolution, batch norm and ReLU, then the average over positions.

    32, 64, 128, 256 and 128 channels, strides 2, 2, 2, 1 and 2. The first block resamples the canvas itself.

    Args:
        in_channels: Channels of the canvas.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for outputs, stride in ((32, 2), (64, 2), (128, 2), (256, 1), (128, 2)):
            convolution = nn.Conv2d(in_channels, outputs, 3, stride, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [ChannelOffset(in_channels), convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            in_channels = outputs
        self.blocks = nn.Sequential(*layers)
        self.num_features = in_channels

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map, ``(B, 128, S / 16, S / 16)``."""
        features: Tensor = self.blocks(x)
        return features
