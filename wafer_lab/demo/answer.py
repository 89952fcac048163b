"""What a model says of one wafer, ready to be shown."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wafer_lab.demo.model import DemoModel
from wafer_lab.evaluation.predictor.usual import SHARE, doubt
from wafer_lab.export.predictor import named

# Without val wafers to compare with: the coverage that calibrated probabilities alone are asked for, and the doubt
# beyond which a warning is shown.
_COVERAGE, _DOUBT = 0.95, 0.5


@dataclass(frozen=True)
class PredictionSet:
    """Classes that a wafer may be of.

    Attributes:
        names: The classes, most probable first.
        promise: What may be relied on, a sentence.
    """

    names: tuple[str, ...]
    promise: str


@dataclass(frozen=True)
class Answer:
    """What is said of one wafer.

    Attributes:
        wafer: (H, W) uint8, as it was given.
        prediction: A class name, names joined by `+`, or `none`, by the predictor's rule.
        rule: The name of the rule.
        probabilities: Class -> calibrated probability, most probable first.
        sets: The prediction set.
        warning: Why this may be no known pattern; empty where nothing says so.
        looked_for: The class whose heat is shown.
        heat: (H, W) in [0, 1]: what speaks for that class; None where the model cannot say.
    """

    wafer: NDArray[np.uint8]
    prediction: str
    rule: str
    probabilities: dict[str, float]
    sets: PredictionSet
    warning: str
    looked_for: str
    heat: NDArray[np.float32] | None


def answer(model: DemoModel, wafer: NDArray[np.uint8]) -> Answer:
    """Ask the model about one wafer, (H, W) uint8.

    Raises:
        UserError: It is no wafer.
    """
    p = np.asarray(model.judge.probabilities([wafer]), dtype=np.float64)
    prediction = named(model.predictor, p)[0]
    order = np.argsort(-p[0], kind="stable")
    names = model.class_names
    shown = next((k for k in order if names[k] in prediction.split("+")), order[0])
    heat = model.judge.activation(wafer)
    return Answer(
        wafer=wafer,
        prediction=prediction,
        rule=model.predictor.decision.rule.replace("_", " "),
        probabilities={names[k]: float(p[0, k]) for k in order},
        sets=_set(model, p, order),
        warning=_warning(model, p),
        looked_for=names[shown],
        heat=None if heat is None else heat[shown],
    )


def _set(model: DemoModel, p: NDArray[np.float64], order: NDArray[np.intp]) -> PredictionSet:
    """The prediction set of (1, C) probabilities."""
    multilabel = model.predictor.target_kind == "multilabel"
    if model.usual is not None:
        inside = model.usual.sets.sets(p)[0]
        what = "every label that a wafer has" if multilabel else "the true class"
        promise = (
            f"Conformal, fitted on the run's val wafers: such sets hold {what} with a probability of "
            f"{_percent(model.usual.sets.coverage)}, on average over wafers like those. "
            "No promise for new lots or new patterns."
        )
    elif multilabel:
        inside = p[0] >= 1 - _COVERAGE
        promise = f"Labels of a calibrated probability of {_percent(1 - _COVERAGE)} or more. {_NO_VAL}"
    else:
        before = np.cumsum(p[0, order]) - p[0, order]
        inside = np.zeros(len(order), dtype=bool)
        inside[order[before < _COVERAGE]] = True
        promise = f"The most probable classes that together reach {_percent(_COVERAGE)}. {_NO_VAL}"
    return PredictionSet(tuple(model.class_names[k] for k in order if inside[k]), promise)


_NO_VAL = "The model's val wafers are not at hand, so no coverage is promised."
# docs/results.md, "Unknown patterns", column 1 - max probability: the mean AUROC and the mean share that passes.
_WEAK = (
    "This sign is weak, and its absence proves nothing: of patterns left out of training, a check like this one let "
    "80 % pass (AUROC .69 on average, .5 is a coin; docs/results.md, Unknown patterns)."
)


def _warning(model: DemoModel, p: NDArray[np.float64]) -> str:
    found = float(doubt(p, model.predictor.target_kind)[0])
    limit = _DOUBT if model.usual is None else model.usual.doubt
    if found <= limit:
        return ""
    compared = (
        f"less than for {_percent(SHARE)} of the run's val wafers"
        if model.usual is not None
        else f"less than {_percent(1 - _DOUBT)}"
    )
    what = "combination of labels" if model.predictor.target_kind == "multilabel" else "class"
    return (
        "May be an unknown pattern, or a hard case of a known one: the most probable "
        f"{what} has a probability of {_percent(1 - found)}, {compared}. {_WEAK}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
