"""What features are worth before anything is trained on them: nearest neighbours vote, and a linear probe learns.

Compares the encoder of a finished run with its own random weights and with plain pixels, as they are and whitened, on
the same wafers, for one view each. The probe is a logistic regression, its penalty chosen on val. Single-label data.
    python benchmarks/neighbours.py RUN [k]
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import nn

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.intervals import judge
from wafer_lab.metrics.neighbours import knn_probabilities
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.finished import datamodule_of
from wafer_lab.workflows.pretraining import NeighbourVote

PENALTIES = (0.01, 0.1, 1.0)


class Pixels(nn.Module):
    """The die states themselves, on a canvas of a fixed side."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, S, S) images -> (B, C * 1024) pixels."""
        return nn.functional.adaptive_avg_pool2d(image, 32).flatten(1)


@torch.inference_mode()
def embedded(vote: NeighbourVote, datamodule: WaferDataModule, part: str) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Features and labels of a part."""
    found = [(vote.embed(batch.image), batch.target) for batch in datamodule.batches(part, vote.features.device)]
    features, labels = (torch.cat(values) for values in zip(*found, strict=True))
    return features, labels.cpu().numpy()


def probed(vote: NeighbourVote, datamodule: WaferDataModule, queries: torch.Tensor) -> NDArray[np.float64]:
    """(n, C) what the best probe on val says of `queries`."""
    features, labels = vote.features.cpu().numpy(), vote.labels.cpu().numpy()
    val, truth = embedded(vote, datamodule, "val")
    probes = [LogisticRegression(C=penalty, max_iter=300).fit(features, labels) for penalty in PENALTIES]
    best = max(probes, key=lambda probe: f1_score(truth, probe.predict(val.cpu().numpy()), average="macro"))
    said = np.zeros((len(queries), datamodule.num_classes))
    said[:, best.classes_] = best.predict_proba(queries.cpu().numpy())
    return said


def main() -> None:
    run, k = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    loaded = load_task(run)
    datamodule = datamodule_of(loaded.record["config"], run)
    datamodule.setup()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    encoders = {
        "pixels": Pixels(),
        "random weights": build_network(loaded.config).get_submodule("encoder"),
        "the run's encoder": loaded.network.get_submodule("encoder"),
    }
    print(f"test macro F1; {k} neighbours among {len(datamodule.split.train):,} labelled wafers\n")
    print("| features | whitened | neighbours | linear probe |\n| --- | --- | --- | --- |")
    for (name, encoder), whiten in product(encoders.items(), (False, True)):
        vote = NeighbourVote(encoder.to(device).eval(), datamodule, device, k, whiten)
        queries, truth = embedded(vote, datamodule, "test")
        votes = knn_probabilities(vote.features, vote.labels, queries, datamodule.num_classes, k)
        cells = []
        for said in (votes.double().cpu().numpy(), probed(vote, datamodule, queries)):
            scores, bounds = judge(truth, said.argmax(1), said, datamodule.class_names, "multiclass")
            cells.append(f"{scores['f1_macro']:.3f} [{bounds['f1_macro'][0]:.3f}, {bounds['f1_macro'][1]:.3f}]")
        print(f"| {name} | {'yes' if whiten else 'no'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
