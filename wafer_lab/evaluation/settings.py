"""How a trained model is turned into decisions and judged: the `evaluation` group of the config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from wafer_lab.data.views import TTA
from wafer_lab.errors import UserError

TargetKind = Literal["multiclass", "multilabel"]
CalibrationKind = Literal["none", "temperature", "vector"]
Rule = Literal["argmax", "f1", "cost", "recall"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything between logits and a judged decision. What is fitted, is fitted on val.

    Args:
        tta: views whose probabilities are averaged: `none`, `hflip`, `d2` or `d4`.
        calibration: `none`, `temperature` (one for all classes; one per label where multi-label) or `vector`.
        decision: `argmax` (multi-label: 0.5 per label), `f1` (thresholds for macro F1), `cost` (least expected cost) or
            `recall` (fewest false alarms with at most `max_escape_rate` of the defects missed).
        cost_ratio: what an escape costs, in false alarms.
        wrong_defect_cost: what naming the wrong defect costs, in false alarms.
        cost_matrix: (C, C) costs in place of the two numbers, [true class][decided class].
        max_escape_rate: what `recall` allows, in (0, 1).
        normal: names of classes that are no defect, or patterns of them such as `clean*`, in any case; None: the class
            called none, where there is one. Multi-label wafers without a label are normal whatever this says.
        coverage: of the conformal prediction sets, in (0, 1).
        min_count: a class with fewer val wafers keeps its untuned threshold.
        resamples: bootstrap resamples behind every interval.
        seed: of the resamples and of the folds inside val.

    Raises:
        UserError: a number is out of its range.
    """

    tta: TTA = "none"
    calibration: CalibrationKind = "temperature"
    decision: Rule = "argmax"
    cost_ratio: float = 10.0
    wrong_defect_cost: float = 0.0
    cost_matrix: Sequence[Sequence[float]] | None = None
    max_escape_rate: float = 0.01
    normal: Sequence[str] | None = None
    coverage: float = 0.95
    min_count: int = 10
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = {"tta": TTA, "calibration": CalibrationKind, "decision": Rule}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise UserError(
                    f"there is no evaluation.{name}={getattr(self, name)}; choose {', '.join(get_args(kind))}"
                )
        for name in ("max_escape_rate", "coverage"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"evaluation.{name}={getattr(self, name)} must lie between 0 and 1")
        if not (0 < self.cost_ratio < math.inf and 0 <= self.wrong_defect_cost < math.inf):
            raise UserError("evaluation.cost_ratio must be positive and evaluation.wrong_defect_cost not negative")
        if self.resamples < 100:
            raise UserError(f"evaluation.resamples={self.resamples} is too few for 95 % intervals; use at least 100")
        if self.min_count < 1 or self.seed < 0:
            raise UserError("evaluation.min_count must be at least 1 and evaluation.seed not negative")
        if isinstance(self.normal, str):
            raise UserError(f"evaluation.normal is a list of classes: [{self.normal}]")
        # Lists, as files and command lines have them, are made of what can be compared and hashed.
        object.__setattr__(self, "normal", None if self.normal is None else tuple(self.normal))
        if self.cost_matrix is not None:
            object.__setattr__(self, "cost_matrix", _rows(self.cost_matrix))


def _rows(matrix: Any) -> Any:
    """A matrix as tuples; what is none stays as it is, for the check that knows the classes."""
    try:
        return tuple(tuple(row) for row in matrix)
    except TypeError:
        return matrix
