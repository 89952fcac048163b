"""A small network for wafer maps on CPUs."""

import torch
from torch import Tensor, nn

from wafer_lab.models.encoder import Encoder
from wafer_lab.models.resnet import BasicBlock


def conv_norm_relu(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    """Chain convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class WaferCNN(Encoder):
    """Two strided convolutions, residual blocks at S/4 and S/8, average and maximum over positions.

    Plain convolutions, because depthwise ones train several times slower on CPUs in bfloat16. Most work at S/4,
    because on the whole canvas the memory traffic of batch norm and ReLU costs more than arithmetic. The
    maximum, because a scratch or a small cluster of failures drowns in an average.

    Args:
        in_channels: Channels of the canvas.
        width: Channels at S/2; S/4 has twice, S/8 four times as many.
    """

    def __init__(self, in_channels: int, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm_relu(in_channels, width, 5, stride=2),
            conv_norm_relu(width, width * 2, 3, stride=2),
        )
        self.stage1 = nn.Sequential(BasicBlock(width * 2, width * 2, 1), BasicBlock(width * 2, width * 2, 1))
        self.stage2 = nn.Sequential(
            conv_norm_relu(width * 2, width * 4, 3, stride=2), BasicBlock(width * 4, width * 4, 1)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.num_features = 2 * width * 4

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map, ``(B, num_features / 2, S / 8, S / 8)``."""
        features: Tensor = self.stage2(self.stage1(self.stem(x)))
        return features

    def pool(self, features: Tensor) -> Tensor:
        """Concatenate the average and the maximum over positions, ``(B, num_features)``."""
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
