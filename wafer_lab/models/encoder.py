"""What every encoder is: canvases in, one feature vector per canvas out."""

import posixpath
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from wafer_lab.errors import UserError


class Encoder(nn.Module):
    """A network without its classification layer.

    A subclass sets ``num_features`` and implements ``forward_features``; one with layers between the feature
    map and the feature vector also overrides ``pool``. Then ``encoder(x)`` equals
    ``encoder.pool(encoder.forward_features(x))``, and class activation maps work on the value in between.

    Attributes:
        num_features: Width of the feature vector, which is what a head takes.
        added: Parts of the names of layers that published networks do not have. Pretrained weights may lack such a
            kind of layer as a whole, and it is then trained with the head.
    """

    num_features: int
    added: ClassVar[tuple[str, ...]] = ()

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

    def pretrained(self) -> dict[str, Tensor]:
        """Fetch ImageNet weights, in the names that ``adopt`` takes.

        Raises:
            UserError: There are none, or they are neither cached nor to be had.
        """
        raise UserError(f"{type(self).__name__} has no ImageNet weights; use weights=FILE, or another model")

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn published weights into this encoder's: its names, without their classification layer.

        Args:
            state: A state dict in the names of its publisher, or in this encoder's own.
        """
        return state

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """Name groups of layers that are frozen and thawed together, from the input up.

        Here: the modules where the names of the parameters first differ, normalisation with what stands before it.

        Returns:
            The parameters of each stage; every parameter is in one of them.
        """
        shared = common_module(name for name, _ in self.named_parameters())
        depth = shared.count(".") + 2 if shared else 1
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            child = ".".join(name.split(".")[:depth])
            found.setdefault(child, []).append(parameter)
        merged: dict[str, list[nn.Parameter]] = {}
        for child, parameters in found.items():
            if merged and all(parameter.ndim < 2 for parameter in parameters):
                merged[next(reversed(merged))] += parameters
            else:
                merged[child] = parameters
        return merged


def common_module(names: Iterable[str]) -> str:
    """The innermost module that all of some dotted names lie in; empty where that is the outermost."""
    return posixpath.commonpath([name.replace(".", "/") for name in names]).replace("/", ".")
