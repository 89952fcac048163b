"""Wafer maps: all cells of the split where the model is, every batch drawn there by one gather."""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Batch
from wafer_lab.data.canvas import ENCODINGS, MOST_MASKS, Encoding, Maps, encode, render_masked, unpack
from wafer_lab.data.coco import Annotations, read_coco
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.masks import annotated_labels, annotated_masks, pattern_masks
from wafer_lab.data.store import Store
from wafer_lab.data.weak_masks import cached_weak_masks
from wafer_lab.errors import UserError


class MapDataModule(WaferDataModule):
    """Batches of wafer maps.

    Args:
        encoding: How die states become channels, see `wafer_lab.data.canvas.encode`.
        augment: Distortions of the training maps; None for none.
        masks: With `target=mask`, where masks come from: `patterns` (the simulator's own), `weak` (see
            `wafer_lab.data.weak_masks`) or a COCO file. With a file, its masks say which patterns a wafer has, and
            wafers that are not in it are unlabelled. None otherwise.
        **options: As for `WaferDataModule`.
    """

    kind = "maps"

    def __init__(
        self,
        *,
        encoding: Encoding = "one_hot",
        augment: MapAugment | None = None,
        masks: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if encoding not in ENCODINGS:
            raise UserError(f"unknown data.encoding '{encoding}'; choose one of {', '.join(ENCODINGS)}")
        self.encoding, self.augment, self.masks = encoding, augment, masks
        if (self.target == "mask") != (masks is not None):
            what = "needs data.masks=patterns, weak or a COCO file" if masks is None else "leave data.masks out"
            raise UserError(f"data.target={self.target}: {what}")
        self.annotations = None if masks in (None, "patterns", "weak") else _annotations(str(masks))

    def row_labels(self) -> NDArray[np.integer]:
        """As for `WaferDataModule`; a COCO file knows better than the store."""
        return super().row_labels() if self.annotations is None else annotated_labels(self.annotations, self.store)

    def load(self) -> None:
        """Gather the cells of the split's rows, end to end."""
        self.maps = gather(self.store, self.rows)
        if self.target == "mask":
            self.maps = replace(self.maps, masks=torch.from_numpy(self._mask_bits()))

    def _mask_bits(self) -> NDArray[np.int16]:
        if len(self.class_names) > MOST_MASKS:
            raise UserError(
                f"{self.store.name} has {len(self.class_names)} classes; masks are for {MOST_MASKS} at most"
            )
        if self.annotations is not None:
            return annotated_masks(self.annotations, self.store, self.rows)
        if self.masks == "patterns":
            return pattern_masks(self.store, self.rows)
        return cached_weak_masks(self.store, self.rows, self.cache)

    def draw(self, batch: Any, train: bool) -> Batch:
        """Draw the batch on the device that the request has reached."""
        position = batch.position
        if self.maps.device != position.device:
            self.maps = self.maps.to(position.device)
        if train and self.augment is not None:
            generator = torch.Generator(position.device).manual_seed(int(batch.seed))
            states, masks = self.augment.draw(self.maps, position, self.canvas, generator)
        else:
            states, masks = render_masked(self.maps, position, self.canvas)
        drawn: Batch = self.labelled(encode(states, self.encoding), position)
        return drawn if masks is None else Batch(drawn.image, unpack(masks, self.num_classes), drawn.row)


def _annotations(masks: str) -> Annotations:
    """Read the file that `data.masks` names; what is no file may be a word misspelt."""
    if Path(masks).suffix.lower() != ".json" and not Path(masks).is_file():
        close = difflib.get_close_matches(masks.lower(), ("patterns", "weak"), n=1)
        hint = f"did you mean {close[0]}?" if close else "choose patterns, weak or a COCO file, which ends in .json"
        raise UserError(f"data.masks={masks} is neither patterns nor weak, nor a file; {hint}")
    return read_coco(masks)


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
