"""Any network of the timm library as an encoder."""

import difflib
import importlib
import re
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder


class TimmEncoder(Encoder):
    """A timm network without its classification layer.

    Args:
        network: What ``timm.create_model(..., num_classes=0)`` built.
        in_channels: Channels of the canvas.
        img_size: Side of the canvas that the encoder will see.
        padding: Pixels of zeros to add at the right and the bottom of every canvas.
    """

    def __init__(self, network: Any, in_channels: int, img_size: int, padding: int = 0) -> None:
        super().__init__()
        self.network = network
        self.padding = padding
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
        self.num_features = self._pooled_width(in_channels, img_size)

    def _pooled_width(self, in_channels: int, img_size: int) -> int:
        # timm's attributes mean different widths in different families, so look at what comes out
        self.eval()
        with torch.no_grad():
            vector = self(torch.zeros(1, in_channels, img_size, img_size))
        self.train()
        return int(vector.shape[1])

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map, ``(B, K, h, w)``.

        Raises:
            UserError: The network has none: it works on a sequence of tokens.
        """
        features: Tensor = self.network.forward_features(self._pad(x))
        if features.ndim != 4:
            raise UserError(
                f"{type(self.network).__name__} has tokens, not a feature map; choose a convolutional model"
            )
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def pool(self, features: Tensor) -> Tensor:
        """Apply the network's own pooling, and the layers it has after that."""
        if self.channels_last:
            features = features.permute(0, 2, 3, 1)
        vector: Tensor = self.network.forward_head(features)
        return vector

    def forward(self, x: Tensor) -> Tensor:
        """Compute feature vectors: float ``(B, in_channels, S, S)`` to ``(B, num_features)``."""
        vector: Tensor = self.network(self._pad(x))
        return vector

    def _pad(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.padding, 0, self.padding)) if self.padding else x


def timm_encoder(name: str, in_channels: int, img_size: int, **options: Any) -> TimmEncoder:
    """Build a network of timm (https://github.com/huggingface/pytorch-image-models) with random weights.

    Networks tied to one input size (ViT, Swin, MaxViT) are built for this canvas, which is padded with zeros
    where their patches do not tile it. The others take any size.

    Args:
        name: Any of ``timm.list_models()``.
        in_channels: Channels of the canvas.
        img_size: Side of the canvas in pixels.
        **options: Passed to ``timm.create_model``, e.g. ``drop_path_rate``.

    Raises:
        UserError: timm is missing, does not know the name, or cannot build it for this canvas.
    """
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise UserError(f"timm cannot be imported ({error}); pip install timm, or choose another model") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() has them all"
        raise UserError(f"timm knows no model {name!r}; {hint}")
    size = img_size
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is not None and known.fixed_input_size:
        tile = re.search(r"patch(\d+)", name)  # pyramids without a patch in their name reduce 32 times
        step = int(tile[1]) if tile else 32
        size = -(-img_size // step) * step
        options["img_size"] = size
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, in_chans=in_channels, **options)
        return TimmEncoder(network, in_channels, img_size, padding=size - img_size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"timm cannot build {name!r} for a {img_size}x{img_size} canvas with {in_channels} channels"
            f" ({error}); choose another model, canvas or option"
        ) from error
