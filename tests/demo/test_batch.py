import csv

import numpy as np
import pytest
from PIL import Image

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.demo import batch as module
from wafer_lab.demo.batch import filtered, judge_file, listing, summary, together
from wafer_lab.errors import UserError


@pytest.fixture(scope="module")
def stack(wafer):
    """Shares of 0 to 1 in forty maps, of which row 3 holds NaN and row 7 no die."""
    maps = np.stack([wafer(share) for share in np.linspace(0, 1, 40)]).astype(float)
    maps[3, 0, 0] = np.nan
    maps[7] = 0
    return maps


@pytest.fixture(scope="module")
def judged(model, stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    np.save(folder / "lot.npy", stack)
    told = []
    batch = judge_file(model, folder / "lot.npy", folder, told.append)
    assert sum(told) == 40
    return batch


def by_hand(stack, chances):
    return {row: chances(states) for row, states in enumerate(stack) if row not in (3, 7)}


def test_the_download_is_the_whole_table(judged, stack, chances):
    with judged.table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["index"]) for row in rows] == list(range(40))
    for row, expected in by_hand(stack, chances).items():
        assert rows[row]["prediction"] == WM811K_CLASSES[expected.argmax()]
        assert [float(rows[row][f"p_{name}"]) for name in WM811K_CLASSES] == pytest.approx(expected, abs=1e-5)
    assert "nan" in rows[3]["error"]
    assert "no die" in rows[7]["error"]


def test_counts_and_yield(judged, stack, chances):
    good = np.delete(stack, (3, 7), axis=0)
    assert (judged.wafers, judged.faults) == (40, 2)
    assert (judged.passed, judged.failed) == ((good == 1).sum(), (good == 2).sum())
    said = [WM811K_CLASSES[p.argmax()] for p in by_hand(stack, chances).values()]
    assert judged.counts == {name: said.count(name) for name in WM811K_CLASSES if name in said}
    page = summary(judged)
    passing = (good == 1).sum() / (good > 0).sum()
    assert f"{100 * passing:.1f} %" in page
    assert f"Near-full ({said.count('Near-full')})" in page


def test_filters(judged, stack, chances):
    expected = by_hand(stack, chances)
    assert filtered(judged).total == 40
    assert [row[0] for row in filtered(judged, only_errors=True).rows] == [3, 7]
    random = [row for row, p in expected.items() if WM811K_CLASSES[p.argmax()] == "Random"]
    assert [row[0] for row in filtered(judged, "Random").rows] == random
    sure = [row for row in random if expected[row].max() >= 0.9]
    assert [row[0] for row in filtered(judged, "Random", 0.9).rows] == sure
    assert 0 < len(sure) < len(random)
    assert filtered(judged, "Random", 0.9, only_errors=True).total == 0


def test_few_rows_are_shown_and_all_are_counted(judged, monkeypatch):
    monkeypatch.setattr(module, "SHOWN", 5)
    found = filtered(judged)
    assert (len(found.rows), found.total) == (5, 40)
    page = listing(judged)
    assert "40 of 40 rows; the first 5 are shown, the download has all." in page
    assert page.count("<tr>") == 6
    assert '<th scope="col">file</th>' not in page  # there is one file only
    assert '<th scope="col">error</th>' in page
    assert '<th scope="col">error</th>' not in listing(judged, "Random")


def test_a_part_without_errors_does_not_decide_the_type_of_the_column(model, wafer, tmp_path):
    many = np.stack([wafer(0.1, 8)] * 12_000)  # errors come after the first blocks of the table
    many[-1] = 0
    np.save(tmp_path / "many.npy", many)
    found = filtered(judge_file(model, tmp_path / "many.npy", tmp_path, lambda count: None), only_errors=True)
    assert [row[0] for row in found.rows] == [11_999]


def test_several_files_are_one_batch(model, wafer, tmp_path):
    files = []
    for name, share in (("b", 0.0), ("a", 0.95)):
        files.append(tmp_path / f"{name}.npy")
        np.save(files[-1], wafer(share))
    batch = judge_file(model, together(files, tmp_path), tmp_path, lambda count: None)
    assert [row[1:3] for row in filtered(batch).rows] == [["a.npy", "Near-full"], ["b.npy", "none"]]
    assert '<th scope="col">file</th>' in listing(batch)


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"two of the files are called a\.npy"):
        together([tmp_path / "x" / "a.npy", tmp_path / "y" / "a.npy"], tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.npy", b"", "empty.npy is empty"),
        ("code.pkl", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.", "code.pkl"),
        ("notes.csv", b"a,b\n1,2\n", "notes.csv is no data set"),
    ],
)
def test_a_bad_file_is_one_message_and_leaves_nothing(model, tmp_path, name, content, expected):
    uploads, folder = tmp_path / "uploads", tmp_path / "tables"
    uploads.mkdir()
    folder.mkdir()
    (uploads / name).write_bytes(content)
    with pytest.raises(UserError, match=expected) as told:
        judge_file(model, uploads / name, folder, lambda count: None)
    assert str(tmp_path) not in str(told.value)
    assert not list(folder.iterdir())


def test_images_are_refused_by_a_model_of_maps(model, tmp_path):
    Image.new("L", (30, 30)).save(tmp_path / "sem.png")
    with pytest.raises(UserError, match="trained on maps"):
        judge_file(model, tmp_path / "sem.png", tmp_path, lambda count: None)
