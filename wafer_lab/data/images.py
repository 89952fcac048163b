"""Images: decoded once to a grey canvas, augmented by albumentations in the workers, scaled on the device."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wafer_lab.data.batches import Batch, Request, Requests
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.readers import decode_grey

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
    from PIL import Image

    grey = decode_grey(path)
    if grey.shape == (size, size):
        return grey
    # PIL's bilinear filter widens when it shrinks, so fine structure does not alias.
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))


class AugmentedImages(Dataset[tuple[Tensor, Request]]):
    """Answers a request with augmented canvases.

    Args:
        canvases: (N, S, S) uint8, on the CPU.
        augment: An albumentations composition on (S, S, 1) images.
    """

    def __init__(self, canvases: Tensor, augment: Any):
        self.canvases, self.augment = canvases, augment

    def __getitem__(self, request: Request) -> tuple[Tensor, Request]:
        """(B, S, S) uint8 and the request it answers."""
        self.augment.set_random_seed(int(request.seed))
        images = self.canvases[request.position].numpy()
        drawn = [self.augment(image=image[..., None])["image"][..., 0] for image in images]
        return torch.from_numpy(np.stack(drawn)), request


class ImageDataModule(WaferDataModule):
    """Batches of grey images.

    Args:
        augment: An albumentations composition for the training images; None for none.
        **options: As for `WaferDataModule`; `in_channels` 3 repeats the grey channel.
    """

    kind = "images"

    def __init__(self, *, augment: Any = None, **options: Any):
        super().__init__(**options)
        self.augment = augment

    def load(self) -> None:
        """Decode the split's images; decoders release the interpreter lock, so threads serve."""
        root, names = Path(self.store.root), self.store.path or []
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(lambda row: canvas(root / names[row], self.canvas), self.rows))
        self.canvases = torch.from_numpy(np.stack(decoded))
        self._near = self.canvases  # where the model is; the workers augment on the CPU

    def requests(self, part: str) -> Dataset[Any]:
        """Training images come augmented from the workers; all others are drawn on the device."""
        if part == "train" and self.augment is not None:
            return AugmentedImages(self.canvases, self.augment)
        return Requests()

    def draw(self, batch: Any, train: bool) -> Batch:
        """Scale grey levels to [0, 1] and repeat the channel."""
        if isinstance(batch, Request):
            position = batch.position
            if self._near.device != position.device:
                self._near = self.canvases.to(position.device)
            grey = self._near[position]
        else:
            grey, (position, _) = batch
        return self.labelled(scale(grey, self.in_channels), position)


def scale(grey: Tensor, channels: int) -> Tensor:
    """Turn grey levels into network input.

    Args:
        grey: (B, S, S) uint8.
        channels: How often to repeat the one channel.

    Returns:
        (B, channels, S, S) float32 in [0, 1], channels_last in memory.
    """
    image = grey[:, None].float().div_(255).expand(-1, channels, -1, -1)
    return image.contiguous(memory_format=torch.channels_last)
