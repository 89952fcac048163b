"""Predicted masks judged from a table of pixel counts, as `predictions.parquet` judges classes: numpy alone.

One row per wafer: for every class how many pixels were predicted, how many are true, and how many are both. IoU and
Dice of a split are ratios of sums over its wafers, so a resample of wafers or lots is one product of weights and sums.

Empty masks: on a wafer without a pattern, a prediction without a pixel adds nothing to any sum, and every pixel
predicted there makes the union larger. A class without a pixel in truth and prediction of the split has no score and is
left out of the means. The IoU by wafer is the mean of the single wafers' IoU over those where truth or prediction has
a pixel: a missed or an invented mask counts 0 there, however small it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.parquet import TableFile, fixed_lists, strings, to_matrix
from wafer_lab.evaluation.resampling import draw_weights, group_numbers, summed
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.tables import table as markdown_table
from wafer_lab.evaluation.tables import with_interval
from wafer_lab.metrics.masks import MaskCounts, mask_scores
from wafer_lab.metrics.scores import Scores

FILE = "masks.parquet"
_FILE = TableFile("table of masks", FILE, 1)
_COUNTS = ("intersection", "predicted", "true")
_FACTS = ("canvas", "truth", "split_digest", "data_fingerprint")
_WEIGHTS = 4_000_000  # of a chunk of resamples: 32 MB
_TRUTHS = {
    "patterns": "The truth is the simulator's own: the dies that each pattern covers.",
    "weak": "The truth is weak: no public data set of wafer maps has masks, so these were derived from where the dies "
    "fail, and nobody drew or checked them.",
}


@dataclass(frozen=True)
class Masks:
    """Pixels of N wafers and K classes, counted on the network's canvas.

    Attributes:
        index: (N,) int64, the wafer's row in its source.
        split: (N,) str, the part of the split it belongs to.
        intersection: (N, K) int32, pixels predicted and true. Pixels of unknown truth are in none of the three.
        predicted: (N, K) int32, pixels predicted.
        true: (N, K) int32, pixels of the truth.
        class_names: the K class names.
        canvas: side of the canvas in pixels.
        truth: where the true masks come from: ``patterns`` (the simulator), ``weak``, or a file of annotations.
        split_digest: hash of the split's indices.
        data_fingerprint: hash of the source the indices count in.
        lot: (N,) str, the production lot, "" where unknown; None where the source has no lots.

    Raises:
        ValueError: the columns disagree in length or width, or the counts in size.
    """

    index: NDArray[np.int64]
    split: NDArray[np.str_]
    intersection: NDArray[np.int32]
    predicted: NDArray[np.int32]
    true: NDArray[np.int32]
    class_names: tuple[str, ...]
    canvas: int
    truth: str
    split_digest: str
    data_fingerprint: str
    lot: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.index), len(self.class_names))
        expected = {"split": shape[:1], **dict.fromkeys(_COUNTS, shape)}
        if self.lot is not None:
            expected["lot"] = shape[:1]
        for name, wanted in expected.items():
            if getattr(self, name).shape != wanted:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {wanted}")
        both, union = self.intersection, self.predicted.astype(np.int64) + self.true - self.intersection
        possible = (both >= 0) & (both <= np.minimum(self.predicted, self.true)) & (union <= self.canvas**2)
        if not possible.all():
            raise ValueError("counts that no masks have")

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """(N, K) IoU of single wafers; nan where neither truth nor prediction has a pixel."""
        union = self.predicted.astype(np.int64) + self.true - self.intersection
        return np.asarray(np.divide(self.intersection, union, out=np.full(union.shape, np.nan), where=union > 0))

    def median_and_worst(self, k: int) -> tuple[NDArray[np.intp], int]:
        """The wafers to show of class k, chosen by rule: those of median and of least IoU among those that have it.

        Of wafers of equal IoU the one with more pixels in truth and prediction counts as worse.

        Returns:
            Positions of the median (the worse of the two where their number is even) and the worst, of one wafer where
            no other has the class, of none where none has; and how many have it.
        """
        rows = np.flatnonzero(self.true[:, k] > 0)
        pixels = self.predicted[rows, k].astype(np.int64) + self.true[rows, k]
        ranked = rows[np.lexsort((rows, -pixels, self.iou[rows, k]))]
        return ranked[[(len(rows) - 1) // 2, 0][: len(rows)]], len(rows)

    def select(self, split: str) -> "Masks":
        """The wafers of one split."""
        rows = self.split == split
        columns = {name: getattr(self, name) for name in ("index", "split", *_COUNTS, "lot")}
        taken: dict[str, Any] = {name: value[rows] for name, value in columns.items() if value is not None}
        return replace(self, **taken)

    @classmethod
    def concat(cls, tables: Sequence["Masks"], split_digest: str) -> "Masks":
        """One table of the wafers of several, of the same classes and data, under the digest of all their splits.

        Raises:
            UserError: the tables are of different classes, canvases, truths or data.
        """
        first = tables[0]
        for name in ("class_names", "canvas", "truth", "data_fingerprint"):
            if len({getattr(table, name) for table in tables}) > 1:
                raise UserError(f"cannot join tables of masks of different {name}; join runs of the same data only")
        names = ["index", "split", *_COUNTS] + (["lot"] if all(table.lot is not None for table in tables) else [])
        joined: dict[str, Any] = {name: np.concatenate([getattr(table, name) for table in tables]) for name in names}
        return replace(first, **({"lot": None, "split_digest": split_digest} | joined))

    def write(self, path: Path | str) -> Path:
        """Write the table as Parquet; the counts are ``fixed_size_list<int32>[K]``.

        Raises:
            UserError: the folder cannot be written.
        """
        columns: dict[str, Any] = {
            "index": pa.array(self.index.astype(np.int64)),
            "split": pa.array(self.split.tolist(), pa.string()),
        }
        columns |= {name: fixed_lists(getattr(self, name).astype(np.int32), pa.int32()) for name in _COUNTS}
        if self.lot is not None:
            columns["lot"] = pa.array(self.lot.tolist(), pa.string()).dictionary_encode()
        facts = {"class_names": list(self.class_names)} | {name: getattr(self, name) for name in _FACTS}
        return _FILE.write(Path(path), pa.table(columns), facts)

    @classmethod
    def read(cls, path: Path | str) -> "Masks":
        """Read a table that :meth:`write` wrote.

        Raises:
            UserError: the file is missing, damaged, not a table of masks, or of a newer version.
        """
        return _FILE.read(Path(path), cls._from_arrow)

    @classmethod
    def _from_arrow(cls, table: pa.Table, meta: dict[str, Any]) -> "Masks":
        counts: dict[str, Any] = {name: to_matrix(table[name], len(meta["class_names"])) for name in _COUNTS}
        return cls(
            index=table["index"].to_numpy(),
            split=strings(table["split"]),
            class_names=tuple(meta["class_names"]),
            lot=strings(table["lot"]) if "lot" in table.column_names else None,
            **counts,
            **{name: meta[name] for name in _FACTS},
        )


@dataclass(frozen=True)
class JudgedMasks:
    """Masks and how good they are.

    Attributes:
        masks: the table.
        scores: keyed ``split/name``; names as in `judge`.
        intervals: of each score.
    """

    masks: Masks
    scores: dict[str, float]
    intervals: Intervals


def judge_masks(masks: Masks, settings: Evaluation, splits: Sequence[str] = ("val", "test")) -> JudgedMasks:
    """Judge some splits of a table.

    Args:
        masks: the table.
        settings: how many resamples, and their seed.
        splits: which.

    Raises:
        UserError: the table has no wafer of a split.
    """
    scores: dict[str, float] = {}
    intervals: Intervals = {}
    for split in splits:
        found, bounds = judge(masks.select(split), settings.resamples, settings.seed)
        scores |= {f"{split}/{name}": value for name, value in found.items()}
        intervals |= {f"{split}/{name}": pair for name, pair in bounds.items()}
    return JudgedMasks(masks, scores, intervals)


def judge(
    masks: Masks, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[dict[str, float], Intervals]:
    """IoU and Dice of N wafers, each with a percentile bootstrap interval over lots, or wafers; see `intervals`.

    Args:
        masks: the wafers.
        resamples: how many test sets to draw; the same draws as of `intervals.judge`.
        seed: of the draws.
        level: the share of them that an interval covers.

    Returns:
        Scores, and name -> (low, high): `iou_macro`, `dice_macro`, `iou/<class>`, `dice/<class>` of all pixels
        together; `iou_wafer_macro`, `iou_wafer/<class>`, means of the single wafers' IoU. A class without a pixel has
        none. A resample without a pixel of a class says nothing of it, and its means leave the class out.

    Raises:
        UserError: there are no wafers.
    """
    if not len(masks):
        raise UserError("there are no wafers whose masks could be judged; check the split that was asked for")
    group = group_numbers(masks.lot, len(masks))
    each = np.hstack([*(getattr(masks, name) for name in _COUNTS), np.nan_to_num(masks.iou), ~np.isnan(masks.iou)])
    sums = summed(each, group)
    whole = _scores(sums.sum(axis=0), masks.class_names)
    scores = {name: float(value) for name, value in whole.items() if np.isfinite(value)}
    step = max(1, _WEIGHTS // len(sums))
    chunks = [range(first, min(first + step, resamples)) for first in range(0, resamples, step)]
    drawn = np.concatenate([draw_weights(len(sums), seed, draws).astype(np.float64) @ sums for draws in chunks])
    values, tails = _scores(drawn, masks.class_names), [(1 - level) / 2, (1 + level) / 2]
    intervals: Intervals = {}
    for name in scores:
        low, high = np.nanquantile(values[name], tails)
        intervals[name] = (float(low), float(high))
    return scores, intervals


def _scores(sums: NDArray[np.float64], class_names: Sequence[str]) -> Scores:
    """Scores (...) of (..., 5K) sums: the three counts, the wafers' IoU, and how many have one; nan for no pixel."""
    both, predicted, true, iou, counted = np.split(sums, 5, axis=-1)
    scores = mask_scores(MaskCounts(both, predicted, true), class_names)
    occurs = counted > 0  # as many classes have a wafer with a pixel as have a pixel
    by_wafer = np.divide(iou, counted, out=np.full(iou.shape, np.nan), where=occurs)
    scores["iou_wafer_macro"] = np.nansum(by_wafer, axis=-1) / np.maximum(occurs.sum(-1), 1)
    scores |= {f"iou_wafer/{name}": by_wafer[..., k] for k, name in enumerate(class_names)}
    kinds = ("iou", "dice", "iou_wafer")
    seen = {f"{kind}_macro": occurs.any(-1) for kind in kinds}
    seen |= {f"{kind}/{name}": occurs[..., k] for kind in kinds for k, name in enumerate(class_names)}
    return {name: np.where(where, scores[name], np.nan) for name, where in seen.items()}


def masks_section(judged: JudgedMasks, split: str = "test") -> list[str]:
    """The lines of the report's section on masks."""
    masks = judged.masks
    part = masks.select(split)
    shown = {"iou": "IoU", "dice": "Dice", "iou_wafer": "IoU by wafer"}
    support = zip(masks.class_names, (part.true > 0).sum(axis=0), strict=True)
    ends = [(name, f"{has:,}", f"/{name}") for name, has in support]
    rows = [
        [name, has, *(_cell(judged, f"{split}/{key}{end}") for key in shown)]
        for name, has, end in [*ends, ("mean", "", "_macro")]
    ]
    how = (
        f"Pixels of probability 0.5 or more, on the network's canvas of {masks.canvas} x {masks.canvas}, of the wafer "
        "as it is (one view, whatever the predictor averages over). IoU and Dice pool the pixels of all wafers of the "
        "split: a wafer without the pattern adds nothing where nothing is predicted, and what is predicted there "
        "counts as wrong. IoU by wafer is the mean over the wafers where truth or prediction has a pixel; a missed or "
        "an invented mask counts 0. Every other section judges whole wafers, by the labels that the masks give: a "
        "label's logit is the mean of the largest 0.4 % (at least 8) of its pixels' logits."
    )
    truth = _TRUTHS.get(masks.truth, f"The truth is the annotations of {masks.truth}.")
    return [f"## Masks, {split}", "", *markdown_table(["class", "wafers", *shown.values()], rows), "", truth, "", how]


def _cell(judged: JudgedMasks, key: str) -> str:
    return with_interval(judged.scores[key], judged.intervals.get(key)) if key in judged.scores else "-"
