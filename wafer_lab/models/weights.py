"""Pretrained weights into an encoder: from a file, from a run, or those of ImageNet.

Files are read as tensors and plain values; nothing in them is run.
"""

import importlib
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder

IMAGENET = "imagenet"
# Whoever keeps a state dict inside something larger keeps it under one of these.
_INSIDE = ("state_dict", "model")
_OURS = "network.encoder."  # before the names of an encoder in our checkpoints
_WRAPPERS = ("module.", "_orig_mod.")  # before every name: DataParallel, torch.compile
_SHOWN = 5
_PATIENCE = 10.0  # seconds for a server to answer
_COUNTER = ".num_batches_tracked"  # of batch norm; files older than PyTorch 0.4.1 lack it, and it decides nothing

State = dict[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """What ``load_weights`` did.

    Attributes:
        source: As it was asked for.
        tensors: How many were loaded.
        initial: Names of the encoder's tensors that the source has not, which keep their initial values.
        channels: (of the source, of the encoder) where the first convolution was fitted to other input channels.
        record: What a checkpoint of ours says of its run; empty for other sources.
    """

    source: str
    tensors: int
    initial: tuple[str, ...] = ()
    channels: tuple[int, int] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for the console."""
        said = f"weights {self.source}: {self.tensors} tensors"
        if self.channels:
            said += f"; first convolution from {self.channels[0]} to {self.channels[1]} channels"
        if self.initial:
            said += f"; {len(self.initial)} that it lacks keep their initial values ({_listed(self.initial)})"
        return said


def load_weights(encoder: Encoder, source: str) -> Loaded:
    """Put pretrained weights into an encoder, all of them or none.

    The classification layer of the source is left out. Kinds of layers that published networks do not have
    (``encoder.added``) may be missing as a whole. A first convolution for other input channels is fitted with
    ``fit_channels``.

    Args:
        encoder: Takes the weights.
        source: ``imagenet``; a file, .safetensors or what ``torch.save`` wrote of a state dict, alone or under
            ``state_dict`` or ``model``; a checkpoint of ours; or the folder of a run, for its best checkpoint.

    Returns:
        What was loaded.

    Raises:
        UserError: The source is not there, damaged, would run code, or is of another network.
    """
    record: Mapping[str, Any] = {}
    if source == IMAGENET:
        # Libraries build their networks to load them; the run's own random numbers must not notice.
        with torch.random.fork_rng(devices=[]):
            state = encoder.adopt(encoder.pretrained())
    else:
        read = _read(Path(source))
        record = read["wafer_lab"] if isinstance(read.get("wafer_lab"), dict) else {}
        state = encoder.adopt(_state(read, source))
    own = encoder.state_dict()
    channels = _fit_first(state, own)
    state |= {name: own[name] for name in own.keys() - state.keys() if name.endswith(_COUNTER)}
    missing = own.keys() - state.keys()
    initial = missing - _incomplete(missing, own, encoder.added)
    _check(state, {name: t for name, t in own.items() if name not in initial}, encoder, source, record)
    encoder.load_state_dict(own | state)
    return Loaded(source, len(state), tuple(name for name in own if name in initial), channels, record)


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit pretrained filters to other input channels, so that a grey picture gives the same activations.

    The filters of the m channels there are repeat in turn, scaled by m / channels. What their sum then differs from
    the old sum is spread over the channels: nothing where ``channels`` is a multiple of m. One channel gets the sum.

    Args:
        weight: Float ``(outputs, m, height, width)``.
        channels: Input channels wanted.

    Returns:
        ``(outputs, channels, height, width)`` with the same sum over the channels.
    """
    before = weight.shape[1]
    fitted = weight[:, torch.arange(channels) % before] * (before / channels)
    return fitted + (weight.sum(1, keepdim=True) - fitted.sum(1, keepdim=True)) / channels


def read_pickle(path: Path) -> Any:
    """Read what ``torch.save`` wrote, as tensors and plain values.

    Raises:
        UserError: The file is damaged, not a checkpoint, or would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than weights and plain values, or is not a checkpoint; it was not loaded, because "
            "loading it could run code. Use a checkpoint that train.py wrote, or a saved model.state_dict()"
        ) from None
    except Exception as error:  # damaged files make it stumble in many ways
        raise UserError(f"{path} is damaged or not a checkpoint ({_first_line(error)})") from None


def torchvision_weights(name: str) -> State:
    """Torchvision's best ImageNet weights of one of its models, from its cache or downloaded into it.

    Args:
        name: Such as ``resnet18``.

    Returns:
        The state dict, in torchvision's names.

    Raises:
        UserError: torchvision is missing, or the weights are damaged, or neither in its cache nor to be had.
    """
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise UserError(
            f"weights=imagenet needs torchvision, which cannot be imported ({error}); install the release that fits "
            "torch, or use weights=FILE"
        ) from error
    url = models.get_model_weights(name).DEFAULT.url
    place = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)
    if not place.is_file():
        print(f"downloading {url}", flush=True)
        digest = place.stem.rpartition("-")[2]  # the first digits of it
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(place), digest, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: another digest
            raise UserError(
                f"the ImageNet weights of {name} are not at {place}, and cannot be downloaded ({_first_line(error)}); "
                f"put {url} there, or name the file with weights=FILE"
            ) from error
    state: State = read_pickle(place)
    return state


@contextmanager
def hub_offline_if_unreachable() -> Iterator[None]:
    """Let the Hugging Face hub use nothing but its cache where it cannot be reached: it would retry for a minute."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_PATIENCE):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        if not best.is_file():
            raise UserError(f"weights={path} is a folder without checkpoints/best.ckpt; name a run's folder or a file")
        path = best
    if not path.is_file():
        raise UserError(f"weights={path}: there is no such file; give imagenet, a file or a run's folder")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no state dict; save model.state_dict()")
    return content


def _read_safetensors(path: Path) -> State:
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise UserError(f"{path} needs the package safetensors; pip install safetensors") from error
    try:
        state: State = safetensors.load_file(path, device="cpu")
    except Exception as error:  # safetensors raises one of its own, and OSError
        raise UserError(f"{path} is damaged or not a .safetensors file ({_first_line(error)})") from None
    return state


def _state(content: dict[str, Any], source: str) -> State:
    """The tensors of a file under the names that their network gave them."""
    prefixes = (_OURS,) if "wafer_lab" in content else _WRAPPERS
    for key in _INSIDE:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{source} holds no tensors by name; save model.state_dict()")
    for prefix in prefixes:  # of our checkpoints this leaves out the head
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        state = inside or state
    return state


def _fit_first(state: State, own: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Fit the first convolution in place; the channels before and after where that was needed."""
    first = next((name for name, tensor in own.items() if tensor.ndim == 4 and name in state), None)
    if first is None or state[first].ndim != 4:
        return None
    theirs, ours = state[first].shape, own[first].shape
    if theirs[1] == ours[1] or (theirs[0], *theirs[2:]) != (ours[0], *ours[2:]):
        return None
    state[first] = fit_channels(state[first].float(), ours[1])
    return theirs[1], ours[1]


def _incomplete(missing: set[str], own: Mapping[str, Tensor], added: tuple[str, ...]) -> set[str]:
    """The missing names that belong to no kind of layer that is missing as a whole."""
    weighty = [name for name in own if not name.endswith(_COUNTER)]  # counters are filled in
    absent = [kind for kind in added if all(name in missing for name in weighty if kind in name)]
    return {name for name in missing if not any(kind in name for kind in absent)}


def _check(
    state: State, wanted: Mapping[str, Tensor], encoder: Encoder, source: str, record: Mapping[str, Any]
) -> None:
    """Refuse weights that do not fit, saying what does not."""
    shared = [name for name in wanted if name in state]
    kinds = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} {_shape(state[name])} for {_shape(wanted[name])}"
            for name in shared
            if state[name].shape != wanted[name].shape
        ],
    }
    if any(kinds.values()):
        said = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names)
        raise UserError(
            f"weights={source} does not fit {type(encoder).__name__}, {len(shared)} of {len(wanted)} names agree; "
            f"{said}{_origin(state, record)}"
        )


def _origin(state: State, record: Mapping[str, Any]) -> str:
    """Which network the weights are of, where that shows."""
    config = record.get("config")
    if isinstance(config, dict) and isinstance(model := config.get("model"), dict):
        said = ", ".join(f"{key.removeprefix('_').removesuffix('_')}={value}" for key, value in model.items())
        return f". They are of a run with model: {said}"
    if guess := _guess(state):
        return f". They look like those of {guess}"
    return ""


def _guess(state: State) -> str | None:
    # a ResNet is called by its convolutions in blocks, the stem and the last layer
    if blocks := sum(re.fullmatch(r"layer\d\.\d+\.conv\d\.weight", name) is not None for name in state):
        name = f"resnet{blocks + 2}"
        return f"model={name}, or model=timm model.name={name}"
    marks = {
        "features.18.0.weight": "model=mobilenetv2",
        "features.16.0.weight": "model=mobilenetv3_large",
        "features.12.0.weight": "model=mobilenetv3_small",
        "conv_stem.weight": "an EfficientNet or MobileNet of timm: model=timm model.name=...",
        "_conv_stem.weight": "an EfficientNet of efficientnet_pytorch; rename them to timm's, see docs/recipes.md",
        "patch_embed.proj.weight": "a vision transformer of timm: model=timm model.name=...",
        "stem.0.weight": "a network of timm, such as ConvNeXt: model=timm model.name=...",
    }
    return next((guess for mark, guess in marks.items() if mark in state), None)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
