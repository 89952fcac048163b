"""MobileNet V2 and V3: torchvision's."""

import importlib
from typing import Any

from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.weights import torchvision_weights


class MobileNet(Encoder):
    """A torchvision MobileNet without its last linear layer; state dicts of torchvision load by name.

    V3 has a linear layer with Hardswish after the pooling, so its feature vector is wider than its
    feature map. Dropout is left to the head.

    Args:
        network: What torchvision built.
        in_channels: Channels of the canvas.
        name: Torchvision's name of it.
    """

    def __init__(self, network: Any, in_channels: int, name: str) -> None:
        super().__init__()
        self.name = name
        *hidden, last = network.classifier
        self._last = f"classifier.{len(hidden)}."
        self.features: nn.Sequential = network.features
        self.classifier = nn.Sequential(*(layer for layer in hidden if not isinstance(layer, nn.Dropout)))
        self.num_features: int = last.in_features
        first = network.features[0][0]
        if in_channels != first.in_channels:
            first = nn.Conv2d(in_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(first.weight, mode="fan_out")
            network.features[0][0] = first

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map, ``(B, K, S / 32, S / 32)``."""
        features: Tensor = self.features(x)
        return features

    def pool(self, features: Tensor) -> Tensor:
        """Average over positions, then apply V3's linear layer."""
        vector: Tensor = self.classifier(features.mean((2, 3)))
        return vector

    def pretrained(self) -> dict[str, Tensor]:
        """Fetch torchvision's ImageNet weights."""
        return torchvision_weights(self.name)

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the classification layer of torchvision's weights."""
        return {name: tensor for name, tensor in state.items() if not name.startswith(self._last)}

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """A stage begins where the resolution is halved; V3's linear layer belongs to the last one."""
        found: dict[str, list[nn.Parameter]] = {}
        for number, layer in enumerate(self.features):
            strided = any(isinstance(part, nn.Conv2d) and part.stride == (2, 2) for part in layer.modules())
            if strided or not found:
                found[f"features.{number}"] = []
            found[next(reversed(found))] += layer.parameters()
        found[next(reversed(found))] += self.classifier.parameters()
        return found


def mobilenet_v2(in_channels: int, width_mult: float = 1.0) -> MobileNet:
    """Build MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): 2.2 M parameters, 1280 features.

    Args:
        in_channels: Channels of the canvas.
        width_mult: Multiplies the channels of every layer; below 1 the last layer stays at 1280.

    Raises:
        UserError: torchvision is missing or does not fit torch.
    """
    network = _torchvision_models().mobilenet_v2(weights=None, width_mult=width_mult)
    return MobileNet(network, in_channels, "mobilenet_v2")


def mobilenet_v3_small(in_channels: int) -> MobileNet:
    """Build MobileNetV3-Small (Howard et al. 2019, arXiv:1905.02244): 1.5 M parameters, 1024 features.

    Args:
        in_channels: Channels of the canvas.

    Raises:
        UserError: torchvision is missing or does not fit torch.
    """
    return MobileNet(_torchvision_models().mobilenet_v3_small(weights=None), in_channels, "mobilenet_v3_small")


def mobilenet_v3_large(in_channels: int) -> MobileNet:
    """Build MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244): 4.2 M parameters, 1280 features.

    Args:
        in_channels: Channels of the canvas.

    Raises:
        UserError: torchvision is missing or does not fit torch.
    """
    return MobileNet(_torchvision_models().mobilenet_v3_large(weights=None), in_channels, "mobilenet_v3_large")


def _torchvision_models() -> Any:
    """Import torchvision's models where they are asked for: no other encoder needs them."""
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise UserError(
            f"torchvision cannot be imported ({error}); install the release that fits torch,"
            " or choose a model other than MobileNet"
        ) from error
