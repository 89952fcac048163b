"""Judging wafers with an exported file: numpy and onnxruntime are all it needs.

from wafer_lab.export.predictor import WaferModel

model = WaferModel("model.onnx")
for answer in model([map_of_26_by_26, map_of_41_by_33]):
print(answer.prediction, answer.probabilities, answer.error)
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.dies import as_grey, as_states, check_dies
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.export.description import KEY, Description
from wafer_lab.export.wafers import draw, enlarge

#: Wafers judged in one go.
BATCH = 256
# Pixels of all views that the network sees at once. More do not stay in a processor's cache: eight views of 64 wafers
# of 64 x 64 took 1.6 times as long a wafer as those of 8, in a ResNet-18 of width 32, and 1.6 GB.
_PIXELS = 2**18

# How ONNX writes "location", the key of a tensor that lies in another file, whatever the order of fields; the length
# may be written longer than it need be.
_ELSEWHERE = re.compile(rb"(?:\x08|\x88\x80*\x00)location")
_HINT = "write one with wafer-lab export RUN"


class Answer(NamedTuple):
    """What is said of one wafer.

    Attributes:
        prediction: A class name, names joined by `+`, or `none`; empty where there is an error.
        probabilities: (C,) float32, calibrated; NaN where there is an error.
        error: What is wrong with the wafer; empty where nothing is.
    """

    prediction: str
    probabilities: NDArray[np.float32]
    error: str = ""


class WaferModel:
    """An exported network, ready to judge.

    Args:
        path: The .onnx file that `wafer-lab export` wrote.
        threads: Of onnxruntime; None: what it takes by itself.

    Raises:
        UserError: onnxruntime is missing, or the file is missing, damaged, not ours, or refers to other files.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        self.path = Path(path)
        self._session = _session(self.path, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise UserError(f"{path} is an ONNX model, but not one that wafer-lab export wrote; {_HINT}")
        try:
            self.description = Description.from_json(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        given = self._session.get_outputs()
        self.outputs = [output.name for output in given]
        taken = [(i.type, len(i.shape)) for i in self._session.get_inputs()]
        classes = given[0].shape[-1:]
        if (
            taken != [("tensor(uint8)", 3)]
            or self.outputs[:1] != ["probabilities"]
            or classes != [len(self.class_names)]
        ):
            raise UserError(f"{path} does not take wafers and give probabilities as its description says; {_HINT}")
        self._input = self._session.get_inputs()[0].name

    @property
    def predictor(self) -> Predictor:
        """The classes and the decision rule."""
        return self.description.predictor

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C class names, in the order of the probabilities."""
        return self.predictor.class_names

    @property
    def kind(self) -> str:
        """What it judges: `maps` or `images`."""
        return self.description.kind

    def __call__(self, wafers: Sequence[NDArray[Any]]) -> list[Answer]:
        """Judge wafers; what is wrong with one is said in its answer, and the others are judged.

        Args:
            wafers: Maps, (H, W) of die states, or images, (H, W) uint8 grey levels; of any sizes.
        """
        good: list[NDArray[np.uint8]] = []
        errors = []
        for wafer in wafers:
            try:
                good.append(self._checked(wafer))
                errors.append("")
            except UserError as error:
                errors.append(str(error))
        parts = [self.probabilities(good[start : start + BATCH]) for start in range(0, len(good), BATCH)]
        found = iter(zip(self.names(np.concatenate(parts)), np.concatenate(parts), strict=True) if parts else ())
        nothing = np.full(len(self.class_names), np.nan, np.float32)
        return [Answer("", nothing, error) if error else Answer(*next(found)) for error in errors]

    def probabilities(self, wafers: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Calibrated probabilities of checked wafers.

        Maps of several sizes are drawn on canvases first, as the graph would, and judged together; images of one size
        are judged together.

        Args:
            wafers: (H, W) uint8 each.

        Returns:
            (N, C) float32.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, wafer in enumerate(wafers):
            groups.setdefault(wafer.shape, []).append(place)
        if len(groups) > 1 and self.kind == "maps":
            wafers = [draw(wafer, self.description.canvas) for wafer in wafers]
            groups = {wafers[0].shape: list(range(len(wafers)))}
        found = np.empty((len(wafers), len(self.class_names)), np.float32)
        at_once = max(1, _PIXELS // (self.description.canvas**2 * len(VIEWS[self.predictor.tta])))
        for same in groups.values():
            for places in (same[start : start + at_once] for start in range(0, len(same), at_once)):
                stack = np.stack([wafers[place] for place in places])
                found[places] = self.run(stack, ["probabilities"])["probabilities"]
        return found

    def names(self, probabilities: NDArray[Any]) -> list[str]:
        """Decide by the predictor's rule: (N, C) probabilities to N names, joined by `+` where there are several."""
        return named(self.predictor, np.asarray(probabilities, dtype=np.float64))

    def activation(self, wafer: NDArray[Any]) -> NDArray[np.float32] | None:
        """Which places of a wafer speak for each class.

        CAM, or where the head stands on mean and maximum HiResCAM of the last feature map, which is coarse: enlarged to
        the canvas and read at each die.

        Args:
            wafer: (H, W), a map or an image.

        Returns:
            (C, H, W) float32 in [0, 1], the maximum of each class 1; all zero where nothing speaks for it. None where
            the model has no such map.

        Raises:
            UserError: The wafer is none.
        """
        if self.description.activation is None:
            return None
        checked = self._checked(wafer)
        canvas, (height, width) = self.description.canvas, checked.shape
        evidence = self.run(checked[None], ["activation"])["activation"][0]
        heat = enlarge(np.maximum(evidence, 0), canvas + self.description.padding)[:, :canvas, :canvas]
        rows, columns = ((2 * np.arange(n) + 1) * canvas // (2 * n) for n in (height, width))
        heat = heat[:, rows[:, None], columns]
        peak = heat.max((1, 2), keepdims=True)
        return np.asarray(np.divide(heat, peak, out=np.zeros_like(heat), where=peak > 0), np.float32)

    def _checked(self, wafer: Any) -> NDArray[np.uint8]:
        if self.kind == "images":
            return as_grey(np.asarray(wafer))
        states = as_states(np.asarray(wafer))
        check_dies(states)
        return states

    def run(self, wafers: NDArray[np.uint8], outputs: Sequence[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """Ask the graph itself.

        Args:
            wafers: (N, H, W) uint8, N at least 1.
            outputs: Names of what is wanted; None: all.

        Returns:
            By name; see `wafer_lab.export.graph.WaferGraph.forward`.
        """
        wanted = list(outputs or self.outputs)
        return dict(zip(wanted, self._session.run(wanted, {self._input: wafers}), strict=True))


def named(predictor: Predictor, probabilities: NDArray[np.float64]) -> list[str]:
    """Decide by a predictor's rule: (N, C) probabilities to N class names, names joined by `+`, or `none`."""
    names, decisions = predictor.class_names, predictor.decision(probabilities)
    if predictor.target_kind == "multiclass":
        return [names[k] for k in decisions]
    return ["+".join(np.array(names)[row]) or "none" for row in decisions == 1]


def _session(path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs the package onnxruntime ({error}); pip install onnxruntime") from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name a file that wafer-lab export wrote") from None
    if not content:
        raise UserError(f"{path} is empty; {_HINT}")
    if _ELSEWHERE.search(content):
        raise UserError(f"{path} refers to other files, which are not opened; {_HINT}, which writes a single file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # From memory, so that no path in it means anything.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base class of their own
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{path} is no ONNX model that can be loaded ({reason}); {_HINT}") from None
