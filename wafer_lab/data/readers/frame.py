"""The columns of an unpickled DataFrame, from the layout of any pandas since 0.16."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from wafer_lab.data.readers.unpickle import (
    Array,
    ArrowArray,
    ArrowBuffer,
    ArrowChunks,
    ArrowType,
    Block,
    BlockManager,
    DataFrame,
    Index,
    Placement,
    Record,
    Refused,
    Strings,
    text,
)


def columns_of(frame: Any) -> dict[str, list[Any]]:
    """Columns of a DataFrame record, each a list with one entry per row.

    Entries are plain values, ``Array`` records, or whatever else the file holds. The record is emptied on the way,
    so that each row's data is let go when the caller drops it from the list.

    Raises:
        Refused: ``frame`` is no DataFrame record, or one of unknown layout.
    """
    if not isinstance(frame, DataFrame) or not isinstance(frame.state, dict):
        raise Refused("it holds no DataFrame")
    state = {text(key): value for key, value in frame.state.items()}
    frame.state = None
    manager = state.get("_mgr", state.get("_data"))
    if not isinstance(manager, BlockManager):
        raise Refused("its DataFrame has an unknown layout")
    axes, blocks = _parts(manager)
    manager.args, manager.state = (), None
    names = [text(name) for name in _items(axes[0])]
    columns: dict[str, list[Any]] = {}
    while blocks:
        values, places = blocks.pop()
        for place, column in zip(places, _split(values), strict=True):
            if not 0 <= place < len(names):
                raise Refused("it has more columns than names")
            columns[names[place]] = column
    if len({len(column) for column in columns.values()}) > 1:
        raise Refused("its columns differ in length")
    return {name: columns[name] for name in names if name in columns}


def _parts(manager: BlockManager) -> tuple[Any, list[tuple[Any, list[int]]]]:
    """Axes, and (values, column positions) of each block: ``(blocks, axes)`` since pandas 1.3, a state before."""
    if manager.args:
        blocks, axes = manager.args[:2]
        pairs = [block.args[:2] for block in blocks if isinstance(block, Block) and len(block.args) >= 2]
    else:
        extra = manager.state[3] if isinstance(manager.state, tuple) and len(manager.state) > 3 else None
        if not isinstance(extra, dict) or not extra:
            raise Refused("it was written by a pandas before 0.16; open it there and save it with a newer one")
        layout = {text(key): value for key, value in next(iter(extra.values())).items()}
        axes = layout["axes"]
        described = [{text(key): value for key, value in block.items()} for block in layout["blocks"]]
        pairs = [(block["values"], block["mgr_locs"]) for block in described]
    if not isinstance(axes, (list, tuple)) or len(axes) != 2:
        raise Refused("it is not a table of rows and columns")
    return axes, [(values, _positions(places)) for values, places in pairs]


def _positions(places: Any) -> list[int]:
    if isinstance(places, Placement) and places.args:
        places = places.args[0]
    if isinstance(places, slice):
        # A slice from the file is bounded before it is counted out; a DataFrame of wafers has six columns.
        start, stop, step = places.start or 0, places.stop or 0, places.step or 1
        if not 0 <= start <= 10_000 or not -1 <= stop <= 10_000:
            raise Refused("it has too many columns")
        return list(range(start, stop, step))
    if isinstance(places, int):
        return [places]
    if not isinstance(places, Array):
        raise Refused("a block of columns without positions")
    return [int(place) for place in places.values().ravel()]


def _split(values: Any) -> list[list[Any]]:
    """The columns of one block, first to last."""
    if not isinstance(values, Array):
        return [_items(values)]
    if len(values.shape) not in (1, 2):
        raise Refused("a block of columns of unknown shape")
    if not values.dtype.hasobject:
        return [column.tolist() for column in np.atleast_2d(values.values())]
    flat, values.raw = values.raw, []
    if len(values.shape) == 1:
        return [flat]
    count, rows = values.shape
    if values.fortran:
        return [flat[i::count] for i in range(count)]
    return [flat[i * rows : (i + 1) * rows] for i in range(count)]


def _items(values: Any) -> list[Any]:
    """A one-dimensional array, index or string array as a list."""
    if isinstance(values, Index):
        described = values.args[1] if len(values.args) > 1 else values.state
        if not isinstance(described, dict):
            raise Refused("an index of unknown layout")
        data = {text(key): value for key, value in described.items()}.get("data")
        return _items(data)
    if isinstance(values, Array):
        return values.values().ravel().tolist()
    if isinstance(values, ArrowArray):
        return _arrow_strings(values)
    if isinstance(values, ArrowChunks) and values.args and isinstance(values.args[0], list):
        return [item for chunk in values.args[0] for item in _items(chunk)]
    if isinstance(values, Strings):
        for part in _inside(values.state):
            if isinstance(part, (Array, ArrowArray, ArrowChunks)):
                return _items(part)
    raise Refused(f"a column of an unsupported kind ({type(values).__name__})")


def _inside(state: Any) -> Iterator[Any]:
    """What a state of nested tuples and dicts holds."""
    if isinstance(state, dict):
        yield from state.values()
    elif isinstance(state, tuple):
        for part in state:
            yield from _inside(part) if isinstance(part, (dict, tuple)) else (part,)


def _arrow_strings(array: ArrowArray) -> list[Any]:
    """Text of an Arrow string array that pandas 2 and 3 write; the file's offsets are checked before use."""
    try:
        kind, length, nulls, offset, buffers = array.args[0][:5]
        types = {"string": pa.string(), "large_string": pa.large_string()}
        dtype = types[text(kind.args[0] if isinstance(kind, ArrowType) else None)]
        parts = [None if buffer is None else _buffer(buffer) for buffer in buffers]
        if type(length) is not int or type(offset) is not int or length < 0 or offset < 0:
            raise ValueError("length")
        restored = pa.Array.from_buffers(dtype, length, parts, int(nulls), offset)
        restored.validate(full=True)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise Refused(f"a damaged string column ({error})") from None
    items: list[Any] = restored.to_pylist()
    return items


def _buffer(record: Record) -> Any:
    if not isinstance(record, ArrowBuffer) or not isinstance(record.args[0], (bytes, bytearray)):
        raise ValueError("buffer")
    return pa.py_buffer(bytes(record.args[0]))
