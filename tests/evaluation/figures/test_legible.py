"""Every figure on ordinary and on hard data: it draws without a warning, and no text lies on another."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.evaluation import figures

LONG = tuple(f"_Center$+Edge-Ring+Loc+Scratch and much more of it, number {k}" for k in range(38))


def by_class(names, seed: int = 0) -> dict[str, float]:
    return dict(zip(names, np.random.default_rng(seed).uniform(0.7, 1, len(names)).tolist(), strict=True))


def multiclass_figures(target, probabilities, names) -> dict[str, Callable[[], Figure]]:
    decisions, squared = probabilities.argmax(axis=1), probabilities**2
    scores = {f"f1/{name}": value for name, value in by_class(names).items()} | {"f1_macro": 0.9}
    intervals = {key: (value - 0.05, min(1.0, value + 0.05)) for key, value in scores.items()}
    ends = {name: (value - 0.05, value + 0.02) for name, value in by_class(names).items()}
    levels = {name: (value, *ends[name]) for name, value in by_class(names).items()}
    rates = by_class(names).items()
    rules = [{"name": n, "escape_rate": v / 10, "false_alarm_rate": 1 - v, "cost": v} for n, v in rates]
    ratios = np.geomspace(1, 100, 25)
    costs = {name: value * ratios for name, value in rates}
    support = dict.fromkeys(names, 12345)
    means, lows, highs = np.transpose(list(levels.values()))
    seeds = [[mean - 0.01, mean] for mean in means]
    grown = {
        name: [(k, m, m - 0.02, m + 0.02, m - 0.01, m + 0.01) for k, m in ((1, v), (2, v + 0.01))] for name, v in rates
    }
    labelled = {name: [(k, v, v - 0.02, v + 0.02, v - 0.01, v) for k in (90, 900)] for name, v in rates}
    return {
        "ensemble_sizes": lambda: figures.ensemble_sizes(grown, "f1", "a title"),
        "label_curves": lambda: figures.label_curves(labelled, "f1", "a title"),
        "confusion_matrix": lambda: figures.confusion_matrix(target, decisions, names, "multiclass", "a title"),
        "per_class_f1": lambda: figures.per_class_f1(scores, intervals, support, "a title"),
        "roc_curves": lambda: figures.roc_curves(target, probabilities, names, "multiclass", "a title"),
        "pr_curves": lambda: figures.pr_curves(target, probabilities, names, "multiclass", "a title"),
        "reliability": lambda: figures.reliability(squared, probabilities, target, "multiclass", 15, "a title"),
        "conformal": lambda: figures.conformal(by_class(names), by_class(names, 1), 0.9, {"class": 1.2}, "a title"),
        "cost_curve": lambda: figures.cost_curve(ratios, costs, 10, "a title"),
        "rules": lambda: figures.rules(rules, "a title"),
        "comparison": lambda: figures.comparison(names, means, lows, highs, seeds, "f1", "max", "a title"),
        "main_effects": lambda: figures.main_effects({"model": levels, names[0]: levels}, "f1_macro", "a title"),
    }


def multilabel_figures(target, probabilities, names) -> dict[str, Callable[[], Figure]]:
    decisions = (probabilities >= 0.5).astype(np.int8)
    return {
        "confusion_matrix": lambda: figures.confusion_matrix(target, decisions, names, "multilabel", "a title"),
        "roc_curves": lambda: figures.roc_curves(target, probabilities, names, "multilabel", "a title"),
        "pr_curves": lambda: figures.pr_curves(target, probabilities, names, "multilabel", "a title"),
        "reliability": lambda: figures.reliability(None, probabilities, target, "multilabel", title="a title"),
        "spurious_labels": lambda: figures.spurious_labels(target, decisions, names, "a title"),
        "exact_match_by_count": lambda: figures.exact_match_by_count(target, decisions, "a title"),
        "type_table": lambda: figures.type_table(target, decisions, names, "a title"),
    }


MULTICLASS = tuple(multiclass_figures(np.array([0]), np.array([[1.0, 0.0]]), ("a", "b")))
MULTILABEL = tuple(multilabel_figures(np.array([[0]]), np.array([[1.0]]), ("a",)))
NAMES = {2: ("pass $1", "fail_2"), 9: WM811K_CLASSES, 14: LONG[:14], 38: LONG}


@pytest.mark.parametrize("classes", NAMES)
@pytest.mark.parametrize("name", MULTICLASS)
def test_multiclass_texts_lie_apart(name, classes, multiclass, overlaps, smallest_text) -> None:
    figure = multiclass_figures(*multiclass(600, classes), NAMES[classes])[name]()
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    assert smallest_text(figure) >= (7.5 if classes <= 14 else 6)


@pytest.mark.parametrize("names", [MIXEDWM38_CLASSES, LONG[:8], LONG[:20]], ids=["real", "long", "many"])
@pytest.mark.parametrize("name", MULTILABEL)
def test_multilabel_texts_lie_apart(name, names, multilabel, overlaps, smallest_text) -> None:
    figure = multilabel_figures(*multilabel(600, len(names)), names)[name]()
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    assert smallest_text(figure) >= (7.5 if len(names) <= 14 else 6)


@pytest.mark.parametrize("case", ["one wafer", "constant", "certain", "certainly wrong"])
@pytest.mark.parametrize("name", MULTICLASS[:5])
def test_hard_multiclass_tables_draw(name, case, multiclass, words) -> None:
    target, probabilities = multiclass(1 if case == "one wafer" else 50)
    if case == "constant":
        probabilities = np.full_like(probabilities, 1 / 9)
    elif case.startswith("certain"):
        probabilities = np.eye(9)[target if case == "certain" else (target + 1) % 9]
    figure = multiclass_figures(target, probabilities, WM811K_CLASSES)[name]()
    figure.draw_without_rendering()
    assert not [text for text in words(figure) if "nan" in text]


@pytest.mark.parametrize("case", ["one wafer", "constant", "certain", "certainly wrong", "no labels", "all labels"])
@pytest.mark.parametrize("name", MULTILABEL)
def test_hard_multilabel_tables_draw(name, case, multilabel, words) -> None:
    target, probabilities = multilabel(1 if case == "one wafer" else 50)
    if case == "constant":
        probabilities = np.full_like(probabilities, 0.5)
    elif case == "no labels":
        target = np.zeros_like(target)
    elif case == "all labels":
        target = np.ones_like(target)
    elif case.startswith("certain"):
        probabilities = (target if case == "certain" else 1 - target).astype(float)
    figure = multilabel_figures(target, probabilities, MIXEDWM38_CLASSES)[name]()
    figure.draw_without_rendering()
    assert not [text for text in words(figure) if "nan" in text]


def test_overlaps_are_seen(overlaps) -> None:
    figure = Figure(figsize=(3, 3))
    axes = figure.subplots()
    axes.text(0.2, 0.5, "one")
    axes.text(0.7, 0.5, "two")
    axes.set_xlabel("x")
    figure.draw_without_rendering()
    assert overlaps(figure) == []
    axes.text(0.22, 0.52, "three")
    axes.plot([0, 1], [0, 1], label="line")
    axes.legend(loc="upper left")
    figure.draw_without_rendering()
    assert overlaps(figure) == [("three", "one"), ("legend", "x")]
