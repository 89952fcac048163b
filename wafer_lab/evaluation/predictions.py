"""The predictions table: the one thing everything after training reads.

One row per wafer, split and view: who it is, what it is, and the logits a model gave it. Calibration,
thresholds, ensembles, intervals, cost and comparisons are functions of this table alone, so none of them
needs the model, the data or a GPU.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.files import replacing

TargetKind = Literal["multiclass", "multilabel"]

_KEY = b"wafer_lab.predictions"
_VERSION = 1
_MAGIC = b"PAR1"
_COLUMNS = ("index", "split", "view", "target", "logits", "lot", "knn_distance")
_HINT = "name the predictions.parquet that a run left in its folder"


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
        path = Path(path)
        _check_finite(self.logits, "these predictions")
        try:
            with replacing(path) as beside:
                pq.write_table(self._to_arrow(), beside, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; free space or use another folder") from error
        return path

    def _to_arrow(self) -> pa.Table:
        classes = self.num_classes
        facts = {name: getattr(self, name) for name in ("target_kind", "split_digest", "data_fingerprint")}
        meta = {"version": _VERSION, "class_names": list(self.class_names), **facts}
        if self.target_kind == "multiclass":
            target = pa.array(self.target.astype(np.int64))
        else:
            target = _fixed_lists(self.target.astype(np.int8), pa.int8(), classes)
        columns: dict[str, Any] = {
            "index": pa.array(self.index.astype(np.int64)),
            "split": pa.array(self.split.tolist(), pa.string()),
            "view": pa.array(self.view.astype(np.int8)),
            "target": target,
            "logits": _fixed_lists(self.logits.astype(np.float32), pa.float32(), classes),
        }
        if self.lot is not None:
            columns["lot"] = pa.array(self.lot.tolist(), pa.string()).dictionary_encode()
        if self.knn_distance is not None:
            columns["knn_distance"] = pa.array(self.knn_distance.astype(np.float32))
        return pa.table(columns).replace_schema_metadata({_KEY: json.dumps(meta).encode()})

    @classmethod
    def read(cls, path: Path | str) -> "Predictions":
        """Read a table that :meth:`write` wrote.

        Raises:
            UserError: the file is missing, incomplete, not a predictions table, of a newer version, or holds
                logits that are not finite.
        """
        path = Path(path)
        table = _read_parquet(path)
        try:
            predictions = cls._from_arrow(table, path)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(path) from error
        _check_finite(predictions.logits, str(path))
        return predictions

    @classmethod
    def _from_arrow(cls, table: pa.Table, path: Path) -> "Predictions":
        meta = json.loads((table.schema.metadata or {}).get(_KEY, b"null"))
        if meta is None:
            raise UserError(f"{path} is not a predictions table; {_HINT}")
        if meta["version"] > _VERSION:
            raise UserError(f"{path} was written by a newer wafer_lab; update this one to read it")
        classes = len(meta["class_names"])
        multiclass = meta["target_kind"] == "multiclass"
        return cls(
            index=table["index"].to_numpy(),
            split=_strings(table["split"]),
            view=table["view"].to_numpy(),
            target=table["target"].to_numpy() if multiclass else _to_matrix(table["target"], classes),
            logits=_to_matrix(table["logits"], classes),
            class_names=tuple(meta["class_names"]),
            target_kind=meta["target_kind"],
            split_digest=meta["split_digest"],
            data_fingerprint=meta["data_fingerprint"],
            lot=_strings(table["lot"]) if "lot" in table.column_names else None,
            knn_distance=table["knn_distance"].to_numpy() if "knn_distance" in table.column_names else None,
        )


def _strings(column: pa.ChunkedArray) -> NDArray[np.str_]:
    """Decoded through a dictionary: a few distinct strings, then one numpy gather."""
    plain = column.cast(pa.string()).combine_chunks().dictionary_encode()
    names = np.array(plain.dictionary.to_pylist() or [""], dtype=np.str_)
    return np.asarray(names[plain.indices.to_numpy()])


def _fixed_lists(matrix: NDArray[Any], kind: pa.DataType, width: int) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), kind), width)


def _to_matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, column.type.value_type.to_pandas_dtype())
    return flat.reshape(-1, width)


def _read_parquet(path: Path) -> pa.Table:
    if not path.is_file():
        raise UserError(f"there is no predictions table at {path}; {_HINT}")
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        file.seek(max(0, path.stat().st_size - len(_MAGIC)))
        tail = file.read()
    if head != _MAGIC:
        raise UserError(f"{path} is not a predictions table, nor any Parquet file; {_HINT}")
    if tail != _MAGIC:
        raise _damaged(path)
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is cut short or damaged; copy it again, or train again to make it anew")


def _check_finite(logits: NDArray[np.float32], where: str) -> None:
    broken = int((~np.isfinite(logits).all(axis=1)).sum())
    if broken:
        raise UserError(
            f"{where}: the logits of {broken} of {len(logits)} rows are not finite, so training diverged; "
            "train again with a lower learning rate or with trainer.precision=32"
        )
