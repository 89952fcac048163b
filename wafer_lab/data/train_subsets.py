"""Parts of a split's training labels, with val and test as they are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.split import Split, duplicate_groups, position, strata
from wafer_lab.errors import UserError


def without_fold(
    whole: Split, stratum: NDArray[np.int64], content: NDArray[np.uint64], folds: int, fold: int, seed: int
) -> Split:
    """Leave one of several equal parts of every stratum's training rows out, copies together; val and test stay.

    Models that are each trained without another part are a cross-validated committee: Parmanto, Munro, Doyle,
    "Improving committee diagnosis with resampling techniques", NIPS 1996. With val and test frozen they can be
    calibrated and judged together, on wafers that none of them saw.

    Args:
        whole: The split.
        stratum: (N,) stratum of every row of the data set.
        content: (N,) content hashes.
        folds: Number of parts, at least 2.
        fold: The part that becomes unlabelled rows.
        seed: The data seed.

    Raises:
        UserError: There is no such part, or nothing is left to train on.
    """
    if not (folds >= 2 and 0 <= fold < folds):
        raise UserError(f"data.train_without={fold} must lie in 0 .. data.folds - 1, of at least 2 folds")
    rows = whole.train
    at = position(stratum[rows], duplicate_groups(content[rows]), seed)
    out = np.floor(at * folds).astype(np.int64) == fold
    if out.all():
        raise UserError(f"data.train_without={fold} leaves no wafer to train on; use fewer data.folds or more data")
    return replace(whole, train=rows[~out], unlabelled=np.union1d(whole.unlabelled, rows[out]))


def scarce(label: NDArray[np.integer], class_names: Sequence[str], fraction: float) -> str:
    """A warning where a fraction of the training labels is below one wafer of a class; empty where it is not.

    `split.subset` keeps one wafer of each then, so that every class can be learnt and rare ones weigh more.

    Args:
        label: Of the training wafers, (n,) class indices or (n, C) of 0/1.
        class_names: The C names.
        fraction: What is kept.
    """
    names, counts = np.unique(strata(label), return_counts=True)
    few = fraction * counts < 1 - 1e-9
    if not few.any():
        return ""
    rare = zip(names[few].tolist(), counts[few].tolist(), strict=True)
    named = ": " + ", ".join(f"{class_names[k]} ({count})" for k, count in rare) if label.ndim == 1 else ""
    what = "classes" if label.ndim == 1 else "combinations of labels"
    return (
        f"data.label_fraction={fraction:g} is less than one training wafer of {few.sum()} of {len(names)} {what}{named}"
        "; one of each is kept, so they are a larger share than in the data"
    )
