import pickle

import numpy as np
import pytest
from PIL import Image

from wafer_lab.demo.page import picture
from wafer_lab.demo.reading import read_picture, read_wafer
from wafer_lab.errors import UserError
from wafer_lab.evaluation.palette import LEGEND

RGB = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in LEGEND.values()], np.uint8)


def a_map(shape=(7, 9), seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


class Runs:
    """A pickle that would write a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def saved(folder, name, array):
    np.save(folder / name, array)
    return folder / name


def test_a_map_is_read(tmp_path):
    states = a_map()
    assert np.array_equal(read_wafer(saved(tmp_path, "one.npy", states), 0, "maps"), states)


def test_a_row_of_a_stack_is_read(tmp_path):
    stack = a_map((600, 6, 6))  # several batches
    file = saved(tmp_path, "many.npy", stack)
    assert np.array_equal(read_wafer(file, 599, "maps"), stack[599])
    for row in (600, -1):
        with pytest.raises(UserError, match=r"^many\.npy has no row .*; its rows are 0 to 599$"):
            read_wafer(file, row, "maps")


def test_rows_of_the_public_files_are_read(tmp_path, real_data, lswmd_tool):
    with np.load(real_data / "mixedwm38_sample.npz") as arrays:
        maps, labels = arrays["arr_0"][:20], arrays["arr_1"][:20]
    np.savez(tmp_path / "mixed.npz", arr_0=maps, arr_1=labels)
    assert np.array_equal(read_wafer(tmp_path / "mixed.npz", 17, "maps"), np.minimum(maps[17], 2))
    maps, fail, part = lswmd_tool.load(real_data / "wm811k_sample.npz", 40, 0.5, 0)
    lswmd_tool.write_legacy(str(tmp_path / "LSWMD.pkl"), maps, fail, part)
    assert np.array_equal(read_wafer(tmp_path / "LSWMD.pkl", 33, "maps"), maps[33])


@pytest.mark.parametrize("scale", [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_picture_in_the_legends_colours_is_read(tmp_path, scale, mode):
    states = a_map((11, 8))
    pixels = RGB[states].repeat(scale[0], axis=0).repeat(scale[1], axis=1)
    image = Image.fromarray(pixels)
    image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=8) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "map.png")
    assert np.array_equal(read_wafer(tmp_path / "map.png", 0, "maps"), states)


def test_a_picture_that_the_page_shows_can_be_read_again(tmp_path):
    import base64

    states = a_map((30, 21))
    (tmp_path / "shown.png").write_bytes(base64.b64decode(picture(states, None, "maps").partition(",")[2]))
    assert np.array_equal(read_wafer(tmp_path / "shown.png", 0, "maps"), states)


def test_what_is_transparent_is_off_the_wafer(tmp_path):
    states = a_map((9, 9))
    rgba = np.concatenate([RGB[states], np.full((9, 9, 1), 255, np.uint8)], axis=2)
    rgba[states == 0] = (10, 20, 30, 0)
    Image.fromarray(rgba).save(tmp_path / "map.png")
    assert np.array_equal(read_picture(tmp_path / "map.png"), states)


def test_other_colours_are_refused_with_the_legend(tmp_path):
    pixels = RGB[a_map((10, 10))]
    pixels[4, 4] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with pytest.raises(UserError) as told:
        read_wafer(tmp_path / "photo.png", 0, "maps")
    assert "photo.png" in str(told.value)
    assert "#C81E1E in 1 of 100 pixels" in str(told.value)
    assert all(f"{state} {colour}" in str(told.value) for state, colour in LEGEND.items())


def bad_files(folder):
    yield saved(folder, "cell.npy", np.ones((1, 1), np.uint8)), "map of 1 x 1 cell, too few"
    yield saved(folder, "huge.npy", np.ones((4000, 4000), np.uint8)), "4,000 x 4,000 cells"
    yield saved(folder, "states.npy", np.full((9, 9), 7)), "holds the value 7"
    yield saved(folder, "negative.npy", np.full((9, 9), -1)), "holds the value -1"
    yield saved(folder, "nan.npy", np.full((9, 9), np.nan)), "holds the value nan"
    yield saved(folder, "off.npy", np.zeros((9, 9), np.uint8)), "no die is on it"
    yield saved(folder, "text.npy", np.array([["a"]])), "is a wafer map|wafer map is"
    (folder / "empty.npy").write_bytes(b"")
    yield folder / "empty.npy", "is empty"
    (folder / "empty.png").write_bytes(b"")
    yield folder / "empty.png", "is empty"
    (folder / "code.pkl").write_bytes(pickle.dumps(Runs(folder / "ran")))
    yield folder / "code.pkl", "code.pkl"
    np.save(folder / "objects.npy", np.array([Runs(folder / "ran")], dtype=object), allow_pickle=True)
    yield folder / "objects.npy", "not a .npy file of numbers"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    yield folder / "broken.png", "no image that can be read"
    (folder / "notes.txt").write_text("hello")
    yield folder / "notes.txt", "no data set"
    Image.new("RGB", (30, 30), "white").save(folder / "white.png")
    yield folder / "white.png", "shows no die"


def test_every_bad_file_is_one_message(tmp_path):
    for file, expected in bad_files(tmp_path):
        with pytest.raises(UserError, match=expected) as told:
            read_wafer(file, 0, "maps")
        assert str(tmp_path) not in str(told.value), file
    assert not (tmp_path / "ran").exists()


def test_a_bad_row_is_told_and_the_others_are_read(tmp_path):
    stack = a_map((4, 8, 8)).astype(float)
    stack[2, 1, 1] = np.nan
    file = saved(tmp_path, "stack.npy", stack)
    with pytest.raises(UserError, match=r"stack\.npy, row 2: it holds the value nan"):
        read_wafer(file, 2, "maps")
    assert np.array_equal(read_wafer(file, 3, "maps"), stack[3])


def test_images_are_read_for_models_of_images(tmp_path):
    grey = np.arange(120, dtype=np.uint8).reshape(10, 12)
    Image.fromarray(grey).save(tmp_path / "sem.png")
    assert np.array_equal(read_wafer(tmp_path / "sem.png", 0, "images"), grey)
    with pytest.raises(UserError, match="judges images"):
        read_wafer(saved(tmp_path, "map.npy", a_map()), 0, "images")
