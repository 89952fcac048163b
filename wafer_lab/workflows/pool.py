"""What a round's model says of the wafers that have no label yet."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from wafer_lab.active.acquisition import Pool, needs
from wafer_lab.data.canvas import turn
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.models.classifier import Classifier
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.predict import class_logits

Rows = NDArray[np.int64]


def check_acquisition(name: str, cfg: DictConfig) -> None:
    """Refuse an acquisition that cannot be computed for a run's network.

    Raises:
        UserError: There is none of that name, or it needs dropout that the head has not, or a last layer of wafers.
    """
    wanted = needs(name)
    if cfg.data.target == "mask" and name in ("badge", "bald"):
        raise UserError(f"workflow.acquisition={name} looks into the last layer, which is of pixels here; use hybrid")
    if "members" in wanted and not cfg.head.get("dropout"):
        raise UserError(
            f"workflow.acquisition={name} compares what the network says under several draws of its dropout, and "
            f"head.dropout={cfg.head.get('dropout')}; set head.dropout=0.3"
        )


def ask(
    run_dir: Any,
    datamodule: WaferDataModule,
    name: str,
    rows: Rows,
    labelled: Rows,
    accelerator: str,
    passes: int,
    oversample: int,
    seed: int,
) -> Pool:
    """Ask the best checkpoint of a run what an acquisition needs to know.

    Args:
        run_dir: A finished run.
        datamodule: Of the same data; its store is open.
        name: The acquisition.
        rows: (N,) rows of the store, the pool.
        labelled: (L,) those that have a label.
        accelerator: The trainer's.
        passes: Draws of dropout.
        oversample: As in `Pool`.
        seed: Of the draws.

    Returns:
        The pool, in the order of `rows`. Probabilities are calibrated and over the views of `evaluation.tta`; features
        are those of the wafers as they are.
    """
    wanted = needs(name)
    said: dict[str, Any] = {}
    target = datamodule.label_kind
    if wanted:
        loaded = load_task(run_dir)
        device = device_for(accelerator)
        network, pool = loaded.network.to(device).eval(), datamodule.over(datamodule.store, rows)
        if "probabilities" in wanted:
            logits = _logits(network, pool, VIEWS[loaded.predictor.tta], device)
            said["probabilities"] = loaded.predictor.probabilities(logits)
        if "members" in wanted:
            draws = _dropped(network, pool, passes, seed, device)
            said["members"] = np.stack([loaded.predictor.probabilities(one[:, None]) for one in draws])
        if "features" in wanted:
            known = datamodule.over(datamodule.store, labelled)
            said |= {"features": features(network, pool, device), "labelled": features(network, known, device)}
    return Pool(target, len(rows), oversample=oversample, **said)


@torch.inference_mode()
def features(network: nn.Module, datamodule: WaferDataModule, device: torch.device) -> Tensor:
    """(N, D) float32 pooled features of all wafers of the part `test`, on the device."""
    encoder = network.get_submodule("encoder")
    return torch.cat([encoder(batch.image).float() for batch in datamodule.batches("test", device)])


@torch.inference_mode()
def _logits(network: nn.Module, datamodule: WaferDataModule, views: tuple[int, ...], device: torch.device) -> Any:
    """(N, V, C) float32."""
    said = [
        torch.stack([class_logits(network, network(turn(batch.image, view)).float()) for view in views], dim=1).cpu()
        for batch in datamodule.batches("test", device)
    ]
    return torch.cat(said).numpy()


@torch.inference_mode()
def _dropped(
    network: nn.Module, datamodule: WaferDataModule, passes: int, seed: int, device: torch.device
) -> NDArray[np.float32]:
    """(M, N, C) logits under M draws of the head's dropout; the features are computed once."""
    assert isinstance(network, Classifier)
    seen = features(network, datamodule, device)
    network.head.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        said: NDArray[np.float32] = torch.stack([network.head(seen).float() for _ in range(passes)]).cpu().numpy()
    network.head.eval()
    return said
