"""The store: a data set on disk in the form training wants, opened memory-mapped in milliseconds.

A store is a folder of two files. ``maps.arrow`` is an uncompressed Arrow IPC file with one row per wafer or
image; ``header.json`` says what the rows are. ``prepare`` writes one from any ``Source``; ``Store.open`` maps it.
The cells are never copied on opening, so processes that open the same store share its pages.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wafer_lab.data.rows import Kind, Rows, Source, Target, content_hash, content_hashes
from wafer_lab.errors import UserError

__all__ = [
    "SCHEMA_VERSION",
    "Header",
    "Rows",
    "Source",
    "Store",
    "content_hash",
    "content_hashes",
    "is_store",
]

SCHEMA_VERSION = 1
ARROW_FILE = "maps.arrow"
HEADER_FILE = "header.json"


@dataclass(frozen=True)
class Header:
    """What ``header.json`` says about a store.

    Attributes:
        name: the source's short name.
        kind: ``"maps"`` or ``"images"``.
        target: ``"multiclass"`` or ``"multilabel"``.
        class_names: in the order that labels index them.
        fingerprint: of the source the store was prepared from; the key by which the cache knows it.
        digest: of what was read: content, labels and class names. The same data has it on every machine.
        rows: number of rows.
        arrow_bytes: size of ``maps.arrow``, by which a cut-off copy is noticed.
        root: images: absolute folder that ``path`` is relative to; ``""`` for maps.
        notes: what the reader mended or skipped.
        schema_version: of the two files.
    """

    name: str
    kind: Kind
    target: Target
    class_names: tuple[str, ...]
    fingerprint: str
    digest: str
    rows: int
    arrow_bytes: int
    root: str = ""
    notes: dict[str, int | str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write ``header.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / HEADER_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check ``header.json`` of ``folder``.

        Raises:
            UserError: it is missing, unreadable, or written by a newer wafer_lab.
        """
        try:
            found = json.loads((folder / HEADER_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder} is not a prepared store: it has no {HEADER_FILE}; {_MEND}") from None
        except OSError as error:
            raise UserError(f"{folder / HEADER_FILE} cannot be read ({error.strerror}); {_MEND}") from None
        except ValueError:
            raise UserError(f"{folder / HEADER_FILE} is damaged: it is not JSON; {_MEND}") from None
        version = found.get("schema_version") if isinstance(found, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{folder / HEADER_FILE} is damaged: it has no schema_version; {_MEND}")
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{folder} has store schema {version}, but this wafer_lab reads up to {SCHEMA_VERSION}; "
                "upgrade wafer_lab, or delete the folder and prepare it again"
            )
        try:
            header = cls(**{**found, "class_names": tuple(found["class_names"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"{folder / HEADER_FILE} is damaged ({error}); {_MEND}") from None
        if header.kind not in get_args(Kind) or header.target not in get_args(Target):
            raise UserError(
                f"{folder / HEADER_FILE} is damaged: kind {header.kind!r}, target {header.target!r}; {_MEND}"
            )
        return header


_MEND = "delete that folder and prepare it again (wafer-lab data prepare SRC DEST)"


class Store:
    """A prepared data set, memory-mapped and read-only. Open one with ``Store.open``.

    A store is a ``Source`` too: it hands over the rows it was prepared from.

    Attributes:
        folder: where the store lies.
        header: what it holds; ``name``, ``kind``, ``target`` and ``class_names`` are its.
        label: ``(N,) int16`` or ``(N, C) int8``; -1 = unlabelled.
        height: ``(N,) int32``.
        width: ``(N,) int32``.
        content: ``(N,) uint64``: equal content, equal hash.
        wafer: ``(N,) int32`` place in the lot (-1 = unknown), or None where the source has none.
    """

    def __init__(self, folder: Path, header: Header, batches: list[pa.RecordBatch], file: pa.Buffer) -> None:
        self.folder = folder
        self.header = header
        self.name, self.kind, self.target = header.name, header.kind, header.target
        self.class_names = header.class_names
        self._batches = batches
        self._columns = frozenset(batches[0].schema.names)
        self._bytes = np.frombuffer(file, dtype=np.uint8)
        self._address: int = file.address
        self.label: NDArray[Any] = self._joined("label")
        self.height: NDArray[np.int32] = self._joined("height")
        self.width: NDArray[np.int32] = self._joined("width")
        self._sizes = self.height.astype(np.int64) * self.width
        if self.height.min() < 1 or self.width.min() < 1:
            raise ValueError("a height or width below 1")
        self.content: NDArray[np.uint64] = self._joined("content")
        self.wafer: NDArray[np.int32] | None = self._joined("wafer") if "wafer" in self._columns else None
        self._starts = {name: self._positions(name) for name in ("cells", "patterns") if name in self._columns}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map the store in folder ``path``; 811,457 rows take under 0.1 s and no cell is copied.

        Raises:
            UserError: it is no store, is damaged or cut off, or was written by a newer wafer_lab.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"there is no prepared store at {folder}; wafer-lab data prepare makes one")
        header = Header.read(folder)
        arrow = folder / ARROW_FILE
        size = arrow.stat().st_size if arrow.is_file() else None
        if size is None:
            raise UserError(f"{folder} is damaged: {ARROW_FILE} is missing; {_MEND}")
        if size != header.arrow_bytes:
            raise UserError(f"{arrow} is damaged: {size:,} bytes where the header says {header.arrow_bytes:,}; {_MEND}")
        try:
            with pa.memory_map(str(arrow)) as mapped:
                file = mapped.read_buffer()
            reader = pa.ipc.open_file(file)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate()
            count = sum(batch.num_rows for batch in batches)
            if count != header.rows or not count:
                raise UserError(f"{folder} is damaged: {count:,} rows where the header says {header.rows:,}; {_MEND}")
            return cls(folder, header, batches, file)
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise UserError(f"{arrow} is damaged ({error}); {_MEND}") from None

    def __len__(self) -> int:
        """Number of rows."""
        return self.header.rows

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the folder's name: it maps the same pages."""
        return type(self).open, (self.folder,)

    def relabelled(self, label: NDArray[Any], class_names: tuple[str, ...], target: Target) -> Self:
        """The same rows under other labels; the file is mapped again, not copied.

        Args:
            label: ``(N,) int16`` or ``(N, C) int8``; -1 = unlabelled.
            class_names: the C names that it indexes.
            target: which of the two.
        """
        other = type(self).open(self.folder)
        other.header = replace(self.header, class_names=class_names, target=target)
        other.label, other.class_names, other.target = label, class_names, target
        return other

    def fingerprint(self) -> str:
        """Of the source the store was prepared from."""
        return self.header.fingerprint

    def notes(self) -> dict[str, int | str]:
        """What the reader mended or skipped when the store was prepared."""
        return dict(self.header.notes)

    def rows(self) -> Iterator[Rows]:
        """The rows as they were prepared, a batch at a time."""
        start = 0
        for batch in self._batches:
            here = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            strings = {
                name: batch.column(name).to_pylist()
                for name in ("lot", "vendor_split", "path")
                if name in self._columns
            }
            yield Rows(
                label=self.label[here],
                height=self.height[here],
                width=self.width[here],
                content=self.content[here],
                wafer=None if self.wafer is None else self.wafer[here],
                cells=self.cells(here)[0] if "cells" in self._starts else None,
                patterns=self.cells(here, "patterns")[0] if "patterns" in self._starts else None,
                **strings,
            )

    @property
    def root(self) -> str:
        """Images: the absolute folder that ``path`` is relative to; ``""`` for maps."""
        return self.header.root

    @cached_property
    def lot(self) -> NDArray[np.str_] | None:
        """``(N,)`` lot names, ``""`` where unknown; None where the source has no lots."""
        return self._strings("lot")

    @cached_property
    def vendor_split(self) -> NDArray[np.str_] | None:
        """``(N,)`` of ``"train"``, ``"val"``, ``"test"``, ``""``; None where the source has no such column."""
        return self._strings("vendor_split")

    @cached_property
    def path(self) -> list[str] | None:
        """Images: path of each row relative to ``root``; None for maps."""
        if "path" not in self._columns:
            return None
        return [str(p) for batch in self._batches for p in batch.column("path").to_pylist()]

    def map(self, i: int) -> NDArray[np.uint8]:
        """Die states of row ``i``: a read-only ``(H, W) uint8`` view of the file."""
        return self._view("cells", i)

    def patterns(self, i: int) -> NDArray[np.uint8]:
        """Pattern bits of row ``i`` (simulated maps only): a read-only ``(H, W) uint8`` view of the file."""
        return self._view("patterns", i)

    def cells(self, rows: NDArray[np.int64], column: str = "cells") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Copy the maps of ``rows`` end to end, in the order asked for.

        Args:
            rows: ``(n,)`` indices in ``0 .. N-1``; repeats are allowed.
            column: ``"cells"`` or ``"patterns"``.

        Returns:
            The states, ``uint8`` of the rows' sizes summed, and where each map starts, ``(n + 1,) int64``.

        Raises:
            IndexError: a row outside the store.
            KeyError: the store has no such column (images have no cells).
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of a store of {len(self)}")
        start = self._starts[column][rows]
        size = self._sizes[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
        out = np.empty(offsets[-1], np.uint8)
        # Neighbours in the file are copied together: a whole split in order is a few hundred copies.
        first = np.flatnonzero(np.r_[True, start[1:] != start[:-1] + size[:-1]]) if rows.size else rows
        edges = np.append(offsets[first], offsets[-1]).tolist()
        for source, begin, end in zip(start[first].tolist(), edges, edges[1:], strict=False):
            out[begin:end] = self._bytes[source : source + end - begin]
        return out, offsets

    def _view(self, column: str, i: int) -> NDArray[np.uint8]:
        height, width = int(self.height[i]), int(self.width[i])
        start = int(self._starts[column][i])
        return self._bytes[start : start + height * width].reshape(height, width)

    def _column(self, batch: pa.RecordBatch, name: str) -> NDArray[Any]:
        """One column of numbers of a batch, as a view of the file."""
        dtype = np.dtype(np.int8 if name == "label" and self.target == "multilabel" else _DTYPES[name])
        column = batch.column(name)
        width = len(self.class_names) if dtype == np.int8 else 1
        if (column.type.value_type if dtype == np.int8 else column.type) != pa.from_numpy_dtype(dtype):
            raise ValueError(f"column {name} is {column.type}")
        # Not to_numpy: it imports pandas where that is installed, which takes seconds.
        view = np.frombuffer(column.buffers()[-1], dtype=dtype, count=len(column) * width)
        return view.reshape(-1, width) if dtype == np.int8 else view

    def _joined(self, name: str) -> NDArray[Any]:
        joined = np.concatenate([self._column(batch, name) for batch in self._batches])
        joined.flags.writeable = False
        return joined

    def _strings(self, name: str) -> NDArray[np.str_] | None:
        if name not in self._columns:
            return None
        joined = pa.concat_arrays([batch.column(name) for batch in self._batches]).dictionary_encode()
        values = np.array(joined.dictionary.to_pylist(), dtype=np.str_)
        decoded: NDArray[np.str_] = np.take(values, np.frombuffer(joined.indices.buffers()[1], np.int32))
        return decoded

    def _positions(self, name: str) -> NDArray[np.int64]:
        """Where each row's cells begin in the one mapping that all batches share: ``(N,) int64``."""
        # Height and width say it all; the list's own offsets would be as many pages again to read from the disk.
        ends = np.cumsum(self._sizes)
        positions: NDArray[np.int64] = ends - self._sizes
        row = before = 0
        for batch in self._batches:
            column = batch.column(name)
            if not pa.types.is_large_list(column.type) or column.type.value_type != pa.uint8():
                raise ValueError(f"column {name} is {column.type}")
            here = slice(row, row + len(column))
            row = here.stop
            values = column.values
            if len(values) != ends[row - 1] - before:
                raise ValueError(f"rows {here.start}..{row - 1}: {name} do not fill height x width")
            positions[here] += values.buffers()[1].address - self._address - before
            before = int(ends[row - 1])
        return positions


_DTYPES = {
    "label": np.int16,
    "height": np.int32,
    "width": np.int32,
    "content": np.uint64,
    "wafer": np.int32,
}


def is_store(path: str | Path) -> bool:
    """Whether ``path`` is a folder that ``prepare`` wrote (it may be damaged: ``Store.open`` tells)."""
    return (Path(path) / HEADER_FILE).is_file() and (Path(path) / ARROW_FILE).is_file()
