"""Classification scores as pure functions of counts, on numpy arrays with any leading dimensions.

Leading dimensions are for resampling: 2,000 bootstrap confusion matrices go in as (2000, C, C) and every
score comes out as (2000,). Undefined ratios (0 / 0) are 0, as scikit-learn's zero_division=0.

Macro F1, precision and recall average over the classes that occur in the truth or in the predictions, as
scikit-learn does where it finds the labels itself; balanced accuracy averages over the classes that occur in
the truth. So a class that a small test set lacks does not lower the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError

Scores = dict[str, NDArray[np.float64]]

NONE = "none"


def confusion_matrix(target: NDArray[Any], predicted: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Count (true, predicted) pairs.

    Args:
        target: (N,) class indices.
        predicted: (N,) class indices.
        num_classes: C.

    Returns:
        (C, C) int64, rows are the truth.
    """
    pairs = np.asarray(target, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def normal_classes(class_names: Sequence[str], normal: Sequence[str] | None = None) -> NDArray[np.bool_]:
    """Which classes are no defect.

    Args:
        class_names: C names.
        normal: names or patterns such as `clean*`, in any case, of those that are no defect; None: the one called
            none, where there is one.

    Returns:
        (C,) bool.

    Raises:
        UserError: a name or pattern is of none of the classes.
    """
    found = {entry: _named(entry, class_names) for entry in ([NONE] if normal is None else normal)}
    unknown = [entry for entry, named in found.items() if not any(named)]
    if normal is not None and unknown:
        raise UserError(
            f"normal names {', '.join(unknown)}, which is no class here; choose from {', '.join(class_names)}"
        )
    named = np.array(list(found.values()), dtype=bool).reshape(-1, len(class_names))
    return np.asarray(named.any(axis=0))


def _named(entry: str, class_names: Sequence[str]) -> list[bool]:
    """Which classes a name or pattern is of; a class of exactly that name is the only one."""
    if entry in class_names:
        return [name == entry for name in class_names]
    return [fnmatchcase(name.lower(), str(entry).lower()) for name in class_names]


def escapes_and_false_alarms(
    confusion: NDArray[Any], normal: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count the defects called normal and the normal wafers called a defect.

    Args:
        confusion: (..., C, C) counts, rows are the truth.
        normal: (C,) True where a class is no defect.

    Returns:
        Escapes (...) and false alarms (...). Normal wafers called by the name of another normal class are neither.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    return (confusion * np.outer(~normal, normal)).sum((-2, -1)), (confusion * np.outer(normal, ~normal)).sum((-2, -1))


def multiclass_scores(
    confusion: NDArray[Any], class_names: Sequence[str], normal: Sequence[str] | None = None
) -> Scores:
    """Compute every multi-class score that a confusion matrix determines.

    Args:
        confusion: (..., C, C) counts, rows are the truth.
        class_names: C names.
        normal: the classes that are no defect; None: the one called none. Where there are any, two more scores
            say how they are confused with the defects.

    Returns:
        Arrays (...) in [0, 1]: `accuracy`, `balanced_accuracy`, `f1_macro`, `precision_macro`,
        `recall_macro`; `escape_rate`, the share of defects called normal, and `false_alarm_rate`, the share of
        normal wafers called a defect; `f1/<class>`, `precision/<class>`, `recall/<class>`.

    Raises:
        UserError: a normal class is not one of the classes.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, called, total = confusion.sum(-1), confusion.sum(-2), confusion.sum((-2, -1))
    recall = _ratio(hits, actual)
    scores = {
        "accuracy": _ratio(hits.sum(-1), total),
        "balanced_accuracy": _mean_over(recall, actual > 0),
        **_macro_and_per_class(hits, called, actual, class_names),
    }
    harmless = normal_classes(class_names, normal)
    if harmless.any():
        escapes, alarms = escapes_and_false_alarms(confusion, harmless)
        scores["escape_rate"] = _ratio(escapes, actual[..., ~harmless].sum(-1))
        scores["false_alarm_rate"] = _ratio(alarms, actual[..., harmless].sum(-1))
    return scores


@dataclass(frozen=True)
class MultilabelCounts:
    """What every multi-label score is computed from; leading dimensions as in the module's note.

    Attributes:
        true_positives: (..., C).
        false_positives: (..., C).
        false_negatives: (..., C).
        samples: (...).
        exact: (...) samples whose every label is right.
        defects: (...) samples with at least one label; the others are none.
        escapes: (...) defects predicted to have no label.
        false_alarms: (...) none predicted to have a label.
    """

    true_positives: NDArray[Any]
    false_positives: NDArray[Any]
    false_negatives: NDArray[Any]
    samples: NDArray[Any]
    exact: NDArray[Any]
    defects: NDArray[Any]
    escapes: NDArray[Any]
    false_alarms: NDArray[Any]

    @classmethod
    def of(
        cls, target: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None = None
    ) -> "MultilabelCounts":
        """Count over samples.

        Args:
            target: (N, C) of 0/1.
            predicted: (N, C) of 0/1.
            weights: (..., N) how often each sample counts (a bootstrap's draws), or None for once.
        """
        flags = cls.indicators(target, predicted)
        return cls.of_sums((np.ones(len(flags)) if weights is None else np.asarray(weights, dtype=np.float64)) @ flags)

    @staticmethod
    def indicators(target: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.bool_]:
        """What each sample adds to every count: (N, 3C + 5) bool, its columns in the order of the attributes."""
        true, called = np.asarray(target, dtype=bool), np.asarray(predicted, dtype=bool)
        defect, alarm = true.any(1), called.any(1)
        exact = (true == called).all(1)
        flags = [np.ones_like(defect), exact, defect, defect & ~alarm, ~defect & alarm]
        return np.hstack([true & called, ~true & called, true & ~called, np.stack(flags, axis=1)])

    @classmethod
    def of_sums(cls, sums: NDArray[Any]) -> "MultilabelCounts":
        """The counts from (..., 3C + 5) sums of `indicators` over samples."""
        per_label, per_sample = sums[..., :-5], sums[..., -5:]
        return cls(*np.split(per_label, 3, axis=-1), *np.moveaxis(per_sample, -1, 0))


def multilabel_scores(counts: MultilabelCounts, class_names: Sequence[str]) -> Scores:
    """Compute every multi-label score that thresholded predictions determine.

    Args:
        counts: of the samples, (...) and (..., C).
        class_names: C names.

    Returns:
        Arrays (...) in [0, 1]: `exact_match`, `hamming_accuracy` (share of right labels), `f1_micro`,
        `f1_macro`, `precision_macro`, `recall_macro`; `escape_rate`, the share of samples with a label that
        got none, and `false_alarm_rate`, the share of samples without that got one; `f1/<class>`,
        `precision/<class>`, `recall/<class>`.
    """
    hits = np.asarray(counts.true_positives, dtype=np.float64)
    called, actual = hits + counts.false_positives, hits + counts.false_negatives
    samples = np.asarray(counts.samples, dtype=np.float64)
    wrong = (called + actual - 2 * hits).sum(-1)
    right = samples * len(class_names) - wrong
    return {
        "exact_match": _ratio(counts.exact, samples),
        "hamming_accuracy": _ratio(right, samples * len(class_names)),
        "f1_micro": _ratio(2 * hits.sum(-1), (called + actual).sum(-1)),
        "escape_rate": _ratio(counts.escapes, counts.defects),
        "false_alarm_rate": _ratio(counts.false_alarms, samples - counts.defects),
        **_macro_and_per_class(hits, called, actual, class_names),
    }


def _macro_and_per_class(
    hits: NDArray[Any], called: NDArray[Any], actual: NDArray[Any], class_names: Sequence[str]
) -> Scores:
    """F1, precision and recall from (..., C) true positives, predicted and actual counts."""
    if hits.shape[-1] != len(class_names):
        raise ValueError(f"counts of {hits.shape[-1]} classes do not fit {len(class_names)} class names")
    occurs = (called + actual) > 0
    per_class = {
        "f1": _ratio(2 * hits, called + actual),
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, actual),
    }
    scores = {f"{name}_macro": _mean_over(values, occurs) for name, values in per_class.items()}
    for name, values in per_class.items():
        scores |= {f"{name}/{label}": values[..., k] for k, label in enumerate(class_names)}
    return scores


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0), np.float64)


def _mean_over(values: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    return _ratio((values * where).sum(-1), where.sum(-1))
