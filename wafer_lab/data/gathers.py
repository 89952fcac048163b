"""The two gathers of the batch path, made fast on a CPU; elsewhere they are one kernel each.

A CPU spends the time of a batch on single reads and on memory that it sees for the first time. So lines of the canvas
that show the same dies are read once and then copied whole, four pixels are looked up at a time, and the memory of
large batches is used again once nobody holds it. The results are the same bit for bit.
"""

import sys
from functools import cache
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def read_grids(cells: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Read a grid of places per wafer: `cells[down[b, i] + across[b, j]]`.

    Args:
        cells: (total,) of any kind.
        down: (B, S) int32 or int64, where the lines of each grid start.
        across: (B, S) likewise, how far from there its columns lie.

    Returns:
        (B, S, S) of the kind of `cells`.
    """
    size = down.shape[1]
    if cells.device.type != "cpu":
        return torch.index_select(cells, 0, (down[:, :, None] + across[:, None]).view(-1)).view(-1, size, size)
    start = down.reshape(-1)
    fresh = torch.ones(len(start), dtype=torch.bool)
    torch.ne(start[1:], start[:-1], out=fresh[1:])
    fresh[::size] = True  # the next wafer has columns of its own
    first = fresh.nonzero().view(-1)
    across = across.to(start.dtype)  # which is int64 where the cells are very many
    places = across.index_select(0, first.div(size, rounding_mode="floor")).add_(start[first][:, None])
    lines = torch.index_select(cells, 0, places.view(-1)).view(-1, size)
    return lines.index_select(0, fresh.cumsum(0).sub_(1)).view(-1, size, size)


def look_up(states: Tensor, table: Tensor) -> Tensor:
    """Replace every state by its row of a table.

    Args:
        states: (B, H, W) uint8 in 0..2.
        table: (3, C) float32.

    Returns:
        (B, H, W, C) float32.
    """
    if states.device.type != "cpu" or states.numel() % 4 or sys.byteorder != "little":
        return torch.nn.functional.embedding(states.int(), table)
    fours = states.reshape(-1).view(torch.int32)
    image = _memory.of(states.numel() * table.shape[1]).view(-1, 4 * table.shape[1])
    for part, drawn in zip(torch.split(fours, _CACHED), torch.split(image, _CACHED), strict=True):
        # The product puts the two bits of each of the four states side by side into the uppermost byte.
        key = (part * _SIDE_BY_SIDE).bitwise_right_shift_(24).bitwise_and_(255)
        torch.index_select(_of_four(table), 0, key, out=drawn)
    return image.view(*states.shape, -1)


_SIDE_BY_SIDE = 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6
_CACHED = 1 << 17  # keys that stay in the cache of a core


@cache
def _of_four(table: Tensor) -> Tensor:
    """(256, 4 * C) the rows of every four states, of which each takes two bits; a state of 3 has none."""
    key = torch.arange(256)
    rows = torch.cat([table, torch.zeros_like(table[:1])])
    return rows[torch.stack([key >> shift & 3 for shift in (0, 2, 4, 6)], dim=1)].flatten(1)


class Memory:
    """Memory that is handed out again once no tensor holds it.

    The allocator of the C library gives blocks above 32 MiB back to the system, which clears them anew, page by page,
    for every batch; that takes several times as long as writing the batch.

    Args:
        kept: Most blocks to keep.
        above: Size in bytes up to which the allocator does well.
    """

    def __init__(self, kept: int = 3, above: int = 32 * 2**20):
        self._kept, self._above = kept, above
        self._blocks: list[NDArray[np.float32]] = []
        self._lock = Lock()
        for block in [np.empty(1, np.float32)]:
            self._unheld = sys.getrefcount(block)  # of a block that only a list holds; versions of Python differ

    def of(self, count: int) -> Tensor:
        """(count,) float32 on the CPU, of any values."""
        if 4 * count <= self._above:
            return torch.empty(count)
        with self._lock:
            for block in self._blocks:
                # A tensor on it would hold it too, whoever has that.
                if sys.getrefcount(block) == self._unheld and count <= len(block) <= 2 * count:
                    return torch.from_numpy(block[:count])
            new = np.empty(count, np.float32)
            self._blocks = [*self._blocks, new][-self._kept :]
            return torch.from_numpy(new[:])


_memory = Memory()
