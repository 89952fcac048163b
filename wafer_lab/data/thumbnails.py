"""Small pictures of images and of wafer maps that keep what tells one from another."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.rows import FAIL, PASS

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

IMAGE_SIDE, MAP_SIDE = 64, 32
_INNER = 0.85  # of the radius: which dies fail at the rim is a matter of layout, equal on many wafers
_FEW = 5  # failing, or passing, dies inside the rim below which a wafer has no features of its own


def image_thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(64, 64) uint8 means over the areas of an (H, W) uint8 image; the aspect ratio is not kept."""
    from PIL import Image

    size = (IMAGE_SIDE, IMAGE_SIDE)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def map_thumbnail(states: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where a wafer's dies fail more or less than those around them.

    Failing dies, less the wafer's mean, are resampled to 32 x 32 (linearly: MixedWM38's copies of WM-811K wafers
    were, too), then the mean of 5 x 5 is taken off and the rim left out. What remains are a wafer's own features;
    the rings, blobs and rims that hundreds of wafers of a class share are gone.

    Args:
        states: (H, W) uint8 die states.

    Returns:
        (32, 32) uint8 with 128 for zero; all zero where fewer than five dies inside the rim fail, or pass.
    """
    on, fail = states > 0, (states == FAIL).astype(np.float32)
    field = np.where(on, fail - fail.sum() / max(int(on.sum()), 1), 0).astype(np.float32)
    height, width = states.shape
    inner = states[_inner(height, width)]
    if min((inner == FAIL).sum(), (inner == PASS).sum()) < _FEW:
        return np.full((MAP_SIDE, MAP_SIDE), 128, np.uint8)
    small = linear(height, MAP_SIDE) @ field @ linear(width, MAP_SIDE).T
    near = neighbours(MAP_SIDE, 2)
    detail = (small - near @ small @ near.T) * _inner(MAP_SIDE, MAP_SIDE)
    top = float(np.abs(detail).max())
    return np.rint(detail * (127 / max(top, 1e-3)) + 128).astype(np.uint8)


_LINEAR: dict[tuple[int, int], Floats] = {}


def linear(cells: int, pixels: int) -> Floats:
    """(pixels, cells) float32 weights of linear resampling, over each pixel's area where it covers several cells."""
    if (cells, pixels) not in _LINEAR:
        scale = cells / pixels
        centre = (np.arange(pixels) + 0.5) * scale - 0.5
        weight = np.clip(1 - np.abs(np.arange(cells) - centre[:, None]) / max(scale, 1.0), 0, None)
        _LINEAR[cells, pixels] = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return _LINEAR[cells, pixels]


def neighbours(side: int, reach: int) -> Floats:
    """(side, side) float32 that averages each place with those at most `reach` away."""
    band = (np.abs(np.arange(side)[:, None] - np.arange(side)) <= reach).astype(np.float32)
    return np.asarray(band / band.sum(axis=1, keepdims=True), dtype=np.float32)


def _inner(height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) bool, True inside the rim of the ellipse that fills it."""
    down, across = ((2 * np.arange(n) + 1) / n - 1 for n in (height, width))
    return np.asarray(np.hypot(down[:, None], across) <= _INNER)


def turned(square: NDArray[T], view: int) -> NDArray[T]:
    """Turn (..., S, S) arrays as `data.canvas.turn` turns canvases: bits flip rows, flip columns, then transpose."""
    square = square[..., ::-1, :] if view & 1 else square
    square = square[..., ::-1] if view & 2 else square
    return square.swapaxes(-1, -2) if view & 4 else square


def cropped(thumbnail: NDArray[np.uint8], crop: tuple[int, ...], side: int) -> Floats:
    """(n, side, side) float32: what is left of thumbnails when their margins are cut off."""
    top, bottom, left, right = crop
    size = thumbnail.shape[-1]
    cut = thumbnail[:, top : size - bottom, left : size - right].astype(np.float32)
    return np.asarray(linear(size - top - bottom, side) @ cut @ linear(size - left - right, side).T, np.float32)


def unit(values: Floats) -> Floats:
    """(n, d) float32 rows of mean 0 and length 1."""
    values = values - values.mean(axis=1, keepdims=True)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


def correlation(a: Floats, b: Floats) -> Floats:
    """(n,) float32 correlation of pairs of pictures."""
    x, y = (unit(values.reshape(len(values), int(np.prod(values.shape[1:])))) for values in (a, b))
    return np.asarray(np.einsum("nd,nd->n", x, y), dtype=np.float32)


def detail(images: Floats) -> Floats:
    """What is left of (n, H, W) images without the means of the 9 x 9 pixels around each."""
    down, across = (neighbours(side, 4) for side in images.shape[1:])
    return np.asarray(images - down @ images @ across.T, dtype=np.float32)


def sign_bits(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(N, 4) uint64: the signs of 256 random projections, the same ones at every call."""
    axes = np.random.default_rng(0).standard_normal((vectors.shape[1], 256), dtype=np.float32)
    return np.packbits(vectors @ axes > 0, axis=1).view(np.uint64)
