"""Reading pickled DataFrames without running them.

A pickle is a program: it names callables and has them called. This reader hands every name to a table of inert
stand-ins of our own, and refuses the rest. No pandas, numpy or pyarrow code is reached by what the file says: it
cannot import, call or change anything, and the same stand-ins serve every pandas from 0.16 to 3.x, installed or not.
What comes out is a tree of records, which ``frame.columns_of`` then reads.

numpy's own ``_reconstruct`` and ``dtype`` are stood in for as well, because their ``__setstate__`` trusts the file:
an object dtype whose flags say otherwise would turn raw bytes into pointers.
"""

import gc
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError


class Refused(pickle.UnpicklingError):
    """The file asks for a stand-in to be used in a way that no DataFrame needs."""


class Record:
    """An object of the file, kept as the arguments it was made with and the state it was given."""

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Record":
        """Keep ``args``; nothing else happens."""
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        # Defined here so that the file's BUILD instruction cannot fall back on setting attributes.
        self.state = state


class DataFrame(Record):
    """``pandas.DataFrame``."""

    __slots__ = ()


class BlockManager(Record):
    """What holds a DataFrame's columns, a block of columns of one dtype at a time."""

    __slots__ = ()


class Block(Record):
    """``_unpickle_block(values, placement, ndim)``, pandas 1.3 and later."""

    __slots__ = ()


class Placement(Record):
    """``BlockPlacement(columns)``."""

    __slots__ = ()


class Index(Record):
    """Row or column names; also ``_new_Index(class, {"data": ...})``."""

    __slots__ = ()


class Strings(Record):
    """pandas' string arrays of either storage: somewhere in the state is an ``Array`` or an ``ArrowArray``."""

    __slots__ = ()


class ArrowArray(Record):
    """``pyarrow.lib._restore_array((type, length, nulls, offset, buffers, children, dictionary))``."""

    __slots__ = ()


class ArrowChunks(Record):
    """``pyarrow.lib.chunked_array(chunks, type)``."""

    __slots__ = ()


class ArrowType(Record):
    """``pyarrow.lib.type_for_alias(name)``."""

    __slots__ = ()


class ArrowBuffer(Record):
    """``pyarrow.lib.py_buffer(bytes)``."""

    __slots__ = ()


class Other(Record):
    """Something that a DataFrame carries and nobody reads."""

    __slots__ = ()


class Dtype:
    """``numpy.dtype(code)``: only plain numbers, text and objects become a real dtype, and only when read."""

    __slots__ = ("code", "order")
    _known: dict[tuple[str, str], np.dtype[Any]] = {}  # noqa: RUF012 - a cache shared on purpose

    code: str
    order: str

    def __new__(cls, code: Any = "", align: Any = False, copy: Any = False) -> "Dtype":
        """Keep ``code``; the byte order comes with the state."""
        self = super().__new__(cls)
        self.code, self.order = text(code), "|"
        return self

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise Refused("a structured numpy dtype")
        self.order = text(state[1])

    def real(self) -> np.dtype[Any]:
        """The numpy dtype.

        Raises:
            Refused: it is not bool, an integer, a float, text or object.
        """
        found = self._known.get((self.order, self.code))
        if found is None:
            if self.order not in ("|", "<", ">", "=") or not re.fullmatch(
                r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O[48]?", self.code
            ):
                raise Refused(f"numpy dtype {self.code[:40]!r}")
            found = self._known[self.order, self.code] = np.dtype(self.order + self.code)
        return found


class Array:
    """``numpy.ndarray``: shape, dtype and raw data, checked as the file gives them."""

    __slots__ = ("dtype", "fortran", "raw", "shape")

    dtype: np.dtype[Any]
    fortran: bool
    raw: Any
    shape: tuple[int, ...]

    def __new__(cls, *args: Any) -> "Array":
        """An empty array, whatever the arguments; the state fills it."""
        self = super().__new__(cls)
        self.dtype, self.fortran, self.raw, self.shape = _EMPTY, False, b"", (0,)
        return self

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("a numpy array of unknown layout")
        self._fill(*state[-4:])

    @classmethod
    def frombuffer(cls, raw: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> "Array":
        """``numpy._core.numeric._frombuffer``, by which protocol 5 writes arrays."""
        array = cls()
        array._fill(shape, dtype, text(order) == "F", raw)
        return array

    @classmethod
    def fromlist(cls, items: Any, *_: Any) -> "Array":
        """``numpy.array([...])`` of integers: column positions."""
        if not isinstance(items, list) or not all(isinstance(item, int) for item in items):
            raise Refused("numpy.array of something other than a list of integers")
        return cls.frombuffer(np.array(items, dtype="<i8").tobytes(), _INT64, (len(items),))

    def _fill(self, shape: Any, dtype: Any, fortran: Any, raw: Any) -> None:
        if not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
            raise Refused("a numpy array without shape or dtype")
        real = dtype.real()
        size = 1
        for length in shape:
            if type(length) is not int or length < 0:
                raise Refused("a numpy array of impossible shape")
            size *= length
        if isinstance(raw, str):  # how Python 2's bytes arrive in pickles rewritten by Python 3
            raw = raw.encode("latin-1")
        if real.hasobject:
            sound = isinstance(raw, list) and len(raw) == size
        else:
            sound = isinstance(raw, (bytes, bytearray)) and len(raw) == size * real.itemsize
        if not sound:
            raise Refused("a numpy array whose data does not fill its shape")
        if real.kind == "U":  # numpy would make strings of code points that do not exist, and break Python
            raw.decode("utf-32-be" if real.byteorder == ">" else "utf-32-le")
        self.shape, self.dtype, self.fortran, self.raw = shape, real, bool(fortran), raw

    def values(self) -> NDArray[Any]:
        """The array: ``shape``, of the file's dtype; object arrays hold records and plain values."""
        if self.dtype.hasobject:
            flat = np.fromiter(self.raw, dtype=object, count=len(self.raw))
        else:
            flat = np.frombuffer(self.raw, dtype=self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


class Function:
    """A function of ours that the file may call, wrapped so that the file cannot set attributes on it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a function that is given state")


def text(value: Any) -> str:
    """Text of a Python 3 or a Python 2 string.

    Raises:
        Refused: it is neither.
    """
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        raise Refused(f"{type(value).__name__} where a name is expected")
    return value


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    array = Array.frombuffer([raw] if isinstance(dtype, Dtype) and dtype.code[:1] == "O" else raw, dtype, ())
    return array.values().item()


def _bytes(value: Any = b"", encoding: Any = "latin-1", *_: Any) -> bytes:
    if isinstance(value, str) and text(encoding).lower().replace("_", "-") in ("latin1", "latin-1"):
        return value.encode("latin-1")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise Refused("bytes made of something other than text")


def _new(cls: Any, *_: Any) -> Record:
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise Refused("an object of an unexpected class")
    return cls()


def _slice(*args: Any) -> slice:
    if len(args) != 3 or not all(arg is None or type(arg) is int for arg in args):
        raise Refused("a slice of something other than integers")
    return slice(*args)


_EMPTY = np.dtype(np.uint8)
_INT64 = Dtype("i8")
_INT64.order = "<"

_PANDAS: dict[str, Any] = {
    "DataFrame": DataFrame,
    "BlockManager": BlockManager,
    "_unpickle_block": Block,
    "BlockPlacement": Placement,
    "_new_Index": Index,
    "StringArray": Strings,
    "ArrowStringArray": Strings,
    "ArrowStringArrayNumpySemantics": Strings,
    "StringArrayNumpySemantics": Strings,
    "__pyx_unpickle_NDArrayBacked": Strings,
    "StringDtype": Other,
    "NA": None,
    **dict.fromkeys(("Index", "RangeIndex", "Int64Index", "UInt64Index", "Float64Index", "NumericIndex"), Index),
}
_NUMPY: dict[str, Any] = {
    "_reconstruct": Array,
    "ndarray": Other,
    "dtype": Dtype,
    "scalar": Function(_scalar),
    "_frombuffer": Function(Array.frombuffer),
    "array": Function(Array.fromlist),
}
_PYARROW: dict[str, Any] = {
    "_restore_array": ArrowArray,
    "chunked_array": ArrowChunks,
    "type_for_alias": ArrowType,
    "py_buffer": ArrowBuffer,
}
_PYTHON: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): Function(_bytes),
    **{(module, "slice"): Function(_slice) for module in ("__builtin__", "builtins")},
    **{(module, "object"): Other for module in ("__builtin__", "builtins")},
    **{(module, name): Function(_bytes) for module in ("__builtin__", "builtins") for name in ("bytes", "bytearray")},
    **{(module, "_reconstructor"): Function(_new) for module in ("copy_reg", "copyreg")},
}
_NUMPY_MODULES = frozenset(
    ["numpy", *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric"))]
)


def stand_in(module: str, name: str) -> Any:
    """The inert stand-in for a global that a DataFrame's pickle may name.

    Raises:
        UserError: anything else; the message names it, and nothing has run.
    """
    if (module == "pandas" or module.startswith("pandas.")) and name in _PANDAS:
        return _PANDAS[name]
    if module in _NUMPY_MODULES and name in _NUMPY:
        return _NUMPY[name]
    if module == "pyarrow.lib" and name in _PYARROW:
        return _PYARROW[name]
    if (module, name) in _PYTHON:
        return _PYTHON[module, name]
    raise UserError(
        f"refused: this pickle asks to run {module}.{name}; it is not a wafer-map file. Nothing was run. Use the "
        "published LSWMD.pkl, or one written by DataFrame.to_pickle with plain columns (no categories, no dates)"
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")
        self._found: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        if key not in self._found:
            self._found[key] = stand_in(module, name)
        return self._found[key]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("an object kept outside of the file")


def unpickle(file: BinaryIO) -> Any:
    """Read a pickle into inert records; nothing it names is imported or run.

    Raises:
        UserError: it names something that a DataFrame does not need.
        pickle.UnpicklingError: it is cut off, damaged, or no pickle.
    """
    collecting = gc.isenabled()
    gc.disable()  # millions of small records, none of them garbage: walking them again and again takes 30 % longer
    try:
        return _Unpickler(file).load()
    except (UserError, pickle.UnpicklingError, OSError):
        raise
    except EOFError:
        raise pickle.UnpicklingError("it ends too early") from None
    except Exception as error:  # a damaged stream makes the machine fail in any way it likes
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
    finally:
        if collecting:
            gc.enable()
