"""WM-811K as it is published: LSWMD.pkl (Kaggle), or WM811K.pkl of the MIR-WM811K archive."""

import pickle
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.readers import files
from wafer_lab.data.readers.frame import columns_of
from wafer_lab.data.readers.unpickle import Array, Refused, text, unpickle
from wafer_lab.data.rows import Kind, Rows, Target
from wafer_lab.errors import UserError

READER = "lswmd 1"
BATCH = 4096
_PARTS = {"": "", "training": "train", "train": "train", "test": "test", "testing": "test"}
_UNLABELLED = -1


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_CLASS_OF = {_plain(name): index for index, name in enumerate(WM811K_CLASSES)}


class LSWMD:
    """The WM-811K pickle: 811,457 wafers, 172,950 of them labelled.

    The file is read with an allow-list and never run (see ``unpickle``), whichever pandas wrote it and whether or not
    one is installed. Unlabelled rows are kept with label -1; ``none`` is a label. The value 3 is clipped to 2.

    Source: M.-J. Wu, J.-S. R. Jang, J.-L. Chen, "Wafer Map Failure Pattern Recognition and Similarity Ranking for
    Large-Scale Data Sets", IEEE Trans. Semiconductor Manufacturing 28(1), 2015.

    Args:
        path: the .pkl, or a .zip that holds it.
        tolerant: see `open_source`.

    Raises:
        UserError: it is missing or evidently something else.
    """

    name = "wm811k"
    kind: Kind = "maps"
    target: Target = "multiclass"
    class_names: tuple[str, ...] = WM811K_CLASSES

    def __init__(self, path: str | Path, tolerant: bool = False) -> None:
        self.path, self._tolerant = Path(path), tolerant
        self._clip = files.Clipping(tolerant)
        start = files.head(self.path)
        self._member = ""
        if files.is_zip(start):
            self._member = files.only_member(self.path, (".pkl", ".pickle"), ("lswmd", "wm811k"))
        elif not is_pickle(start):
            raise UserError(f"{self.path} is no pickle; expected LSWMD.pkl of WM-811K, or a .zip that holds it")

    def fingerprint(self) -> str:
        """16 hex digits of the file's size, time and sampled content."""
        return files.fingerprint(self.path, READER)

    def notes(self) -> dict[str, int | str]:
        """``cells_clipped`` and ``maps_clipped``, where there were any."""
        return self._clip.notes()

    def rows(self) -> Iterator[Rows]:
        """Batches of up to 4096 wafers, in the file's order. The whole file is read before the first.

        Raises:
            UserError: it is damaged, asks to run something, lacks the maps, or holds an unknown state or label.
        """
        self._clip = files.Clipping(self._tolerant)
        columns = self._columns()
        maps, labels = columns["waferMap"], None if self._tolerant else columns.get("failureType")
        lots, wafers, parts = (columns.get(name) for name in ("lotName", "waferIndex", "trainTestLabel"))
        parts = None if self._tolerant else parts
        names = _Names(self.path)
        for start in range(0, len(maps), BATCH):
            here = slice(start, start + BATCH)
            cells, height, width, faults = self._cells(maps[here], start)
            count = len(height)
            yield Rows(
                label=np.array(
                    [names.label(v, start + i) for i, v in enumerate(labels[here])]
                    if labels
                    else [_UNLABELLED] * count,
                    np.int16,
                ),
                height=height,
                width=width,
                cells=cells,
                lot=[names.word(v) for v in lots[here]] if lots else None,
                wafer=np.array([_whole(v) for v in wafers[here]], np.int32) if wafers else None,
                vendor_split=[names.part(v, start + i) for i, v in enumerate(parts[here])] if parts else None,
                faults=faults if self._tolerant else None,
            )
            for column in columns.values():
                column[here] = [None] * len(column[here])  # let go of what has been handed over

    def _columns(self) -> dict[str, list[Any]]:
        with ExitStack() as stack:
            archive = stack.enter_context(files.opened_zip(self.path)) if self._member else None
            file = stack.enter_context(files.binary(self.path, archive, self._member))
            try:
                found = columns_of(unpickle(file))  # type: ignore[arg-type]
            except (Refused, pickle.UnpicklingError) as error:
                raise UserError(
                    f"{self.path} cannot be read as a pickled DataFrame: {error}; if it is the published file, it is "
                    "cut off or damaged: download it again"
                ) from None
            except UserError as error:
                raise UserError(f"{self.path}: {error}") from None
            except (
                ValueError,
                TypeError,
                LookupError,
                AttributeError,
                ArithmeticError,
                RecursionError,
            ) as error:
                raise UserError(f"{self.path} is damaged ({error}); download it again") from None
        return self._named(found)

    def _named(self, found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        spelt = {_plain(name): column for name, column in found.items()}
        if "triantestlabel" in spelt:  # sic, in the published file
            spelt.setdefault("traintestlabel", spelt["triantestlabel"])
        wanted = ("waferMap", "failureType", "lotName", "waferIndex", "trainTestLabel")
        columns = {name: spelt[_plain(name)] for name in wanted if _plain(name) in spelt}
        if not columns.get("waferMap"):
            what = "no rows" if "waferMap" in columns else f"the columns {', '.join(found) or '(none)'}"
            raise UserError(
                f"{self.path} is a DataFrame with {what}; WM-811K has waferMap, dieSize, lotName, waferIndex, "
                "trianTestLabel and failureType, of which waferMap is needed"
            )
        return columns

    def _cells(
        self, maps: list[Any], start: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], dict[int, str]]:
        parts, faults = [], {}
        for i, item in enumerate(maps):
            try:
                parts.append(_map(item))
            except UserError as error:
                if not self._tolerant:
                    raise UserError(f"{self.path}, row {start + i}: {error}") from None
                faults[i] = str(error)
                parts.append(np.zeros((1, 1), np.uint8))
        shape = np.array([part.shape for part in parts], np.int32)
        cells = self._clip(
            np.concatenate([part.ravel() for part in parts]),
            shape.astype(np.int64).prod(1),
            lambda row: f"{self.path}, row {start + row}: waferMap",
        )
        faults |= {row: f"waferMap {fault}" for row, fault in self._clip.faults.items()}
        return cells, shape[:, 0].copy(), shape[:, 1].copy(), faults


def _map(item: Any) -> NDArray[Any]:
    """The map in a cell, as whole numbers."""
    try:
        wafer: NDArray[Any] = item.values() if isinstance(item, Array) else np.asarray(item)
    except ValueError:
        wafer = np.empty(0)
    if wafer.ndim != 2 or not wafer.size or wafer.dtype.kind not in "iufb":
        raise UserError("waferMap is no 2-D array of die states")
    if wafer.dtype == np.uint8:
        return wafer
    whole: NDArray[np.int64] = np.nan_to_num(wafer, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    if not np.array_equal(whole, wafer):
        raise UserError("waferMap holds a value that is no die state")
    return whole


def is_pickle(start: bytes) -> bool:
    """Whether a file that starts so can be a pickle: protocol 2 or later, or a DataFrame in protocol 0 or 1."""
    return (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05") or start.startswith(
        (b"ccopy_reg\n", b"ccopyreg\n", b"cpandas")
    )


class _Names:
    """Reads label cells: ``[['none']]``, ``['none']``, ``'none'``, or any of the ways to write nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[Any, str] = {}

    def word(self, value: Any) -> str:
        """The one word in a nested cell, ``""`` where there is none."""
        if isinstance(value, Array) and isinstance(value.raw, (bytes, bytearray)):
            key = (bytes(value.raw), value.dtype)  # a few dozen distinct cells stand for all rows
            if key not in self._seen:
                self._seen[key] = self._word(value.values().ravel().tolist())
            return self._seen[key]
        return self._word(value)

    def _word(self, value: Any) -> str:
        if isinstance(value, Array):
            value = value.values().ravel().tolist()
        if isinstance(value, (list, tuple)):
            return self._word(value[0]) if len(value) == 1 else "" if not value else repr(value)
        if value is None or (isinstance(value, float) and value != value):
            return ""
        return text(value).strip() if isinstance(value, (str, bytes, bytearray)) else str(value)

    def label(self, value: Any, row: int) -> int:
        """Class index, -1 where nobody labelled the wafer."""
        word = self.word(value)
        if not word:
            return _UNLABELLED
        index = _CLASS_OF.get(_plain(word))
        if index is None:
            raise UserError(
                f"{self._path}, row {row}: unknown failureType {word!r}; known are {', '.join(WM811K_CLASSES)}, "
                "and an empty cell for wafers that nobody labelled"
            )
        return index

    def part(self, value: Any, row: int) -> str:
        """``"train"``, ``"test"`` or ``""``."""
        word = self.word(value)
        part = _PARTS.get(word.lower())
        if part is None:
            raise UserError(f"{self._path}, row {row}: unknown trainTestLabel {word!r}; known are Training, Test")
        return part


def _whole(value: Any) -> int:
    """A wafer's place in its lot, -1 where the file does not say."""
    known = isinstance(value, (int, float)) and value == value and abs(value) < 2**31
    return int(value) if known else -1
