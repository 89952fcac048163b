"""The predictions table of a trained network, in full precision, so that a wafer gets one answer everywhere."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.predictions import Predictions


@torch.inference_mode()
def predict_split(
    network: nn.Module, datamodule: WaferDataModule, parts: tuple[str, ...], device: torch.device
) -> Predictions:
    """Predict some parts of a split.

    Args:
        network: The trained network; it is moved to `device` and put into evaluation mode.
        datamodule: Set up.
        parts: Of `train`, `val` and `test`.
        device: Where to compute.

    Returns:
        One row per wafer of the parts, in the order of the parts and of the source.
    """
    network = network.to(device).eval()
    tables = []
    for part in parts:
        logits, target, index = [], [], []
        for batch in datamodule.batches(part, device):
            logits.append(network(batch.image).float().cpu())
            target.append(batch.target.cpu())
            index.append(batch.row.cpu())
        columns = (torch.cat(column).numpy() for column in (index, target, logits))
        tables.append(_table(datamodule, part, *columns))
    return Predictions.concat(tables)


def _table(
    datamodule: WaferDataModule,
    part: str,
    index: NDArray[np.int64],
    target: NDArray[Any],
    logits: NDArray[np.float32],
) -> Predictions:
    multiclass = datamodule.target == "multiclass"
    return Predictions(
        index=index,
        split=np.full(len(index), part),
        view=np.zeros(len(index), dtype=np.int8),
        target=target.astype(np.int64 if multiclass else np.int8),
        logits=logits,
        class_names=datamodule.class_names,
        target_kind="multiclass" if multiclass else "multilabel",
        split_digest=datamodule.split_digest,
        data_fingerprint=datamodule.fingerprint,
    )
