"""Decision rules: from calibrated probabilities to a class, or to labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.settings import Evaluation, TargetKind
from wafer_lab.metrics.scores import normal_classes

# Expected costs closer than this, relative to the largest cost, are equal: matrix products round.
_EQUAL = 1e-12


class Decision(Protocol):
    """A rule that decides on every wafer by itself."""

    rule: ClassVar[str]

    @property
    def target_kind(self) -> TargetKind:
        """`multiclass` or `multilabel`."""

    def __call__(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """Decide.

        Args:
            probabilities: (N, C) in [0, 1].

        Returns:
            Multi-class: (N,) int64. Multi-label: (N, C) int8 of 0/1.
        """

    def fits(self, classes: int) -> bool:
        """Whether the rule is for so many classes."""

    def to_dict(self) -> dict[str, Any]:
        """What `decision_from` reads."""


@dataclass(frozen=True)
class _Rule:
    rule: ClassVar[str]
    target_kind: TargetKind

    def __post_init__(self) -> None:
        if self.target_kind not in get_args(TargetKind):
            raise ValueError(f"unknown target kind {self.target_kind!r}")
        self._check()

    def _check(self) -> None:
        """Raise ValueError where the numbers make no rule."""

    def fits(self, classes: int) -> bool:
        """Whether the rule is for so many classes."""
        return classes > 0

    def to_dict(self) -> dict[str, Any]:
        """What `decision_from` reads."""
        return {"rule": self.rule, **asdict(self)}


@dataclass(frozen=True)
class Argmax(_Rule):
    """The most probable class (the first of equals); multi-label, every label of probability 0.5 or more."""

    rule = "argmax"

    def __call__(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """See `Decision`."""
        if self.target_kind == "multilabel":
            return np.asarray(probabilities >= 0.5, dtype=np.int8)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Thresholds(_Rule):
    """The class of the largest p_k / t_k; multi-label, every label with p_k >= t_k.

    Attributes:
        values: C positive thresholds. Multi-class, only their ratios matter; summing to 1 they read as the probability
            at which, of two classes, the one wins over the other.
    """

    values: tuple[float, ...]
    rule = "thresholds"

    def _check(self) -> None:
        if not all(math.isfinite(value) and value > 0 for value in self.values):
            raise ValueError("thresholds are not positive numbers")

    def fits(self, classes: int) -> bool:
        """Whether there are so many thresholds."""
        return len(self.values) == classes

    def __call__(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """See `Decision`."""
        if self.target_kind == "multilabel":
            return np.asarray(probabilities >= np.asarray(self.values), dtype=np.int8)
        return np.asarray((probabilities / np.asarray(self.values)).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class MinimumCost(_Rule):
    """The class of the least expected cost (the more probable of equals); multi-label, each label by itself.

    Elkan, "The foundations of cost-sensitive learning", IJCAI 2001. Multi-label, a label is named where
    p_k >= b / (a + b): missing it costs a, naming it for nothing b.

    Attributes:
        costs: C rows, [true class][decided class]; multi-label one row, (a, b).
    """

    costs: tuple[tuple[float, ...], ...]
    rule = "minimum_cost"

    def _check(self) -> None:
        multilabel = self.target_kind == "multilabel"
        rows, columns = (1, 2) if multilabel else (len(self.costs), len(self.costs))
        if len(self.costs) != rows or any(len(row) != columns for row in self.costs):
            raise ValueError("costs are not " + ("one row of two numbers" if multilabel else "as many rows as columns"))
        if not all(math.isfinite(cost) and cost >= 0 for row in self.costs for cost in row):
            raise ValueError("costs are not finite numbers of 0 or more")
        if multilabel and sum(self.costs[0]) <= 0:
            raise ValueError("costs are all 0")

    def fits(self, classes: int) -> bool:
        """Whether the costs are of so many classes."""
        return self.target_kind == "multilabel" or len(self.costs) == classes

    @classmethod
    def of(cls, costs: NDArray[Any], target_kind: TargetKind) -> "MinimumCost":
        """The rule for what `cost_matrix` gives."""
        return cls(target_kind, tuple(tuple(row) for row in np.atleast_2d(costs).tolist()))

    def __call__(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """See `Decision`."""
        if self.target_kind == "multilabel":
            missed, needless = self.costs[0]
            return np.asarray(probabilities >= needless / (missed + needless), dtype=np.int8)
        expected = probabilities @ np.asarray(self.costs)
        equal = expected <= expected.min(axis=1, keepdims=True) + _EQUAL * max(map(max, self.costs))
        return np.asarray(np.where(equal, probabilities, -1.0).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class RecallConstrained(_Rule):
    """Flag a wafer whose defect probability reaches a threshold; then its best defect, else its best normal class.

    Multi-label, a flagged wafer gets the labels of probability 0.5 or more, its most probable one at least; a wafer
    that is not flagged gets none.

    Attributes:
        threshold: on `defect_probability`.
        normal: indices of the classes that are no defect; multi-label none.
    """

    threshold: float
    normal: tuple[int, ...]
    rule = "recall_constrained"

    def _check(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError("the threshold is not a number")
        if bool(self.normal) == (self.target_kind == "multilabel"):
            raise ValueError("normal classes are for multiclass targets, and needed there")
        if not all(isinstance(k, int) and k >= 0 for k in self.normal):
            raise ValueError("normal classes are not indices")

    def fits(self, classes: int) -> bool:
        """Whether the normal classes are some of so many, but not all."""
        return max(self.normal, default=-1) < classes and len(set(self.normal)) < classes

    def __call__(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """See `Decision`."""
        flagged = defect_probability(probabilities, self.normal) >= self.threshold
        if self.target_kind == "multilabel":
            best = probabilities >= probabilities.max(axis=1, keepdims=True)
            return np.asarray(flagged[:, None] & ((probabilities >= 0.5) | best), dtype=np.int8)
        normal = np.isin(np.arange(probabilities.shape[1]), self.normal)
        allowed = np.where(flagged[:, None] == ~normal, probabilities, -1.0)
        return np.asarray(allowed.argmax(axis=1), dtype=np.int64)


_RULES: dict[str, Any] = {kind.rule: kind for kind in (Argmax, Thresholds, MinimumCost, RecallConstrained)}


def decision_from(values: Mapping[str, Any]) -> Decision:
    """The rule that `Decision.to_dict` described.

    Raises:
        UserError: the values describe none.
    """
    try:
        fields = {name: _tuples(value) for name, value in values.items() if name != "rule"}
        decision: Decision = _RULES[values["rule"]](**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"this describes no decision rule ({error}); the rules are {', '.join(_RULES)}; "
            "fit it again with wafer-lab evaluate"
        ) from error
    return decision


def defect_probability(probabilities: NDArray[Any], normal: Sequence[int]) -> NDArray[np.float64]:
    """The probability that a wafer has a defect at all.

    Args:
        probabilities: (N, C).
        normal: indices of the classes that are no defect. None for multi-label: then it is 1 - prod(1 - p_k), as if the
            labels were independent; what matters of it is the order of the wafers.

    Returns:
        (N,) float64: the sum over the other classes, which tells small ones apart where 1 - p_normal is rounded off.
    """
    if not len(normal):
        return np.asarray(1.0 - np.prod(1.0 - probabilities, axis=1), dtype=np.float64)
    return np.asarray(np.delete(probabilities, list(normal), axis=1).sum(axis=1), dtype=np.float64)


def normal_indices(settings: Evaluation, class_names: Sequence[str]) -> tuple[int, ...]:
    """The classes that are no defect, by `settings.normal`; none where the data has none.

    Raises:
        UserError: a name or pattern of the settings is of no class, or every class is called normal.
    """
    for name in settings.normal or ():
        try:
            normal_classes(class_names, [name])
        except UserError:
            lower = {known.lower(): known for known in class_names}
            close = [lower[match] for match in get_close_matches(str(name).lower(), lower, n=1)]
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(class_names)}"
            raise UserError(f"evaluation.normal names {name}, which is no class of this data; {hint}") from None
    normal = np.flatnonzero(normal_classes(class_names, settings.normal))
    if len(normal) == len(class_names):
        raise UserError("evaluation.normal names every class, so nothing is a defect; leave the defects out")
    return tuple(normal.tolist())


def needed_normal(settings: Evaluation, class_names: Sequence[str], what: str) -> tuple[int, ...]:
    """`normal_indices`, where there must be some.

    Raises:
        UserError: there are none.
    """
    normal = normal_indices(settings, class_names)
    if not normal:
        raise UserError(
            f"{what} needs to know which classes are no defect, and none of {', '.join(class_names)} is called none; "
            "name them in evaluation.normal"
        )
    return normal


def cost_matrix(
    settings: Evaluation, class_names: Sequence[str], target_kind: TargetKind = "multiclass"
) -> NDArray[np.float64]:
    """What decisions cost, in false alarms.

    Args:
        settings: its `cost_matrix`, or else `cost_ratio`, `wrong_defect_cost` and `normal`.
        class_names: C names.
        target_kind: `multiclass` or `multilabel`.

    Returns:
        (C, C) float64, [true class][decided class], 0 where a normal wafer is called another normal class. Multi-label:
        (2,), what a missed label costs and what a label too many.

    Raises:
        UserError: the matrix does not fit the classes, or there is neither a matrix nor a normal class.
    """
    classes = len(class_names)
    if target_kind == "multilabel":
        if settings.cost_matrix is not None:
            raise UserError("evaluation.cost_matrix is for one class per wafer; with several labels, use cost_ratio")
        return np.array([settings.cost_ratio, 1.0])
    if settings.cost_matrix is not None:
        return _given_matrix(settings.cost_matrix, class_names)
    normal = needed_normal(settings, class_names, "a cost without evaluation.cost_matrix")
    harmless = np.isin(np.arange(classes), normal)
    matrix = np.full((classes, classes), settings.wrong_defect_cost, dtype=np.float64)
    matrix[np.ix_(~harmless, harmless)] = settings.cost_ratio
    matrix[np.ix_(harmless, ~harmless)] = 1.0
    matrix[np.ix_(harmless, harmless)] = 0.0
    np.fill_diagonal(matrix, 0.0)
    return matrix


def optional_costs(
    settings: Evaluation, class_names: Sequence[str], target_kind: TargetKind
) -> NDArray[np.float64] | None:
    """`cost_matrix`, or None where nothing says which classes are normal and nothing asks for a cost.

    Raises:
        UserError: the settings name a matrix or normal classes that do not fit, or decide by cost.
    """
    asked = settings.cost_matrix is not None or settings.decision == "cost" or target_kind == "multilabel"
    if not asked and not normal_indices(settings, class_names):
        return None
    return cost_matrix(settings, class_names, target_kind)


def _given_matrix(rows: Sequence[Sequence[float]], class_names: Sequence[str]) -> NDArray[np.float64]:
    classes = len(class_names)
    try:
        matrix = np.array([list(row) for row in rows], dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (classes, classes) or not (np.isfinite(matrix) & (matrix >= 0)).all():
        raise UserError(
            f"evaluation.cost_matrix must be {classes} rows of {classes} numbers of 0 or more: a row per true class, a "
            f"column per decided class, both in the order {', '.join(class_names)}"
        )
    return matrix


def _tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
