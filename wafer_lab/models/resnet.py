"""ResNet (He et al. 2016, arXiv:1512.03385), with attention after each stage or deformable stages on request.

The layers, their order, names and initialisation are those of torchvision, so its state dicts load by name.
They are written out because that leaves room for stem, width, attention and deformable convolutions, and spares
the dependency.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.models.attention import AttentionName, build_attention
from wafer_lab.models.deformable import DeformConv
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.weights import torchvision_weights

Stem = Literal["7x7", "3x3", "3x3/2"]


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Build a square convolution without bias that keeps the canvas at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def conv3x3(inputs: int, outputs: int, stride: int = 1, deformable: bool = False) -> nn.Conv2d:
    """Build a 3x3 convolution, plain or deformable; ``weight`` has the same name and shape in both."""
    return DeformConv(inputs, outputs, 3, stride) if deformable else conv(inputs, outputs, 3, stride)


class Residual(nn.Module):
    """A residual block, ``relu(branch(x) + shortcut(x))``, the shortcut projected where the shape changes.

    Where ``deformable``, every 3x3 convolution of the branch is.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, deformable: bool = False) -> None:
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

    def __init__(self, inputs: int, width: int, stride: int, deformable: bool = False) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = conv3x3(inputs, width, stride, deformable)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, deformable=deformable)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return y


class Bottleneck(Residual):
    """1x1, 3x3 (strided), 1x1 convolutions: the block of ResNet-50, in the variant called 1.5."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, deformable: bool = False) -> None:
        super().__init__(inputs, width, stride)
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, deformable)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)

    def branch(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: Tensor = self.bn3(self.conv3(x))
        return y


def stage(
    block: type[Residual], inputs: int, width: int, depth: int, stride: int, deformable: bool = False
) -> nn.Sequential:
    """Chain ``depth`` blocks, the first of which changes channels and resolution."""
    first = block(inputs, width, stride, deformable)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1, deformable) for _ in range(depth - 1)))


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

    added: ClassVar[tuple[str, ...]] = ("attention.", ".offset.")

    def __init__(
        self,
        in_channels: int,
        block: type[Residual],
        depths: tuple[int, int, int, int],
        stem: Stem,
        attention: AttentionName | None,
        reduction: int,
        width: int,
        deformable: Sequence[int],
    ) -> None:
        super().__init__()
        size, stride = {"7x7": (7, 2), "3x3": (3, 1), "3x3/2": (3, 2)}[stem]
        self.conv1 = conv(in_channels, width, size, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "7x7" else nn.Identity()
        self.layer1 = stage(block, width, width, depths[0], 1, 1 in deformable)
        self.layer2 = stage(block, width * block.expansion, width * 2, depths[1], 2, 2 in deformable)
        self.layer3 = stage(block, width * 2 * block.expansion, width * 4, depths[2], 2, 3 in deformable)
        self.layer4 = stage(block, width * 4 * block.expansion, width * 8, depths[3], 2, 4 in deformable)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and not name.endswith(".offset"):  # those start at zero
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
        """Compute the last stage's output, ``(B, num_features, h, w)``; h = S/32; stem 3x3: S/8, 3x3/2: S/16."""
        *_, last = self.forward_stages(x)
        return last

    def pretrained(self) -> dict[str, Tensor]:
        """Fetch torchvision's ImageNet weights."""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        layout = type(self.layer1[0]), tuple(len(layer) for layer in layers)
        depth = next(depth for depth, known in LAYOUTS.items() if known == layout)
        return torchvision_weights(f"resnet{depth}")

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the classification layer of torchvision's weights."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """The stem, then the four stages, each with its attention."""
        found = {"stem": [*self.conv1.parameters(), *self.bn1.parameters()]}
        for number, attention in enumerate(self.attention, 1):
            layer = self.get_submodule(f"layer{number}")
            found[f"layer{number}"] = [*layer.parameters(), *attention.parameters()]
        return found


def resnet(
    in_channels: int,
    depth: Literal[18, 34, 50] = 18,
    stem: Stem = "7x7",
    attention: Literal["cbam", "se", "eca"] | None = None,
    reduction: int = 16,
    width: int = 64,
    zero_init_residual: bool = False,
    deformable: Sequence[int] = (),
) -> ResNet:
    """Build a ResNet encoder with random weights (He initialisation).

    Args:
        in_channels: Channels of the canvas.
        depth: 18, 34 or 50.
        stem: "7x7" is the paper's: stride 2, then max pooling. "3x3" is CIFAR's: no reduction, 16 times the
            work; for small canvases. "3x3/2" has stride 2 and no pooling: 4 times the work.
        attention: "cbam", "se" or "eca" after each of the four stages.
        reduction: Bottleneck of "cbam" and "se"; "eca" has none.
        width: Channels of the first stage. The paper's 64 makes 512 features, at depth 50 2048.
        zero_init_residual: Start the last batch norm of every block at zero, so that each begins as its
            shortcut (Goyal et al. 2017, arXiv:1706.02677).
        deformable: Stages, of 1 to 4, in which every 3x3 convolution is deformable (Dai et al. 2017,
            arXiv:1703.06211, who take the last ones): two a block at depth 18 and 34, one at 50. The offsets start
            at zero, and weights of the plain network load by name.

    Raises:
        UserError: An unknown depth, stem, attention or stage.
    """
    if depth not in LAYOUTS:
        raise UserError(f"depth is {depth}; choose one of {', '.join(map(str, LAYOUTS))}")
    if stem not in get_args(Stem):
        raise UserError(f"stem is {stem!r}; choose {', '.join(get_args(Stem))}")
    if not set(deformable) <= {1, 2, 3, 4}:
        raise UserError(f"deformable is {list(deformable)}; choose stages from 1, 2, 3 and 4, e.g. [3,4]")
    block, depths = LAYOUTS[depth]
    network = ResNet(in_channels, block, depths, stem, attention, reduction, width, deformable)
    if zero_init_residual:
        for module in network.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
    return network
