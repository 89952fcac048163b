"""From the predictions tables of several members to that of their ensemble.

Every member is calibrated first, on val, over the views that are deployed, so that a member that is too sure of itself
does not outvote the others. Then members are combined wafer by wafer and view by view. So an ensemble's table is like
any model's: its logits are the log of the mean probability (multi-label: the log odds), or the mean of the logits, and
views, calibration and decision rule of the ensemble are fitted on it as on any other.

Lakshminarayanan, Pritzel, Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles",
NeurIPS 2017: the mean of the members' probabilities.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.predictor import calibrate
from wafer_lab.evaluation.settings import Evaluation, TargetKind
from wafer_lab.evaluation.views import wafers

Combine = Literal["probabilities", "logits"]
Floats = NDArray[np.float64]


def combined(logits: Sequence[NDArray[Any]], target_kind: TargetKind, how: Combine) -> NDArray[np.float32]:
    """One logit per class from those of M members.

    Args:
        logits: M arrays (..., C), calibrated: their softmax, or sigmoid, is what a member says.
        target_kind: `multiclass` or `multilabel`.
        how: `probabilities`: softmax (sigmoid) of the result is the mean of the members' probabilities. `logits`: the
            result is the mean of the logits, so multi-class the geometric mean of the probabilities, scaled to sum 1.

    Returns:
        (..., C) float32.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in logits]
    if how == "logits":
        return np.asarray(np.mean(parts, axis=0), dtype=np.float32)
    if target_kind == "multilabel":
        yes = _log_sum([-np.logaddexp(0, -part) for part in parts])
        no = _log_sum([-np.logaddexp(0, part) for part in parts])
        return np.asarray(yes - no, dtype=np.float32)
    logs = [part - np.logaddexp.reduce(part, axis=-1, keepdims=True) for part in parts]
    return np.asarray(_log_sum(logs) - np.log(len(logs)), dtype=np.float32)


def _log_sum(logs: Sequence[Floats]) -> Floats:
    """The log of the sum of what the logs are of, without underflow."""
    return np.asarray(np.logaddexp.reduce(logs, axis=0))


def aligned(tables: Sequence[Predictions], settings: Evaluation) -> list[Predictions]:
    """The val and test rows of several tables in the views that all of them hold, in one order.

    Args:
        tables: of the same data, split and classes.
        settings: whose `tta` says which views must be there.

    Raises:
        UserError: the tables hold other wafers, or no common views that `settings.tta` can average over.
    """
    views = set.intersection(*(set(np.unique(table.view).tolist()) for table in tables))
    if not set(VIEWS[settings.tta]) <= views:
        stored = [name for name, needed in VIEWS.items() if set(needed) <= views]
        raise UserError(
            f"evaluation.tta={settings.tta} needs views that not every member has predicted; choose one of "
            f"{', '.join(stored) or 'none'}, or train the members with data.views={settings.tta}"
        )
    made = []
    for table in tables:
        part = table.select(rows=np.isin(table.split, ("val", "test")) & np.isin(table.view, sorted(views)))
        made.append(replace(part.take(np.lexsort((part.index, part.view, part.split))), knn_distance=None))
    for part in made[1:]:
        for column in ("index", "split", "view", "target"):
            if not np.array_equal(getattr(part, column), getattr(made[0], column)):
                raise UserError(
                    f"two members name the same split, but their tables differ in {column}; one of them was changed: "
                    "train it again"
                )
    return made


def calibrated(table: Predictions, settings: Evaluation) -> Predictions:
    """A member's table with calibrated logits.

    Test rows get the calibration fitted on all of val. Every val row gets one that was fitted without its fold of val,
    so that what is then fitted on the ensemble's val rows is fitted on honest ones.

    Args:
        table: val and test rows, as `aligned` makes them.
        settings: kind of calibration, and the views whose mean it is fitted for.
    """
    val = calibrate(wafers(table, "val", settings.tta), settings)
    logits = _scaled(val.calibration, table.logits)
    place = np.searchsorted(val.val.index, table.index).clip(max=len(val.val) - 1)
    known = (table.split == "val") & (val.val.index[place] == table.index)
    for fold, calibration in enumerate(val.by_fold):
        rows = known & (val.fold[place] == fold)
        logits[rows] = _scaled(calibration, table.logits[rows])
    return replace(table, logits=logits)


def _scaled(calibration: Calibration, logits: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(logits * np.asarray(calibration.scale) + np.asarray(calibration.bias), dtype=np.float32)


def ensemble_of(tables: Sequence[Predictions], how: Combine) -> Predictions:
    """The table of an ensemble from the calibrated tables of its members, which `aligned` has put in one order."""
    first = tables[0]
    return replace(first, logits=combined([table.logits for table in tables], first.target_kind, how))
