"""Any encoder-decoder network of segmentation-models-pytorch as an encoder with fine feature maps."""

import difflib
import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.weights import hub_offline_if_unreachable

TIMM = "tu-"  # before the name of a timm network; smp has no list of those
_INNER = "network.encoder."
_CLASSIFIERS = ("fc.", "classifier.", "head.", "last_linear.")  # layers that smp's encoders leave out
_PAN_CELLS = 8  # PAN halves the last feature map three times
# What smp_network sets itself, and what to use instead.
_INSTEAD = {
    "encoder_name": "encoder=...",
    "encoder_weights": "weights=...",
    "classes": "head=segmentation",
    "activation": "head=segmentation",
    "aux_params": "head=classification",
}


class SmpEncoder(Encoder):
    """A network of segmentation-models-pytorch without its segmentation head.

    Canvases are padded with zeros at the right and the bottom to a multiple of the network's stride, never
    cropped, and the feature map is cut back to the cells that show the canvas.

    Args:
        network: What ``segmentation_models_pytorch.create_model`` built.
        name: The smp name of its encoder.
        in_channels: Channels of the canvas.
    """

    added = ("decoder.",)

    def __init__(self, network: Any, name: str, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.network.segmentation_head = nn.Identity()
        self.name, self.in_channels = name, in_channels
        architecture = type(network).__name__
        self.stride = int(network.encoder.output_stride) * (2 if architecture == "DPT" else 1)  # DPT halves tokens once
        self.least = self.stride * (_PAN_CELLS if architecture == "PAN" else 1)
        self.num_features = self._width()

    def _width(self) -> int:
        # families name the width of their last layer differently, so look at what comes out
        self.eval()
        with torch.no_grad():
            features = self.forward_features(torch.zeros(1, self.in_channels, 64, 64))
        self.train()
        return int(features.shape[1])

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the decoder's feature map.

        Args:
            x: Canvases, float ``(B, in_channels, S, S)``, S any size.

        Returns:
            ``(B, num_features, h, h)`` with h = S / r rounded up: r = 1 for U-Nets, Linknet and MAnet, 4 for FPN,
            DeepLabV3+ and others whose decoder stays coarse.
        """
        side = x.shape[-1]
        padding = max(-side % self.stride, self.least - side)
        features: Tensor = self.network(F.pad(x, (0, padding, 0, padding)) if padding else x)
        cells = -(-side * features.shape[-1] // (side + padding))
        return features[:, :, :cells, :cells]

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the weights of the inner encoder alone, in the names of smp, torchvision or timm; see ``Encoder``."""
        if any(key.startswith("network.") for key in state):
            return state
        own = {key.removeprefix(_INNER) for key in self.state_dict() if key.startswith(_INNER)}
        prefix = _INNER if own & state.keys() else f"{_INNER}model."  # timm's networks lie one level deeper
        return {f"{prefix}{key}": value for key, value in state.items() if not key.startswith(_CLASSIFIERS)}

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """Name the stages of the inner encoder, from the input up, then the decoder; see ``Encoder``."""
        rest = {name: p for name, p in self.named_parameters() if not name.startswith(_INNER)}
        return Encoder.stages(self.network.encoder) | {"decoder": list(rest.values())}

    def pretrained(self) -> dict[str, Tensor]:
        """Fetch the inner encoder's ImageNet weights through smp, or timm for ``tu-`` encoders; see ``Encoder``."""
        get_encoder = _smp().encoders.get_encoder
        try:
            with hub_offline_if_unreachable():
                trained = get_encoder(self.name, weights=True if self.name.startswith(TIMM) else "imagenet")
        except KeyError as error:
            raise UserError(f"smp has no ImageNet weights for {self.name}; use weights=FILE") from error
        except (OSError, RuntimeError, ValueError) as error:  # of huggingface_hub and timm
            raise UserError(
                f"there are no weights of {self.name} ({str(error).partition(chr(10))[0]}); where there is internet, "
                f"`hf download {self._repository()} model.safetensors --local-dir .`, then name the file with "
                "weights=FILE"
            ) from error
        return {f"{_INNER}{key}": value for key, value in trained.state_dict().items()}

    def _repository(self) -> str:
        if self.name.startswith(TIMM):
            timm = importlib.import_module("timm")
            return str(timm.get_pretrained_cfg(self.name.removeprefix(TIMM)).hf_hub_id)
        return str(_smp().encoders.encoders[self.name]["pretrained_settings"]["imagenet"]["repo_id"])


def smp_network(
    in_channels: int,
    architecture: str = "Unet",
    encoder: str = "resnet50",
    decoder_channels: list[int] | int | None = None,
    **options: Any,
) -> SmpEncoder:
    """Build a network of segmentation-models-pytorch (https://github.com/qubvel-org/segmentation_models.pytorch).

    Its weights are random; ``weights=imagenet`` loads those of its encoder.

    Args:
        in_channels: Channels of the canvas.
        architecture: Unet (Ronneberger et al. 2015, arXiv:1505.04597), UnetPlusPlus, MAnet, Linknet, FPN, PSPNet,
            DeepLabV3, DeepLabV3Plus, PAN, UPerNet, Segformer or DPT; case does not matter.
        encoder: Any of ``smp.encoders.get_encoder_names()``, or ``tu-`` and the name of a timm network.
        decoder_channels: Widths of the decoder's blocks, coarse to fine (for U-Nets five), or its one width; None
            takes the architecture's own, for Unet 256, 128, 64, 32, 16.
        **options: Passed to the architecture, e.g. ``encoder_depth``.

    Raises:
        UserError: segmentation-models-pytorch is missing, does not know a name, or cannot build what is asked.
    """
    smp = _smp()
    for key in _INSTEAD.keys() & options.keys():
        raise UserError(f"model.{key} cannot be set; use {_INSTEAD[key]}")
    known = {kind.lower(): network.__name__ for kind, network in smp.MODEL_ARCHITECTURES_MAPPING.items()}
    if architecture.lower() not in known:
        raise UserError(f"there is no architecture {architecture!r}; {_choices(architecture, known.values())}")
    names = smp.encoders.get_encoder_names()
    if encoder not in names and not _timm_knows(encoder):
        raise UserError(f"there is no encoder {encoder!r}; {_choices(encoder, names)}, or {TIMM}<a timm network>")
    if decoder_channels is not None:
        options["decoder_channels"] = decoder_channels
    taken = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[architecture.lower()].__init__).parameters
    for key in options.keys() - taken.keys():  # smp passes the rest to its encoders, which drop it without a word
        if not encoder.startswith(TIMM):
            raise UserError(f"{known[architecture.lower()]} takes no {key}; {_choices(key, [*taken][1:-1])}")
    if architecture.lower() == "dpt":
        options.setdefault("dynamic_img_size", True)  # else it takes nothing but the canvas its ViT was trained on
    try:
        network = smp.create_model(architecture, encoder, encoder_weights=None, in_channels=in_channels, **options)
        return SmpEncoder(network, encoder, in_channels)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"segmentation-models-pytorch cannot build {known[architecture.lower()]} on {encoder} with {in_channels} "
            f"channels ({error}); choose another architecture, encoder or option"
        ) from error


def _choices(name: str, known: Iterable[str]) -> str:
    names = list(known)
    lower = {known.lower(): known for known in names}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.5)]
    return f"did you mean {', '.join(close)}?" if close else f"choose one of {', '.join(names[:12])}"


def _timm_knows(encoder: str) -> bool:
    return encoder.startswith(TIMM) and bool(importlib.import_module("timm").is_model(encoder.removeprefix(TIMM)))


def _smp() -> Any:
    """Import segmentation-models-pytorch where it is asked for: it brings timm and torchvision along."""
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise UserError(
            f"segmentation-models-pytorch cannot be imported ({error}); pip install segmentation-models-pytorch, "
            "or choose another model"
        ) from error
