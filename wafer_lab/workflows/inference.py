"""Labelling wafers of any source with a trained network."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wafer_lab.data.canvas import Maps, encode, render, turn
from wafer_lab.data.images import image_encoding, scale, shrunk
from wafer_lab.data.rows import Source
from wafer_lab.data.store import Store
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.workflows.checkpoint import Loaded
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.labelling import batches, label_source
from wafer_lab.workflows.predict import class_logits


class NetworkJudge:
    """A trained network and its predictor as what labels a source; see `wafer_lab.workflows.labelling.Judge`.

    Args:
        loaded: The network; it is moved to the GPU where there is one.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.config, self.predictor = loaded.config.data, loaded.predictor
        self.kind = kind_of(self.config)
        self.device = device_for()
        self.network = loaded.network.to(self.device)

    @torch.inference_mode()
    def probabilities(self, wafers: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(N, C) calibrated probabilities of N maps or grey images, (H, W) uint8 each."""
        if self.kind == "maps":
            image = drawn_maps(wafers, self.config, self.device)
        else:
            image = drawn_images(wafers, self.config, self.device)
        views = VIEWS[self.predictor.tta]
        said = [class_logits(self.network, self.network(turn(image, view)).float()).cpu() for view in views]
        return self.predictor.probabilities(torch.stack(said, dim=1).numpy())


def predict_source(
    loaded: Loaded, source: Source | Store, out: Path, progress: Callable[[int], None] = lambda count: None
) -> int:
    """Write the answer of a network and its predictor (views, calibration, decision rule) for every wafer of a source.

    Args:
        loaded: A trained network and its predictor.
        source: Labelled or not.
        out: A .parquet or .csv file to write, see `wafer_lab.workflows.labelling.label_source`.
        progress: Told how many wafers each step has finished.

    Returns:
        Number of wafers.

    Raises:
        UserError: The source does not fit the network, or `out` cannot be written. No partial file is left.
    """
    return label_source(NetworkJudge(loaded), source, out, progress).wafers


def kind_of(config: Any) -> str:
    """What a run's data module draws: `maps` or `images`."""
    return "images" if str(config._target_).endswith("ImageDataModule") else "maps"


def inputs(
    source: Source | Store, config: Any, device: torch.device
) -> Iterator[tuple[Tensor, list[NDArray[np.uint8]]]]:
    """Network input of wafer maps, batch by batch, in the source's order, and what it was made of.

    Args:
        source: Labelled or not.
        config: The data of the network's run, whose canvas and encoding are drawn.
        device: Where the input shall be.

    Yields:
        (B, C, S, S) float32; the B maps, (H, W) die states each.

    Raises:
        UserError: The source is of another kind than the network was trained on.
    """
    found = source.header.kind if isinstance(source, Store) else source.kind
    if found != kind_of(config):
        raise UserError(
            f"the model was trained on {kind_of(config)}, and the input holds {found}; name a model of those"
        )
    for batch in batches(source):
        yield drawn_maps(batch.wafers, config, device), batch.wafers


def drawn_maps(wafers: Sequence[NDArray[np.uint8]], config: Any, device: torch.device) -> Tensor:
    """Network input of maps of any sizes: (B, C, S, S) float32."""
    shapes = torch.tensor([wafer.shape for wafer in wafers], dtype=torch.int32)
    sizes = np.array([wafer.size for wafer in wafers])
    cells = torch.from_numpy(np.concatenate([wafer.ravel() for wafer in wafers]))
    maps = Maps(cells, torch.from_numpy(np.cumsum(sizes) - sizes), *shapes.T).to(device)
    return encode(render(maps, torch.arange(len(wafers), device=device), config.canvas), config.encoding)


def drawn_images(wafers: Sequence[NDArray[np.uint8]], config: Any, device: torch.device) -> Tensor:
    """Network input of grey images of any sizes: (B, C, S, S) float32."""
    grey = torch.from_numpy(np.stack([shrunk(wafer, config.canvas) for wafer in wafers]))
    return scale(grey.to(device), image_encoding(config.get("encoding", "grey"), config.in_channels))
