"""A toy package and a tree of configs over it, laid out like conf/."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = {
    "__init__.py": "from .nets import Net as Network\nfrom toy_fab.losses import *\n",
    "kinds.py": """
from typing import Literal, Union
Target = Literal["multiclass", "multilabel"]
Size = Union[int, "Pair"]
Pair = tuple[int, int]
""",
    "base.py": """
from dataclasses import dataclass, field
from typing import ClassVar
class Module:
    pass
class Loss(Module):
    targets: ClassVar[tuple[str, ...]] = ("multiclass",)
    def __init__(self, target: str, class_weights=None):
        if target == "bad": raise ValueError("target is bad")
        if target == "bug": raise TypeError("a bug")
        self.target, self.class_weights = target, class_weights
@dataclass
class Options:
    rate: float
    names: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "x"
    made: int = field(init=False, default=0)
@dataclass
class MoreOptions(Options):
    depth: int = 3
""",
    "losses.py": """
from . import base
from .kinds import Target
try:
    from .base import Loss as Parent
except ImportError:
    Parent = None
class CrossEntropy(base.Loss):
    pass
class Focal(Parent):
    targets = ("multiclass", "multilabel")
    def __init__(self, gamma: float = 2.0, mode: Target = "multiclass", **rest):
        super().__init__(**rest)
        self.gamma = gamma
class Anything(Parent):
    targets = ("multiclass", "multilabel")
    def __init__(self, **rest):
        self.rest = rest
""",
    "nets.py": """
from .base import Module
from .kinds import Size
class Net(Module):
    def __init__(
        self, depth: int, width: Size = 8, norm: "Module | None" = None, *, drop: float = 0.0, name: str = None
    ):
        self.depth, self.width, self.norm, self.drop = depth, width, norm, drop
    @classmethod
    def small(cls, width: int = 4): return cls(1, width)
    @staticmethod
    def count(of): return of
def make(depth: int, /, width, *args, flag: bool = False, **more): return width
def schedule(optimizer, steps, warmup: float = 0.1): return warmup
def run(cfg): return cfg
""",
    "lazy.py": "def __getattr__(name): return int\n",
}

CONFIGS = {
    "train.yaml": """
defaults:
  - _self_
  - data: wafers
  - task: classify
  - loss: cross_entropy
  - model: net
  - imbalance: none
  - optimizer: adamw
  - trainer: default
  - experiment: null
  - debug: null
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
seed: 0
figures: true
name: ${hydra:runtime.choices.model}
outputs: ${hydra:runtime.output_dir}
hydra: {run: {dir: out/run}, sweep: {dir: out/sweep, subdir: "${hydra:job.num}"}, output_subdir: null}
""",
    "data/wafers.yaml": "path: .\ntarget: multiclass\nnum_classes: 9\ncanvas: 64\n",
    "data/mixed.yaml": "path: ???\ntarget: multilabel\nnum_classes: 8\ncanvas: 52\n",
    "task/classify.yaml": "_target_: toy_fab.losses.Anything\nmonitor: val/f1_macro\nmode: max\n",
    "loss/cross_entropy.yaml": "_target_: toy_fab.CrossEntropy\ntarget: ${data.target}\n",
    "loss/focal.yaml": "_target_: toy_fab.losses.Focal\ntarget: ${data.target}\ngamma: 2.0\n",
    "model/net.yaml": "_target_: toy_fab.Network\ndepth: 18\nwidth: ${data.canvas}\n",
    "model/net_deep.yaml": "defaults: [net, _self_]\ndepth: 50\n",
    "imbalance/none.yaml": "sampler: none\nclass_weights: none\n",
    "imbalance/both.yaml": "sampler: balanced\nclass_weights: balanced\n",
    "optimizer/adamw.yaml": "_target_: torch.optim.AdamW\n_partial_: true\nlr: 1e-3\n",
    "trainer/default.yaml": "_target_: lightning.pytorch.Trainer\nmax_epochs: 3\nprecision: 32-true\n",
    "experiment/deep.yaml": "# @package _global_\ndefaults: [{override /model: net_deep}]\nseed: 1\n",
    "experiment/broken.yaml": "# @package _global_\ndefaults: [{override /model: net_dep}]\n",
    "debug/smoke.yaml": "# @package _global_\ntrainer: {max_epochs: 1}\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="session", autouse=True)
def toy_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Importable as toy_fab; found once, because sources are cached for the life of the process."""
    folder = tmp_path_factory.mktemp("site")
    write(folder / "toy_fab", PACKAGE)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The folder of the toy configs."""
    return write(tmp_path / "conf", CONFIGS)
