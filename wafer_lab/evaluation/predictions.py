"""The predictions table: the one thing everything after training reads.

One row per wafer, split and view: who it is, what it is, and the logits a model gave it. Calibration,
thresholds, ensembles, intervals, cost and comparisons are functions of this table alone, so none of them
needs the model, the data or a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.parquet import TableFile, fixed_lists, strings, to_matrix
from wafer_lab.evaluation.settings import TargetKind as TargetKind

_FILE = TableFile("predictions table", "predictions.parquet", 1)
_COLUMNS = ("index", "split", "view", "target", "logits", "lot", "knn_distance")


@dataclass(frozen=True)
class Predictions:
    """What a model said about N wafers of C classes.

    Attributes:
        index: (N,) int64, the wafer's row in its source.
        split: (N,) str, the part of the split it belongs to: ``train``, ``val``, ``test``, ...
        view: (N,) int8, which of the eight rotations and flips was shown (see `views`); 0 is the wafer as it is.
        target: multiclass (N,) int64, -1 where unlabelled; multilabel (N, C) int8 of 0/1, a row of -1
            where unlabelled.
        logits: (N, C) float32.
        class_names: the C class names, in the order of the logits.
        target_kind: ``multiclass`` (softmax, argmax) or ``multilabel`` (sigmoid, 0.5 per label).
        split_digest: hash of the split's indices.
        data_fingerprint: hash of the source the indices count in.
        lot: (N,) str, the production lot, "" where unknown; None where the source has no lots.
        knn_distance: (N,) float32, distance of the wafer's features from those of the training wafers; None where
            it was not computed.

    Raises:
        ValueError: the columns disagree in length or width, or the target kind is unknown.
    """

    index: NDArray[np.int64]
    split: NDArray[np.str_]
    view: NDArray[np.int8]
    target: NDArray[Any]
    logits: NDArray[np.float32]
    class_names: tuple[str, ...]
    target_kind: TargetKind
    split_digest: str
    data_fingerprint: str
    lot: NDArray[np.str_] | None = None
    knn_distance: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rows, classes = len(self.index), len(self.class_names)
        if self.target_kind not in ("multiclass", "multilabel"):
            raise ValueError(f"target_kind is {self.target_kind!r}, not multiclass or multilabel")
        target = (rows,) if self.target_kind == "multiclass" else (rows, classes)
        expected = {"split": (rows,), "view": (rows,), "target": target, "logits": (rows, classes)}
        expected |= {name: (rows,) for name in ("lot", "knn_distance") if getattr(self, name) is not None}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.class_names)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) bool, True where the wafer has a label."""
        known = self.target >= 0
        return np.asarray(known if self.target_kind == "multiclass" else known.all(axis=1), dtype=bool)

    def probabilities(self) -> NDArray[np.float32]:
        """Class probabilities: softmax over the classes, or one sigmoid per label.

        Returns:
            (N, C) float32 in [0, 1]; multiclass rows sum to 1.
        """
        logits = self.logits.astype(np.float64)
        if self.target_kind == "multilabel":
            # The sigmoid as a tanh: no overflow at either end.
            probabilities = 0.5 * (1.0 + np.tanh(0.5 * logits))
        else:
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        return np.asarray(probabilities, dtype=np.float32)

    def decisions(self) -> NDArray[Any]:
        """The class or labels the model settles on, without tuned thresholds.

        Returns:
            multiclass: (N,) int64, the class of the largest logit (the first of equals). multilabel: (N, C)
            int8, 1 where the probability reaches 0.5.
        """
        if self.target_kind == "multilabel":
            return np.asarray(self.probabilities() >= 0.5, dtype=np.int8)
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    def select(
        self, split: str | None = None, view: int | None = None, rows: NDArray[Any] | None = None
    ) -> "Predictions":
        """The rows of one split, of one view, or those given; every condition named must hold.

        Args:
            split: keep this split only.
            view: keep this view only.
            rows: (N,) bool, keep where True.
        """
        keep = np.ones(len(self), dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
        if split is not None:
            keep = keep & (self.split == split)
        if view is not None:
            keep = keep & (self.view == view)
        return self.take(np.flatnonzero(keep))

    def take(self, positions: NDArray[np.int64]) -> "Predictions":
        """The rows at some positions, in their order."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS if getattr(self, name) is not None}
        taken: dict[str, Any] = {name: column[positions] for name, column in columns.items()}
        return replace(self, **taken)

    def splits(self) -> tuple[str, ...]:
        """The names of the splits in the table, in the order they first appear."""
        names, first = np.unique(self.split, return_index=True)
        return tuple(str(name) for name in names[np.argsort(first)])

    @classmethod
    def concat(cls, tables: Sequence["Predictions"]) -> "Predictions":
        """One table of the rows of several, in order.

        Raises:
            UserError: the tables are of different classes, target kinds, splits or data.
            ValueError: there is no table.
        """
        if not tables:
            raise ValueError("concat needs at least one table")
        first = tables[0]
        for name in ("class_names", "target_kind", "split_digest", "data_fingerprint"):
            values = {getattr(table, name) for table in tables}
            if len(values) > 1:
                raise UserError(
                    f"cannot join prediction tables of different {name}: "
                    f"{' / '.join(sorted(map(str, values)))}; join runs of the same data and split only"
                )
        shared = [name for name in _COLUMNS if all(getattr(table, name) is not None for table in tables)]
        joined: dict[str, Any] = {name: np.concatenate([getattr(table, name) for table in tables]) for name in shared}
        absent: dict[str, Any] = dict.fromkeys(_COLUMNS)
        return replace(first, **(absent | joined))

    def write(self, path: Path | str) -> Path:
        """Write the table as Parquet, beside its place and then renamed into it.

        The columns are ``index, split, view, target, logits`` (logits a ``fixed_size_list<float32>[C]``) and, where
        known, ``lot`` and ``knn_distance``; the rest is JSON in the schema's metadata, so any Parquet reader can use
        the file.

        Raises:
            UserError: a logit is not finite, or the folder cannot be written.
        """
        _check_finite(self.logits, "these predictions")
        facts = {name: getattr(self, name) for name in ("target_kind", "split_digest", "data_fingerprint")}
        return _FILE.write(Path(path), self._to_arrow(), {"class_names": list(self.class_names), **facts})

    def _to_arrow(self) -> pa.Table:
        if self.target_kind == "multiclass":
            target = pa.array(self.target.astype(np.int64))
        else:
            target = fixed_lists(self.target.astype(np.int8), pa.int8())
        columns: dict[str, Any] = {
            "index": pa.array(self.index.astype(np.int64)),
            "split": pa.array(self.split.tolist(), pa.string()),
            "view": pa.array(self.view.astype(np.int8)),
            "target": target,
            "logits": fixed_lists(self.logits.astype(np.float32), pa.float32()),
        }
        if self.lot is not None:
            columns["lot"] = pa.array(self.lot.tolist(), pa.string()).dictionary_encode()
        if self.knn_distance is not None:
            columns["knn_distance"] = pa.array(self.knn_distance.astype(np.float32))
        return pa.table(columns)

    @classmethod
    def read(cls, path: Path | str) -> "Predictions":
        """Read a table that :meth:`write` wrote.

        Raises:
            UserError: the file is missing, incomplete, not a predictions table, of a newer version, or holds
                logits that are not finite.
        """
        predictions = _FILE.read(Path(path), cls._from_arrow)
        _check_finite(predictions.logits, str(path))
        return predictions

    @classmethod
    def _from_arrow(cls, table: pa.Table, meta: dict[str, Any]) -> "Predictions":
        classes = len(meta["class_names"])
        multiclass = meta["target_kind"] == "multiclass"
        if any(table[name].null_count for name in ("index", "split", "view", "target", "logits")):
            raise ValueError("values are missing")
        if not pa.types.is_integer(table["index"].type):
            raise ValueError("the index is not of whole numbers")
        found = cls(
            index=table["index"].to_numpy(),
            split=strings(table["split"]),
            view=table["view"].to_numpy(),
            target=table["target"].to_numpy() if multiclass else to_matrix(table["target"], classes),
            logits=to_matrix(table["logits"], classes),
            class_names=tuple(meta["class_names"]),
            target_kind=meta["target_kind"],
            split_digest=meta["split_digest"],
            data_fingerprint=meta["data_fingerprint"],
            lot=strings(table["lot"]) if "lot" in table.column_names else None,
            knn_distance=table["knn_distance"].to_numpy() if "knn_distance" in table.column_names else None,
        )
        if len(found) and not -1 <= found.target.min() <= found.target.max() < (classes if multiclass else 2):
            raise ValueError("a target is no class")
        return found


def _check_finite(logits: NDArray[np.float32], where: str) -> None:
    broken = int((~np.isfinite(logits).all(axis=1)).sum())
    if broken:
        raise UserError(
            f"{where}: the logits of {broken} of {len(logits)} rows are not finite, so training diverged; "
            "train again with a lower learning rate or with trainer.precision=32"
        )
