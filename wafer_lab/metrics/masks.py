"""Intersection over union and Dice of masks as pure functions of pixel counts, on numpy arrays.

Counts have any leading dimensions, as in `wafer_lab.metrics.scores`: wafers, or the replicates of a bootstrap. Pixels
are pooled: the counts of many wafers are summed, then divided. So empty masks need no rule of their own. A wafer
without the pattern, rightly predicted empty, adds nothing to either side, and what is called on it counts as false. A
class without a pixel in truth and prediction scores 0 and is left out of the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.metrics.scores import Scores


@dataclass(frozen=True)
class MaskCounts:
    """Pixels of every class; those that the truth does not know are not counted.

    Attributes:
        intersection: (..., K) pixels that are both in the true and in the predicted mask.
        predicted: (..., K) pixels of the predicted mask.
        true: (..., K) pixels of the true mask.
    """

    intersection: NDArray[Any]
    predicted: NDArray[Any]
    true: NDArray[Any]


def mask_scores(counts: MaskCounts, class_names: Sequence[str]) -> Scores:
    """Compute IoU and Dice from pixel counts.

    Args:
        counts: (..., K), summed over whatever is to be pooled.
        class_names: K names.

    Returns:
        Arrays (...) in [0, 1]: `iou_macro`, `dice_macro`, `iou/<class>`, `dice/<class>`. Dice is F1 over pixels.

    Raises:
        ValueError: the names do not fit the counts.
    """
    hits = np.asarray(counts.intersection, dtype=np.float64)
    if hits.shape[-1] != len(class_names):
        raise ValueError(f"counts of {hits.shape[-1]} classes do not fit {len(class_names)} class names")
    both = hits * 0 + counts.predicted + counts.true
    occurs = both > 0
    per_class = {"iou": hits / np.where(occurs, both - hits, 1), "dice": 2 * hits / np.where(occurs, both, 1)}
    classes = np.maximum(occurs.sum(-1), 1)
    scores: Scores = {f"{name}_macro": np.asarray(values.sum(-1) / classes) for name, values in per_class.items()}
    for name, values in per_class.items():
        scores |= {f"{name}/{label}": values[..., k] for k, label in enumerate(class_names)}
    return scores
