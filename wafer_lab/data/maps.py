"""Wafer maps: all cells of the split where the model is, every batch drawn there by one gather."""

from typing import Any

import torch

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Batch
from wafer_lab.data.canvas import ENCODINGS, Encoding, Maps, encode, render
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError


class MapDataModule(WaferDataModule):
    """Batches of wafer maps.

    Args:
        encoding: How die states become channels, see `wafer_lab.data.canvas.encode`.
        augment: Distortions of the training maps; None for none.
        **options: As for `WaferDataModule`.
    """

    kind = "maps"

    def __init__(
        self,
        *,
        encoding: Encoding = "one_hot",
        augment: MapAugment | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if encoding not in ENCODINGS:
            raise UserError(f"unknown data.encoding '{encoding}'; choose one of {', '.join(ENCODINGS)}")
        self.encoding, self.augment = encoding, augment

    def load(self) -> None:
        """Gather the cells of the split's rows, end to end."""
        self.maps = gather(self.store, self.rows)

    def draw(self, batch: Any, train: bool) -> Batch:
        """Draw the batch on the device that the request has reached."""
        position = batch.position
        if self.maps.device != position.device:
            self.maps = self.maps.to(position.device)
        if train and self.augment is not None:
            generator = torch.Generator(position.device).manual_seed(int(batch.seed))
            states = self.augment.draw(self.maps, position, self.canvas, generator)
        else:
            states = render(self.maps, position, self.canvas)
        return self.labelled(encode(states, self.encoding), position)


def gather(store: Store, rows: Any) -> Maps:
    """Copy some rows of a store into tensors.

    Args:
        store: A store of wafer maps.
        rows: (n,) int64 rows of the store.

    Returns:
        The maps, on the CPU, in the order of `rows`.
    """
    cells, offset = store.cells(rows)
    fits = offset[-1] < torch.iinfo(torch.int32).max
    return Maps(
        torch.from_numpy(cells),
        torch.from_numpy(offset[:-1].astype("int32" if fits else "int64")),
        torch.from_numpy(store.height[rows].astype("int32")),
        torch.from_numpy(store.width[rows].astype("int32")),
    )
