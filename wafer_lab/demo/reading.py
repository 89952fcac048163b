"""From an uploaded file to one wafer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.readers import decode_grey, files, open_source
from wafer_lab.data.readers.images import IMAGE_ENDINGS
from wafer_lab.data.rows import OFF_WAFER
from wafer_lab.errors import UserError
from wafer_lab.evaluation.palette import LEGEND
from wafer_lab.workflows.labelling import batches

# Sides of maps in cells. WM-811K's smallest has 6, its largest 302.
_FEWEST, _MOST = 5, 1000
_MOST_PIXELS = 64_000_000


def read_wafer(file: Path, row: int, kind: str) -> NDArray[np.uint8]:
    """Read one wafer out of a file.

    Args:
        file: For maps: a .npy file, a .png in the colours of `LEGEND`, LSWMD.pkl, or the .npz of MixedWM38. For images:
            an image.
        row: Which wafer, from 0.
        kind: What the model judges, `maps` or `images`.

    Returns:
        (H, W) uint8: die states 0 off-wafer, 1 pass, 2 fail; or grey levels.

    Raises:
        UserError: There is no such wafer in it; the message names the file without its folder.
    """
    try:
        files.head(file)  # an empty file is told before its kind is asked
        is_image = file.suffix.lower() in IMAGE_ENDINGS
        if kind == "images":
            if not is_image:
                raise UserError(f"this model judges images, and {file.name} is none; choose a .png or .jpg file")
            return decode_grey(file)
        wafer = read_picture(file) if is_image else _row(file, row)
        _check_size(wafer, file.name)
    except UserError as error:
        raise UserError(without_folder(str(error), file)) from None
    return wafer


def without_folder(text: str, file: Path) -> str:
    """A message about a file that was uploaded: where the server keeps it is nothing to the reader."""
    return text.replace(str(file), file.name).replace(f"{file.parent}/", "")


def legend_text() -> str:
    """The colours that mean something, in words."""
    return ", ".join(f"{state} {colour}" for state, colour in LEGEND.items())


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Read a map from a picture of it: one pixel per die, or equal blocks of pixels.

    Args:
        file: An image whose every pixel has a colour of `LEGEND`.

    Returns:
        (H, W) uint8 die states.

    Raises:
        UserError: It is no image, or has other colours; the message says which and shows the legend.
    """
    pixels = _pixels(file)
    packed = pixels @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    known = [int(colour[1:], 16) for colour in LEGEND.values()]
    wrong = packed[~np.isin(packed, known)]
    if len(wrong):
        raise UserError(
            f"{file.name} has colours that mean nothing here, such as #{wrong[0]:06X} in {len(wrong):,} of "
            f"{packed.size:,} pixels; the legend is {legend_text()}. Save it as .png without smoothing, one pixel or "
            "equal blocks of pixels per die"
        )
    states = np.select([packed == colour for colour in known], list(range(len(known)))).astype(np.uint8)
    if (states == OFF_WAFER).all():
        raise UserError(f"{file.name} shows no die: every pixel is {LEGEND['off-wafer']} (off-wafer)")
    down, across = (_block(states, axis) for axis in (0, 1))
    return np.ascontiguousarray(states[::down, ::across])


def _pixels(file: Path) -> NDArray[np.uint32]:
    """(H, W, 3) colours; what is transparent is off the wafer."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise UserError(f"{file.name} has {image.width:,} x {image.height:,} pixels; one per die is enough")
            rgba = np.asarray(image.convert("RGBA"), dtype=np.uint32)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file.name} is no image that can be read ({error}); save it as .png again") from None
    white = int(LEGEND["off-wafer"][1:3], 16)
    return np.where(rgba[..., 3:] == 0, np.uint32(white), rgba[..., :3])


def _block(states: NDArray[np.uint8], axis: int) -> int:
    """Pixels per die along an axis: what divides the length of every run of equal lines."""
    changes = (np.diff(states, axis=axis) != 0).any(axis=1 - axis)
    return math.gcd(states.shape[axis], *(np.flatnonzero(changes) + 1).tolist())


def _row(file: Path, row: int) -> NDArray[np.uint8]:
    source = open_source(file, tolerant=True)
    kind = getattr(source, "kind", "maps")
    if kind != "maps":
        raise UserError(f"this model judges maps, and {file.name} holds {kind}")
    first = 0
    for batch in batches(source):
        place = row - first
        if 0 <= place < len(batch.wafers):
            if place in batch.faults:
                raise UserError(f"{file.name}, row {row}: {batch.faults[place]}")
            return np.array(batch.wafers[place])
        first += len(batch.wafers)
    last = f"its rows are 0 to {first - 1:,}" if first > 1 else "its only row is 0"
    raise UserError(f"{file.name} has no row {row:,}; {last}")


def _check_size(wafer: NDArray[Any], name: str) -> None:
    height, width = wafer.shape
    if min(height, width) < _FEWEST:
        raise UserError(
            f"{name} is a map of {height} x {width} cell{'s' * (height * width > 1)}, too few to show a pattern; a "
            f"wafer map has at least {_FEWEST} cells a side, one per die"
        )
    if max(height, width) > _MOST:
        raise UserError(
            f"{name} is a map of {height:,} x {width:,} cells, and a wafer map has at most {_MOST:,} a side, one per "
            "die; is it a picture of the map, with many pixels per die?"
        )
