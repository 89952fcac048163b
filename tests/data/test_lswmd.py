"""LSWMD.pkl: every layout it comes in, every way to write a label, every way in which it can be wrong."""

import gzip
import pickle
import zipfile

import numpy as np
import pytest

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.prepare import prepare
from wafer_lab.data.readers import LSWMD, lswmd
from wafer_lab.errors import UserError


def read(path):
    """All rows of a file as one dict of columns, maps as a list of arrays."""
    source = LSWMD(path)
    found = {"map": [], "label": [], "lot": [], "wafer": [], "part": [], "notes": None}
    for rows in source.rows():
        start = 0
        for height, width in zip(rows.height, rows.width, strict=True):
            found["map"].append(rows.cells[start : start + height * width].reshape(height, width))
            start += height * width
        assert start == rows.cells.size
        assert (rows.label.dtype, rows.cells.dtype) == (np.int16, np.uint8)
        found["label"] += rows.label.tolist()
        found["lot"] += rows.lot or []
        found["wafer"] += [] if rows.wafer is None else rows.wafer.tolist()
        found["part"] += rows.vendor_split or []
    found["notes"] = source.notes()
    return found


def check(found, wafers):
    for a, b in zip(found["map"], wafers["waferMap"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found["label"] == [8, 5, -1, -1, 4]
    assert found["lot"] == ["lot1", "lot1", "lot2", "lot2", "lot3"]
    assert found["wafer"] == [1, 2, 1, -1, 25]
    assert found["part"] == ["train", "test", "", "", "train"]
    assert found["notes"] == {}


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("era", ["0.16", "0.19", "0.23", "0.25", "1.1", "2.2"])
def test_every_era_of_pandas(frames, wafers, tmp_path, era, fortran):
    assert era in frames.eras
    check(read(frames.write(tmp_path / "LSWMD.pkl", wafers, era, fortran)), wafers)


def test_rows_come_in_batches(frames, wafers, tmp_path, monkeypatch):
    monkeypatch.setattr(lswmd, "BATCH", 2)
    path = frames.write(tmp_path / "LSWMD.pkl", wafers)
    assert [len(rows) for rows in LSWMD(path).rows()] == [2, 2, 1]
    check(read(path), wafers)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("storage", ["python", "pyarrow", "object"])
def test_the_installed_pandas(wafers, tmp_path, protocol, storage):
    pd = pytest.importorskip("pandas")
    with pd.option_context("mode.string_storage", "auto" if storage == "object" else storage):
        table = pd.DataFrame(wafers)
        if storage == "object":
            table["lotName"] = table["lotName"].astype(object)
            table.columns = table.columns.astype(object)
        table.to_pickle(tmp_path / "LSWMD.pkl", protocol=protocol)
    check(read(tmp_path / "LSWMD.pkl"), wafers)


def test_a_filtered_and_reordered_table(wafers, tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(wafers)
    table["note"] = ["x", None, "y", "z", ""]
    table[["failureType", "note", "waferMap"]].iloc[[4, 1]].to_pickle(tmp_path / "LSWMD.pkl")
    found = read(tmp_path / "LSWMD.pkl")
    assert found["label"] == [4, 5]
    assert found["lot"] == found["wafer"] == found["part"] == []
    np.testing.assert_array_equal(found["map"][0], wafers["waferMap"][4])


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (np.array([["none"]]), 8),
        (np.array(["none"]), 8),
        (np.array([["Edge-Ring"]], dtype=object), 3),
        ([["Center"]], 0),
        (["Donut"], 1),
        ("Scratch", 7),
        ("near-full", 5),
        ("Near_Full", 5),
        ("NearFull", 5),
        ("Edge_Loc", 2),
        (" EDGE-LOC ", 2),
        ("None", 8),
        (np.array([[b"Random"]]), 6),
        (b"Loc", 4),
        (np.empty((0, 0)), -1),
        (np.empty((0, 0), dtype=object), -1),
        (np.array([[""]]), -1),
        ([], -1),
        ([[]], -1),
        ("", -1),
        (None, -1),
        (float("nan"), -1),
    ],
)
def test_every_way_to_write_a_label(frames, wafers, tmp_path, cell, label):
    wafers["failureType"][1] = cell
    path = frames.write(tmp_path / "LSWMD.pkl", wafers)
    assert read(path)["label"] == [8, label, -1, -1, 4]


@pytest.mark.parametrize(
    "names",
    [
        {"trianTestLabel": "trainTestLabel"},
        {
            "waferMap": "WaferMap",
            "failureType": "failure_type",
            "lotName": "LotName",
            "trianTestLabel": "train_test_label",
        },
    ],
)
def test_other_spellings_of_the_columns(frames, wafers, tmp_path, names):
    renamed = {names.get(name, name): column for name, column in wafers.items()}
    check(read(frames.write(tmp_path / "WM811K.pkl", renamed)), wafers)


def test_a_table_of_maps_alone_is_unlabelled(frames, wafers, tmp_path):
    found = read(frames.write(tmp_path / "maps.pkl", {"waferMap": wafers["waferMap"]}))
    assert found["label"] == [-1] * 5


def test_a_zip_that_holds_it(frames, wafers, tmp_path):
    frames.write(tmp_path / "LSWMD.pkl", wafers)
    with zipfile.ZipFile(tmp_path / "wm.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "LSWMD.pkl", "MIR-WM811K/Python/WM811K.pkl")
        archive.writestr("MIR-WM811K/Matlab/WM811K.mat", b"other")
        archive.writestr("__MACOSX/MIR-WM811K/Python/._WM811K.pkl", b"junk")
    check(read(tmp_path / "wm.zip"), wafers)


@pytest.mark.parametrize("kind", [np.int64, np.float64, np.int8, bool, "fortran", "list"])
def test_maps_of_other_kinds(frames, wafers, tmp_path, kind):
    wafer = np.minimum(wafers["waferMap"][0], 1) if kind is bool else wafers["waferMap"][0]
    changed = {"fortran": np.asfortranarray(wafer), "list": wafer.tolist()}.get(kind)
    wafers["waferMap"][0] = wafer.astype(kind) if changed is None else changed
    found = read(frames.write(tmp_path / "LSWMD.pkl", wafers))
    np.testing.assert_array_equal(found["map"][0], wafer)
    np.testing.assert_array_equal(found["map"][4], wafers["waferMap"][4])


def test_three_is_clipped_and_counted(frames, wafers, tmp_path):
    wafers["waferMap"][1][2, :2] = 3
    wafers["waferMap"][4][0, 0] = 3
    found = read(frames.write(tmp_path / "LSWMD.pkl", wafers))
    np.testing.assert_array_equal(found["map"][1], np.minimum(wafers["waferMap"][1], 2))
    assert found["notes"] == {"cells_clipped": 3, "maps_clipped": 2}


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("waferMap", np.full((2, 2), 4, np.uint8), "row 2: waferMap holds the value 4; die states are"),
        ("waferMap", np.full((2, 2), -1), "row 2: waferMap holds the value -1"),
        ("waferMap", np.full((2, 2), 0.5), "row 2: waferMap holds a value that is no die state"),
        ("waferMap", np.full((2, 2), np.nan), "row 2: waferMap holds a value that is no die state"),
        ("waferMap", np.zeros(4, np.uint8), "row 2: waferMap is no 2-D array"),
        ("waferMap", np.zeros((0, 4), np.uint8), "row 2: waferMap is no 2-D array"),
        ("waferMap", [[1, 2], [1]], "row 2: waferMap is no 2-D array"),
        ("waferMap", "map", "row 2: waferMap is no 2-D array"),
        ("waferMap", None, "row 2: waferMap is no 2-D array"),
        ("failureType", [["Spiral"]], "row 2: unknown failureType 'Spiral'; known are Center, Donut.*empty cell"),
        ("failureType", ["Loc", "Donut"], "row 2: unknown failureType"),
        ("failureType", 3, "row 2: unknown failureType '3'"),
        ("trianTestLabel", "Holdout", "row 2: unknown trainTestLabel 'Holdout'; known are Training, Test"),
    ],
)
def test_a_wrong_cell_names_its_row(frames, wafers, tmp_path, column, cell, message):
    wafers[column][2] = cell
    path = frames.write(tmp_path / "LSWMD.pkl", wafers)
    with pytest.raises(UserError, match=rf"LSWMD\.pkl, {message}"):
        read(path)


def test_other_tables_are_refused_with_their_columns(frames, tmp_path):
    path = frames.write(tmp_path / "other.pkl", {"price": [1.0, 2.0], "name": ["a", "b"]})
    with pytest.raises(UserError, match="DataFrame with the columns price, name; WM-811K has waferMap"):
        read(path)


@pytest.mark.parametrize("value", [[1, 2, 3], {"waferMap": []}, "text", None])
def test_other_pickles_are_refused(tmp_path, value):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match="cannot be read as a pickled DataFrame: it holds no DataFrame"):
        read(tmp_path / "x.pkl")


def test_categories_are_refused_with_the_way_out(wafers, tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"waferMap": wafers["waferMap"], "failureType": pd.Categorical(["none"] * 5)})
    table.to_pickle(tmp_path / "x.pkl")
    with pytest.raises(UserError, match=r"refused.*Categor.*plain columns \(no categories"):
        read(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2145000000\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, not the data"),
        (gzip.compress(b"\x80\x02].", mtime=0), "still packed.*gunzip"),
        (b"7z\xbc\xaf\x27\x1c rest", "still packed.*7z x"),
        (b"waferMap,failureType\n", "is no pickle; expected LSWMD.pkl"),
        (b"PK\x03\x04 broken", "cut off or damaged"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    (tmp_path / "LSWMD.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        LSWMD(tmp_path / "LSWMD.pkl")


def test_missing_file_and_wrong_zips(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        LSWMD(tmp_path / "LSWMD.pkl")
    for names, holds in [(["a.txt"], "none"), (["a.pkl", "b.pkl"], r"several \(a.pkl, b.pkl\)")]:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        with pytest.raises(UserError, match=f"should hold one .pkl or .pickle file and holds {holds}"):
            LSWMD(tmp_path / "x.zip")


@pytest.mark.parametrize("era", ["0.19", "2.2"])
def test_a_file_cut_off_anywhere_is_one_clear_error(frames, wafers, tmp_path, era):
    path = frames.write(tmp_path / "LSWMD.pkl", wafers, era)
    whole = path.read_bytes()
    for keep in range(2, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=r"cut off or damaged|damaged \(|no DataFrame|refused"):
            read(path)


@pytest.mark.parametrize("era", ["0.19", "2.2"])
def test_changed_bytes_are_an_error_or_harmless(frames, wafers, tmp_path, era):
    path = frames.write(tmp_path / "LSWMD.pkl", wafers, era)
    whole = path.read_bytes()
    refused = 0
    for at in range(2, len(whole), 2):
        path = tmp_path / f"{at}.pkl"  # a new file each time: rewriting one waits for the disk
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 + at % 255)]) + whole[at + 1 :])
        try:
            assert set(np.concatenate([m.ravel() for m in read(path)["map"]]).tolist()) <= {0, 1, 2}
        except UserError:
            refused += 1
    assert refused > len(whole) // 8


def test_the_fingerprint_follows_the_file(frames, wafers, tmp_path):
    path = frames.write(tmp_path / "LSWMD.pkl", wafers)
    first = LSWMD(path).fingerprint()
    assert first == LSWMD(path).fingerprint()
    assert int(first, 16) >= 0
    path.write_bytes(path.read_bytes().replace(b"lot3", b"lot4"))
    assert LSWMD(path).fingerprint() != first


@pytest.mark.parametrize("kind", ["legacy", "modern"])
def test_the_real_sample(real_data, lswmd_tool, tmp_path, kind):
    if kind == "modern":
        pytest.importorskip("pandas")
    maps, fail, part = lswmd_tool.load(real_data / "wm811k_sample.npz", 600, 0.4, 0)
    path = tmp_path / "LSWMD.pkl"
    getattr(lswmd_tool, f"write_{kind}")(path, maps, fail, part)
    store = prepare(LSWMD(path), tmp_path / "s")
    assert len(store) == 600
    expected = [WM811K_CLASSES.index(f[0, 0]) if f.size else -1 for f in fail]
    assert store.label.tolist() == expected
    assert 150 < expected.count(-1) < 330
    assert store.vendor_split.tolist() == ["train" if p.size else "" for p in part]
    assert store.wafer.tolist() == [i % 25 + 1 for i in range(600)]
    for i, wafer in enumerate(maps):
        np.testing.assert_array_equal(store.map(i), wafer)
    same = {}
    for i, wafer in enumerate(maps):
        same.setdefault((wafer.shape, wafer.tobytes()), set()).add(int(store.content[i]))
    assert all(len(hashes) == 1 for hashes in same.values())
    assert len(set.union(*same.values())) == len(same)
