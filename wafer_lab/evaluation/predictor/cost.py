"""What decisions cost, and how that hangs on the price of an escape and on the threshold for normal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.predictor.decisions import MinimumCost, cost_matrix, needed_normal
from wafer_lab.evaluation.settings import Evaluation, TargetKind
from wafer_lab.metrics.scores import MultilabelCounts, confusion_matrix, multiclass_scores, multilabel_scores

Floats = NDArray[np.float64]

#: What an escape may cost, in false alarms.
RATIOS: Floats = np.geomspace(1, 100, 25)
#: Thresholds that `threshold_sensitivity` tries: even steps of the odds' logarithm.
THRESHOLDS: Floats = 1 / (1 + np.exp(-np.linspace(-7, 7, 71)))
#: The curve of the cost rule that is derived anew at each ratio.
AT_EACH_RATIO = "cost, at each ratio"

_SHOWN = ("escape_rate", "false_alarm_rate", "f1_macro")


def mean_cost(target: NDArray[Any], decisions: NDArray[Any], costs: NDArray[Any]) -> float:
    """Mean cost of decisions per wafer.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        decisions: likewise.
        costs: (C, C), or multi-label (2,), as `cost_matrix` gives them. Multi-label, a wafer's labels add up.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if target.ndim == 2:
        return float(_label_errors(target, decisions) @ costs)
    return float((confusion_matrix(target, decisions, len(costs)) * costs).sum() / len(target))


def cost_curve(
    target: NDArray[Any],
    probabilities: NDArray[Any],
    decisions: Mapping[str, NDArray[Any]],
    settings: Evaluation,
    class_names: Sequence[str],
    target_kind: TargetKind,
    ratios: NDArray[Any] = RATIOS,
) -> dict[str, Floats]:
    """Mean cost per wafer over the price of an escape.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        probabilities: (N, C), for the cost rule that knows the price.
        decisions: rule -> its decisions, which do not change with the price.
        settings: its `normal` and `wrong_defect_cost` count; its `cost_ratio` and `cost_matrix` do not.
        class_names: C names.
        target_kind: `multiclass` or `multilabel`.
        ratios: (R,) prices, in false alarms.

    Returns:
        Rule -> (R,) cost in false alarms; of those given, and `AT_EACH_RATIO`.

    Raises:
        UserError: no class is normal.
    """
    priced = [replace(settings, cost_ratio=float(ratio), cost_matrix=None) for ratio in ratios]
    costs = np.stack([cost_matrix(each, class_names, target_kind) for each in priced])
    curves: dict[str, Floats] = {}
    for rule, decided in decisions.items():
        if target_kind == "multilabel":
            curves[rule] = costs @ _label_errors(target, decided)
        else:
            curves[rule] = np.tensordot(costs, confusion_matrix(target, decided, len(class_names))) / len(target)
    anew = [MinimumCost.of(each, target_kind)(probabilities) for each in costs]
    curves[AT_EACH_RATIO] = np.array([mean_cost(target, *pair) for pair in zip(anew, costs, strict=True)])
    return curves


def threshold_sensitivity(
    target: NDArray[Any],
    probabilities: NDArray[Any],
    settings: Evaluation,
    class_names: Sequence[str],
    target_kind: TargetKind,
    base: Sequence[float] | None = None,
    thresholds: NDArray[Any] = THRESHOLDS,
) -> dict[str, Floats]:
    """Escapes, false alarms and macro F1 as the threshold for calling a wafer normal moves.

    Args:
        target: (N,) class indices, or (N, C) of 0/1.
        probabilities: (N, C).
        settings: its `normal` counts.
        class_names: C names.
        target_kind: multi-class, the threshold is that of normal (of all normal classes together) in
            `decisions.Thresholds`, the others sharing the rest as in `base`; multi-label, it is one for all labels.
        base: C thresholds; None: those of argmax. Multi-class, `base` itself is the point `normal_threshold(base)`.
        thresholds: (R,) in (0, 1).

    Returns:
        `threshold`, `escape_rate`, `false_alarm_rate` and `f1_macro`, each (R,).

    Raises:
        UserError: no class is normal.
    """
    points = np.asarray(thresholds, dtype=np.float64)
    classes = len(class_names)
    if target_kind == "multilabel":
        counts = [MultilabelCounts.of(target, probabilities >= point) for point in points]
        found = [multilabel_scores(each, class_names) for each in counts]
        return {"threshold": points} | {name: np.array([float(each[name]) for each in found]) for name in _SHOWN}
    normal = needed_normal(settings, class_names, "the threshold for normal")
    is_normal = np.isin(np.arange(classes), normal)
    relative = np.ones(classes) / classes if base is None else np.asarray(base, dtype=np.float64)
    share = np.where(is_normal, relative[is_normal].sum(), relative[~is_normal].sum())
    scores = probabilities / (relative / share)
    best_normal = np.where(is_normal, scores, -1.0).argmax(axis=1)
    best_defect = np.where(is_normal, -1.0, scores).argmax(axis=1)
    rows = np.arange(len(target))
    for_normal, for_defect = scores[rows, best_normal], scores[rows, best_defect]
    confusions = [
        confusion_matrix(target, np.where(for_normal * (1 - t) >= for_defect * t, best_normal, best_defect), classes)
        for t in points
    ]
    found_rates = multiclass_scores(np.stack(confusions), class_names, [class_names[k] for k in normal])
    return {"threshold": points} | {name: found_rates[name] for name in _SHOWN}


def normal_threshold(base: Sequence[float], normal: Sequence[int]) -> float:
    """Where thresholds stand on the axis of `threshold_sensitivity`: the share of the normal classes in their sum."""
    return float(sum(base[k] for k in normal) / sum(base))


def _label_errors(target: NDArray[Any], decisions: NDArray[Any]) -> Floats:
    """(2,) missed labels and labels too many, per wafer."""
    true, called = target == 1, decisions == 1
    return np.array([(true & ~called).sum(), (~true & called).sum()]) / len(target)
