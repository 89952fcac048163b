"""A model whose answers are known: it looks at nothing but the share of failing dies."""

from pathlib import Path

import numpy as np
import pytest

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.evaluation.predictor.conformal import Conformal
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.predictor.usual import Usual
from wafer_lab.export.description import KEY, Description

# Logit of each class: slope * share of failing dies + offset. Few fail: none; half: Random; most: Near-full.
SLOPE = {"Near-full": 40.0, "Random": 20.0}
OFFSET = {"Near-full": -26.0, "Random": -10.0, "none": -6.0}
USUAL = Usual(Conformal(0.9, "marginal", (0.7,) * 9, ()), 0.4)


def write_model(file: Path, usual: Usual | None = USUAL) -> Path:
    """An .onnx file as `wafer-lab export` writes it, made by hand so that no torch is needed."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    slope, offset = (
        np.array([[part.get(name, low) for name in WM811K_CLASSES]], np.float32)
        for part, low in ((SLOPE, 0.0), (OFFSET, -9.0))
    )
    constants = {"slope": slope, "offset": offset, "two": np.uint8(2), "zero": np.uint8(0)}
    constants |= {"sides": np.array([1, 2]), "as_maps": np.array([0, 9, 1, 1])}
    nodes = [
        helper.make_node("Equal", ["wafers", "two"], ["fails"]),
        helper.make_node("Greater", ["wafers", "zero"], ["on"]),
        helper.make_node("Cast", ["fails"], ["fails_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["on"], ["on_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["fails_f", "sides"], ["failing"], keepdims=0),
        helper.make_node("ReduceSum", ["on_f", "sides"], ["dies"], keepdims=0),
        helper.make_node("Div", ["failing", "dies"], ["share"]),
        helper.make_node("Unsqueeze", ["share", "one"], ["column"]),
        helper.make_node("Mul", ["column", "slope"], ["sloped"]),
        helper.make_node("Add", ["sloped", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Reshape", ["logits", "as_maps"], ["activation"]),
    ]
    constants["one"] = np.array([1])
    graph = helper.make_graph(
        nodes,
        "by_share",
        [helper.make_tensor_value_info("wafers", TensorProto.UINT8, ["n", "h", "w"])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 9]),
            helper.make_tensor_value_info("activation", TensorProto.FLOAT, ["n", 9, 1, 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    predictor = Predictor.plain(WM811K_CLASSES, "multiclass")
    record = {"name": "by share"} | ({"usual": usual.to_dict()} if usual else {})
    described = Description("maps", 32, "one_hot", predictor, activation="cam", record=record)
    model.metadata_props.add(key=KEY, value=described.to_json())
    onnx.save(model, file)
    return file


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("demo") / "share.onnx")


@pytest.fixture(scope="session")
def model(model_file):
    from wafer_lab.demo.model import open_model

    return open_model(model_file)


@pytest.fixture(scope="session")
def wafer():
    """wafer(0.3) -> a round map of which that share of the dies fails, from the top."""

    def made(share: float, side: int = 20) -> np.ndarray:
        down, right = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
        states = (down**2 + right**2 <= 1).astype(np.uint8)
        dies = np.flatnonzero(states)
        states.flat[dies[: round(share * len(dies))]] = 2
        return states

    return made


@pytest.fixture(scope="session")
def chances():
    """chances(states) -> (9,) what the model by hand has to say."""

    def of(states: np.ndarray) -> np.ndarray:
        share = (states == 2).sum() / (states > 0).sum()
        logits = [SLOPE.get(name, 0.0) * share + OFFSET.get(name, -9.0) for name in WM811K_CLASSES]
        return np.exp(logits) / np.exp(logits).sum()

    return of
