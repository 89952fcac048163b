"""Which training wafers have a label, and which one: a file of answers from a model, a person or a choice of wafers."""

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.split import Split, strata
from wafer_lab.errors import UserError
from wafer_lab.files import replacing

_NOTHING = "none"  # of labels that may hold together: none of them


@dataclass(frozen=True)
class Labelled:
    """What a file of answers, or a model, says.

    Attributes:
        file: Its name.
        index: (n,) int64 rows of the source, in the file's order, each once.
        label: (n,) int16 classes or (n, C) int8 of 0/1; -1 where it gives none.
    """

    file: str
    index: NDArray[np.int64]
    label: NDArray[np.integer]


def read_labelled(path: str | Path, class_names: Sequence[str], target: str, rows: int) -> Labelled:
    """Read a CSV file with a column `index`, and a column `label` where labels are not the source's own.

    Other columns are passed over. A label is written as `wafer-lab predict` does: a class, or labels joined by `+`, or
    `none` for no label at all; empty where the source's own label stands.

    Args:
        path: The file.
        class_names: The C classes or labels.
        target: `multiclass` or `multilabel`; of a `mask` labels cannot be written in a CSV file, so only which rows.
        rows: Number of rows of the source.

    Raises:
        UserError: It is not such a file, or names rows or classes that do not exist, or a row twice.
    """
    lines = _lines(Path(path))
    seen: dict[int, int] = {}
    label: NDArray[np.integer] = np.full(
        len(lines) if target == "multiclass" else (len(lines), len(class_names)),
        -1,
        dtype=np.int16 if target == "multiclass" else np.int8,
    )
    for place, (number, index, names) in enumerate(lines):
        where = f"{path}, line {number}"
        if not index.strip().isdecimal() or int(index) >= rows:
            raise UserError(f"{where}: index {index!r} is no row of the source, which are 0 to {rows - 1}")
        row = int(index)
        if row in seen:
            raise UserError(f"{where}: row {row} stands in line {seen[row]} too; name every row once")
        seen[row] = number
        if names.strip():
            label[place] = _read_label(names, class_names, target, where)
    return Labelled(str(path), np.fromiter(seen, np.int64, len(seen)), label)


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Number, index and label of each line, as they are written; an empty label where there is no such column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            lines = [(reader.line_num, line.get("index", ""), line.get("label") or "") for line in reader]
            names = [name for name in reader.fieldnames or [] if name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"data.labelled: {path} cannot be read ({why}); give a CSV file with a column index") from None
    if "index" not in names:
        raise UserError(
            f"data.labelled: {path} has no column index, only {', '.join(names) or 'nothing'}; its first line must be "
            "index or index,label, with commas"
        )
    if not lines:
        raise UserError(f"data.labelled: {path} names no wafer; give it a line for each one to train on")
    if "prediction" in names and "label" not in names:
        raise UserError(
            f"data.labelled: {path} has a column prediction; to train on what was predicted, call that column label"
        )
    return lines


def _read_label(text: str, class_names: Sequence[str], target: str, where: str) -> Any:
    """A class, or (C,) of 0/1."""
    if target == "mask":
        raise UserError(f"{where}: {text!r} says nothing about masks; leave the column label out, or use data.masks")
    names = [name.strip() for name in text.split("+")]
    if target == "multilabel" and names == [_NOTHING] and _NOTHING not in class_names:
        return 0
    for name in names:
        if name not in class_names:
            close = difflib.get_close_matches(name, class_names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"choose among {', '.join(class_names)}"
            raise UserError(f"{where}: there is no class {name}; {hint}")
    if target == "multilabel":
        return [int(name in names) for name in class_names]
    if len(names) > 1:
        raise UserError(f"{where}: {text} are several classes, and a wafer has one here; choose one of them")
    return class_names.index(names[0])


def write_labelled(
    path: Path, index: NDArray[np.int64], label: NDArray[np.integer], class_names: Sequence[str]
) -> None:
    """Write what `read_labelled` reads.

    Args:
        path: The file.
        index: (n,) rows of the source.
        label: (n,) classes or (n, C) of 0/1; negative where the source's own label stands.
        class_names: The C classes or labels.
    """
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label"])
        writer.writerows([row, label_name(one, class_names)] for row, one in zip(index.tolist(), label, strict=True))


def label_name(label: Any, class_names: Sequence[str]) -> str:
    """A class index, or (C,) of 0/1, as `read_labelled` reads it; negative: nothing."""
    if np.ndim(label) == 0:
        return class_names[int(label)] if label >= 0 else ""
    if label[0] < 0:
        return ""
    return "+".join(name for name, has in zip(class_names, label, strict=True) if has) or _NOTHING


def labelled_only(
    whole: Split,
    label: NDArray[np.integer],
    found: Labelled,
    content: NDArray[np.uint64],
    lot: NDArray[np.str_] | None = None,
) -> tuple[Split, NDArray[np.integer]]:
    """Train on the wafers that a file names, under its labels; all others of the training side become unlabelled.

    Val and test stay as they are. An unlabelled wafer joins train where the file gives it a label, unless it is a copy
    of a wafer, or of a lot, that the model is judged on. Rows of no part, as beyond a limit, are passed over.

    Args:
        whole: The split.
        label: (N,) or (N, C) labels of all rows of the source; negative where unlabelled.
        found: What the file says.
        content: (N,) uint64 content hashes.
        lot: (N,) lot names, where no lot may stand on two sides.

    Returns:
        The split, and the labels of all rows with those of the file.

    Raises:
        UserError: The file names a wafer of val or test, or an unlabelled one without a label, or none to train on.
    """
    for part in ("val", "test", "unknown"):
        judged = np.intersect1d(found.index, getattr(whole, part))
        if len(judged):
            raise UserError(
                f"{found.file}: row {judged[0]} belongs to {part}, on which models are judged, never trained "
                f"({len(judged)} rows of the file do); name training wafers only"
            )
    given = strata(found.label) >= 0
    label = label.copy()
    label[found.index[given]] = found.label[given]
    allowed = joinable(whole, content, lot)
    train = np.intersect1d(found.index, np.concatenate([whole.train, allowed]))
    if bare := train[strata(label[train]) < 0].tolist():
        raise UserError(
            f"{found.file}: row {bare[0]} has no label in the data; write one in the column label, or leave it out"
        )
    if len(train) == 0:
        raise UserError(f"{found.file}: no wafer of it belongs to the training part; name training wafers")
    rest = np.setdiff1d(np.concatenate([whole.train, whole.unlabelled]), train)
    return replace(whole, train=train, unlabelled=rest), label


def joinable(whole: Split, content: NDArray[np.uint64], lot: NDArray[np.str_] | None = None) -> NDArray[np.int64]:
    """The unlabelled rows that may join train once they have a label; arguments as for `labelled_only`."""
    judged, rows = np.concatenate([whole.val, whole.test, whole.unknown]), whole.unlabelled
    free = ~np.isin(content[rows], content[judged])
    if lot is not None:
        free &= ~np.isin(lot[rows], np.setdiff1d(lot[judged], [""]))
    return rows[free]
