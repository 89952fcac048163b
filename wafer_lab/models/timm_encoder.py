"""Any network of the timm library as an encoder."""

import difflib
import importlib
import re
import sys
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder, common_module
from wafer_lab.models.weights import hub_offline_if_unreachable


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

    def pretrained(self) -> dict[str, Tensor]:
        """Fetch timm's default weights of this name, from or into the cache of the Hugging Face hub."""
        timm = importlib.import_module("timm")
        known = self.network.pretrained_cfg
        name, hub = ".".join(filter(None, (known["architecture"], known.get("tag")))), known.get("hf_hub_id")
        try:
            with hub_offline_if_unreachable():
                state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            if not hub and not known.get("url"):
                raise UserError(f"timm has no weights of {name}; use weights=FILE, or another model") from error
            way = f"`hf download {hub} model.safetensors --local-dir .`" if hub else f"download {known['url']}"
            raise UserError(
                f"there are no weights of {name} ({str(error).partition(chr(10))[0]}); where there is internet, {way}, "
                "then name the file with weights=FILE"
            ) from error
        return state

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the classification layer; names and position embeddings become those of this network."""
        state = {name.removeprefix("network."): tensor for name, tensor in state.items()}
        last = self.network.pretrained_cfg.get("classifier") or ()
        dropped = tuple(f"{name}." for name in ((last,) if isinstance(last, str) else last))
        # by timm's convention the module of a network that ever changed its names says how to read the old ones
        if read := getattr(sys.modules[type(self.network).__module__], "checkpoint_filter_fn", None):
            with suppress(AttributeError, KeyError, RuntimeError, ValueError):  # of another network: said by the caller
                state = read(state, self.network)
        return {f"network.{name}": tensor for name, tensor in state.items() if not name.startswith(dropped)}

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """Take timm's own coarse groups of layers."""
        if not hasattr(self.network, "group_matcher"):
            return super().stages()
        group = importlib.import_module("timm.models").group_parameters
        parameters = dict(self.network.named_parameters())
        found: dict[str, list[nn.Parameter]] = {}
        for names in group(self.network, self.network.group_matcher(coarse=True)).values():
            outer = names[0].partition(".")[0]  # a group may also hold a norm or a convolution after its blocks
            label = common_module(name for name in names if name.partition(".")[0] == outer)
            found.setdefault(label, []).extend(parameters[name] for name in names)
        return found

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
