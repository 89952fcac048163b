"""One interface over a run and its export: probabilities, where the model looks, and what is usual."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.predictor.usual import Usual
from wafer_lab.export.predictor import WaferModel


class Judge(Protocol):
    """`wafer_lab.workflows.labelling.Judge` that also says where it looks; `WaferModel` is one."""

    @property
    def kind(self) -> str:
        """`maps` or `images`."""

    @property
    def predictor(self) -> Predictor:
        """The classes and the decision rule."""

    def probabilities(self, wafers: Any) -> NDArray[Any]:
        """Calibrated probabilities, (N, C), of N maps or grey images, (H, W) uint8 each."""

    def activation(self, wafer: NDArray[Any]) -> NDArray[np.float32] | None:
        """Which places of one wafer speak for each class: (C, H, W) in [0, 1]; None where it cannot be said."""


@dataclass(frozen=True)
class DemoModel:
    """What the pages ask.

    Attributes:
        name: For people.
        judge: The run or the export.
        method: How activation maps are made, where there are any.
        usual: What is usual of the run's val wafers; None where that is not known.
    """

    name: str
    judge: Judge
    method: str
    usual: Usual | None

    @property
    def predictor(self) -> Predictor:
        """Classes, calibration and decision rule."""
        return self.judge.predictor

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the probabilities."""
        return self.predictor.class_names


def open_model(path: Path) -> DemoModel:
    """Open a run's folder, a .ckpt file, or an exported .onnx file, which needs no torch.

    Raises:
        UserError: It is none of these, or damaged.
    """
    return _exported(path) if path.suffix == ".onnx" else _run(path)


def _exported(path: Path) -> DemoModel:
    model = WaferModel(path)
    described = model.description
    usual = described.record.get("usual")
    try:
        known = None if usual is None else Usual.from_dict(usual)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    method = {"cam": "CAM", "hires_cam": "HiResCAM of the last feature map"}.get(described.activation or "", "")
    return DemoModel(f"{described.record.get('name', path.stem)} ({path.name})", model, method, known)


def _run(path: Path) -> DemoModel:
    from wafer_lab.demo.run import RunJudge
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.usual import usual_of

    loaded = load_task(path)
    name = str(loaded.config.get("name", path.name))
    return DemoModel(name, RunJudge(loaded), "HiResCAM", usual_of(path, loaded.predictor))
