"""Fixtures for the store and its sources: pickles of old pandas written by hand, and a source in memory."""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wafer_lab.data.rows import Rows


class Global:
    """A name that a pickle asks for."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """``func(*args)``, followed by ``__setstate__(state)`` where there is a state."""

    def __init__(self, func: Any, args: tuple, state: Any = None):
        self.func, self.args, self.state = func, args, state


class New:
    """``cls.__new__(cls)`` followed by ``__setstate__(state)``."""

    def __init__(self, cls: Any, state: Any):
        self.cls, self.state = cls, state


class FramePickler(pickle._Pickler):
    """Writes the names it is told to instead of those of the installed numpy and pandas."""

    def __init__(self, file: Any, protocol: int, python2: bool):
        super().__init__(file, protocol)
        self.python2 = python2

    def memoize(self, obj: Any) -> None:  # temporary arrays share ids
        pass

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, New):
            self.save(obj.cls)
            self.write(b")\x81")
            self.save(obj.state)
            self.write(b"b")
        elif isinstance(obj, Call):
            self.save(obj.func)
            self.save(obj.args)
            self.write(b"R")
            if obj.state is not None:
                self.save(obj.state)
                self.write(b"b")
        elif self.python2 and isinstance(obj, (str, bytes)):
            raw = obj.encode() if isinstance(obj, str) else obj
            self.write((b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))) + raw)
        elif isinstance(obj, slice):
            module = "__builtin__" if self.python2 else "builtins"
            self.save(Call(Global(module, "slice"), (obj.start, obj.stop, obj.step)))
        elif isinstance(obj, np.ndarray):
            self.save(self.array(obj))
        else:
            super().save(obj, save_persistent_id)

    @staticmethod
    def array(a: np.ndarray) -> Call:
        fortran = a.flags.f_contiguous and not a.flags.c_contiguous
        order = "|" if a.dtype.kind in "OuS" and a.dtype.itemsize in (1, 8) else "<"
        code = "O8" if a.dtype.kind == "O" else a.dtype.str[1:]
        dtype = Call(Global("numpy", "dtype"), (code, 0, 1), (3, order, None, None, None, -1, -1, 0))
        raw: Any = list(a.ravel(order="A")) if a.dtype.kind == "O" else a.tobytes(order="A")
        make = Global("numpy.core.multiarray", "_reconstruct")
        return Call(make, (Global("numpy", "ndarray"), (0,), b"b"), (1, a.shape, dtype, fortran, raw))


def objects(items: list) -> np.ndarray:
    a = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        a[i] = item
    return a


@dataclass(frozen=True)
class Layout:
    """Where one era of pandas kept what a DataFrame's pickle names."""

    base: str  # module of _new_Index and Index
    rows: tuple[str, str]  # class of the row index
    manager: str
    attribute: str = "_data"
    python2: bool = False
    protocol: int = 2
    blocks: bool = False  # pandas 1.3 and later: blocks and axes are arguments


LAYOUTS = {
    "0.16": Layout("pandas.core.index", ("pandas.core.index", "Int64Index"), "pandas.core.internals", python2=True),
    "0.19": Layout(
        "pandas.indexes.base", ("pandas.indexes.range", "RangeIndex"), "pandas.core.internals", python2=True
    ),
    "0.23": Layout("pandas.core.indexes.base", ("pandas.core.indexes.range", "RangeIndex"), "pandas.core.internals"),
    "0.25": Layout(
        "pandas.core.indexes.base", ("pandas.core.indexes.range", "RangeIndex"), "pandas.core.internals.managers"
    ),
    "1.1": Layout(
        "pandas.core.indexes.base",
        ("pandas.core.indexes.numeric", "Int64Index"),
        "pandas.core.internals.managers",
        "_mgr",
        protocol=4,
    ),
    "2.2": Layout(
        "pandas.core.indexes.base",
        ("pandas.core.indexes.range", "RangeIndex"),
        "pandas.core.internals.managers",
        "_mgr",
        protocol=5,
        blocks=True,
    ),
}


def frame(columns: dict[str, list], layout: Layout, fortran: bool = False) -> New:
    """A DataFrame: numbers in one block, everything else in another, as pandas consolidates them."""
    new = Global(layout.base, "_new_Index")
    count = len(next(iter(columns.values())))
    names = Call(new, (Global(layout.base, "Index"), {"data": objects(list(columns)), "name": None}))
    state = (
        {"start": 0, "stop": count, "step": 1, "name": None}
        if layout.rows[1] == "RangeIndex"
        else {"data": np.arange(count), "name": None}
    )
    axes = [names, Call(new, (Global(*layout.rows), state))]
    numeric = [i for i, column in enumerate(columns.values()) if isinstance(column[0], float)]
    other = [i for i in range(len(columns)) if i not in numeric]
    values = list(columns.values())
    order: Callable = np.asfortranarray if fortran else np.ascontiguousarray
    parts = []
    if numeric:
        places = slice(numeric[0], numeric[-1] + 1, max(1, numeric[-1] - numeric[0]))
        parts.append((order(np.array([values[i] for i in numeric], float)), places))
    if other:
        parts.append((order(np.stack([objects(values[i]) for i in other])), np.array(other)))
    if layout.blocks:
        make = Global("pandas._libs.internals", "_unpickle_block")
        manager: Any = Call(
            Global(layout.manager, "BlockManager"), (tuple(Call(make, (*part, 2)) for part in parts), axes)
        )
    else:
        blocks = [{"values": block, "mgr_locs": places} for block, places in parts]
        described = {"0.14.1": {"axes": axes, "blocks": blocks}}
        manager = New(Global(layout.manager, "BlockManager"), (axes, [], [], described))
    return New(
        Global("pandas.core.frame", "DataFrame"), {layout.attribute: manager, "_typ": "dataframe", "_metadata": []}
    )


@pytest.fixture
def frames() -> SimpleNamespace:
    """``write(path, columns, era)`` pickles a DataFrame as that pandas did; ``eras`` lists them."""

    def write(path: Path, columns: dict[str, list], era: str = "0.19", fortran: bool = False) -> Path:
        layout = LAYOUTS[era]
        with path.open("wb") as file:
            FramePickler(file, layout.protocol, layout.python2).dump(frame(columns, layout, fortran))
        return path

    return SimpleNamespace(write=write, eras=list(LAYOUTS))


@pytest.fixture
def wafers() -> dict[str, list]:
    """Five wafers as LSWMD.pkl has them: nested labels, two rows that nobody labelled, maps of several shapes."""
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5, 5), (2, 7), (1, 1), (6, 3)]
    empty = np.empty((0, 0), "<U8")
    return {
        "waferMap": [rng.integers(0, 3, shape, np.uint8) for shape in shapes],
        "dieSize": [12.0, 25.0, 14.0, 1.0, 18.0],
        "lotName": ["lot1", "lot1", "lot2", "lot2", "lot3"],
        "waferIndex": [1.0, 2.0, 1.0, float("nan"), 25.0],
        "trianTestLabel": [np.array([["Training"]]), np.array([["Test"]]), empty, empty, np.array([["Training"]])],
        "failureType": [np.array([["none"]]), np.array([["Near-full"]]), empty, empty, np.array([["Loc"]])],
    }


@dataclass
class ToySource:
    """A source in memory: batches of random maps."""

    batches: list[Rows]
    class_names: tuple[str, ...] = ("a", "b", "none")
    target: str = "multiclass"
    kind: str = "maps"
    name: str = "toy"
    key: str = "0123456789abcdef"
    error: BaseException | None = None
    root: str = ""
    counted: dict[str, int | str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        return self.key

    def rows(self):
        yield from self.batches
        if self.error is not None:
            raise self.error

    def notes(self):
        return self.counted


@pytest.fixture
def toy() -> SimpleNamespace:
    """``source(...)`` makes a ToySource; ``rows(n, seed)`` a batch of n maps for it."""

    def rows(count: int, seed: int = 0, **columns: Any) -> Rows:
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 9, (2, count)).astype(np.int32)
        cells = rng.integers(0, 3, int((height * width).sum())).astype(np.uint8)
        label = columns.pop("label", rng.integers(-1, 3, count).astype(np.int16))
        return Rows(label=label, height=height, width=width, cells=cells, **columns)

    def source(batches: list[Rows] | None = None, **options: Any) -> ToySource:
        return ToySource([rows(5), rows(3, 1)] if batches is None else batches, **options)

    return SimpleNamespace(rows=rows, source=source)
