"""Networks of conf/model, small and with settled batch statistics, and exports of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.decisions import Argmax
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.export.graph import Drawing

CONF = Path(__file__).resolve().parents[2] / "conf"
CANVAS = 32


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """network("resnet18", "head=segmentation") -> its random network for 5 classes, after a few batches."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.workflows.assemble import build_network

    def built(model: str, *overrides: str) -> nn.Module:
        facts = ["+data.in_channels=3", f"+data.canvas={CANVAS}", "+data.num_classes=5"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(overrides=["+head=classification", f"+model={model}", *facts, *overrides])
        torch.manual_seed(0)
        found = build_network(config).train()
        with torch.no_grad():
            for _ in range(3):
                found(torch.rand(4, 3, CANVAS, CANVAS))
        return found.eval()

    return built


@pytest.fixture
def drawing() -> Drawing:
    return Drawing("maps", CANVAS, "one_hot")


@pytest.fixture
def predictor() -> Callable[..., Predictor]:
    """predictor(tta="d4") -> one with a vector calibration that changes every class's probability."""

    def made(kind: str = "multiclass", tta: str = "none") -> Predictor:
        calibration = Calibration("vector", kind, (0.7, 1.1, 0.9, 1.3, 0.8), (0.1, -0.2, 0.0, 0.3, -0.1))
        return Predictor(Evaluation(tta=tta), calibration, Argmax(kind), tuple("ABCDE"), kind)

    return made
