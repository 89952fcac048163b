"""Every option of conf/model, found on disk, composed as train.py would and built."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from wafer_lab.models.encoder import Encoder

CONF = Path(__file__).resolve().parents[2] / "conf"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "config" in metafunc.fixturenames:
        metafunc.parametrize("config", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))


@pytest.fixture
def build() -> Callable[..., Encoder]:
    """build("resnet18", "model.stem=3x3", canvas=32): an encoder with the weights of seed 0."""

    def build(config: str, *overrides: str, in_channels: int = 3, canvas: int = 32) -> Encoder:
        data = [f"+data.in_channels={in_channels}", f"+data.canvas={canvas}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(overrides=[f"+model={config}", *data, *overrides])
        torch.manual_seed(0)
        return instantiate(cfg.model)

    return build
