"""How far wafers lie from those that a network was trained on, in the space of its features."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wafer_lab.data.batches import Request
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.split import strata
from wafer_lab.evaluation.open_set.scores import NEIGHBOUR, knn_distances

# Training wafers that distances are measured from. More cost memory and time, and hardly move a distance.
_BANK = 10_000


@torch.inference_mode()
def knn_column(
    network: nn.Module,
    datamodule: WaferDataModule,
    parts: tuple[str, ...],
    device: torch.device,
    k: int = NEIGHBOUR,
    largest: int = _BANK,
) -> dict[str, NDArray[np.float32]]:
    """Distance of every wafer, as it is (view 0), to its k-th nearest training wafer; see `evaluation.open_set.scores`.

    Args:
        network: The trained network, with an `encoder`; it is moved to `device` and put into evaluation mode.
        datamodule: Set up.
        parts: Of the data module's parts; a training wafer is its own nearest neighbour.
        device: Where to compute the features.
        k: Which neighbour.
        largest: Most training wafers to measure from; beyond, see `bank_positions`.

    Returns:
        Part -> (n,) float32 in the order of `datamodule.batches(part, device)`.
    """
    encoder = network.to(device).eval().get_submodule("encoder")
    chosen = bank_positions(strata(datamodule.labels("train")), largest, datamodule.seed) + datamodule.first["train"]
    bank = []
    for start in range(0, len(chosen), datamodule.batch_size):
        position = torch.from_numpy(chosen[start : start + datamodule.batch_size]).to(device)
        bank.append(_features(encoder, datamodule.draw(Request(position, 0)).image))
    known = np.concatenate(bank)
    asked = {
        part: np.concatenate([_features(encoder, batch.image) for batch in datamodule.batches(part, device)])
        for part in parts
    }
    return {part: knn_distances(known, features, k) for part, features in asked.items()}


def bank_positions(stratum: NDArray[np.int64], largest: int, seed: int) -> NDArray[np.int64]:
    """Choose training wafers evenly over the classes: the rare ones stay whole, the frequent ones share the rest.

    Drawn in proportion, a rare class would have fewer than k wafers left, and all of its kind would look unknown.

    Args:
        stratum: (n,) class or label combination of each training wafer.
        largest: Most wafers to choose.
        seed: Of the choice.

    Returns:
        Sorted positions in `stratum`, all of them where there are at most `largest`.
    """
    if len(stratum) <= largest:
        return np.arange(len(stratum))
    _, kind, counts = np.unique(stratum, return_inverse=True, return_counts=True)
    chance = np.random.default_rng(seed).random(len(stratum))
    order = np.lexsort((chance, kind))
    rank = np.empty(len(stratum), dtype=np.int64)
    rank[order] = np.arange(len(stratum)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Everybody's first wafer before anybody's second one.
    return np.sort(np.lexsort((chance, rank))[:largest])


def _features(encoder: nn.Module, image: Tensor) -> NDArray[np.float32]:
    return np.asarray(encoder(image).float().cpu().numpy())
