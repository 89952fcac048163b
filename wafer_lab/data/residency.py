"""Where wafer maps lie while batches are drawn: on the model's device, in memory, or in the store's file."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Request
from wafer_lab.data.canvas import Maps, render_masked
from wafer_lab.data.store import Store
from wafer_lab.processes import WHOLE, Share

#: `device`: all cells of the split where the model is. `memory`: all in RAM, where canvases are drawn. `mapped`: in the
#: store's file, from which the cells of one batch are read at a time.
Residency = Literal["device", "memory", "mapped"]
#: (n,) int64 rows of the store -> their mask bits, laid out like `store.cells(rows)`.
MaskBits = Callable[[NDArray[np.int64]], NDArray[np.int16]]
Views = tuple[MapAugment | None, ...]
Drawn = tuple[Tensor, Tensor | None, Request]


class Resident:
    """Maps that lie in tensors.

    Args:
        maps: All maps of the split.
        follows: Whether they move to where they are asked for.
    """

    def __init__(self, maps: Maps, follows: bool):
        self.maps, self.follows = maps, follows

    def __call__(self, position: Tensor) -> tuple[Maps, Tensor]:
        """Maps, and where in them the wafers at (B,) positions of the split are."""
        if self.follows and self.maps.device != position.device:
            self.maps = self.maps.to(position.device)
        return self.maps, position.to(self.maps.device)


class Mapped:
    """Maps that stay in the store's file.

    Args:
        store: Of wafer maps; it travels to a worker process as the name of its folder.
        rows: (n,) int64 rows of the store at the positions of the split.
        masks: Their masks; None for none.
    """

    def __init__(self, store: Store, rows: NDArray[np.int64], masks: MaskBits | None):
        self.store, self.rows, self.masks = store, rows, masks

    def __call__(self, position: Tensor) -> tuple[Maps, Tensor]:
        """As for `Resident`; the maps are those asked for, on the CPU."""
        rows = self.rows[position.cpu().numpy()]
        return gather(self.store, rows, self.masks), torch.arange(len(rows))


class Canvases(Dataset[Drawn]):
    """Draws the canvases that a request asks for, where the maps are.

    Args:
        maps: Where they lie.
        size: Side of the canvas.
        views: How each wafer is distorted, once per view; None for a view that is not.
        share: What a request is of its batch.
    """

    def __init__(self, maps: Resident | Mapped, size: int, views: Views = (None,), share: Share = WHOLE):
        self.maps, self.size, self.views, self.share = maps, size, views, share

    def __getitem__(self, request: Request) -> Drawn:
        """(V * B, S, S) uint8 die states, (V * B, S, S) int16 mask bits or None, and the request that they answer."""
        maps, index = self.maps(request.position)
        generator = torch.Generator(maps.device).manual_seed(request.seed)
        drawn = [
            render_masked(maps, index, self.size)
            if view is None
            else view.draw(maps, index, self.size, generator, self.share)
            for view in self.views
        ]
        states, masks = (None if values[0] is None else _joined(values) for values in zip(*drawn, strict=True))
        assert states is not None
        return states, masks, request


def _joined(values: Sequence[Any]) -> Tensor:
    return values[0] if len(values) == 1 else torch.cat(list(values))


def gather(store: Store, rows: Any, masks: MaskBits | None = None) -> Maps:
    """Copy some rows of a store into tensors.

    Args:
        store: A store of wafer maps.
        rows: (n,) int64 rows of the store.
        masks: Their masks; None for none.

    Returns:
        The maps, on the CPU, in the order of `rows`.
    """
    cells, offset = store.cells(rows)
    fits = offset[-1] < torch.iinfo(torch.int32).max
    maps = Maps(
        torch.from_numpy(cells),
        torch.from_numpy(offset[:-1].astype("int32" if fits else "int64")),
        torch.from_numpy(store.height[rows].astype("int32")),
        torch.from_numpy(store.width[rows].astype("int32")),
    )
    return maps if masks is None else replace(maps, masks=torch.from_numpy(masks(rows)))
