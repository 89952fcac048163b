"""Which wafers of a run's val and test parts the weights that it starts from were trained on."""

from collections.abc import Iterable, Mapping
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
    copies is looked for there. A source that was itself trained from weights has seen what those had.

    Args:
        weights: As the key `weights` takes them.
        target: Set up or split.

    Returns:
        The twins; their `unknown` says so where nobody knows what the weights were trained on.
    """
    found, met = Seen(Twins(near=()), Twins(near=())), set()
    while weights is not None and weights not in met:  # a ring is none that training makes, but files can be changed
        met.add(weights)
        one, weights = _generation(weights, target)
        found = one if len(met) == 1 else _both(found, one)
    return found


def _generation(weights: str, target: WaferDataModule) -> tuple[Seen, str | None]:
    """What weights have seen in their own training, and the weights that it began with."""
    run = run_of(weights)
    if run is None:
        unknown = Twins(unknown=f"{weights} is no run's folder, so what it was trained on is not known")
        return Seen(unknown, unknown), None
    try:
        config = read_config(run)
        source = datamodule_of(config, run)
        source.open_and_split()
    except UserError as error:
        unknown = Twins(unknown=f"the data of {run} is not at hand ({error})")
        return Seen(unknown, unknown), None
    fitted = _fitted_on(config, source)
    rows = {"val": fitted, "test": np.concatenate([fitted, source.split.val])}  # a val wafer that chose twice is usual
    val, test = (_twins(target, getattr(target.split, part), source, own) for part, own in rows.items())
    before = config.get("weights")
    return Seen(val, test, len(fitted)), None if before is None else str(before)


def _both(one: Seen, other: Seen) -> Seen:
    """What two generations of weights have seen together."""
    val, test = (_union(getattr(one, part), getattr(other, part)) for part in ("val", "test"))
    return Seen(val, test, one.trained + other.trained)


def _union(one: Twins, other: Twins) -> Twins:
    exact = {*one.exact, *other.exact}
    near = None if one.near is other.near is None else {*(one.near or ()), *(other.near or ())} - exact
    return Twins(tuple(sorted(exact)), None if near is None else tuple(sorted(near)), one.unknown or other.unknown)


def unseen_test(target: WaferDataModule, seen: Iterable[Seen]) -> NDArray[np.int64]:
    """The test wafers without a twin among what any source was trained on.

    Raises:
        UserError: There are none.
    """
    test = target.split.test
    left = test[~np.isin(test, [row for one in seen for row in one.test.rows])]
    if not len(left):
        raise UserError(
            "every test wafer has a twin among those that a source was trained on, so nothing is left to judge on; "
            "set workflow.drop_seen=false, or use other data or sources"
        )
    return left


def told(seen: Mapping[str, Seen]) -> list[str]:
    """What each source with weights had seen, in sentences."""
    found = []
    for name, one in seen.items():
        if one.test.unknown:
            found.append(f"{name}: {one.test.unknown}")
        elif one.trained:
            near = "; near duplicates are not looked for within one data set" if one.test.near is None else ""
            test, val = _counted(one.test, "test"), _counted(one.val, "val")
            found.append(f"{name} was trained on {one.trained:,} wafers, among them twins of {test} and of {val}{near}")
    return found


def learns_from_labels_alone(config: Mapping[str, Any]) -> bool:
    """Whether a run of that resolved config trains on labelled wafers and no others."""
    return str(config["task"].get("_target_")).rpartition(".")[2] in _LABELLED


def run_of(weights: str) -> Path | None:
    """The folder of the run that weights come from, where they lie in one."""
    path = Path(weights)
    folders = (path, path.parent, path.parent.parent) if path.exists() else ()
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def _fitted_on(config: Mapping[str, Any], source: WaferDataModule) -> NDArray[np.int64]:
    """The rows that a run's weights were fitted on."""
    if learns_from_labels_alone(config):
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


def _counted(twins: Twins, part: str) -> str:
    near = f" and {len(twins.near):,} more (near duplicates)" if twins.near is not None else ""
    return f"{len(twins.exact):,} {part} wafers (exact copies){near}"
