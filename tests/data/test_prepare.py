"""Preparing: all or nothing, whatever goes wrong half-way; and finding the reader for a path."""

import errno
import os
import re
import sys
import threading
import zipfile
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wafer_lab.cli.data import app
from wafer_lab.data.prepare import cached, prepare
from wafer_lab.data.readers import LSWMD, ImageFolder, MixedWM38, open_source
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError


def test_progress_counts_the_rows(toy, tmp_path):
    seen = []
    prepare(toy.source(), tmp_path / "s", seen.append)
    assert seen == [5, 8]


def test_a_store_is_replaced_and_an_open_one_stays_readable(toy, tmp_path):
    old = prepare(toy.source(), tmp_path / "s")
    before = old.cells(np.arange(8))[0]
    new = prepare(toy.source([toy.rows(2, 9)]), tmp_path / "s")
    assert len(new) == len(Store.open(tmp_path / "s")) == 2
    np.testing.assert_array_equal(old.cells(np.arange(8))[0], before)
    assert os.listdir(tmp_path) == ["s"]


def test_an_empty_folder_may_be_filled(toy, tmp_path):
    (tmp_path / "s").mkdir()
    assert len(prepare(toy.source(), tmp_path / "s")) == 8


def test_what_is_no_store_is_left_alone(toy, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "keep.txt").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine too")
    for dest in (folder, file):
        with pytest.raises(UserError, match="no prepared store; it is left as it is"):
            prepare(toy.source(), dest)
    assert (folder / "keep.txt").read_text() == "mine"
    assert file.read_text() == "mine too"
    assert sorted(os.listdir(tmp_path)) == ["file", "photos"]


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, r"disk is full.*needs more than.*MB are free"),
        (OSError(errno.EACCES, "Permission denied"), UserError, "cannot be written.*Permission denied"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (UserError("the file is cut off"), UserError, "cut off"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_half_way_leaves_all_as_it_was(toy, tmp_path, error, raised, message, existing):
    if existing:
        prepare(toy.source(key="old"), tmp_path / "s")
    with pytest.raises(raised, match=message):
        prepare(toy.source(error=error), tmp_path / "s")
    assert os.listdir(tmp_path) == (["s"] if existing else [])
    if existing:
        assert Store.open(tmp_path / "s").header.fingerprint == "old"


def test_a_write_that_fails_is_a_full_disk(toy, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match="disk is full"):
            prepare(toy.source([toy.rows(500)]), tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_a_source_without_rows_is_an_error(toy, tmp_path):
    with pytest.raises(UserError, match="holds no rows"):
        prepare(toy.source([]), tmp_path / "s")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"label": np.array([5, 0], np.int16)},
        {"label": np.array([-2, 0], np.int16)},
        {"label": np.zeros((2, 2), np.int8)},
    ],
)
def test_a_source_that_breaks_its_promises_is_a_bug(toy, tmp_path, columns):
    with pytest.raises(ValueError, match="toy: labels"):
        prepare(toy.source([toy.rows(2, **columns)]), tmp_path / "s")


def test_the_cache_prepares_once_per_fingerprint(toy, tmp_path):
    first = cached(toy.source(), tmp_path / "cache")
    again = cached(toy.source(error=AssertionError("read again")), tmp_path / "cache")
    assert first.folder == again.folder == tmp_path / "cache" / "toy-0123456789abcdef"
    changed = cached(toy.source([toy.rows(2)], key="f"), tmp_path / "cache")
    assert len(changed) == 2
    assert len(Store.open(first.folder)) == 8


def test_a_first_preparation_is_told_of(toy, tmp_path, capsys):
    cached(toy.source(), tmp_path / "cache")
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"preparing toy into {tmp_path / 'cache' / 'toy-0123456789abcdef'}, once"
    assert re.fullmatch(r"prepared 8 rows in \d+\.\d s", last)
    cached(toy.source(), tmp_path / "cache")
    assert capsys.readouterr() == ("", "")
    (tmp_path / "scans" / "a").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "scans" / "a" / "1.png")
    cached(ImageFolder(tmp_path / "scans"), tmp_path / "cache")
    assert capsys.readouterr().err.startswith("preparing scans into")


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_shows_the_rows_go_by(toy, tmp_path, monkeypatch, rich):
    terminal = StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    assert len(cached(toy.source(), tmp_path / "cache")) == 8
    assert ("8 rows" in terminal.getvalue().split("prepared")[0]) == rich


def test_two_that_fill_the_cache_at_once_agree(toy, tmp_path):
    barrier, stores = threading.Barrier(4), []

    def work():
        barrier.wait()
        stores.append(cached(toy.source(), tmp_path / "cache"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(store) for store in stores] == [8] * 4
    assert os.listdir(tmp_path / "cache") == ["toy-0123456789abcdef"]


def npz(maps=None) -> bytes:
    file = BytesIO()
    maps = np.zeros((2, 52, 52), np.int32) if maps is None else maps
    np.savez(file, maps, np.zeros((len(maps), 8), np.int32))
    return file.getvalue()


def test_every_source_is_found_by_its_looks(frames, wafers, toy, tmp_path):
    pickled = frames.write(tmp_path / "a.dat", wafers)  # whatever they are called
    archive = tmp_path / "b.bin"
    archive.write_bytes(npz())
    assert isinstance(open_source(pickled), LSWMD)
    assert isinstance(open_source(str(archive)), MixedWM38)
    for name, content, reader in [("LSWMD.pkl", pickled.read_bytes(), LSWMD), ("Maps.npz", npz(), MixedWM38)]:
        folder = tmp_path / name.lower()
        folder.mkdir()
        (folder / name).write_bytes(content)
        (folder / ".DS_Store").write_bytes(b"junk")
        (folder / "readme.txt").write_text("read me")
        assert isinstance(open_source(folder), reader)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as zipped:
            zipped.writestr(f"deep/{name}", content)
            zipped.writestr(f"__MACOSX/deep/._{name}", b"junk")
        assert isinstance(open_source(tmp_path / f"{name}.zip"), reader)
    (tmp_path / "sem" / "crack").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "sem" / "crack" / "1.png")
    (tmp_path / "sem" / "download.zip").write_bytes(npz())
    assert isinstance(open_source(tmp_path / "sem"), ImageFolder)
    prepare(toy.source(), tmp_path / "store")
    assert isinstance(open_source(tmp_path / "store"), Store)


def test_what_is_no_source_says_what_is(tmp_path):
    for name, content, message in [
        ("missing.pkl", None, "there is no file"),
        ("empty.pkl", b"", "is empty; download it again"),
        (
            "pointer.pkl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2\n",
            "Git LFS pointer.*lfs pull",
        ),
        ("page.pkl", b"\n<!DOCTYPE html><html>", "web page, not the data"),
        ("packed.pkl.gz", b"\x1f\x8b\x08\x00", "still packed.*gunzip"),
        ("table.csv", b"a,b\n1,2\n", r"no data set that wafer_lab can read; accepted are LSWMD\.pkl"),
        ("cut.npz", npz()[:900], "cut off or damaged"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_source(tmp_path / name)
    for name, message in [("a.txt", "zip of a.txt; accepted are"), ("x/1.png", "zip of images; unpack it")]:
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
            zipped.writestr(name, b"1")
        with pytest.raises(UserError, match=message):
            open_source(tmp_path / "some.zip")
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.npz", "b.npz"):
        (folder / name).write_bytes(npz())
    with pytest.raises(UserError, match=r"several data files \(a.npz, b.npz\); name one"):
        open_source(folder)


def test_the_command_prepares(frames, wafers, tmp_path):
    wafers["waferMap"][1][0, 0] = 3
    src = frames.write(tmp_path / "LSWMD.pkl", wafers)
    result = CliRunner().invoke(app, ["prepare", str(src), str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "5 rows, 9 classes (multiclass)" in result.output
    assert "cells clipped: 1" in result.output
    assert len(Store.open(tmp_path / "out")) == 5
    result = CliRunner().invoke(app, ["prepare", str(tmp_path / "out"), str(tmp_path / "again")])
    assert isinstance(result.exception, UserError)
    assert "prepared store already" in str(result.exception)
