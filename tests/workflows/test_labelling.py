import errno
import os
import threading
import time

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Rows
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.workflows import labelling
from wafer_lab.workflows.labelling import label_source
from wafer_lab.workflows.watching import watch


class Share:
    """Calls a wafer `fail` by the share of its cells over 1, and remembers how many it saw."""

    kind = "maps"
    predictor = Predictor.plain(["pass", "fail"], "multiclass")

    def __init__(self, stops_after: int | None = None):
        self.seen, self.stops_after = 0, stops_after

    def probabilities(self, wafers):
        if self.stops_after is not None and self.seen >= self.stops_after:
            raise KeyboardInterrupt
        self.seen += len(wafers)
        share = np.array([(wafer > 1).mean() for wafer in wafers])
        return np.stack([1 - share, share], 1)


class Grids:
    """Maps of several sizes, of which the even ones fail."""

    name, kind, target, class_names = "grids", "maps", "multiclass", ("a",)

    def __init__(self, count):
        self.count = count

    def fingerprint(self):
        return str(self.count)

    def notes(self):
        return {}

    def rows(self):
        for start in range(0, self.count, 300):
            n = min(300, self.count - start)
            height, width = (np.arange(start, start + n) % k + 2 for k in (5, 7))
            states = [np.full(h * w, 2 - (start + i) % 2) for i, (h, w) in enumerate(zip(height, width, strict=True))]
            cells = np.concatenate(states).astype(np.uint8)
            yield Rows(np.full(n, -1), height.astype(np.int32), width.astype(np.int32), cells)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(labelling, "PART", 512)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_stopped_run_goes_on_where_it_was(tmp_path, small_parts):
    out, told = tmp_path / "out.parquet", []
    with pytest.raises(KeyboardInterrupt):
        label_source(Share(stops_after=1300), Grids(2000), out, told.append, key="k")
    assert names(tmp_path) == [".out.parquet.parts"]
    judge = Share()
    done = label_source(judge, Grids(2000), out, told.append, key="k")
    assert (done.wafers, done.faults) == (2000, 0)
    assert judge.seen == 2000 - done.kept < 1500
    assert names(tmp_path) == ["out.parquet"]
    table = pq.read_table(out)
    assert table["index"].to_pylist() == list(range(2000))
    assert table["prediction"].to_pylist() == ["fail", "pass"] * 1000


def test_parts_of_another_model_or_source_are_not_kept(tmp_path, small_parts):
    with pytest.raises(KeyboardInterrupt):
        label_source(Share(stops_after=1300), Grids(2000), tmp_path / "out.csv", key="k")
    judge = Share()
    assert label_source(judge, Grids(2000), tmp_path / "out.csv", key="other").kept == 0
    assert judge.seen == 2000
    assert pyarrow.csv.read_csv(tmp_path / "out.csv").num_rows == 2000


def test_a_part_half_written_is_not_counted(tmp_path, small_parts):
    out = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        label_source(Share(stops_after=1300), Grids(2000), out, key="k")
    (tmp_path / ".out.parquet.parts" / ".part-000000001024.parquet.tmp").write_bytes(b"PAR1 cut off")
    assert label_source(Share(), Grids(2000), out, key="k").wafers == 2000
    assert pq.read_table(out)["index"].to_pylist() == list(range(2000))


def test_without_a_key_nothing_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        label_source(Share(stops_after=0), Grids(20), tmp_path / "out.csv")
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_parts(tmp_path, small_parts, monkeypatch):
    write, out = labelling.pq.write_table, tmp_path / "out.parquet"

    def full(table, where):
        if "000000001" in where.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, where)

    monkeypatch.setattr(labelling.pq, "write_table", full)
    with pytest.raises(UserError, match=r"cannot write .*out\.parquet: No space left"):
        label_source(Share(), Grids(2000), out)
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="No space left"):
        label_source(Share(), Grids(2000), out, key="k")
    monkeypatch.undo()
    assert label_source(Share(), Grids(2000), out, key="k").kept >= 512
    assert names(tmp_path) == ["out.parquet"]


def test_an_input_that_goes_away_is_one_message(tmp_path):
    class Gone(Grids):
        def rows(self):
            raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(UserError, match="input cannot be read: Stale"):
        label_source(Share(), Gone(3), tmp_path / "out.csv")


def npy(header):
    """A .npy file of this header and no numbers."""
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_damaged_headers_are_rows(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    plain = "{'descr': '|u1', 'fortran_order': False, 'shape': "
    headers = [
        plain + "(100000000, 100000000), }",  # MemoryError
        plain + "(3, 3), ",  # TokenError
        plain + "(3 3), }",  # SyntaxError
        "  {\n 1\n}",
        "{'descr': (), 'fortran_order': False, 'shape': (3, 3)}",  # IndexError
        "{1: 2, 'a': 3}",  # TypeError
        "(" * 9000,
    ]
    for i, header in enumerate(headers):
        (maps / f"{i}.npy").write_bytes(npy(header))
    (maps / "archive.npy").write_bytes(b"PK\x03\x04 cut off")
    with (maps / "npz.npy").open("wb") as file:
        np.savez(file, np.ones((3, 3)))
    np.save(maps / "whole.npy", np.ones((3, 3)))
    done = label_source(Share(), open_source(maps, tolerant=True), tmp_path / "out.parquet")
    assert (done.wafers, done.faults) == (len(headers) + 3, len(headers) + 2)
    told = pq.read_table(tmp_path / "out.parquet")["error"].to_pylist()
    assert all("is not a .npy file of numbers" in error for error in told[:-1])
    with pytest.raises(UserError, match=r"not a \.npy file of numbers"):
        list(open_source(maps / "0.npy", tolerant=True).rows())


def test_bad_wafers_are_rows_and_the_others_are_judged(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    np.save(maps / "a.npy", np.full((4, 4), 2))
    (maps / "b.npy").write_bytes(b"")
    np.save(maps / "c.npy", np.array([{}], dtype=object))  # a pickle
    np.save(maps / "d.npy", np.full((3, 3), np.nan))
    np.save(maps / "e.npy", np.stack([np.ones((5, 5)), np.full((5, 5), 9.0), np.zeros((5, 5))]))
    np.save(maps / "f.npy", np.ones((1, 1)))
    done = label_source(Share(), open_source(maps, tolerant=True), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (done.wafers, done.faults) == (8, 5)
    assert [row["path"] for row in table] == ["a.npy", "b.npy", "c.npy", "d.npy", "e.npy", "e.npy", "e.npy", "f.npy"]
    assert [row["prediction"] for row in table] == ["fail", None, None, None, "pass", None, None, "pass"]
    assert [row["p_fail"] for row in table] == [1, None, None, None, 0, None, None, 0]
    for row, says in zip(table, [None, "b.npy", "c.npy", "value nan", None, "value 9", "no die", None], strict=True):
        assert row["error"] is None if says is None else says in row["error"]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    import pickle

    (tmp_path / "LSWMD.pkl").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError):
        label_source(Share(), open_source(tmp_path / "LSWMD.pkl", tolerant=True), tmp_path / "out.csv")
    assert names(tmp_path) == ["LSWMD.pkl"]


def test_mixedwm38_with_a_state_that_is_none(tmp_path):
    maps = np.ones((3, 52, 52), np.int32)
    maps[1, 3, 3], maps[2] = 5, 3
    np.savez(tmp_path / "m.npz", arr_0=maps)
    label_source(Share(), open_source(tmp_path / "m.npz", tolerant=True), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["prediction"] for row in table] == ["pass", None, "fail"]
    assert "value 5" in table[1]["error"]
    with pytest.raises(UserError, match=r"map 1 of arr_0 holds the value 5"):
        list(open_source(tmp_path / "m.npz").rows())


def test_images_with_a_damaged_one(tmp_path):
    class Light(Share):
        kind = "images"

        def probabilities(self, wafers):
            share = np.array([wafer.mean() / 255 for wafer in wafers])
            return np.stack([1 - share, share], 1)

    for name, level in (("a", 255), ("c", 0)):
        Image.new("L", (9, 7), level).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG cut off")
    label_source(Light(), open_source(tmp_path, tolerant=True), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["prediction"] for row in table] == ["fail", None, "pass"]
    assert "b.png" in table[1]["error"]


def test_a_folder_is_watched(tmp_path):
    drop, results, told = tmp_path / "drop", tmp_path / "results", []
    (drop / "lot1").mkdir(parents=True)
    np.save(drop / "lot1" / "a.npy", np.full((4, 4), 2))
    (drop / "b.npy").write_bytes(b"no map")
    (drop / "notes.txt").write_text("not a wafer")

    def later() -> None:
        time.sleep(0.1)
        np.save(drop / "c.npy", np.ones((3, 3)))

    line = threading.Thread(target=later)
    line.start()
    watch(Share(), drop, results, lambda file, outcome: told.append(file.name), seconds=0.05, polls=12)
    line.join()
    assert told == ["b.npy", "a.npy", "c.npy"]
    rows = {path.name: pyarrow.csv.read_csv(path).to_pylist() for path in results.rglob("*.csv")}
    assert sorted(rows) == ["a.npy.csv", "b.npy.csv", "c.npy.csv"]
    assert [row["prediction"] for row in rows["a.npy.csv"]] == ["fail"]
    assert "b.npy" in rows["b.npy.csv"][0]["error"]
    assert len({tuple(table[0]) for table in rows.values()}) == 1  # the same columns
    told.clear()
    watch(Share(), drop, results, lambda file, outcome: told.append(file.name), seconds=0.01, polls=3)
    assert told == []  # a restart does nothing again
    with pytest.raises(UserError, match="name of a file"):
        watch(Share(), drop, tmp_path / "out.csv", print, polls=1)
    with pytest.raises(UserError, match="no folder"):
        watch(Share(), tmp_path / "absent", results, print, polls=1)


def watched(drop, results, polls=4):
    told = []
    watch(Share(), drop, results, lambda file, outcome: told.append(file.name), seconds=0.001, polls=polls)
    return told


def test_a_file_is_labelled_once_whatever_its_time(tmp_path, monkeypatch):
    drop, results = tmp_path / "drop", tmp_path / "results"
    drop.mkdir()
    np.save(drop / "a.npy", np.ones((3, 3)))
    ahead = time.time_ns() + 10**13 + 123
    os.utime(drop / "a.npy", ns=(ahead, ahead))
    assert watched(drop, results) == ["a.npy"]
    assert watched(drop, results) == []
    np.save(drop / "a.npy", np.full((3, 3), 2))
    os.utime(drop / "a.npy", ns=(10**18, 10**18))  # replaced by an older one
    assert watched(drop, results) == ["a.npy"]
    assert pyarrow.csv.read_csv(results / "a.npy.csv")["prediction"].to_pylist() == ["fail"]
    set_time = os.utime
    os.utime(drop / "a.npy", ns=(10**18 + 5000, 10**18 + 5000))
    monkeypatch.setattr(os, "utime", lambda path, ns: set_time(path, tuple(t // 10**9 for t in ns)))  # whole seconds
    assert watched(drop, results) == ["a.npy"]


def test_tables_that_have_nowhere_to_go_are_one_message(tmp_path, monkeypatch):
    drop, file = tmp_path / "drop", tmp_path / "file"
    drop.mkdir()
    file.write_text("")
    np.save(drop / "a.npy", np.ones((3, 3)))
    with pytest.raises(UserError, match="name of a file"):
        watched(drop, file)
    with pytest.raises(UserError, match="cannot write"):
        watched(drop, file / "below")
    for inside in (drop, drop / "results", tmp_path / "results" / ".." / "drop"):
        with pytest.raises(UserError, match="lies in the folder that is watched"):
            watched(drop, inside)
    assert names(drop) == ["a.npy"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(labelling.pq, "write_table", full)
    with pytest.raises(UserError, match="No space left"):
        watched(drop, tmp_path / "results")
    assert names(tmp_path / "results") == []  # no table says that the wafer is bad
    (drop / "a.npy").write_bytes(b"no map")
    monkeypatch.setattr(pyarrow.csv, "write_csv", full)
    with pytest.raises(UserError, match="No space left"):
        watched(drop, tmp_path / "results")


def test_other_input_and_other_endings_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.parquet or \.csv"):
        label_source(Share(), Grids(3), tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="holds no wafers"):
        label_source(Share(), Grids(0), tmp_path / "out.csv")
    assert names(tmp_path) == []
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        label_source(Share(), Grids(3), tmp_path / "out.csv")
