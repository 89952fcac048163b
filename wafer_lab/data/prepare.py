"""Writing a store: once per data set, beside its place and then renamed, so half of one is never left."""

import errno
import hashlib
import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wafer_lab.data.rows import FAIL, Rows, Source, content_hashes
from wafer_lab.data.store import ARROW_FILE, Header, Store, is_store
from wafer_lab.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(source: Source, dest: str | Path, progress: Callable[[int], None] | None = None) -> Store:
    """Write ``source`` into a store at ``dest`` and open it.

    The store is written in a hidden folder beside ``dest`` and renamed when it is whole. A store that is already
    there is replaced; an interrupt or a full disk leaves ``dest`` as it was.

    Args:
        source: what to read.
        dest: folder to make; it may be an older store, but nothing else.
        progress: called after each batch with the number of rows written so far.

    Raises:
        UserError: ``dest`` is something else, cannot be written, or the disk is full; or the source is at fault.
    """
    dest = Path(dest).absolute()
    if dest.exists() and not is_store(dest) and not (dest.is_dir() and not any(dest.iterdir())):
        raise UserError(f"{dest} exists and is no prepared store; it is left as it is, name another folder")
    return _prepare(source, dest, progress, replace=True)


def cached(source: Source, cache_dir: str | Path) -> Store:
    """The store of ``source`` in ``cache_dir``, prepared on first use, which stderr is told of.

    It lies under the source's name and fingerprint, so a changed file or reader gets a store of its own. Processes
    that start together may both prepare it; the first to finish wins.

    Raises:
        UserError: as ``prepare`` and ``Store.open`` do.
    """
    dest = Path(cache_dir).absolute() / f"{source.name}-{source.fingerprint()}"
    if dest.exists():
        return Store.open(dest)
    path, began = getattr(source, "path", None), time.monotonic()
    name = path.resolve().name if isinstance(path, Path) else source.name
    print(f"preparing {name} into {dest}, once", file=sys.stderr, flush=True)
    with _bar(name) as progress:
        store = _prepare(source, dest, progress, replace=False)
    print(f"prepared {len(store):,} rows in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return store


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int], None] | None]:
    """What shows the number of rows written on a terminal; None where stderr is none, or without rich."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    what, count = TextColumn("{task.description}", markup=False), TextColumn("{task.completed:,} rows")
    with Progress(what, BarColumn(), count, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"reading {name}", total=None)
        yield lambda rows: bar.update(task, completed=rows, description="writing the store")


def _prepare(source: Source, dest: Path, progress: Callable[[int], None] | None, replace: bool) -> Store:
    work = dest.parent / f".{dest.name}.{secrets.token_hex(4)}"
    written = 0
    try:
        work.mkdir(parents=True)
        try:
            _write(source, work, progress)
            _put(work, dest, replace)
        finally:
            written = sum(file.stat().st_size for file in work.glob("*"))
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno not in _FULL:
            raise UserError(
                f"the store {dest} cannot be written: {error}; check the path and its permissions"
            ) from None
        free = shutil.disk_usage(dest.parent).free
        raise UserError(
            f"the disk is full: the store {dest} needs more than the {written / 1e6:,.1f} MB written when "
            "it stopped, and "
            f"{free / 1e6:,.1f} MB are free; nothing was left behind. Free some space or choose another folder"
        ) from None
    return Store.open(dest)


def _write(source: Source, work: Path, progress: Callable[[int], None] | None) -> None:
    """Write both files of a store into ``work``."""
    arrow, count, writer = work / ARROW_FILE, 0, None
    fingerprint = source.fingerprint()
    content, label = hashlib.blake2b(), hashlib.blake2b()
    with arrow.open("wb") as file:
        for rows in source.rows():
            if not len(rows):
                continue
            batch = _batch(rows, source)
            if writer is None:
                writer = pa.ipc.new_file(file, batch.schema)
            writer.write_batch(batch)
            for hasher, column in ((content, batch["content"]), (label, batch["label"])):
                hasher.update(column.buffers()[-1])
            count += len(rows)
            if progress is not None:
                progress(count)
        if writer is None:
            raise UserError(f"the source {source.name} holds no rows; there is nothing to prepare")
        writer.close()
    Header(
        name=source.name,
        kind=source.kind,
        target=source.target,
        class_names=source.class_names,
        fingerprint=fingerprint,
        digest=_digest(source.class_names, content.digest(), label.digest()),
        rows=count,
        arrow_bytes=arrow.stat().st_size,
        root=str(getattr(source, "root", "")),
        notes=source.notes(),
    ).write(work)


def _digest(class_names: Sequence[str], *columns: bytes) -> str:
    """16 hex digits of the data: of its columns' hashes, in which the size of batches does not show."""
    names = json.dumps(list(class_names)).encode()
    return hashlib.blake2b(b"".join(columns) + names, digest_size=8).hexdigest()


def _put(work: Path, dest: Path, replace: bool) -> None:
    """Move a whole store to its place."""
    if replace and is_store(dest):
        old = work.with_name(work.name + ".old")
        dest.rename(old)
        try:
            work.rename(dest)
        except BaseException:
            old.rename(dest)
            raise
        shutil.rmtree(old)
        return
    try:
        work.rename(dest)
    except OSError:
        if replace or not is_store(dest):
            raise  # otherwise another process was quicker with the same store


def _batch(rows: Rows, source: Source) -> pa.RecordBatch:
    """One Arrow record batch; a source that breaks its promises is a bug, and raises ValueError."""
    count, classes = len(rows), len(source.class_names)
    sizes = rows.height.astype(np.int64) * rows.width
    label = np.asarray(rows.label)
    if label.shape != ((count,) if source.target == "multiclass" else (count, classes)):
        raise ValueError(f"{source.name}: labels of shape {label.shape} for {count} rows, {classes} classes")
    top = classes - 1 if source.target == "multiclass" else 1
    if label.size and not -1 <= label.min() <= label.max() <= top:
        raise ValueError(f"{source.name}: labels {label.min()}..{label.max()}, but {classes} classes")
    columns: dict[str, pa.Array] = {
        "label": _numbers(label.astype(np.int16))
        if source.target == "multiclass"
        else pa.FixedSizeListArray.from_arrays(_numbers(label.astype(np.int8).ravel()), classes),
        "height": _numbers(rows.height.astype(np.int32)),
        "width": _numbers(rows.width.astype(np.int32)),
    }
    content: Any = rows.content
    if rows.cells is not None:
        if rows.cells.size and rows.cells.max() > FAIL:
            raise ValueError(f"{source.name}: die state {rows.cells.max()}")
        content = content_hashes(rows.cells, rows.height, rows.width)
    for name, cells in (("cells", rows.cells), ("patterns", rows.patterns)):
        if cells is not None:
            columns[name] = _ragged(cells, sizes, source.name)
    columns["content"] = _numbers(np.asarray(content, np.uint64))
    if rows.wafer is not None:
        columns["wafer"] = _numbers(np.asarray(rows.wafer, np.int32))
    for name, strings in (("lot", rows.lot), ("vendor_split", rows.vendor_split), ("path", rows.path)):
        if strings is not None:
            columns[name] = _strings(strings)
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
    return pa.record_batch(list(columns.values()), schema=schema)


def _ragged(cells: NDArray[np.uint8], sizes: NDArray[np.int64], name: str) -> pa.Array:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    if cells.shape != (offsets[-1],):
        raise ValueError(f"{name}: {cells.shape} cells for maps of {offsets[-1]} in all")
    return pa.LargeListArray.from_arrays(_numbers(offsets), _numbers(cells))


# pa.array would import pandas where that is installed, which takes seconds; these two do without it.


def _numbers(values: NDArray[Any]) -> pa.Array:
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _strings(values: Sequence[str]) -> pa.Array:
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    parts = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), parts)
