"""The deployed predictor: views, calibration and decision rule, fitted on val as one and kept in one small file.

A predictor needs numpy only and the logits of the views it asks for. Its val scores are out of fold: five predictors,
each fitted on four fifths of val, answer for the fifth that they did not see.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.split import deal, strata
from wafer_lab.data.views import TTA, VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.calibration import Calibration, calibration_from, fit_calibration
from wafer_lab.evaluation.predictor.decisions import (
    Argmax,
    Decision,
    MinimumCost,
    RecallConstrained,
    Thresholds,
    cost_matrix,
    decision_from,
    defect_probability,
    needed_normal,
    normal_indices,
)
from wafer_lab.evaluation.predictor.thresholds import fit_recall, fit_thresholds, to_simplex
from wafer_lab.evaluation.settings import Evaluation, TargetKind
from wafer_lab.evaluation.views import Wafers
from wafer_lab.files import write_text
from wafer_lab.metrics.scores import MultilabelCounts, confusion_matrix, multiclass_scores, multilabel_scores

_VERSION = 1
_FOLDS = 5
_HINT = "fit it again with wafer-lab evaluate RUN"


@dataclass(frozen=True)
class Predictor:
    """Logits of the views it asks for -> probabilities and decisions.

    Attributes:
        settings: how it was fitted and is to be judged; its `tta` names the views that `logits` hold.
        calibration: views -> probabilities.
        decision: probabilities -> decisions.
        class_names: the C class names, in the order of the logits.
        target_kind: `multiclass` or `multilabel`.

    Raises:
        ValueError: the parts do not fit each other.
    """

    settings: Evaluation
    calibration: Calibration
    decision: Decision
    class_names: tuple[str, ...]
    target_kind: TargetKind

    def __post_init__(self) -> None:
        if {self.calibration.target_kind, self.decision.target_kind} != {self.target_kind}:
            raise ValueError("calibration and decision are of different target kinds")
        classes = len(self.class_names)
        if len(self.calibration.scale) != classes or not self.decision.fits(classes):
            raise ValueError(f"calibration or decision is not of {classes} classes")

    @property
    def tta(self) -> TTA:
        """Which views it averages over."""
        return self.settings.tta

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Calibrated probabilities, averaged over the views.

        Args:
            logits: (N, V, C), the V views of `VIEWS[tta]` in their order.

        Returns:
            (N, C) float64.

        Raises:
            ValueError: the logits are of other views or classes.
        """
        expected = (len(VIEWS[self.tta]), len(self.class_names))
        if logits.shape[1:] != expected:
            raise ValueError(
                f"logits of shape {logits.shape} are not (N, {expected[0]}, {expected[1]}) (tta={self.tta})"
            )
        return self.calibration.probabilities(logits)

    def __call__(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Decide: (N, V, C) logits -> (N,) int64, or multi-label (N, C) int8."""
        return self.decision(self.probabilities(logits))

    @classmethod
    def plain(cls, class_names: Sequence[str], target_kind: TargetKind) -> "Predictor":
        """The predictor of a model that nothing was fitted for: one view, no calibration, argmax."""
        classes = len(class_names)
        calibration = Calibration("none", target_kind, (1.0,) * classes, (0.0,) * classes)
        return cls(Evaluation(calibration="none"), calibration, Argmax(target_kind), tuple(class_names), target_kind)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads: plain values, as JSON has them."""
        return {
            "version": _VERSION,
            "target_kind": self.target_kind,
            "class_names": list(self.class_names),
            "settings": asdict(self.settings),
            "calibration": self.calibration.to_dict(),
            "decision": self.decision.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Predictor":
        """The predictor that `to_dict` described.

        Raises:
            UserError: the values describe none, or were written by a newer wafer_lab.
        """
        try:
            version = values["version"]
            if not isinstance(version, int) or version < 1:
                raise ValueError(f"version {version!r}")
            if version > _VERSION:
                raise UserError(f"this predictor was written by a newer wafer_lab (format {version}); update this one")
            calibration, decision = calibration_from(values["calibration"]), decision_from(values["decision"])
            names = tuple(values["class_names"])
            if not names or not all(isinstance(name, str) for name in names):
                raise ValueError("class names are not texts")
            return cls(Evaluation(**values["settings"]), calibration, decision, names, values["target_kind"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is not a whole predictor ({type(error).__name__}: {error}); {_HINT}") from error

    def write(self, path: Path | str) -> Path:
        """Write the predictor as JSON, numbers of a row on one line.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            return write_text(path, _readable(self.to_dict()) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; free space or use another folder") from error

    @classmethod
    def read(cls, path: Path | str) -> "Predictor":
        """Read a predictor that `write` wrote.

        Raises:
            UserError: the file is missing, damaged, of a newer version or no predictor.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read a predictor from {path} ({error.strerror}); {_HINT}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is cut short or damaged; {_HINT}") from error
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Fitted:
    """A predictor and what can honestly be said of it on val.

    Attributes:
        predictor: the one to deploy, fitted on all of val.
        probabilities: (N, C) float64 of the val wafers, each by a calibration that did not see it.
        decisions: (N,) int64 or (N, C) int8, likewise.
        notes: what a reader should know, in sentences.
    """

    predictor: Predictor
    probabilities: NDArray[np.float64]
    decisions: NDArray[Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Calibrated:
    """Val wafers with the calibration to deploy and those of the folds; every rule can be fitted on it.

    Attributes:
        val: the wafers.
        fold: (N,) int64, the fold of each.
        calibration: fitted on all of them.
        by_fold: of each fold, the calibration fitted on the others.
        probabilities: (N, C) float64, each wafer's by the calibration of its fold.
    """

    val: Wafers
    fold: NDArray[np.int64]
    calibration: Calibration
    by_fold: tuple[Calibration, ...]
    probabilities: NDArray[np.float64]


def fit_predictor(val: Wafers, settings: Evaluation) -> Fitted:
    """Fit calibration and decision rule for the views that `val` holds.

    The calibration to deploy is fitted on all of val. So is the threshold of `recall`. The thresholds of `f1` are the
    (geometric) means of those of the folds: on simulated tables of 9 classes they gain 0.2 points of macro F1 over
    thresholds fitted on all of val at once where val has 17,000 wafers, and 0.6 where it has 2,000.

    Args:
        val: labelled wafers that the model was not trained on, in the views of `settings.tta`.
        settings: what to fit.

    Raises:
        UserError: the settings do not suit the data, or val is too small for them.
    """
    return fit_rule(calibrate(val, settings), settings)


def calibrate(val: Wafers, settings: Evaluation) -> Calibrated:
    """The first half of `fit_predictor`, which all rules share.

    Raises:
        UserError: there are fewer than two wafers.
    """
    fold = _folds(val, settings.seed)
    kind, logits, target = settings.calibration, val.logits, val.target
    by_fold = []
    probabilities = np.empty((len(val), len(val.class_names)))
    for k in range(int(fold.max()) + 1):
        inside = fold == k
        by_fold.append(fit_calibration(kind, logits[~inside], target[~inside], val.target_kind))
        probabilities[inside] = by_fold[k].probabilities(logits[inside])
    calibration = fit_calibration(kind, logits, target, val.target_kind)
    return Calibrated(val, fold, calibration, tuple(by_fold), probabilities)


def fit_rule(calibrated: Calibrated, settings: Evaluation) -> Fitted:
    """The second half of `fit_predictor`: the rule that `settings.decision` names.

    Raises:
        UserError: as `fit_predictor`.
    """
    val, probabilities = calibrated.val, calibrated.probabilities
    normal_indices(settings, val.class_names)  # a wrong name is wrong for every rule
    notes: tuple[str, ...] = ()
    decision: Decision
    if settings.decision in ("argmax", "cost"):  # nothing is fitted
        decision = _fit(settings, val, probabilities)
        decisions = decision(probabilities)
    else:
        rules = []
        decisions = np.empty_like(val.target)
        for k, calibration in enumerate(calibrated.by_fold):
            inside = calibrated.fold == k
            seen = val.take(~inside)
            rules.append(_fit(settings, seen, calibration.probabilities(seen.logits), _rare(val, settings)))
            decisions[inside] = rules[k](probabilities[inside])
        if settings.decision == "f1":
            decision = _mean(rules, val.target_kind)
            notes = (*_untuned(val, settings), *_no_gain(val, probabilities, decisions))
        else:
            decision = _fit(settings, val, calibrated.calibration.probabilities(val.logits))
    predictor = Predictor(settings, calibrated.calibration, decision, val.class_names, val.target_kind)
    return Fitted(predictor, probabilities, decisions, notes)


def _fit(
    settings: Evaluation, val: Wafers, probabilities: NDArray[np.float64], frozen: Collection[int] = ()
) -> Decision:
    """The rule that the settings name, fitted on some wafers."""
    kind = val.target_kind
    if settings.decision == "argmax":
        return Argmax(kind)
    if settings.decision == "cost":
        return MinimumCost.of(cost_matrix(settings, val.class_names, kind), kind)
    if settings.decision == "f1":
        return Thresholds(kind, tuple(fit_thresholds(probabilities, val.target, frozen, settings.seed).tolist()))
    assert settings.decision == "recall"
    normal = () if kind == "multilabel" else needed_normal(settings, val.class_names, "evaluation.decision=recall")
    is_defect = np.asarray(val.target.any(axis=1) if kind == "multilabel" else ~np.isin(val.target, normal))
    threshold = fit_recall(defect_probability(probabilities, normal), is_defect, settings.max_escape_rate)
    return RecallConstrained(kind, threshold, normal)


def _mean(rules: Sequence[Decision], kind: TargetKind) -> Thresholds:
    """The geometric mean of the folds' thresholds."""
    logs = np.log([rule.values for rule in rules if isinstance(rule, Thresholds)]).mean(axis=0)
    return Thresholds(kind, tuple((np.exp(logs) if kind == "multilabel" else to_simplex(logs)).tolist()))


def _counts(val: Wafers) -> NDArray[np.int64]:
    """(C,) val wafers of each class or label."""
    counts = val.target.sum(axis=0) if val.target.ndim == 2 else np.bincount(val.target, minlength=len(val.class_names))
    return np.asarray(counts, dtype=np.int64)


def _rare(val: Wafers, settings: Evaluation) -> list[int]:
    return np.flatnonzero(_counts(val) < settings.min_count).tolist()


def _untuned(val: Wafers, settings: Evaluation) -> list[str]:
    counts = _counts(val)
    rare = [f"{val.class_names[k]} ({counts[k]})" for k in _rare(val, settings)]
    return [f"fewer than {settings.min_count} val wafers, threshold not tuned: {', '.join(rare)}"] if rare else []


def _no_gain(val: Wafers, probabilities: NDArray[np.float64], decisions: NDArray[Any]) -> list[str]:
    """A warning where tuned thresholds are worth nothing on wafers that they were not tuned on."""
    plain = _macro_f1(val, Argmax(val.target_kind)(probabilities))
    tuned = _macro_f1(val, decisions)
    if tuned > plain:
        return []
    return [
        f"thresholds tuned for macro F1 gain nothing out of fold (macro F1 {tuned:.4f}, without them {plain:.4f}): "
        "val is too small for them, or argmax is right already"
    ]


def _macro_f1(val: Wafers, decisions: NDArray[Any]) -> float:
    names = val.class_names
    if val.target_kind == "multilabel":
        return float(multilabel_scores(MultilabelCounts.of(val.target, decisions), names)["f1_macro"])
    return float(multiclass_scores(confusion_matrix(val.target, decisions, len(names)), names)["f1_macro"])


def _folds(val: Wafers, seed: int) -> NDArray[np.int64]:
    """The fold of each wafer, 0, 1, ...: whole lots where there are several, every class spread evenly.

    Raises:
        UserError: there are fewer than two wafers.
    """
    if len(val) < 2:
        raise UserError("one val wafer is too few to fit and judge a predictor on; use a larger data.val")
    stratum = np.unique(strata(val.target), return_inverse=True)[1].reshape(-1)
    if val.lot is None or len(np.unique(val.lot)) < 2:
        order = np.lexsort((np.random.default_rng(seed).random(len(val)), stratum))
        fold = np.empty(len(val), dtype=np.int64)
        fold[order] = np.arange(len(val)) % _FOLDS
        return fold
    names, lot = np.unique(val.lot, return_inverse=True)
    nameless = val.lot == ""
    lot[nameless] = len(names) + np.arange(nameless.sum())  # each a lot of its own
    groups, group = np.unique(lot, return_inverse=True)
    folds = min(_FOLDS, len(groups))
    counts = np.zeros((len(groups), stratum.max() + 1), dtype=np.int64)
    np.add.at(counts, (group, stratum), 1)
    return deal(counts, [1 / folds] * folds, seed)[group]


def _readable(value: Any, indent: str = "") -> str:
    """JSON with a line for each key and each row of numbers."""
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {_readable(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        return "[\n" + ",\n".join(inner + _readable(row, inner) for row in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
