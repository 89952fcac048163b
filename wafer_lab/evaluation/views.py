"""Wafers and the rotations and flips under which a model saw them.

Test-time augmentation (TTA) averages a model's probabilities over a group of views, see `wafer_lab.data.views`.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.views import TTA as TTA
from wafer_lab.data.views import VIEWS as VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.settings import TargetKind

if TYPE_CHECKING:
    from wafer_lab.evaluation.predictions import Predictions  # which takes pyarrow, and wafers need none


@dataclass(frozen=True)
class Wafers:
    """What a model said about N wafers of one split, each seen in V views.

    Attributes:
        index: (N,) int64, the wafer's row in its source.
        target: multiclass (N,) int64; multilabel (N, C) int8 of 0/1.
        logits: (N, V, C) float32; view 0 first.
        class_names: the C class names, in the order of the logits.
        target_kind: ``multiclass`` or ``multilabel``.
        lot: (N,) str, the production lot of each wafer ("" where unknown), or None where the source has none.
        knn_distance: (N,) float32, how far the wafer's features lie from those of the training wafers, or None.
    """

    index: NDArray[np.int64]
    target: NDArray[Any]
    logits: NDArray[np.float32]
    class_names: tuple[str, ...]
    target_kind: TargetKind
    lot: NDArray[np.str_] | None = None
    knn_distance: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[Any]) -> "Wafers":
        """Some of the wafers, by position or by a mask."""
        columns = ("index", "target", "logits", "lot", "knn_distance")
        values: dict[str, Any] = {name: getattr(self, name) for name in columns if getattr(self, name) is not None}
        taken: dict[str, Any] = {name: value[rows] for name, value in values.items()}
        return replace(self, **taken)


def wafers(predictions: "Predictions", split: str, tta: TTA = "none") -> Wafers:
    """The labelled wafers of one split, with the views that a TTA setting asks for.

    Args:
        predictions: a table with any splits and views, its rows in any order.
        split: which split to take.
        tta: which views to take.

    Returns:
        The wafers, sorted by index.

    Raises:
        UserError: the table has no rows of that split, lacks a view, or no row of the split has a label.
        ValueError: a wafer occurs twice in one view, or its views disagree about its label.
    """
    part = predictions.select(split=split)
    if not len(part):
        found = ", ".join(predictions.splits()) or "no rows at all"
        raise UserError(f"the predictions table has no {split} rows (it has {found}); predict {split} wafers with it")
    part = part.select(rows=part.labelled)
    if not len(part):
        raise UserError(f"no {split} wafer of the predictions table has a label, so nothing can be measured on them")
    seen = set(np.unique(part.view).tolist())
    missing = [view for view in VIEWS[tta] if view not in seen]
    if missing:
        stored = [name for name, views in VIEWS.items() if set(views) <= seen]
        raise UserError(
            f"tta={tta} needs views {', '.join(map(str, missing))} of the {split} wafers, which this table does not "
            f"hold; choose one of {', '.join(stored) or 'none'}, or train again with data.views={tta}"
        )
    part = part.take(np.argsort(part.index, kind="stable"))
    tables = [part.select(view=view) for view in VIEWS[tta]]
    first = tables[0]
    for table in tables[1:]:
        if not np.array_equal(table.index, first.index) or not np.array_equal(table.target, first.target):
            raise ValueError(f"the views of the {split} wafers are not of the same wafers")
    if len(np.unique(first.index)) < len(first):
        raise ValueError(f"a {split} wafer occurs more than once in one view")
    return Wafers(
        index=first.index,
        target=first.target,
        logits=np.stack([table.logits for table in tables], axis=1),
        class_names=predictions.class_names,
        target_kind=predictions.target_kind,
        lot=first.lot,
        knn_distance=first.knn_distance,
    )
