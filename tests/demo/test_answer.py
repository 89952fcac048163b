import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.demo.answer import answer
from wafer_lab.demo.causes import CAUSES, SOURCES, cause_of
from wafer_lab.demo.examples import simulated_examples
from wafer_lab.demo.page import answer_page, error_page, rows_page
from wafer_lab.evaluation.predictor.decisions import Argmax, Thresholds
from wafer_lab.evaluation.predictor.predictor import Predictor


class Multilabel:
    """Says the same labels of every wafer."""

    kind = "maps"
    predictor = Predictor.plain(MIXEDWM38_CLASSES, "multilabel")

    def __init__(self, *said):
        self.said = dict(said)

    def probabilities(self, wafers):
        return np.array([[self.said.get(name, 0.01) for name in MIXEDWM38_CLASSES]] * len(wafers))

    def activation(self, wafer):
        return None


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_the_answer_is_the_models(model, wafer, chances, share):
    states = wafer(share)
    said, expected = answer(model, states), chances(states)
    assert said.prediction == WM811K_CLASSES[expected.argmax()]
    assert said.prediction == {0.02: "none", 0.5: "Random", 0.95: "Near-full"}[share]
    assert said.probabilities == pytest.approx(dict(zip(WM811K_CLASSES, expected, strict=True)), abs=1e-6)
    assert list(said.probabilities.values()) == sorted(said.probabilities.values(), reverse=True)


def test_the_rule_decides_not_the_largest_probability(model, wafer):
    thresholds = tuple(0.001 if name == "Scratch" else 1.0 for name in WM811K_CLASSES)

    class Other:
        kind, predictor = "maps", replace(model.predictor, decision=Thresholds("multiclass", thresholds))
        probabilities, activation = model.judge.probabilities, model.judge.activation

    said = answer(replace(model, judge=Other()), wafer(0.02))
    assert (said.prediction, said.looked_for) == ("Scratch", "Scratch")
    assert next(iter(said.probabilities)) == "none"
    page = answer_page(said, "maps", "CAM", "x.npy")
    assert "the decision rule weighs classes, too" in page


def test_conformal_sets_hold_every_class_probable_enough(model, wafer, chances):
    states = wafer(0.2)  # between none and Random
    expected = {name for name, p in zip(WM811K_CLASSES, chances(states), strict=True) if p >= 1 - 0.7}
    found = answer(model, states).sets
    assert set(found.names) == expected
    assert len(found.names) == 2
    assert "90 %" in found.promise


def test_without_val_wafers_no_coverage_is_promised(model, wafer, chances):
    states = wafer(0.2)
    plain = replace(model, usual=None)
    found = answer(plain, states).sets
    p = dict(zip(WM811K_CLASSES, chances(states), strict=True))
    assert sum(p[name] for name in found.names) >= 0.95
    assert sum(p[name] for name in found.names[:-1]) < 0.95
    assert "no coverage is promised" in found.promise


def test_a_doubtful_wafer_gets_a_warning_that_says_how_weak_it_is(model, wafer):
    sure, torn = answer(model, wafer(0.02)), answer(model, wafer(0.2))
    assert sure.warning == ""
    for part in ("unknown pattern", "95 % of the run's val wafers", "weak", "80 %", ".69"):
        assert part in torn.warning
    assert answer(replace(model, usual=None), wafer(0.02)).warning == ""


def test_several_labels(model, wafer):
    mixed = replace(model, judge=Multilabel(("Donut", 0.9), ("Scratch", 0.7), ("Loc", 0.06)), usual=None)
    said = answer(mixed, wafer(0.1))
    assert (said.prediction, said.looked_for) == ("Donut+Scratch", "Donut")
    assert said.sets.names == ("Donut", "Scratch", "Loc")
    assert said.warning == ""  # .9 * .7 * .94 * .99^5 is above a half
    page = answer_page(said, "maps", "", "x")
    assert "cannot show where it looks" in page
    assert page.count('<tr class="chosen">') == 2
    nothing = answer(replace(mixed, judge=Multilabel()), wafer(0.1))
    assert (nothing.prediction, nothing.sets.names) == ("none", ())
    assert "empty" in answer_page(nothing, "maps", "", "x")
    doubtful = answer(replace(mixed, judge=Multilabel(("Donut", 0.6), ("Scratch", 0.6))), wafer(0.1))
    assert "combination of labels has a probability of 34 %" in doubtful.warning


def test_many_at_once_get_each_their_own(model, wafer, chances):
    wafers = [wafer(share, side) for side in (12, 20, 31) for share in np.linspace(0, 1, 20)]
    with ThreadPoolExecutor(8) as several:
        for states, said in zip(wafers, several.map(lambda states: answer(model, states), wafers), strict=True):
            assert said.prediction == WM811K_CLASSES[chances(states).argmax()]
            assert said.wafer is states


def test_the_page_says_it_all(model, wafer):
    said = answer(model, wafer(0.21))
    page = answer_page(said, "maps", "CAM", "lot <7>.npy")
    for part in ("<h2>", "Calibrated probabilities", "Prediction set", 'role="note"', "(CAM)", "illustrative"):
        assert part.lower() in page.lower()
    assert "lot &lt;7&gt;.npy" in page
    assert "20 &times; 20 cells" in page
    assert page.count("data:image/png;base64,") == 2
    assert page.count(" alt=") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is fetched


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_what_comes_from_outside_is_escaped(text, model, wafer):
    said = replace(answer(model, wafer(0.5)), prediction=text, looked_for=text, warning=text, rule=text)
    pages = (error_page(text), answer_page(said, "maps", text, text), rows_page([text], [[text]], text))
    assert all("<script" not in page and "<img src=x" not in page for page in pages)


def test_every_pattern_has_an_entry_and_every_source_is_used():
    assert set(CAUSES) == set(MIXEDWM38_CLASSES)
    assert {key for cause in CAUSES.values() for key in cause.sources} == set(SOURCES)
    assert cause_of("edge-ring") is CAUSES["Edge-Ring"]
    assert cause_of("none") is None


@pytest.mark.parametrize(
    ("kind", "names"), [("multiclass", WM811K_CLASSES), ("multilabel", (*MIXEDWM38_CLASSES, "none"))]
)
def test_there_is_one_example_per_class_always_the_same(kind, names):
    examples = simulated_examples(kind)
    assert tuple(examples) == names
    share = {name: (states == 2).sum() / (states > 0).sum() for name, states in examples.items()}
    assert share["none"] < 0.1 < share["Random"] < share["Near-full"]
    again = simulated_examples(kind)
    assert all(np.array_equal(again[name], states) for name, states in examples.items())


def test_a_bare_model_decides_by_argmax(model):
    assert isinstance(model.predictor.decision, Argmax)
