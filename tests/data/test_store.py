"""The store: what was prepared is what is read back, quickly; what is damaged says so."""

import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest

from wafer_lab.data.prepare import prepare
from wafer_lab.data.rows import Rows, Source, content_hash, content_hashes
from wafer_lab.data.store import Store, is_store
from wafer_lab.errors import UserError


def split_maps(batches):
    """Every map of some batches, by plain slicing."""
    maps = []
    for rows in batches:
        start = 0
        for height, width in zip(rows.height, rows.width, strict=True):
            maps.append(rows.cells[start : start + height * width].reshape(height, width))
            start += height * width
    return maps


@pytest.fixture
def source(toy):
    batches = [
        toy.rows(
            4, 0, lot=["l1", "l1", "", "é"], wafer=np.arange(4, dtype=np.int32), vendor_split=["train", "", "test", ""]
        ),
        toy.rows(3, 1, lot=["l2", "", "l3"], wafer=np.array([7, -1, 2], np.int32), vendor_split=["", "", "train"]),
    ]
    return toy.source(batches, counted={"cells_clipped": 3})


@pytest.fixture
def store(source, tmp_path):
    return prepare(source, tmp_path / "store")


def test_every_column_comes_back(source, store):
    for name in ("label", "height", "width", "wafer"):
        expected = np.concatenate([getattr(rows, name) for rows in source.batches])
        found = getattr(store, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert not found.flags.writeable
    assert store.lot.tolist() == ["l1", "l1", "", "é", "l2", "", "l3"]
    assert store.vendor_split.tolist() == ["train", "", "test", "", "", "", "train"]
    assert store.path is None
    assert len(store) == store.header.rows == 7
    assert store.header.notes == {"cells_clipped": 3}
    assert store.header.class_names == ("a", "b", "none")


def test_maps_are_read_only_views_of_the_file(source, store):
    for i, expected in enumerate(split_maps(source.batches)):
        found = store.map(i)
        np.testing.assert_array_equal(found, expected)
        assert not found.flags.writeable
        assert not found.flags.owndata


@pytest.mark.parametrize("rows", [[], [0], [6, 0, 3, 3], list(range(7)), [2, 3, 4, 5], list(range(6, -1, -1))])
def test_cells_of_any_rows_in_any_order(source, store, rows):
    maps = split_maps(source.batches)
    cells, offsets = store.cells(np.array(rows, np.int64))
    assert cells.dtype == np.uint8
    assert len(offsets) == len(rows) + 1
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(cells[offsets[i] : offsets[i + 1]], maps[row].ravel())
    assert offsets[-1] == cells.size


@pytest.mark.parametrize("rows", [[-1], [7], [0, 100]])
def test_rows_outside_the_store_are_an_error(store, rows):
    with pytest.raises(IndexError, match="store of 7"):
        store.cells(np.array(rows))


def test_multilabel_and_patterns(toy, tmp_path):
    label = np.array([[0, 1, 1], [-1, -1, -1], [0, 0, 0]], np.int8)
    rows = toy.rows(3, label=label)
    pattern = np.random.default_rng(5).integers(0, 256, rows.cells.size).astype(np.uint8)
    batch = toy.rows(3, label=label, patterns=pattern)
    store = prepare(toy.source([batch, batch], target="multilabel"), tmp_path / "s")
    assert store.label.dtype == np.int8
    np.testing.assert_array_equal(store.label, np.concatenate([label, label]))
    found, offsets = store.cells(np.array([5, 0]), "patterns")
    start = int((rows.height[:2] * rows.width[:2]).sum())
    np.testing.assert_array_equal(found[: offsets[1]], pattern[start:])
    np.testing.assert_array_equal(store.patterns(5).ravel(), pattern[start:])
    assert store.lot is None
    assert store.wafer is None


def test_content_is_equal_exactly_where_shape_and_cells_are():
    a = np.zeros(12, np.uint8)
    assert content_hash(a, 3, 4) != content_hash(a, 4, 3)
    assert content_hash(a, 3, 4) == content_hash(bytes(12), 3, 4) == content_hash(memoryview(a), 3, 4)
    cells = np.array([0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 2], np.uint8)
    square = np.full(3, 2, np.int32)
    first, second, third = content_hashes(cells, square, square)
    assert first == second != third
    assert int(first) == content_hash(bytes([0, 1, 2, 1]), 2, 2)


def test_a_store_is_a_source(store, tmp_path):
    assert isinstance(store, Source)
    again = prepare(store, tmp_path / "again")
    np.testing.assert_array_equal(again.content, store.content)
    np.testing.assert_array_equal(again.label, store.label)
    assert again.lot.tolist() == store.lot.tolist()
    assert again.header == store.header


def test_the_digest_is_of_content_labels_and_class_names(toy, tmp_path):
    def digest(batches, **options):
        return prepare(toy.source(batches, **options), tmp_path / "s").header.digest

    label = np.array([0, 1, 2, -1], np.int16)
    rows, lot = toy.rows(4, label=label), ["l"] * 4
    cut = int((rows.height[:1] * rows.width[:1]).sum())
    parts = [
        Rows(label[here], rows.height[here], rows.width[here], rows.cells[cells])
        for here, cells in ((slice(0, 1), slice(0, cut)), (slice(1, 4), slice(cut, None)))
    ]
    same = [digest([rows]), digest(parts), digest([toy.rows(4, label=label, lot=lot)], key="another file")]
    others = [
        digest([toy.rows(4, label=label[::-1].copy())]),
        digest([toy.rows(4, 1, label=label)]),
        digest(parts[::-1]),
        digest([rows], class_names=("a", "c", "none")),
    ]
    assert len(set(same)) == 1
    assert len({same[0], *others}) == 5


def test_a_store_travels_to_other_processes_as_its_path(store):
    message = pickle.dumps(store)
    assert len(message) < 1000
    np.testing.assert_array_equal(pickle.loads(message).map(5), store.map(5))


def test_opening_imports_no_pandas(store):
    # pyarrow's to_numpy and array import it where it is installed, which takes longer than opening.
    before = sys.modules.pop("pandas", None)
    try:
        opened = Store.open(store.folder)
        assert opened.lot is not None
        assert "pandas" not in sys.modules
    finally:
        if before is not None:
            sys.modules["pandas"] = before


def rewrite_header(store, **changes):
    file = store.folder / "header.json"
    header = json.loads(file.read_text())
    header.update(changes)
    file.write_text(json.dumps({key: value for key, value in header.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "upgrade wafer_lab"),
        ({"schema_version": None}, "no schema_version.*prepare it again"),
        ({"rows": 8}, "7 rows where the header says 8.*prepare it again"),
        ({"arrow_bytes": 1}, "bytes where the header says 1;.*prepare it again"),
        ({"kind": "audio"}, "kind 'audio'.*prepare it again"),
        ({"class_names": None}, "damaged.*prepare it again"),
        ({"digest": None}, "damaged.*digest.*prepare it again"),
        ({"surprise": 1}, "damaged.*surprise.*prepare it again"),
    ],
)
def test_a_wrong_header_says_what_to_do(store, changes, message):
    rewrite_header(store, **changes)
    with pytest.raises(UserError, match=message):
        Store.open(store.folder)


@pytest.mark.parametrize("text", ["", "not json", "[1]", "\xff"])
def test_an_unreadable_header_says_what_to_do(store, text):
    (store.folder / "header.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"damaged.*prepare it again"):
        Store.open(store.folder)


def test_missing_files_say_what_to_do(store, tmp_path):
    with pytest.raises(UserError, match="no prepared store at"):
        Store.open(tmp_path / "nowhere")
    (store.folder / "maps.arrow").rename(tmp_path / "maps.arrow")
    assert not is_store(store.folder)
    with pytest.raises(UserError, match=r"maps\.arrow is missing.*prepare it again"):
        Store.open(store.folder)
    (store.folder / "header.json").unlink()
    with pytest.raises(UserError, match=r"no header\.json.*prepare it again"):
        Store.open(store.folder)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_cut_off_arrow_file_says_what_to_do(store, keep):
    arrow = store.folder / "maps.arrow"
    raw = arrow.read_bytes()
    cut = raw[: keep if keep >= 1 else int(len(raw) * keep)]
    arrow.write_bytes(cut)
    with pytest.raises(UserError, match=r"damaged.*bytes where.*prepare it again"):
        Store.open(store.folder)
    rewrite_header(store, arrow_bytes=len(cut))  # even where the header agrees
    with pytest.raises(UserError, match=r"damaged.*prepare it again"):
        Store.open(store.folder)


def test_overwritten_bytes_are_an_error_or_harmless(store):
    arrow = store.folder / "maps.arrow"
    whole = arrow.read_bytes()
    caught = 0
    for at in range(0, len(whole) - 16, 32):
        arrow.write_bytes(whole[:at] + b"\xa5" * 16 + whole[at + 16 :])
        try:
            opened = Store.open(store.folder)
            assert sum(opened.map(i).size for i in range(7)) == int((opened.height * opened.width).sum())
        except UserError:
            caught += 1
    assert caught > 0


def test_another_kind_of_arrow_file_says_what_to_do(store):
    table = pa.table({"label": [1.5] * 7, "height": [1] * 7})
    with pa.ipc.new_file(str(store.folder / "maps.arrow"), table.schema) as writer:
        writer.write_table(table)
    rewrite_header(store, arrow_bytes=(store.folder / "maps.arrow").stat().st_size)
    with pytest.raises(UserError, match=r"damaged.*prepare it again"):
        Store.open(store.folder)
