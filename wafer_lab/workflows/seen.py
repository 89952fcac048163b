"""Which wafers of a run's val and test parts the weights that it starts from were trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.near_duplicates import find_pairs, signatures
from wafer_lab.errors import UserError
from wafer_lab.evaluation.external import Twins
from wafer_lab.workflows.finished import CONFIG, datamodule_of, read_config

# Tasks that learn from labelled wafers alone; the others see the unlabelled ones of their data too.
_LABELLED = ("ClassificationTask", "SegmentationTask")


@dataclass(frozen=True)
class Seen:
    """What a source has seen of a target's wafers.

    Attributes:
        val: Wafers of the target's val part with a twin among those that the source was fitted on.
        test: Of its test part, among those too that the source was chosen by.
        trained: How many wafers the source was fitted on; 0 where that is nothing, or not known.
    """

    val: Twins
    test: Twins
    trained: int = 0


def seen_by(weights: str | None, target: WaferDataModule) -> Seen:
    """Look for exact copies of what a source was trained on, and near duplicates where that was other data.

    Within one data set the split keeps copies together, or near duplicates too (`data.group`), so nothing but exact
    copies is looked for there.

    Args:
        weights: As the key `weights` takes them.
        target: Set up or split.

    Returns:
        The twins; their `unknown` says so where nobody knows what the weights were trained on.
    """
    if weights is None:
        return Seen(Twins(near=()), Twins(near=()))
    run = run_of(weights)
    if run is None:
        unknown = Twins(unknown=f"{weights} is no run's folder, so what it was trained on is not known")
        return Seen(unknown, unknown)
    try:
        config = read_config(run)
        source = datamodule_of(config, run)
        source.open_and_split()
    except UserError as error:
        unknown = Twins(unknown=f"the data of {run} is not at hand ({error})")
        return Seen(unknown, unknown)
    fitted = _fitted_on(config, source)
    rows = {"val": fitted, "test": np.concatenate([fitted, source.split.val])}  # a val wafer that chose twice is usual
    val, test = (_twins(target, getattr(target.split, part), source, own) for part, own in rows.items())
    return Seen(val, test, len(fitted))


def run_of(weights: str) -> Path | None:
    """The folder of the run that weights come from, where they lie in one."""
    path = Path(weights)
    folders = (path, path.parent, path.parent.parent) if path.exists() else ()
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def _fitted_on(config: Mapping[str, Any], source: WaferDataModule) -> NDArray[np.int64]:
    """The rows that a run's weights were fitted on."""
    if str(config["task"].get("_target_")).rpartition(".")[2] in _LABELLED:
        return source.split.train
    return np.concatenate([source.split.train, source.split.unlabelled])


def _twins(
    target: WaferDataModule, rows: NDArray[np.int64], source: WaferDataModule, trained: NDArray[np.int64]
) -> Twins:
    copies = np.isin(target.store.content[rows], source.store.content[trained])
    exact, others = rows[copies], rows[~copies]
    near: tuple[int, ...] | None = None
    if source.store.kind == target.store.kind and source.fingerprint != target.fingerprint:
        print(f"looking for near duplicates of {len(others):,} wafers among {len(trained):,}", flush=True)
        pairs = find_pairs(signatures(target.store, others), signatures(source.store, trained))
        near = tuple(others[np.unique(pairs.first)].tolist())
    return Twins(tuple(exact.tolist()), near)
