"""The predictions table of a trained network, in full precision, so that a wafer gets one answer everywhere."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wafer_lab.data.batches import Batch
from wafer_lab.data.canvas import turn
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.models.segmenter import Segmenter

#: Told a part of the split, a batch of it, and what the network says of the wafers as they are, before `class_logits`.
Watch = Callable[[str, Batch, Tensor], None]


@torch.inference_mode()
def predict_split(
    network: nn.Module,
    datamodule: WaferDataModule,
    parts: tuple[str, ...],
    device: torch.device,
    knn_distance: Mapping[str, NDArray[np.float32]] | None = None,
    watch: Watch | None = None,
) -> Predictions:
    """Predict some parts of a split, under every view that the data module names.

    Args:
        network: The trained network; it is moved to `device` and put into evaluation mode.
        datamodule: Set up.
        parts: Of the data module's parts.
        device: Where to compute.
        knn_distance: Of each part, what `novelty.knn_column` says of its wafers; None leaves the column out.
        watch: Sees every batch pass.

    Returns:
        One row per wafer and view, in the order of the parts, of the views and of the source. Of a network that draws
        masks, the labels of whole wafers.
    """
    network = network.to(device).eval()
    known = knn_distance or {}
    return Predictions.concat([_predict(network, datamodule, part, device, known.get(part), watch) for part in parts])


def class_logits(network: nn.Module, output: Tensor) -> Tensor:
    """(B, C) logits of whole wafers: what a network says, or what its masks say of each wafer."""
    return network.image_logits(output) if isinstance(network, Segmenter) else output


def _predict(
    network: nn.Module,
    datamodule: WaferDataModule,
    part: str,
    device: torch.device,
    knn_distance: NDArray[np.float32] | None,
    watch: Watch | None,
) -> Predictions:
    views = datamodule.views
    logits: list[list[Tensor]] = [[] for _ in views]
    index = []
    for batch in datamodule.batches(part, device):
        for place, view in enumerate(views):
            output = network(turn(batch.image, view)).float()
            logits[place].append(class_logits(network, output).cpu())
            if view == 0 and watch is not None:
                watch(part, batch, output)
        index.append(batch.row.cpu())
    rows = torch.cat(index).numpy()
    multiclass = datamodule.label_kind == "multiclass"
    targets = datamodule.labels(part).astype(np.int64 if multiclass else np.int8)
    lot = datamodule.store.lot
    return Predictions(
        index=np.tile(rows, len(views)),
        split=np.full(len(rows) * len(views), part),
        view=np.repeat(np.array(views, dtype=np.int8), len(rows)),
        target=np.concatenate([targets] * len(views)),
        logits=torch.cat([torch.cat(view) for view in logits]).numpy(),
        class_names=datamodule.class_names,
        target_kind="multiclass" if multiclass else "multilabel",
        split_digest=datamodule.split_digest,
        data_fingerprint=datamodule.fingerprint,
        lot=None if lot is None else np.tile(np.asarray(lot[rows]), len(views)),
        knn_distance=None if knn_distance is None else np.tile(knn_distance, len(views)),
    )
