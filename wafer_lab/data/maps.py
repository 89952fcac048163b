"""Wafer maps: every batch drawn by one gather, as a rule where the model is; see `wafer_lab.data.residency`."""

import difflib
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Batch, Request
from wafer_lab.data.canvas import ENCODINGS, MOST_MASKS, Encoding, encode, unpack
from wafer_lab.data.coco import Annotations, read_coco
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.masks import annotated_labels, annotated_masks, pattern_masks
from wafer_lab.data.residency import Canvases, Mapped, MaskBits, Residency, Resident, Views, gather
from wafer_lab.data.streams import Stream
from wafer_lab.data.weak_masks import cached_weak_masks, weak_masks
from wafer_lab.errors import UserError

_BLUR = 1  # sets the chances of blur apart from those of a request's other distortions


class MapDataModule(WaferDataModule):
    """Batches of wafer maps.

    Args:
        encoding: How die states become channels, see `wafer_lab.data.canvas.encode`.
        augment: Distortions of the training maps; None for none.
        masks: With `target=mask`, where masks come from: `patterns` (the simulator's own), `weak` (see
            `wafer_lab.data.weak_masks`) or a COCO file. With a file, its masks say which patterns a wafer has, and
            wafers that are not in it are unlabelled. None otherwise.
        residency: `device`: all maps of the split where the model is. `memory`: all in RAM, where the loader draws
            canvases and sends those. `mapped`: the same from the store's file, a batch at a time, for data beyond the
            memory; weak masks are then guessed anew for every batch.
        **options: As for `WaferDataModule`.
    """

    kind = "maps"

    def __init__(
        self,
        *,
        encoding: Encoding = "one_hot",
        augment: MapAugment | None = None,
        masks: str | None = None,
        residency: Residency = "device",
        **options: Any,
    ):
        super().__init__(**options)
        if encoding not in ENCODINGS:
            raise UserError(f"unknown data.encoding '{encoding}'; choose one of {', '.join(ENCODINGS)}")
        if residency not in get_args(Residency):
            raise UserError(f"unknown data.residency '{residency}'; choose one of {', '.join(get_args(Residency))}")
        self.encoding, self.augment, self.masks, self.residency = encoding, augment, masks, residency
        if (self.target == "mask") != (masks is not None):
            what = "needs data.masks=patterns, weak or a COCO file" if masks is None else "leave data.masks out"
            raise UserError(f"data.target={self.target}: {what}")
        self.annotations = None if masks in (None, "patterns", "weak") else _annotations(str(masks))

    def row_labels(self) -> NDArray[np.integer]:
        """As for `WaferDataModule`; a COCO file knows better than the store."""
        return super().row_labels() if self.annotations is None else annotated_labels(self.annotations, self.store)

    def load(self) -> None:
        """Gather the cells of the split's rows, end to end, unless they stay in the store."""
        masks = self._mask_bits() if self.target == "mask" else None
        self.place: Resident | Mapped
        if self.residency == "mapped":
            self.place = Mapped(self.store, self.rows, masks)
        else:
            self.place = Resident(gather(self.store, self.rows, masks), follows=self.residency == "device")

    def _mask_bits(self) -> MaskBits:
        if len(self.class_names) > MOST_MASKS:
            raise UserError(
                f"{self.store.name} has {len(self.class_names)} classes; masks are for {MOST_MASKS} at most"
            )
        if self.annotations is not None:
            return partial(annotated_masks, self.annotations, self.store)
        if self.masks == "patterns":
            return partial(pattern_masks, self.store)
        if self.residency == "mapped":
            return partial(weak_masks, self.store)
        return partial(cached_weak_masks, self.store, cache=self.cache)

    def canvases(self, stream: Stream | None = None) -> Canvases:
        """What draws the canvases of a request: of a training stream under its views, else as they are."""
        return Canvases(self.place, self.canvas, (None,) if stream is None else self._views(stream), self.share)

    def _views(self, stream: Stream) -> Views:
        return tuple(self.augment if view is None else view for view in stream.views)

    def requests(self, stream: Stream | None = None) -> Dataset[Any]:
        """Maps on the device of the model are drawn after the transfer; others come drawn from the loader."""
        return super().requests(stream) if self.residency == "device" else self.canvases(stream)

    def states(self, position: Tensor) -> NDArray[np.uint8]:
        """(B, S, S) die states of the canvases at (B,) positions, as they are."""
        drawn: NDArray[np.uint8] = self.canvases()[Request(position, 0)][0].cpu().numpy()
        return drawn

    def draw(self, batch: Any, stream: Stream | None = None) -> Batch:
        """Turn canvases, drawn here unless the loader has, into network input on the device of the request."""
        states, masks, request = self.canvases(stream)[batch] if isinstance(batch, Request) else batch
        device = request.position.device
        image = encode(states.to(device), self.encoding)
        if stream is not None:
            image = self._softened(image, self._views(stream), request.seed)
        drawn: Batch = self.labelled(image, request.position)
        if masks is None:
            return drawn
        return Batch(drawn.image, unpack(masks.to(device), self.num_classes), drawn.row)

    def _softened(self, image: Tensor, views: Views, seed: int) -> Tensor:
        """Blur the views that are to be, with chances of their own."""
        if not any(view is not None and view.blur for view in views):
            return image
        own = np.random.SeedSequence((seed, _BLUR)).generate_state(1)  # a CPU's generator takes 32 bits of a seed
        generator = torch.Generator(image.device).manual_seed(int(own[0]))
        parts = zip(image.chunk(len(views)), views, strict=True)
        return torch.cat([part if view is None else view.soften(part, generator, self.share) for part, view in parts])


def _annotations(masks: str) -> Annotations:
    """Read the file that `data.masks` names; what is no file may be a word misspelt."""
    if Path(masks).suffix.lower() != ".json" and not Path(masks).is_file():
        close = difflib.get_close_matches(masks.lower(), ("patterns", "weak"), n=1)
        hint = f"did you mean {close[0]}?" if close else "choose patterns, weak or a COCO file, which ends in .json"
        raise UserError(f"data.masks={masks} is neither patterns nor weak, nor a file; {hint}")
    return read_coco(masks)
