"""What a run leaves that trained an encoder for others to start from."""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.neighbours import FILE
from wafer_lab.metrics.neighbours import Moments, knn_probabilities
from wafer_lab.workflows.predict import predict_split

ENCODER = "encoder.safetensors"


def write_encoder(network: nn.Module, datamodule: WaferDataModule, device: torch.device, run_dir: Path, k: int) -> None:
    """Write the encoder by itself, and the table of what nearest neighbours among all labelled training wafers vote.

    Args:
        network: The trained network.
        datamodule: Set up.
        device: Where to compute.
        run_dir: The run's folder.
        k: How many vote.
    """
    encoder = network.get_submodule("encoder")
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError:
        print(f"note: {ENCODER} is left out, for it needs the package safetensors; weights={run_dir} works without it")
    else:
        half_written = run_dir / f".{ENCODER}"
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, half_written)
        os.replace(half_written, run_dir / ENCODER)
    voters = NeighbourVote(encoder.to(device).eval(), datamodule, device, k)
    predict_split(voters, datamodule, ("val", "test"), device).write(run_dir / FILE)


class NeighbourVote(nn.Module):
    """A classifier of nothing but features: (B, C, S, S) images -> (B, C) logits of the votes of nearest neighbours.

    Features have unit length; whitened, every direction in which the training wafers differ counts as much as any other
    (Jegou and Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012). Else the few directions
    that tell common wafers apart drown what tells rare ones.

    Args:
        encoder: In evaluation mode, on `device`.
        datamodule: Set up; the labelled wafers of its part `train` vote, the unlabelled ones help to whiten.
        device: Where to compute.
        k: How many vote.
        whiten: Whether to whiten.
    """

    @torch.inference_mode()
    def __init__(
        self, encoder: nn.Module, datamodule: WaferDataModule, device: torch.device, k: int, whiten: bool = True
    ):
        super().__init__()
        self.encoder, self.k, self.whitening = encoder, k, None
        self.multiclass, self.num_classes = datamodule.label_kind == "multiclass", datamodule.num_classes
        moments, features, labels = Moments(), [], []
        unlabelled = "unlabelled" in datamodule.first and len(datamodule.split.unlabelled) > 0
        for part in ("unlabelled", "train") if unlabelled else ("train",):
            for batch in datamodule.batches(part, device):
                unit = self._features(batch.image)
                moments.add(unit)
                if part == "train":
                    features.append(unit)
                    labels.append(batch.target)
        self.whitening = moments.whitening(device) if whiten else None
        self.features, self.labels = self._whitened(torch.cat(features)), torch.cat(labels)

    def forward(self, image: Tensor) -> Tensor:
        """Logits whose softmax, or sigmoid of multi-label data, is the share of the votes."""
        votes = knn_probabilities(self.features, self.labels, self.embed(image), self.num_classes, self.k)
        return votes.clamp(min=1e-6).log() if self.multiclass else votes.logit(1e-6)

    def embed(self, image: Tensor) -> Tensor:
        """(B, D) float32 features as they are compared."""
        return self._whitened(self._features(image))

    def _features(self, image: Tensor) -> Tensor:
        return F.normalize(self.encoder(image).float(), dim=1)

    def _whitened(self, unit: Tensor) -> Tensor:
        if self.whitening is None:
            return unit
        mean, matrix = self.whitening
        return (unit - mean) @ matrix
