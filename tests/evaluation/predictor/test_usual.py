import json

import numpy as np
import pytest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.usual import SHARE, Usual, doubt, fit_usual
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers


def val(kind, wafers=2000, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (wafers, 1, classes)).astype(np.float32)
    p = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum(1, keepdims=True)
    if kind == "multilabel":
        target = (rng.random((wafers, classes)) < 1 / (1 + np.exp(-logits[:, 0]))).astype(np.int8)
    else:
        target = (p.cumsum(1) > rng.random((wafers, 1))).argmax(1)
    names = tuple("ABCD"[:classes])
    return Wafers(np.arange(wafers), target, logits, names, kind)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_the_promise_holds_on_other_wafers(kind):
    settings = Evaluation(calibration="none", coverage=0.9)
    usual = fit_usual(val(kind), settings)
    other = val(kind, seed=1)
    logits = other.logits[:, 0].astype(np.float64)
    p = 1 / (1 + np.exp(-logits)) if kind == "multilabel" else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    present = other.target == 1 if kind == "multilabel" else other.target[:, None] == np.arange(4)
    assert (usual.sets.sets(p) & present).sum() / present.sum() == pytest.approx(0.9, abs=0.03)
    assert (doubt(p, kind) <= usual.doubt).mean() == pytest.approx(SHARE, abs=0.02)


def test_doubt_by_hand():
    p = np.array([[0.7, 0.2, 0.1]])
    assert doubt(p, "multiclass") == pytest.approx([0.3])
    assert doubt(p, "multilabel") == pytest.approx([1 - 0.7 * 0.8 * 0.9])


def test_it_survives_json():
    usual = fit_usual(val("multiclass"), Evaluation(calibration="none"))
    assert Usual.from_dict(json.loads(json.dumps(usual.to_dict()))) == usual


@pytest.mark.parametrize("broken", [{"doubt": None}, {"sets": 3}, {"sets": {"coverage": "x"}}])
def test_damaged_values_are_one_message(broken):
    whole = fit_usual(val("multiclass"), Evaluation(calibration="none")).to_dict()
    for values in (whole | broken, {}):
        with pytest.raises(UserError, match="prediction sets are damaged"):
            Usual.from_dict(values)


def test_one_wafer_is_too_few():
    one = val("multiclass", wafers=1)
    with pytest.raises(UserError, match="too few"):
        fit_usual(one, Evaluation())
