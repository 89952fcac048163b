"""What features are worth before anything is trained on them: nearest neighbours vote on test wafers.

Compares the encoder of a finished run with its own random weights and with plain pixels, on the same wafers.
    python benchmarks/neighbours.py RUN [k]
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wafer_lab.evaluation.intervals import judge
from wafer_lab.evaluation.views import wafers
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.finished import datamodule_of
from wafer_lab.workflows.predict import predict_split
from wafer_lab.workflows.pretraining import NeighbourVote


class Pixels(nn.Module):
    """The die states themselves, on a canvas of a fixed side."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, S, S) images -> (B, C * 1024) pixels."""
        return nn.functional.adaptive_avg_pool2d(image, 32).flatten(1)


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
    print(f"{k} neighbours among {len(datamodule.split.train):,} labelled wafers; chance is the largest class\n")
    print("| features | whitened | test macro F1 | accuracy |\n| --- | --- | --- | --- |")
    for (name, encoder), whiten in product(encoders.items(), (False, True)):
        vote = NeighbourVote(encoder.to(device).eval(), datamodule, device, k, whiten)
        part = wafers(
            predict_split(vote, datamodule, ("test",), device), "test", "d4" if 7 in datamodule.views else "none"
        )
        probabilities = np.exp(part.logits).mean(1)
        scores, bounds = judge(part.target, probabilities.argmax(1), probabilities, part.class_names, part.target_kind)
        cells = [f"{scores[s]:.3f} [{bounds[s][0]:.3f}, {bounds[s][1]:.3f}]" for s in ("f1_macro", "accuracy")]
        print(f"| {name} | {'yes' if whiten else 'no'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
