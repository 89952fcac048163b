"""ResNet (He et al. 2016, arXiv:1512.03385), with attention after each stage on request.

The layers, their order, names and initialisation are those of torchvision, so its state dicts load by name.
They are written out because that leaves room for stem, width and attention, and spares the dependency.
"""

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.models.attention import AttentionName, build_attention
from wafer_lab.models.encoder import Encoder


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Build a square convolution without bias that keeps the canvas at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Residual(nn.Module):
    """A residual block, ``relu(branch(x) + shortcut(x))``, the shortcut projected where the shape changes."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def branch(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, h, w)`` to ``(B, width * expansion, h / stride, w / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.branch(x) + shortcut)
        return y


class BasicBlock(Residual):
    """Two 3x3 convolutions: the block of ResNet-18 and ResNet-34."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return y


class Bottleneck(Residual):
    """1x1, 3x3 (strided), 1x1 convolutions: the block of ResNet-50, in the variant called 1.5."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)

    def branch(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: Tensor = self.bn3(self.conv3(x))
        return y


def stage(block: type[Residual], inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Chain ``depth`` blocks, the first of which changes channels and resolution."""
    first = block(inputs, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(depth - 1)))


LAYOUTS: dict[int, tuple[type[Residual], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(Encoder):
    """The encoder that ``resnet`` builds; see there.

    Attributes:
        num_features: Width of the pooled features.
        stage_features: Channels of each of the four stages' output.
    """

    def __init__(
        self,
        in_channels: int,
        block: type[Residual],
        depths: tuple[int, int, int, int],
        stem: Literal["7x7", "3x3"],
        attention: AttentionName | None,
        reduction: int,
        width: int,
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 7, stride=2) if stem == "7x7" else conv(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "7x7" else nn.Identity()
        self.layer1 = stage(block, width, width, depths[0], stride=1)
        self.layer2 = stage(block, width * block.expansion, width * 2, depths[1], stride=2)
        self.layer3 = stage(block, width * 2 * block.expansion, width * 4, depths[2], stride=2)
        self.layer4 = stage(block, width * 4 * block.expansion, width * 8, depths[3], stride=2)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.stage_features = [width * 2**k * block.expansion for k in range(4)]
        self.attention = nn.ModuleList(build_attention(attention, c, reduction) for c in self.stage_features)
        self.num_features = self.stage_features[-1]

    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each of the four stages, finest first, ``(B, stage_features[k], h, w)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        for layer, attention in zip(layers, self.attention, strict=True):
            x = attention(layer(x))
            yield x

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last stage's output, ``(B, num_features, h, w)``; h = S/32, with the 3x3 stem S/8."""
        *_, last = self.forward_stages(x)
        return last


def resnet(
    in_channels: int,
    depth: Literal[18, 34, 50] = 18,
    stem: Literal["7x7", "3x3"] = "7x7",
    attention: Literal["cbam", "se", "eca"] | None = None,
    reduction: int = 16,
    width: int = 64,
    zero_init_residual: bool = False,
) -> ResNet:
    """Build a ResNet encoder with random weights (He initialisation).

    Args:
        in_channels: Channels of the canvas.
        depth: 18, 34 or 50.
        stem: "7x7" is the paper's: stride 2, then max pooling. "3x3" is CIFAR's: no reduction, 16 times the
            work; for small canvases.
        attention: "cbam", "se" or "eca" after each of the four stages.
        reduction: Bottleneck of "cbam" and "se"; "eca" has none.
        width: Channels of the first stage. The paper's 64 makes 512 features, at depth 50 2048.
        zero_init_residual: Start the last batch norm of every block at zero, so that each begins as its
            shortcut (Goyal et al. 2017, arXiv:1706.02677).

    Raises:
        UserError: An unknown depth, stem or attention.
    """
    if depth not in LAYOUTS:
        raise UserError(f"depth is {depth}; choose one of {', '.join(map(str, LAYOUTS))}")
    if stem not in ("7x7", "3x3"):
        raise UserError(f"stem is {stem!r}; choose 7x7 or 3x3")
    block, depths = LAYOUTS[depth]
    network = ResNet(in_channels, block, depths, stem, attention, reduction, width)
    if zero_init_residual:
        for module in network.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
    return network
