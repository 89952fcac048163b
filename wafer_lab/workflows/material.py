"""Wafers to explain, with what a run's predictor says of them: its test wafers, or simulated ones of known regions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wafer_lab.data.batches import Request
from wafer_lab.data.canvas import Maps, encode, render, turn
from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.images import ImageDataModule
from wafer_lab.data.rows import Rows
from wafer_lab.data.simulator import COMBINATIONS, Simulator
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.views import Wafers, wafers
from wafer_lab.models.classifier import Classifier
from wafer_lab.workflows.checkpoint import Loaded
from wafer_lab.workflows.finished import datamodule_of, read_config

BATCH = 64
#: Seed of the simulated wafers: one that no data set of a run is simulated with.
SEED = 811_457


@dataclass(frozen=True)
class Material:
    """N wafers to explain.

    Attributes:
        wafers: In the views of the run's predictor.
        probabilities: (N, C) float64, the predictor's.
        decisions: (N,) int64 or (N, C) int8, likewise.
        inputs: (n,) positions of wafers to their network input, (n, Ci, S, S) float32 on the CPU.
        picture: Position of a wafer to the wafer as a person sees it, (H, W) uint8.
        kind: `maps` or `images`.
        regions: (n, 2) wafers and classes to the region of that class's pattern, (n, S, S) bool, and the die states,
            (n, S, S) uint8; None where nobody knows.
    """

    wafers: Wafers
    probabilities: NDArray[np.float64]
    decisions: NDArray[Any]
    inputs: Callable[[NDArray[np.int64]], Tensor]
    picture: Callable[[int], NDArray[np.uint8]]
    kind: str
    regions: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]] | None = None


def run_wafers(run: Path, loaded: Loaded) -> Material:
    """The run's test wafers, with the answers that its report is made of.

    The data is that of the run folder's config.yaml, so a file that has moved can be named there.

    Raises:
        UserError: The config or the predictions are missing or damaged, or the data is not what it was.
    """
    table, predictor = Predictions.read(run / "predictions.parquet"), loaded.predictor
    datamodule = datamodule_of(read_config(run), run)
    datamodule.setup()
    if datamodule.fingerprint != table.data_fingerprint:
        raise UserError(
            f"the data has changed since the run was trained (it was {table.data_fingerprint}, now it is "
            f"{datamodule.fingerprint}); put the file back, or name it as data.path in {run / 'config.yaml'}"
        )
    if tuple(loaded.record["class_names"]) != table.class_names:
        raise UserError(f"the predictions and the checkpoint in {run} are of different classes; train it again")
    part = wafers(table, "test", predictor.tta)
    position = _positions(datamodule, part.index)
    if position is None or datamodule.split_digest != table.split_digest:
        raise UserError(
            f"{run / 'config.yaml'} splits the data otherwise than the run did (its predictions are of split "
            f"{table.split_digest}, this is {datamodule.split_digest}); put the settings of data back"
        )

    def inputs(rows: NDArray[np.int64]) -> Tensor:
        request = Request(torch.from_numpy(position[rows]), 0)
        return datamodule.draw(request).image

    def picture(row: int) -> NDArray[np.uint8]:
        if datamodule.kind == "maps":
            return datamodule.store.map(int(part.index[row]))
        assert isinstance(datamodule, ImageDataModule)
        return np.asarray(datamodule.canvases[position[row]].numpy(), np.uint8)

    probabilities = predictor.probabilities(part.logits)
    return Material(part, probabilities, predictor.decision(probabilities), inputs, picture, datamodule.kind)


def _positions(datamodule: WaferDataModule, index: NDArray[np.int64]) -> NDArray[np.intp] | None:
    """Where rows of the source stand in the data module; None where one does not."""
    order = np.argsort(datamodule.rows)
    place = np.searchsorted(datamodule.rows, index, sorter=order)
    position = order[np.minimum(place, len(order) - 1)]
    return position if np.array_equal(datamodule.rows[position], index) else None


def simulated_wafers(loaded: Loaded, network: Classifier, device: torch.device, count: int) -> Material:
    """Simulated wafers with a pattern the run knows, drawn and encoded as its data, all kinds equally often.

    Every wafer comes from a lot of its own, so they are independent.

    Raises:
        UserError: The run is not about wafer maps, or knows none of the simulator's patterns.
    """
    predictor = loaded.predictor
    config, names = loaded.config.data, tuple(loaded.record["class_names"])
    if str(config._target_).endswith("ImageDataModule"):
        raise UserError("this run was trained on images, and only wafer maps can be simulated; use --data test")
    kinds = ["+".join(kind) for kind in COMBINATIONS if kind and set(kind) <= set(names)]
    if config.target == "multiclass":
        kinds = [kind for kind in kinds if "+" not in kind]
    if not kinds:
        raise UserError(f"the simulator makes none of this run's classes ({', '.join(names)}); use --data test")
    source = Simulator(count, config.target, dict.fromkeys(kinds, 1.0), SEED, wafers_per_lot=1, lots_per_batch=256)
    states, patterns, labels, logits = [], [], [], []
    pictures: list[NDArray[np.uint8]] = []
    for rows in source.rows():
        states.append(_rendered(rows, rows.cells, config.canvas))
        patterns.append(_rendered(rows, rows.patterns, config.canvas))
        pictures += _pictures(rows)
        labels.append(rows.label)
        with torch.inference_mode():
            images = encode(states[-1], config.encoding)
            for image in torch.split(images, BATCH):
                views = [network(turn(image.to(device), view)).float().cpu() for view in VIEWS[predictor.tta]]
                logits.append(torch.stack(views, dim=1))
    drawn, bits = torch.cat(states), torch.cat(patterns)
    target = _in_order_of(names, source, np.concatenate(labels))
    said = Wafers(np.arange(count), target, torch.cat(logits).numpy(), names, config.target)
    probabilities = predictor.probabilities(said.logits)
    decisions = predictor.decision(probabilities)
    bit = torch.tensor([MIXEDWM38_CLASSES.index(name) if name in MIXEDWM38_CLASSES else -1 for name in names])

    def inputs(rows: NDArray[np.int64]) -> Tensor:
        return encode(drawn[torch.from_numpy(rows)], config.encoding)

    def regions(pairs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        rows, classes = torch.from_numpy(pairs).T
        asked = bit[classes][:, None, None]  # bit -1 is no pattern's, so nothing has it
        return (bits[rows].long() >> asked.clamp(min=0) & 1).bool() & (asked >= 0), drawn[rows]

    return Material(said, probabilities, decisions, inputs, pictures.__getitem__, "maps", regions)


def _rendered(rows: Rows, cells: Any, size: int) -> Tensor:
    """(n, S, S) uint8, die states or pattern bits of a batch of rows."""
    ends = torch.from_numpy(np.cumsum(rows.height.astype(np.int64) * rows.width))
    height, width = torch.from_numpy(rows.height), torch.from_numpy(rows.width)
    maps = Maps(torch.from_numpy(cells), ends - height * width, height, width)
    return render(maps, torch.arange(len(ends)), size)


def _pictures(rows: Rows) -> list[NDArray[np.uint8]]:
    """The maps of a batch of rows, (H, W) uint8 each."""
    assert rows.cells is not None
    sizes = rows.height.astype(np.int64) * rows.width
    starts = np.cumsum(sizes) - sizes
    parts = zip(starts, sizes, rows.height, rows.width, strict=True)
    return [rows.cells[start : start + size].reshape(height, width) for start, size, height, width in parts]


def _in_order_of(names: tuple[str, ...], source: Simulator, label: NDArray[Any]) -> NDArray[Any]:
    """The simulator's labels by the run's names, which may stand in another order."""
    if source.target == "multiclass":
        place = [names.index(name) if name in names else -1 for name in source.class_names]
        return np.asarray(np.array(place, np.int64)[label])
    columns = dict(zip(source.class_names, label.T, strict=True))
    absent = np.zeros(len(label), np.int8)
    return np.stack([columns.get(name, absent) for name in names], axis=1)


def members(labels: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(N, C) bool: which classes a target or a decision names."""
    return np.asarray(labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(classes))
