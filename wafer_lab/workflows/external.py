"""Testing a run's network on another data set: beside its test part, or later by `wafer-lab evaluate --external`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.external import ExternalSet, open_external
from wafer_lab.data.near_duplicates import find_pairs, signatures
from wafer_lab.errors import UserError
from wafer_lab.evaluation.external import SPLIT, External, Twins
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.finished import datamodule_of
from wafer_lab.workflows.predict import predict_split


def external_set(datamodule: WaferDataModule) -> ExternalSet | None:
    """The external data that a run names, opened and checked before anything is trained; None where it names none.

    Args:
        datamodule: The run's, set up.

    Raises:
        UserError: As `wafer_lab.data.external.open_external`.
    """
    if datamodule.external is None:
        return None
    return open_external(
        datamodule.external,
        datamodule.cache,
        kind=datamodule.store.header.kind,
        class_names=datamodule.class_names,
        target=datamodule.label_kind,
        classes=datamodule.external_classes,
        limit=datamodule.limit,
        seed=datamodule.seed,
    )


def external_test(
    network: nn.Module, datamodule: WaferDataModule, found: ExternalSet | None, device: torch.device, run_dir: Path
) -> External | None:
    """Predict external wafers as the run's own: on the same canvas, in the same encoding and views.

    Args:
        network: The run's best.
        datamodule: The run's, set up.
        found: What `external_set` opened, if anything.
        device: Where to compute.
        run_dir: The run's folder; `external.parquet` and `external.json` are written into it.
    """
    if found is None:
        return None
    table = _predict(network, datamodule, found, device, datamodule.split_digest)
    external = External(table, found.origin, _twins(datamodule, found))
    external.write(run_dir)
    return external


def external_test_of(
    run: Path, config: Mapping[str, Any], own: Predictions, path: Path, classes: Mapping[str, str | None]
) -> External:
    """Test a finished run on other data; that which it was trained on is needed to count twins only.

    Args:
        run: Its folder, with its best checkpoint.
        config: Its config.
        own: Its predictions.
        path: The external data.
        classes: What its classes are called in the run, None to leave one out.

    Raises:
        UserError: The checkpoint is missing or of other classes, or as `wafer_lab.data.external.open_external`.
    """
    loaded, data = load_task(run), config["data"]
    if tuple(loaded.record["class_names"]) != own.class_names:
        raise UserError(f"the predictions and the checkpoint in {run} are of different classes; train it again")
    found = open_external(
        path,
        data["cache"],
        kind="images" if str(data.get("_target_")).endswith("ImageDataModule") else "maps",
        class_names=own.class_names,
        target=own.target_kind,
        classes=classes,
        limit=data.get("limit"),
        seed=data.get("seed", 0),
    )
    device = device_for()
    table = _predict(loaded.network, datamodule_of(config, run, found.store), found, device, own.split_digest)
    try:
        datamodule = datamodule_of(config, run)
        datamodule.open_and_split()
        if datamodule.split_digest != own.split_digest:
            raise UserError("its data or its split is no longer what it was")
    except UserError as error:
        return External(table, found.origin, Twins(unknown=f"the run's own data is not at hand ({error})"))
    return External(table, found.origin, _twins(datamodule, found))


def _predict(
    network: nn.Module, datamodule: WaferDataModule, found: ExternalSet, device: torch.device, split_digest: str
) -> Predictions:
    """The predictions of external wafers, under the name of their split and the digest of the run's."""
    table = predict_split(network, datamodule.over(found.store, found.rows), ("test",), device)
    return replace(table, split=np.full(len(table), SPLIT), split_digest=split_digest)


def _twins(datamodule: WaferDataModule, found: ExternalSet) -> Twins:
    """Which external wafers are copies, exact or near, of wafers that the run was fitted on or chosen by.

    Near duplicates are looked for among images only: among tens of thousands of maps it takes minutes, and
    `wafer-lab data audit --against` does it.
    """
    own, store = np.concatenate([datamodule.split.train, datamodule.split.val]), datamodule.store
    copies = np.isin(found.store.content[found.rows], store.content[own])
    exact, others = found.rows[copies], found.rows[~copies]
    near = None
    if store.kind == "images":
        pairs = find_pairs(signatures(found.store, others), signatures(store, own))
        near = tuple(others[np.unique(pairs.first)].tolist())
    return Twins(tuple(exact.tolist()), near)
