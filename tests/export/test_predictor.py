import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.export.description import Description
from wafer_lab.export.predictor import WaferModel

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ["torch", "lightning", "omegaconf", "hydra", "pyarrow", "scipy", "sklearn", "yaml", "PIL", "onnx", "pandas"]


def test_wafers_of_any_sizes_are_judged_in_their_order(toy):
    model = WaferModel(toy())
    wafers = [np.full(shape, value) for shape, value in [((3, 5), 2), ((16, 16), 1), ((40, 7), 2), ((1, 1), 1)]]
    assert [answer.prediction for answer in model(wafers)] == ["fail", "pass", "fail", "pass"]
    half = np.ones((8, 6), np.uint8)
    half[:4] = 2
    assert model([half, *wafers])[0].probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.full((3, 3), 7), "holds the value 7"),
        (np.full((3, 3), -1), "holds the value -1"),
        (np.array([[1.0, np.nan]]), "holds the value nan"),
        (np.full((2, 2), 1.5), "holds the value 1.5"),
        (np.empty((0, 4)), r"shape \(0, 4\)"),
        (np.ones(5), r"shape \(5,\)"),
        (np.array([["a"]]), "a wafer map is"),
        (np.array([[{}]], dtype=object), "a wafer map is"),
        (np.zeros((5, 5)), "no die"),
    ],
)
def test_a_bad_wafer_is_said_and_the_others_are_judged(toy, bad, says):
    answers = WaferModel(toy())([np.full((2, 2), 2), bad, np.full((9, 4), 1)])
    assert [answer.prediction for answer in answers] == ["fail", "", "pass"]
    assert [bool(answer.error) for answer in answers] == [False, True, False]
    assert np.isnan(answers[1].probabilities).all()
    assert re.search(says, answers[1].error)


def test_sizes_at_the_ends(toy):
    huge = np.ones((4000, 4000), np.uint8)
    huge[:1000] = 3  # read as 2
    said = WaferModel(toy())([np.full((1, 1), 2.0), huge])
    assert [answer.prediction for answer in said] == ["fail", "pass"]
    assert said[1].probabilities[1] == pytest.approx(0.25)


def test_files_that_are_not_ours(toy, tmp_path):
    for name, content, says in [
        ("empty.onnx", b"", "is empty"),
        ("text.onnx", b"hello", "no ONNX model"),
        ("pickle.onnx", pickle.dumps(print), "no ONNX model"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=says):
            WaferModel(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        WaferModel(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="not one that wafer-lab export wrote"):
        WaferModel(toy("foreign.onnx", describe=False))
    with pytest.raises(UserError, match="newer wafer_lab"):
        WaferModel(toy("newer.onnx", format=99))
    for changes in ({"canvas": "x"}, {"predictor": {}}, {"kind": "wafers"}, {"more": 1}):
        with pytest.raises(UserError):
            WaferModel(toy("damaged.onnx", **changes))
    three = json.loads(Description("maps", 16, "one_hot", Predictor.plain(["a", "b", "c"], "multiclass")).to_json())
    with pytest.raises(UserError, match="as its description says"):
        WaferModel(toy("three_classes.onnx", predictor=three["predictor"]))


def test_weights_in_another_file_are_refused(toy, tmp_path):
    import onnx

    model = onnx.load(toy())
    secret = onnx.numpy_helper.from_array(np.zeros(100, np.float32), "secret")
    model.graph.initializer.append(secret)
    onnx.save(model, tmp_path / "two.onnx", save_as_external_data=True, location="w.bin", size_threshold=8)
    with pytest.raises(UserError, match="refers to other files"):
        WaferModel(tmp_path / "two.onnx")
    # however the length of the key is written
    content = (tmp_path / "two.onnx").read_bytes()
    assert b"\x08location" in content
    (tmp_path / "long.onnx").write_bytes(content.replace(b"\x08location", b"\x88\x00location"))
    with pytest.raises(UserError, match="refers to other files"):
        WaferModel(tmp_path / "long.onnx")


def test_it_needs_numpy_and_onnxruntime_only(toy):
    """In a process where nothing else of the stack can be imported."""
    script = f"""
import sys
absent = {ABSENT!r}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in absent:
            raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Blocked())
import numpy as np
from wafer_lab.export.predictor import WaferModel
print(WaferModel({str(toy())!r})([np.full((4, 4), 2)])[0].prediction)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.stdout, done.returncode) == ("fail\n", 0), done.stderr
