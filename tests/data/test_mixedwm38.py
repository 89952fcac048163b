"""MixedWM38: the public archive, and every way in which a file can fall short of it."""

import zipfile
from io import BytesIO

import numpy as np
import pytest

from wafer_lab.data.prepare import prepare
from wafer_lab.data.readers import MixedWM38, mixedwm38
from wafer_lab.errors import UserError


@pytest.fixture
def maps():
    return np.random.default_rng(0).integers(0, 3, (6, 52, 52)).astype(np.int32)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 2, (6, 8)).astype(np.int32)


def read(source):
    """All of a source's rows as (maps, labels)."""
    batches = list(source.rows())
    assert all((rows.height == 52).all() and (rows.width == 52).all() for rows in batches)
    cells = np.concatenate([rows.cells for rows in batches])
    return cells.reshape(-1, 52, 52), np.concatenate([rows.label for rows in batches])


@pytest.mark.parametrize("dtype", ["<i4", "u1", ">i2", "<u8", "?"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_integers_stored_or_deflated(tmp_path, maps, labels, dtype, save, monkeypatch):
    monkeypatch.setattr(mixedwm38, "BATCH", 4)
    maps = np.minimum(maps, 1) if dtype == "?" else maps
    save(tmp_path / "m.npz", maps.astype(dtype), labels.astype(dtype))
    source = MixedWM38(tmp_path / "m.npz")
    found, label = read(source)
    assert (found.dtype, label.dtype) == (np.uint8, np.int8)
    np.testing.assert_array_equal(found, maps)
    np.testing.assert_array_equal(label, labels)
    assert source.notes() == {}


def test_three_is_clipped_and_counted(tmp_path, maps, labels):
    maps[1, 0, :3] = 3
    maps[4, 51, 51] = 3
    np.savez(tmp_path / "m.npz", maps, labels)
    source = MixedWM38(tmp_path / "m.npz")
    found, _ = read(source)
    np.testing.assert_array_equal(found, np.minimum(maps, 2))
    assert source.notes() == {"cells_clipped": 4, "maps_clipped": 2}
    read(source)
    assert source.notes() == {"cells_clipped": 4, "maps_clipped": 2}  # reading again does not add


def test_a_folder_or_a_zip_that_holds_it(tmp_path, maps, labels):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez(folder / "Wafer_Map_Datasets.npz", maps, labels)
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "Wafer_Map_Datasets.npz", "archive/Wafer_Map_Datasets.npz")
    for path in (folder, tmp_path / "m.zip"):
        np.testing.assert_array_equal(read(MixedWM38(path))[0], maps)
    np.savez(folder / "second.npz", maps)
    with pytest.raises(UserError, match=r"one \.npz file and holds 2"):
        MixedWM38(folder)


def test_without_labels_the_rows_are_unlabelled(tmp_path, maps):
    np.savez(tmp_path / "m.npz", maps)
    assert (read(MixedWM38(tmp_path / "m.npz"))[1] == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, y: (m[:, :50], y), r"arr_0 has shape \(6, 50, 52\)"),
        (lambda m, y: (m[:0], y[:0]), r"arr_0 has shape \(0, 52, 52\)"),
        (lambda m, y: (m, y[:, :7]), r"arr_1 has shape \(6, 7\)"),
        (lambda m, y: (m, y[:4]), "6 maps in arr_0, but 4 labels"),
        (lambda m, y: (m.astype(object), y), "arr_0 holds objects, which are never unpickled"),
        (lambda m, y: (m, y.astype(object)), "arr_1 holds objects, which are never unpickled"),
        (lambda m, y: (m.astype(float), y), "arr_0 holds float64"),
        (lambda m, y: (np.asfortranarray(m), y), "row by row"),
        (lambda m, y: (m, y * 2), r"row \d of arr_1 holds .*labels are 0 or 1"),
        (
            lambda m, y: (m + 7 * (np.arange(6) == 4)[:, None, None], y),
            "map 4 of arr_0 holds the value [789]; die states",
        ),
        (lambda m, y: (m - (np.arange(6) == 2)[:, None, None], y), "map 2 of arr_0 holds the value -1; die states"),
    ],
)
def test_what_mixedwm38_does_not_have(tmp_path, maps, labels, change, message):
    np.savez(tmp_path / "m.npz", *change(maps, labels))
    with pytest.raises(UserError, match=message):
        read(MixedWM38(tmp_path / "m.npz"))


def test_an_archive_of_other_arrays(tmp_path, maps):
    np.savez(tmp_path / "m.npz", cells=maps)
    with pytest.raises(UserError, match=r"holds cells\.npy; MixedWM38 holds arr_0"):
        MixedWM38(tmp_path / "m.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"is no \.npz"):
        MixedWM38(tmp_path / "text.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_is_one_clear_error(tmp_path, maps, labels, save):
    file = BytesIO()
    save(file, maps, labels)
    whole = file.getvalue()
    for keep in (0.3, 0.9, 0.999):
        (tmp_path / "m.npz").write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(UserError, match="cut off or damaged"):
            MixedWM38(tmp_path / "m.npz")
    for at in (100, len(whole) // 3, len(whole) // 2):
        (tmp_path / "m.npz").write_bytes(whole[:at] + bytes(b ^ 0x5A for b in whole[at : at + 40]) + whole[at + 40 :])
        with pytest.raises(UserError, match=r"damaged|die states|header"):
            read(MixedWM38(tmp_path / "m.npz"))


def test_the_real_sample(real_data, tmp_path):
    path = real_data / "mixedwm38_sample.npz"
    store = prepare(MixedWM38(path), tmp_path / "s")
    with np.load(path) as archive:
        maps, labels = archive["arr_0"], archive["arr_1"]
    assert len(store) == len(maps) == 30_412
    np.testing.assert_array_equal(store.label, labels)
    assert store.header.notes == {
        "cells_clipped": int((maps == 3).sum()),
        "maps_clipped": int((maps == 3).any((1, 2)).sum()),
    }
    rows = np.arange(0, len(maps), 7)
    np.testing.assert_array_equal(store.cells(rows)[0].reshape(-1, 52, 52), np.minimum(maps[rows], 2))
