"""Images: decoded once to a grey canvas, augmented by albumentations in the workers, scaled on the device."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wafer_lab.data.batches import Batch, Request, Requests
from wafer_lab.data.canvas import ENCODINGS
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.readers import decode_grey
from wafer_lab.data.streams import Stream
from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share

#: How grey levels become channels: as they are, three times, or standardised for the published ImageNet networks.
ImageEncoding = Literal["grey", "grey_rgb", "imagenet", "inception"]

# Albumentations asks a server for its latest version on import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def canvas(path: Path, size: int) -> NDArray[np.uint8]:
    """Read an image as a square grey canvas.

    Args:
        path: An image file of any mode.
        size: Side of the canvas; area-averaging or bilinear resize, the aspect ratio is not kept.

    Returns:
        (size, size) uint8.

    Raises:
        UserError: The file is not an image or is corrupt.
    """
    return shrunk(decode_grey(path), size)


def shrunk(grey: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a grey image, (H, W) uint8, to a square canvas, as `canvas` does."""
    from PIL import Image

    if grey.shape == (size, size):
        return grey
    # PIL's bilinear filter widens when it shrinks, so fine structure does not alias.
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))


class AugmentedImages(Dataset[tuple[Tensor, Request]]):
    """Answers a request with augmented canvases.

    Args:
        canvases: (N, S, S) uint8, on the CPU.
        augment: An albumentations composition on (S, S, 1) images.
        share: What a request is of its batch; every process distorts its images in its own way.
    """

    def __init__(self, canvases: Tensor, augment: Any, share: Share = WHOLE):
        self.canvases, self.augment, self.share = canvases, augment, share

    def __getitem__(self, request: Request) -> tuple[Tensor, Request]:
        """(B, S, S) uint8 and the request it answers."""
        self.augment.set_random_seed((request.seed + self.share.rank) % 2**32)
        images = self.canvases[request.position].numpy()
        drawn = [self.augment(image=image[..., None])["image"][..., 0] for image in images]
        return torch.from_numpy(np.stack(drawn)), request


class ImageDataModule(WaferDataModule):
    """Batches of grey images.

    Args:
        encoding: How grey levels become channels, see `scale`.
        augment: An albumentations composition for the training images; None for none.
        **options: As for `WaferDataModule`.
    """

    kind = "images"

    def __init__(self, *, encoding: ImageEncoding = "grey", augment: Any = None, **options: Any):
        super().__init__(**options)
        self.encoding, self.augment = image_encoding(encoding, self.in_channels), augment

    def load(self) -> None:
        """Decode the split's images; decoders release the interpreter lock, so threads serve."""
        root, names = Path(self.store.root), self.store.path or []
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(lambda row: canvas(root / names[row], self.canvas), self.rows))
        self.canvases = torch.from_numpy(np.stack(decoded))
        self._near = self.canvases  # where the model is; the workers augment on the CPU

    def requests(self, stream: Stream | None = None) -> Dataset[Any]:
        """Training images come augmented from the workers; all others are drawn on the device."""
        if stream is not None and self.augment is not None:
            return AugmentedImages(self.canvases, self.augment, self.share)
        return Requests()

    def draw(self, batch: Any, stream: Stream | None = None) -> Batch:
        """Turn grey levels into network input."""
        if isinstance(batch, Request):
            position = batch.position
            if self._near.device != position.device:
                self._near = self.canvases.to(position.device)
            grey = self._near[position]
        else:
            grey, (position, _) = batch
        return self.labelled(scale(grey, self.encoding), position)


def image_encoding(encoding: str, in_channels: int) -> ImageEncoding:
    """The encoding that a config of images asks for.

    Args:
        encoding: `grey`, `grey_rgb`, `imagenet` or `inception`.
        in_channels: Channels of the network; 3 makes `grey` `grey_rgb`, as before there was a choice.

    Raises:
        UserError: There is no such encoding, or it gives another number of channels.
    """
    if encoding not in get_args(ImageEncoding):
        raise UserError(f"unknown data.encoding '{encoding}' of images; choose {', '.join(get_args(ImageEncoding))}")
    chosen: ImageEncoding = "grey_rgb" if (encoding, in_channels) == ("grey", 3) else encoding  # type: ignore[assignment]
    channels = len(ENCODINGS[chosen][0])
    if channels != in_channels:
        raise UserError(f"data.encoding={chosen} gives {channels} channels, not data.in_channels={in_channels}")
    return chosen


def scale(grey: Tensor, encoding: ImageEncoding) -> Tensor:
    """Turn grey levels into network input: black and white are what off-wafer and fail are of a map, linear between.

    Args:
        grey: (B, S, S) uint8.
        encoding: `grey`: one channel in [0, 1]; `grey_rgb`: three times the same; `imagenet`: those less ImageNet's
            mean, by its standard deviation, channel by channel; `inception`: those stretched to [-1, 1].

    Returns:
        (B, C, S, S) float32, channels_last in memory.
    """
    black, _, white = torch.tensor(ENCODINGS[encoding], device=grey.device)[:, :, None, None]
    image: Tensor = grey[:, None].float().div_(255) * (white - black) + black
    return image.contiguous(memory_format=torch.channels_last)
