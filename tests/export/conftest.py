"""A toy model file that needs no training and no export, and predictors for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.decisions import Argmax
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.export.description import KEY, Description


@pytest.fixture(scope="session")
def predictor() -> Callable[..., Predictor]:
    """predictor(tta="d4") -> one with a vector calibration that changes every class's probability."""

    def made(kind: str = "multiclass", tta: str = "none") -> Predictor:
        calibration = Calibration("vector", kind, (0.7, 1.1, 0.9, 1.3, 0.8), (0.1, -0.2, 0.0, 0.3, -0.1))
        return Predictor(Evaluation(tta=tta), calibration, Argmax(kind), tuple("ABCDE"), kind)

    return made


@pytest.fixture
def toy(tmp_path) -> Callable[..., Path]:
    """toy() -> an .onnx file whose classes are `pass` and `fail`, with the share of cells over 1 as probability."""
    import onnx
    from onnx import TensorProto, helper

    def written(name: str = "toy.onnx", describe: bool = True, **changes: object) -> Path:
        nodes = [
            helper.make_node("Cast", ["wafers"], ["cells"], to=TensorProto.FLOAT),
            helper.make_node("Greater", ["cells", "one"], ["over"]),
            helper.make_node("Cast", ["over"], ["failed"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["failed", "axes"], ["fail"], keepdims=0),
            helper.make_node("Unsqueeze", ["fail", "last"], ["share"]),
            helper.make_node("Sub", ["one", "share"], ["rest"]),
            helper.make_node("Concat", ["rest", "share"], ["probabilities"], axis=1),
        ]
        constants = [
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        ]
        taken = [helper.make_tensor_value_info("wafers", TensorProto.UINT8, ["n", "h", "w"])]
        given = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])]
        graph = helper.make_graph(nodes, "toy", taken, given, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        if describe:
            said = json.loads(
                Description("maps", 16, "one_hot", Predictor.plain(["pass", "fail"], "multiclass")).to_json()
            )
            model.metadata_props.add(key=KEY, value=json.dumps({**said, **changes}))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return written
