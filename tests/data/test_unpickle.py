"""The allow-list: whatever a pickle asks for, nothing of it runs."""

import copyreg
import os
import pickle
import struct
import sys
from io import BytesIO

import numpy as np
import pytest

from wafer_lab.data.readers import LSWMD
from wafer_lab.data.readers import unpickle as module
from wafer_lab.data.readers.unpickle import Array, DataFrame, Dtype, Function, Record, stand_in, unpickle
from wafer_lab.errors import UserError


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module, name):
    """A global by protocol 4's STACK_GLOBAL, whose name may be dotted."""
    return text(module) + text(name) + b"\x93"


def old(module, name):
    """A global by the older GLOBAL instruction."""
    return f"c{module}\n{name}\n".encode()


def call(function, *args):
    return function + b"(" + b"".join(args) + b"tR"


def program(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


RUN = "touch {ran}"
ATTACKS = {
    "os.system": program(call(old("os", "system"), text(RUN))),
    "posix.system": program(call(named("posix", "system"), text(RUN))),
    "subprocess": program(call(named("subprocess", "getoutput"), text(RUN))),
    "eval": program(call(named("builtins", "eval"), text("__import__('os').system('" + RUN + "')"))),
    "python 2 eval": program(call(old("__builtin__", "eval"), text("__import__('os').system('" + RUN + "')"))),
    "exec": program(call(named("builtins", "exec"), text("open('{ran}', 'w')"))),
    "open": program(call(named("builtins", "open"), text("{ran}"), text("w"))),
    "import": program(call(named("builtins", "__import__"), text("os"))),
    "getattr": program(call(call(named("builtins", "getattr"), old("os", "path"), text("os")), text(RUN))),
    "getattr of a stand-in": program(call(named("builtins", "getattr"), named("numpy", "ndarray"), text("__init__"))),
    "INST": b"\x80\x02(" + text(RUN) + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(" + old("os", "system") + text(RUN) + b"o.",
    "NEWOBJ": program(named("subprocess", "Popen") + b"(" + text(RUN) + b"t\x81"),
    "runstring": program(call(named("numpy.testing._private.utils", "runstring"), text("open('{ran}', 'w')"), b"}")),
    "numpy.load": program(call(named("numpy", "load"), text("{ran}"))),
    "numpy.fromfile": program(call(named("numpy", "fromfile"), text("{ran}"))),
    "numpy.core os": program(call(named("numpy._core.multiarray", "os.system"), text(RUN))),
    "pandas.read_pickle": program(call(named("pandas", "read_pickle"), text("{ran}"))),
    "pandas.io": program(call(named("pandas.io.pickle", "read_pickle"), text("{ran}"))),
    "pandas.eval": program(call(named("pandas.core.computation.eval", "eval"), text("@os.system('" + RUN + "')"))),
    "dotted globals": program(named("pandas.core.frame", "DataFrame.__init__.__globals__")),
    "dotted builtins": program(call(named("pandas", "DataFrame.__init__.__builtins__"), text(RUN))),
    "dotted dtype": program(named("numpy", "dtype.__class__")),
    "pandas.os": program(call(named("pandas", "io.common.os.system"), text(RUN))),
    "pyarrow": program(call(named("pyarrow.lib", "OSFile"), text("{ran}"), text("wb"))),
    "this package": program(named("wafer_lab.data.readers.unpickle", "stand_in")),
    "codecs.open": program(call(named("codecs", "open"), text("{ran}"), text("w"))),
    "copyreg": program(call(named("copyreg", "__newobj__"), named("subprocess", "Popen"), text(RUN))),
    "empty name": program(named("", "")),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs(tmp_path, attack):
    ran = tmp_path / "ran"
    path = tmp_path / "LSWMD.pkl"
    body = ATTACKS[attack]
    for template in (RUN, "{ran}", "open('{ran}', 'w')"):  # fill in the path, and correct the lengths
        for whole in (template, f"__import__('os').system('{template}')", f"@os.system('{template}')"):
            body = body.replace(text(whole), text(whole.replace("{ran}", str(ran))))
    path.write_bytes(body)
    with pytest.raises(UserError, match=r"refused: this pickle asks to run .*not a wafer-map file. Nothing was run"):
        list(LSWMD(path).rows())
    assert not ran.exists()


def test_the_attack_is_live_elsewhere(tmp_path):
    # Without this, the test above could pass for a pickle that does nothing.
    pickle.loads(program(call(old("os", "system"), text(f"touch {tmp_path / 'ran'}"))))
    assert (tmp_path / "ran").exists()


def test_a_refusal_names_the_global():
    with pytest.raises(UserError, match=r"asks to run os\.system;"):
        unpickle(BytesIO(ATTACKS["os.system"]))


def test_refused_modules_are_not_imported():
    assert "antigravity" not in sys.modules
    with pytest.raises(UserError, match=r"antigravity\.fly"):
        unpickle(BytesIO(program(named("antigravity", "fly"))))
    assert "antigravity" not in sys.modules


FRAME = named("pandas", "DataFrame")
SLOTS = b"(N}" + text("__setstate__") + b"N" + b"st"  # (None, {"__setstate__": None}): setattr on what is built


@pytest.mark.parametrize(
    "body",
    [
        program(FRAME + SLOTS + b"b"),  # BUILD on a class, not an instance
        program(FRAME + b"}" + text("args") + b"Nsb"),
        program(named("numpy", "dtype") + SLOTS + b"b"),
        program(named("_codecs", "encode") + SLOTS + b"b"),  # BUILD on a function
        program(named("builtins", "slice") + SLOTS + b"b"),
        program(FRAME + b")\x81" + text("x") + b"Ns"),  # SETITEM on a stand-in
        program(FRAME + b")\x81" + text("x") + b"a"),  # APPEND to one
        program(call(FRAME + b")\x81", text("x"))),  # calling an instance
        program(FRAME + b")}" + text("x") + b"Ns\x92"),  # NEWOBJ_EX with keywords
        program(named("_codecs", "encode") + b")\x81"),  # NEWOBJ of a function
        program(call(named("_codecs", "encode"), text("x"), text("rot13"))),
        program(call(named("builtins", "bytearray"), b"J\xff\xff\xff\x7f")),  # 2 GB of nothing
        program(call(named("builtins", "slice"), text("x"))),
        program(call(named("copyreg", "_reconstructor"), named("numpy", "dtype"), b"NN")),
        program(call(named("numpy", "array"), b"]" + text("x") + b"a")),
        program(call(named("numpy", "dtype"), FRAME)),
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02Pname\n.",  # an object kept elsewhere
        b"\x80\x02X\x01\x00\x00\x00xQ.",
        b"\x80\x02R.",
        b"\x80\x02h\x07.",
        b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"\x80\x09.",
    ],
)
def test_stand_ins_cannot_be_bent(body):
    before = {cls: dict(vars(cls)) for cls in (DataFrame, Record, Array, Dtype, Function)}
    with pytest.raises(pickle.UnpicklingError):
        unpickle(BytesIO(body))
    assert before == {cls: dict(vars(cls)) for cls in before}
    assert DataFrame().state is None


def array(dtype, shape, raw):
    """numpy's instructions for an array, with a dtype that may lie about itself."""
    made = call(named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
    return program(made, b"(K\x01", shape, dtype, b"\x89", raw, b"tb")


def dtype(code, flags=0):
    made = call(named("numpy", "dtype"), text(code), b"\x89", b"\x88")
    return made + b"(K\x03" + text("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K" + bytes([flags]) + b"tb"


def test_an_array_comes_through():
    found = unpickle(BytesIO(array(dtype("u1"), b"K\x02K\x03\x86", b"C\x06\x00\x01\x02\x02\x01\x00")))
    np.testing.assert_array_equal(found.values(), [[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize(
    "body",
    [
        array(dtype("O"), b"K\x01\x85", b"C\x08AAAAAAAA"),  # object pointers out of raw bytes
        array(dtype("O8", flags=0), b"K\x01\x85", b"C\x08AAAAAAAA"),
        array(dtype("V8"), b"K\x01\x85", b"C\x08AAAAAAAA"),
        array(dtype("u1,O"), b"K\x01\x85", b"C\x08AAAAAAAA"),
        array(dtype("M8[ns]"), b"K\x01\x85", b"C\x08AAAAAAAA"),
        array(dtype("u1"), b"K\x09\x85", b"C\x08AAAAAAAA"),  # longer than its data
        array(dtype("u1"), b"J\xff\xff\xff\xff\x85", b"C\x08AAAAAAAA"),
        array(dtype("u1"), b"N\x85", b"C\x08AAAAAAAA"),
        array(dtype("u1"), b"K\x02\x85", b"]"),
        array(b"N", b"K\x01\x85", b"C\x01A"),
        array(dtype("u1"), b"J\xff\xff\xff\x7f" * 3 + b"\x87", b"C\x00"),
    ],
)
def test_arrays_that_lie_are_refused(body):
    with pytest.raises(pickle.UnpicklingError):
        unpickle(BytesIO(body))


def test_an_array_that_was_never_filled_is_empty():
    for made in (b"(tR", b")\x81"):
        assert unpickle(BytesIO(program(named("numpy._core.multiarray", "_reconstruct") + made))).values().size == 0


def test_every_stand_in_is_closed():
    tables = [module._PANDAS, module._NUMPY, module._PYARROW, module._PYTHON]
    for item in (item for table in tables for item in table.values() if item is not None):
        made = item if isinstance(item, Function) else item.__new__(item)
        assert not hasattr(made, "__dict__")  # nothing can be set that is not foreseen
        assert "__setstate__" in dir(item)
        assert type(item).__module__ in ("builtins", module.__name__)


@pytest.mark.parametrize(
    ("where", "name"), [("pandas", "Index "), ("pandasx", "Index"), ("numpyx", "dtype"), ("os", "x")]
)
def test_names_must_match_exactly(where, name):
    with pytest.raises(UserError, match="refused"):
        stand_in(where, name)


def test_the_collector_is_left_as_it_was():
    import gc

    assert gc.isenabled()
    with pytest.raises(UserError):
        unpickle(BytesIO(ATTACKS["eval"]))
    assert gc.isenabled()
    assert not copyreg._inverted_registry  # no extension could smuggle a name in
    assert os.path.exists(os.sep)
