"""Weak masks: where on a real wafer its pattern probably lies, from the die states and the label alone.

No public set of real wafer maps comes with masks. These are guesses: the dies where fails are dense, of a shape and at
a place that the labelled pattern can have. They are made per class:

- Random and Near-full cover the whole wafer.
- Center, Donut and Loc are connected regions of high fail density. Density is the share of failing dies under a
  Gaussian window; the threshold between dense and not is each wafer's own (Ridler & Calvard 1978). Center keeps the
  regions that reach the middle, the others the large ones that do not cling to the rim.
- Edge-Ring and Edge-Loc are regions of high density that reach the rim, with a window that follows the rim, because
  a ring one die wide would drown in a round one.
- Scratch is where fails line up: the densest of the short straight windows through a die, in sixteen directions.

Where patterns meet on a wafer, or nothing like the label is found, the mask is unknown there: see `weak_masks`.
"""

import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.masks import image_labels, mask_classes
from wafer_lab.data.rows import FAIL
from wafer_lab.data.simulator.grids import Grid, make_grid
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.files import replacing

Stack = NDArray[np.bool_]
Field = NDArray[np.float32]


#: Changes with anything that decides which dies a mask covers; it names the cached masks.
VERSION = 1


@dataclass(frozen=True)
class Place:
    """Which connected regions of candidates belong to a pattern. Lengths are in wafer radii.

    Attributes:
        share: Smallest size, as a share of the largest region's.
        nearest: The region comes this near to the middle.
        middle: Its dies' mean distance from the middle is below this.
        rim: It reaches the rim.
    """

    share: float
    nearest: float = 9.0
    middle: float = 9.0
    rim: bool = False


PLACES = {
    "Center": Place(0.3, nearest=0.25),
    "Donut": Place(0.15, nearest=0.7, middle=0.85),
    "Edge-Loc": Place(0.6, rim=True),
    "Edge-Ring": Place(0.05, rim=True),
    "Loc": Place(0.6, nearest=0.85, middle=0.9),
    "Scratch": Place(0.35, nearest=0.9, middle=0.93),
    "Near-full": Place(0),
    "Random": Place(0),
}
# Standard deviation, in radians, of the window along the rim.
RIM_ANGLE = 0.12
# A line's window is so many dies long, and so many tenths of it fail.
LINE_LENGTH, LINE_TENTHS = 9, 7


# Maps worked on at once.
_CHUNK = 256


def weak_masks(store: Store, rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """Weak masks of real wafers.

    A wafer with one pattern has its `region`; where that is empty, the pattern's mask is unknown on the whole wafer. A
    wafer with several patterns has no region: the masks of its patterns are unknown where fails are `dense`, and
    empty elsewhere. The masks of all other patterns are empty. Of an unlabelled wafer, all masks are unknown.

    Args:
        store: A store of wafer maps, labelled with names of MixedWM38's patterns.
        rows: (n,) rows of the store.

    Returns:
        Mask bits in the order of `mask_classes`, laid out like `store.cells(rows)`.

    Raises:
        UserError: The store has other classes, or SciPy is missing.
    """
    names = mask_classes(store)
    if strange := [name for name in names if name not in PLACES]:
        raise UserError(
            f"data.masks=weak: nobody has said what {', '.join(strange)} of {store.name} looks like; weak masks know "
            f"{', '.join(PLACES)}"
        )
    label = image_labels(store)[rows]
    cells, offset = store.cells(rows)
    bits = np.zeros(len(cells), np.int16)
    count = label.sum(axis=1)
    # Maps are worked on together where shape and pattern agree: -1 none, -2 unlabelled, -3 several.
    kind = np.select([label[:, 0] < 0, count == 0, count > 1], [-2, -1, -3], label.argmax(axis=1))
    groups, member = np.unique(np.stack([store.height[rows], store.width[rows], kind]), axis=1, return_inverse=True)
    for number, (height, width, pattern) in enumerate(groups.T.tolist()):
        if pattern == -1:
            continue
        wafers = np.flatnonzero(member.reshape(-1) == number)
        for chunk in np.array_split(wafers, -(-len(wafers) // _CHUNK)):
            places = offset[chunk][:, None] + np.arange(height * width)
            states = cells[places].reshape(-1, height, width)
            bits[places] = _bits(states, label[chunk], pattern, names).reshape(len(chunk), -1)
    return bits


def cached_weak_masks(store: Store, rows: NDArray[np.int64], cache: str | Path) -> NDArray[np.int16]:
    """The `weak_masks` of rows, made once for all labelled rows of a data set.

    Args:
        store: As for `weak_masks`.
        rows: (n,) rows of the store. A tenth of the labelled ones or fewer, or rows without a label, are not cached.
        cache: Folder to keep the masks in, under the store's digest; where it cannot be written, nothing is kept.

    Returns:
        As `weak_masks` does.

    Raises:
        UserError: As `weak_masks` does.
    """
    labelled = np.flatnonzero(image_labels(store)[:, 0] >= 0)
    if 10 * len(rows) <= len(labelled) or not np.isin(rows, labelled).all():
        return weak_masks(store, rows)
    size = store.height.astype(np.int64) * store.width
    ends = np.cumsum(size[labelled])
    file = Path(cache) / f"weak-masks-{store.header.digest}-{VERSION}.npy"
    bits: NDArray[np.int16] | None = None
    with suppress(OSError, ValueError, EOFError):  # none yet, or damaged: made again
        bits = np.load(file, mmap_mode="r", allow_pickle=False)
    if bits is None or bits.shape != (ends[-1],) or bits.dtype != np.int16:
        print(f"guessing the masks of {len(labelled):,} of {store.name}, once", file=sys.stderr, flush=True)
        bits = weak_masks(store, labelled)
        with suppress(OSError), replacing(file) as beside, beside.open("wb") as out:
            np.save(out, bits)
    last = ends[np.searchsorted(labelled, rows)]
    plain = np.asarray(bits)  # slices of a memmap are slow
    return np.concatenate([plain[a:b] for a, b in zip(last - size[rows], last, strict=True)])


def _bits(states: NDArray[np.uint8], label: NDArray[np.int8], pattern: int, names: tuple[str, ...]) -> NDArray[Any]:
    """(n, H, W) mask bits of wafers of one shape that have one pattern, or several (-3), or unlabelled (-2)."""
    fail, on = states == FAIL, states > 0
    if pattern < 0:
        unknown = dense(fail, on) if pattern == -3 else on
        planes = ((label != 0) << np.arange(len(names))).sum(axis=1)[:, None, None] << 8
        return np.asarray((unknown * planes).astype(np.uint16).view(np.int16))
    found = region(names[pattern], fail, on)
    unknown = on & ~found.any(axis=(1, 2), keepdims=True)
    bits = found.astype(np.uint16) << pattern | unknown.astype(np.uint16) << (pattern + 8)
    return np.asarray(bits).astype(np.uint16).view(np.int16)


def region(name: str, fail: Stack, on: Stack) -> Stack:
    """Where a pattern that is alone on its wafers probably lies.

    Args:
        name: A class of MixedWM38.
        fail: (n, H, W) failing dies.
        on: (n, H, W) dies on the wafer.

    Returns:
        (n, H, W) bool, inside `on`; empty where nothing like the pattern is found.
    """
    if name in ("Random", "Near-full"):
        return on
    grid = make_grid(fail.shape[1], fail.shape[2])
    candidates = _candidates(name, fail, on, grid)
    label, sizes = _components(candidates)
    keep = _kept(name, label, sizes, candidates, on, grid)
    return np.asarray(keep[label] & candidates)


def dense(fail: Stack, on: Stack) -> Stack:
    """Wherever any pattern may lie: the regions of all shapes, one die wider."""
    ndimage = _ndimage()
    grid = make_grid(fail.shape[1], fail.shape[2])
    found = _round(fail, on) | _along_rim(fail, on, grid) | _lines(fail, on)
    return np.asarray(ndimage.binary_dilation(found, np.ones((1, 3, 3), bool)) & on)


def _candidates(name: str, fail: Stack, on: Stack, grid: Grid) -> Stack:
    if name == "Scratch":
        return _lines(fail, on)
    if name == "Edge-Ring":
        return _along_rim(fail, on, grid)
    if name == "Edge-Loc":
        return _along_rim(fail, on, grid) | _round(fail, on)
    return _round(fail, on)


def _kept(
    name: str, label: NDArray[np.int32], sizes: NDArray[np.int64], candidates: Stack, on: Stack, grid: Grid
) -> Stack:
    """(number of components + 1,) bool: which components belong to the pattern; component 0 is what is outside."""
    ndimage = _ndimage()
    index = np.arange(len(sizes))
    wafer = np.zeros(len(sizes), np.int64)
    at = np.nonzero(candidates)
    wafer[label[at]] = at[0]
    radius = np.broadcast_to(grid.radius, label.shape)
    nearest = np.asarray(ndimage.minimum(radius, label, index))
    furthest = np.asarray(ndimage.maximum(radius, label, index))
    middle = np.asarray(ndimage.mean(radius, label, index))
    place = PLACES[name]
    able = (nearest < place.nearest) & (middle < place.middle) & (index > 0)
    if place.rim:
        able &= furthest > min(1 - 1.6 * grid.pitch, 0.94)
    lacking = np.ones(len(on), bool)
    lacking[wafer[able]] = False
    able |= lacking[wafer] & (index > 0)  # a label may stretch the name: rather an odd place than none
    largest = np.zeros(len(on))
    np.maximum.at(largest, wafer[able], sizes[able])
    enough = np.maximum(place.share * largest, 3)
    return np.asarray(able & (sizes >= enough[wafer]))


def _round(fail: Stack, on: Stack) -> Stack:
    """Regions of high fail density under a round window, its sigma a die or 3 % of the wafer."""
    ndimage = _ndimage()
    sigma = max(1.0, 0.03 * math.sqrt(fail.shape[1] * fail.shape[2]))
    window = (0, sigma, sigma)
    above = ndimage.gaussian_filter(fail.astype(np.float32), window, mode="constant")
    below = ndimage.gaussian_filter(on.astype(np.float32), window, mode="constant")
    return _above_threshold(above / np.maximum(below, 1e-3), on)


def _along_rim(fail: Stack, on: Stack, grid: Grid) -> Stack:
    """Regions of high fail density under a window that follows the rim, in the outer half of the wafer.

    Dies are sorted into rings, by how many steps lie between them and the rim, and sectors.
    """
    ndimage = _ndimage()
    rings, sectors = max(3, min(grid.shape) // 4), int(2 * np.pi / grid.pitch)
    ring = _steps_from_rim(on, rings)
    sector = (np.arctan2(grid.sin, grid.cos) % (2 * np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
    shape = len(on), rings + 1, sectors
    place = np.ravel_multi_index((np.arange(len(on))[:, None, None], ring, sector[None]), shape)
    window = (0, 0.5, RIM_ANGLE / (2 * np.pi) * sectors)
    above, below = (
        ndimage.gaussian_filter(
            np.bincount(place[dies], minlength=math.prod(shape)).reshape(shape).astype(np.float32),
            window,
            mode=("constant", "constant", "wrap"),
        )
        for dies in (fail, on)
    )
    density = (above / np.maximum(below, 1e-3)).ravel()[place]
    return _above_threshold(density * (ring < rings), on)


def _steps_from_rim(on: Stack, most: int) -> NDArray[np.int64]:
    """(n, H, W) steps to the nearest die at the rim, at most `most`; holes in the wafer do not count as rim."""
    ndimage = _ndimage()
    inside = ndimage.binary_fill_holes(on, ndimage.generate_binary_structure(2, 1)[None])
    steps = np.zeros(on.shape, np.int64)
    for _ in range(most):
        inside = np.logical_and.reduce(_shifted(inside, [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]))
        steps += inside
    return steps


def _above_threshold(density: Field, on: Stack) -> Stack:
    """Dies denser than the wafer's own threshold, midway between the means of both sides (Ridler & Calvard 1978)."""
    density = np.where(on, density, 0)
    threshold = np.full((len(on), 1, 1), 0.5, np.float32)
    total, dies = density.sum(axis=(1, 2)), np.maximum(on.sum(axis=(1, 2)), 1)
    for _ in range(4):
        high = (density >= threshold) & on
        count = high.sum(axis=(1, 2))
        inside = (density * high).sum(axis=(1, 2))
        top = np.where(count > 0, inside / np.maximum(count, 1), density.max(axis=(1, 2)))
        rest = (total - inside) / np.maximum(dies - count, 1)
        threshold = np.clip((top + rest) / 2, 0.4, 0.75).astype(np.float32)[:, None, None]
    return np.asarray((density >= threshold) & on)


def _lines(fail: Stack, on: Stack) -> Stack:
    """Fails along straight windows, any of sixteen directions, that are full of them."""
    found = np.zeros_like(fail)
    for turn in range(16):
        angle = np.pi * turn / 16
        long, short, step = (_line(angle, length) for length in (LINE_LENGTH, LINE_LENGTH // 2 + 1, 3))
        above, below = (np.add.reduce(_shifted(dies, long), dtype=np.uint8) for dies in (fail, on))
        full = (10 * above >= LINE_TENTHS * np.maximum(below, LINE_LENGTH // 2 + 1)) & on
        # At the end of a line the window stands out by the dies that may be missing from it: so far the line goes on.
        line = np.logical_or.reduce(_shifted(full, short)) & fail
        found |= line | np.logical_and.reduce(_shifted(line, step)[::2])
    return np.asarray(found & on)


def _line(angle: float, length: int) -> list[tuple[int, int]]:
    """The steps down and across to an odd number of dies in a straight line, the middle one at (0, 0)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    slope = max(abs(sine), abs(cosine))
    return [(round(i * sine / slope), round(i * cosine / slope)) for i in range(-(length // 2), length // 2 + 1)]


def _shifted(dies: Stack, steps: list[tuple[int, int]]) -> list[Stack]:
    """The stack as seen from every die so many steps away; nothing lies beyond the border."""
    height, width = dies.shape[1:]
    far = max(max(abs(down), abs(across)) for down, across in steps)
    padded = np.pad(dies, ((0, 0), (far, far), (far, far)))
    return [padded[:, far + down : far + down + height, far + across : far + across + width] for down, across in steps]


def _components(mask: Stack) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the connected regions (eight neighbours) of all wafers from 1 on; and the size of each."""
    near = np.zeros((3, 3, 3), bool)
    near[1] = True
    label, count = _ndimage().label(mask, near)
    return label, np.bincount(label.ravel(), minlength=count + 1)


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError:
        raise UserError("data.masks=weak needs SciPy; pip install scipy") from None
    return ndimage
