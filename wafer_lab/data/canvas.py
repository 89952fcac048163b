"""From ragged die maps to batches of network input: one gather, one table look-up, no per-sample Python.

All maps lie end to end in one uint8 tensor where the model is. A pixel of the square canvas is read from the die
under its centre (nearest neighbour, cell-centred), so no die state is ever invented. A rotation or flip only
changes the order in which rows and columns are visited; it costs nothing beyond the resize.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from wafer_lab.data.gathers import look_up, read_grids

Encoding = Literal["one_hot", "grey", "masks", "grey_rgb", "imagenet", "inception"]

# What each channel of the published ImageNet networks was standardised by, on levels in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Channel values of the three die states: off-wafer, pass, fail.
ENCODINGS: dict[str, tuple[tuple[float, ...], ...]] = {
    "one_hot": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "grey": ((0.0,), (0.5,), (1.0,)),
    "masks": ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)),  # [fail, wafer]
    "grey_rgb": ((0.0,) * 3, (0.5,) * 3, (1.0,) * 3),
    "inception": ((-1.0,) * 3, (0.0,) * 3, (1.0,) * 3),
    "imagenet": tuple(tuple((v - m) / s for m, s in zip(_MEAN, _STD, strict=True)) for v in (0.0, 0.5, 1.0)),
}


@dataclass(frozen=True)
class Maps:
    """Wafer maps of any size, end to end.

    Attributes:
        cells: (total,) uint8 die states, each map row-major.
        offset: (N,) integer start of each map in `cells`; int32 when it fits, which halves the index traffic.
        height: (N,) int32 rows of each map.
        width: (N,) int32 columns of each map.
        masks: (total,) int16 mask bits laid out like `cells`, as `unpack` reads them; None without masks.
    """

    cells: Tensor
    offset: Tensor
    height: Tensor
    width: Tensor
    masks: Tensor | None = None

    def to(self, device: torch.device) -> "Maps":
        """The same maps on `device`."""
        cells, offset, height, width = (t.to(device) for t in (self.cells, self.offset, self.height, self.width))
        return Maps(cells, offset, height, width, None if self.masks is None else self.masks.to(device))

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self.cells.device


@dataclass(frozen=True)
class Windows:
    """The part of each map that its canvas shows, in fractions of the map's sides; beyond the map lies off-wafer.

    Attributes:
        top: (B,) float32 upper border.
        left: (B,) float32 left border.
        side: (B,) float32 side; above 1 shows surroundings.
    """

    top: Tensor
    left: Tensor
    side: Tensor


def render(maps: Maps, index: Tensor, size: int, d4: Tensor | None = None) -> Tensor:
    """Draw maps on square canvases.

    Args:
        maps: The maps.
        index: (B,) int64 positions in `maps`.
        size: Side S of the canvas in pixels; the aspect ratio is not kept.
        d4: (B,) int64 in 0..7, the symmetry to apply to each canvas: bit 0 flips rows, bit 1 flips columns, bit 2
            then transposes. None leaves all as they are.

    Returns:
        (B, S, S) uint8 die states.
    """
    return read_grids(maps.cells, *_places(maps, index, size, d4))


def render_masked(
    maps: Maps, index: Tensor, size: int, d4: Tensor | None = None, windows: Windows | None = None
) -> tuple[Tensor, Tensor | None]:
    """Draw maps and their masks on square canvases, both from the same dies; see `render`.

    Args:
        maps: The maps.
        index: (B,) int64 positions in `maps`.
        size: Side S of the canvas in pixels.
        d4: As for `render`; the symmetry turns what the window shows.
        windows: Which part of each map to show; None shows all.

    Returns:
        (B, S, S) uint8 die states and (B, S, S) int16 mask bits; None for the latter where the maps have no masks.
    """
    if windows is None:
        places = _places(maps, index, size, d4)
        return read_grids(maps.cells, *places), None if maps.masks is None else read_grids(maps.masks, *places)
    down, across, seen = _window_places(maps, index, size, d4, windows)
    states = read_grids(maps.cells, down, across) * seen
    return states, None if maps.masks is None else read_grids(maps.masks, down, across) * seen


def _places(maps: Maps, index: Tensor, size: int, d4: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, size) each: the places in `maps.cells` where lines of the canvases start, and those of columns from there."""
    height, width = maps.height[index][:, None], maps.width[index][:, None]
    row, column = _visited(size, d4, index.device)
    down, across = _transposed(_centre(row, height, size) * width, _centre(column, width, size), d4)
    return maps.offset[index][:, None] + down, across


def _window_places(
    maps: Maps, index: Tensor, size: int, d4: Tensor | None, windows: Windows
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_places`, and (B, S, S) uint8: 1 where a pixel lies on the map; elsewhere its place is that of some die."""
    height, width = maps.height[index][:, None], maps.width[index][:, None]
    row, column = _visited(size, d4, index.device)
    row = ((windows.top[:, None] + windows.side[:, None] * (row + 0.5) / size) * height).floor().int()
    column = ((windows.left[:, None] + windows.side[:, None] * (column + 0.5) / size) * width).floor().int()
    low, high = _transposed((row >= 0) & (row < height), (column >= 0) & (column < width), d4)
    row, column = row.clamp(min=0).minimum(height - 1), column.clamp(min=0).minimum(width - 1)
    down, across = _transposed(row * width, column, d4)
    return maps.offset[index][:, None] + down, across, (low[:, :, None] & high[:, None, :]).to(torch.uint8)


def _visited(size: int, d4: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(1 or B, S) the rows and columns of a canvas in the order in which a symmetry visits them, before transposing."""
    row = column = torch.arange(size, device=device, dtype=torch.int32)[None]
    if d4 is not None:
        row = torch.where((d4 & 1).bool()[:, None], size - 1 - row, row)
        column = torch.where((d4 & 2).bool()[:, None], size - 1 - column, column)
    return row, column


def _transposed(down: Tensor, across: Tensor, d4: Tensor | None) -> tuple[Tensor, Tensor]:
    """Swap the two where the symmetry transposes."""
    if d4 is None:
        return down, across
    transpose = (d4 & 4).bool()[:, None]
    return torch.where(transpose, across, down), torch.where(transpose, down, across)


def _centre(pixel: Tensor, cells: Tensor, size: int) -> Tensor:
    """The cell under the centre of each pixel: floor((pixel + 1/2) * cells / size), in whole numbers."""
    return torch.div((2 * pixel + 1) * cells, 2 * size, rounding_mode="floor")


def turn(image: Tensor, view: int) -> Tensor:
    """Show canvases under one of the symmetries that `render` draws, numbered alike.

    Args:
        image: (B, C, S, S), of any kind of wafer.
        view: 0..7; bit 0 flips rows, bit 1 flips columns, bit 2 then transposes.

    Returns:
        (B, C, S, S), channels_last in memory.
    """
    if view == 0:
        return image
    turned = image.flip([axis for axis, bit in ((2, 1), (3, 2)) if view & bit])
    turned = turned.transpose(2, 3) if view & 4 else turned
    return turned.contiguous(memory_format=torch.channels_last)


def encode(states: Tensor, encoding: Encoding) -> Tensor:
    """Turn die states into channels.

    Args:
        states: (B, H, W) uint8 in 0..2.
        encoding: `one_hot` (off-wafer, pass, fail), `grey` (0, 1/2, 1), `masks` (fail, on wafer), `grey_rgb` (grey
            three times), `imagenet` (the same, standardised as most published ImageNet networks expect) or `inception`
            (the same in [-1, 1], as others do).

    Returns:
        (B, C, H, W) float32, channels_last in memory; in [0, 1] but for `imagenet` and `inception`.
    """
    return look_up(states, _levels(encoding, states.device)).permute(0, 3, 1, 2)


@cache
def _levels(encoding: Encoding, device: torch.device) -> Tensor:
    """(3, C) the channels of every state; kept, because sending a table to a GPU waits for all work before it."""
    return torch.tensor(ENCODINGS[encoding], device=device)


# Half of the 16 mask bits of a die.
MOST_MASKS = 8


def unpack(bits: Tensor, num_classes: int) -> Tensor:
    """Spread mask bits over one plane per class.

    Args:
        bits: (B, H, W) int16; bit k is set where class k covers the die, bit 8 + k where nobody knows.
        num_classes: K, at most `MOST_MASKS`.

    Returns:
        (B, K, H, W) float32: 1 inside a mask, 0 outside, -1 where unknown; channels_last in memory.
    """
    table = _planes(num_classes, bits.device)
    return torch.nn.functional.embedding(bits.int() & 0xFFFF, table).permute(0, 3, 1, 2)


@cache
def _planes(num_classes: int, device: torch.device) -> Tensor:
    """(65536, K) the planes of all mask bits; looking them up takes a tenth of the time of shifting."""
    bits, k = torch.arange(1 << 16, device=device)[:, None], torch.arange(num_classes, device=device)
    return ((bits >> k & 1) - (bits >> (k + 8) & 1)).float()


def random_d4(count: int, generator: torch.Generator) -> Tensor:
    """(count,) int64, uniform over the eight symmetries of the square."""
    return torch.randint(0, 8, (count,), generator=generator, device=generator.device)


def die_noise(states: Tensor, probability: float, chance: Tensor) -> Tensor:
    """Swap pass and fail at random.

    Args:
        states: (B, H, W) uint8.
        probability: Chance of each die on the wafer to change.
        chance: (B, H, W) uniform in [0, 1).

    Returns:
        (B, H, W) uint8; off-wafer cells stay.
    """
    swap = (chance < probability) & (states > 0)
    return torch.where(swap, 3 - states, states)
