"""A file says which training wafers have a label, and which; what models are judged on never moves."""

import numpy as np
import pytest

from wafer_lab.data.labelled import Labelled, label_name, labelled_only, read_labelled, write_labelled
from wafer_lab.data.maps import MapDataModule
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.split import Split
from wafer_lab.errors import UserError

SINGLE = Simulator(num_wafers=300, seed=1, class_frequencies="uniform")
MIXED = Simulator(num_wafers=300, seed=1, target="multilabel")
KINDS = {
    "classes": {"source": SINGLE, "target": "multiclass", "num_classes": 9},
    "labels": {"source": MIXED, "target": "multilabel", "num_classes": 8},
    "masks": {"source": MIXED, "target": "mask", "num_classes": 8, "masks": "patterns"},
}


@pytest.fixture
def maps(tmp_path):
    def made(kind="classes", lines=None, **options):
        if lines is not None:
            (tmp_path / "labels.csv").write_text("\n".join(lines))
            options["labelled"] = str(tmp_path / "labels.csv")
        options = KINDS[kind] | {"in_channels": 3, "canvas": 16, "cache": str(tmp_path)} | options
        datamodule = MapDataModule(**options)
        datamodule.setup()
        return datamodule

    return made


@pytest.mark.parametrize("kind", list(KINDS))
def test_wafers_that_are_not_named_become_unlabelled(maps, kind):
    whole = maps(kind)
    rows = whole.split.train[::7]
    few = maps(kind, ["index", *map(str, rows[::-1])])
    assert np.array_equal(few.split.train, rows)
    assert np.array_equal(few.split.unlabelled, np.setdiff1d(whole.split.train, rows))
    assert np.array_equal(few.labels("train"), whole.label[rows])
    assert few.split_digest == whole.split_digest
    for part in ("val", "test"):
        assert np.array_equal(getattr(few.split, part), getattr(whole.split, part))


def test_a_label_of_the_file_beats_the_wafer_s_own(maps):
    whole = maps()
    first, second, third = whole.split.train[:3].tolist()
    few = maps(lines=["\ufeffpath,label,index", f"a.png,Donut,{first}", f'"b,c.png",,{second}', f"d,none,{third}"])
    names = whole.class_names
    assert few.labels("train").tolist() == [names.index("Donut"), whole.label[second], names.index("none")]
    assert np.array_equal(few.labels("test"), whole.labels("test"))


def test_several_labels_are_joined(maps):
    first, second = maps("labels").split.train[:2].tolist()
    few = maps("labels", ["index,label", f"{first},Scratch + Center", f"{second},none"])
    assert few.labels("train").tolist() == [[1, 0, 0, 0, 0, 0, 1, 0], [0] * 8]


def test_an_unlabelled_wafer_joins_unless_it_is_a_copy_or_of_a_lot_that_is_judged_on():
    label = np.array([0, 1, 0, 1, -1, -1, -1, -1], dtype=np.int16)
    content = np.array([10, 11, 12, 13, 14, 12, 16, 17], dtype=np.uint64)
    lot = np.array(["a", "a", "", "d", "e", "f", "d", ""])
    whole = Split(np.array([0, 1]), np.array([2]), np.array([3]), np.array([4, 5, 6, 7]))
    found = Labelled("file", np.array([7, 6, 5, 4, 0]), np.array([1, 1, 1, 0, -1], dtype=np.int16))
    split, labels = labelled_only(whole, label, found, content)
    assert (split.train.tolist(), split.unlabelled.tolist()) == ([0, 4, 6, 7], [1, 5])
    assert labels[split.train].tolist() == [0, 0, 1, 1]
    split, _ = labelled_only(whole, label, found, content, lot)
    assert (split.train.tolist(), split.unlabelled.tolist()) == ([0, 4, 7], [1, 5, 6])
    assert label[4] == -1
    with pytest.raises(UserError, match="row 6 has no label in the data"):
        labelled_only(whole, label, Labelled("file", np.array([6]), np.array([-1], dtype=np.int16)), content)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_what_is_written_is_read(kind, tmp_path):
    names = KINDS[kind]["source"].class_names
    label = np.eye(8, dtype=np.int8)[:3] + np.eye(8, dtype=np.int8)[[1, 1, 2]] > 0
    label = np.array([3, 0, -1], dtype=np.int16) if kind == "classes" else np.int8(label)
    if kind == "labels":
        label[1], label[2] = 0, -1
    write_labelled(tmp_path / "a" / "labels.csv", np.array([9, 2, 5]), label, names)
    found = read_labelled(tmp_path / "a" / "labels.csv", names, KINDS[kind]["target"], 10)
    assert found.index.tolist() == [9, 2, 5]
    assert found.label.dtype == label.dtype
    assert np.array_equal(found.label, label)
    assert [label_name(one, names) for one in label[1:]] == (["Center", ""] if kind == "classes" else ["none", ""])


@pytest.mark.parametrize(
    ("kind", "lines", "says"),
    [
        ("classes", ["row", "1"], "has no column index, only row; its first line"),
        ("classes", ["index;label", "1;Loc"], "only index;label; .* with commas"),
        ("classes", ["index,prediction", "1,Loc"], "call that column label"),
        ("classes", ["index"], "names no wafer"),
        ("classes", [""], "has no column index, only nothing"),
        ("classes", ["index,label", "300,Loc"], "line 2: index '300' is no row of the source, which are 0 to 299"),
        ("classes", ["index,label", "-1,Loc"], "index '-1' is no row"),
        ("classes", ["index,label", "1.5,Loc"], "index '1.5' is no row"),
        ("classes", ["index,label", "{train},Donnut"], r"line 2: there is no class Donnut; did you mean Donut\?"),
        ("classes", ["index,label", "{train},zzz"], "choose among Center, Donut"),
        ("classes", ["index,label", "{train},Loc+Donut"], "are several classes, and a wafer has one here"),
        ("labels", ["index,label", "{train},Loc+Donut+x"], "there is no class x"),
        ("masks", ["index,label", "{train},Loc"], "says nothing about masks; leave the column label out"),
        ("classes", ["index", "{train}", "", "{train}"], "line 4: row {train} stands in line 2 too"),
        ("classes", ["index", "{train}", "{val}"], r"row {val} belongs to val, .* \(1 rows of the file do\)"),
        ("classes", ["index,label", "{test},Loc"], "row {test} belongs to test"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(maps, kind, lines, says):
    split = maps(kind).split
    rows = {part: getattr(split, part)[0] for part in ("train", "val", "test")}
    with pytest.raises(UserError, match=says.format(**rows) if "{" in says else says):
        maps(kind, [line.format(**rows) for line in lines])


def test_only_one_choice_of_training_wafers(maps, tmp_path):
    with pytest.raises(UserError, match="set only one"):
        maps(lines=["index", "1"], label_fraction=0.5)
    with pytest.raises(UserError, match=r"missing\.csv cannot be read"):
        maps(labelled=str(tmp_path / "missing.csv"))


def test_rows_beyond_the_limit_are_passed_over(maps):
    rows = maps().split.train
    few = maps(lines=["index", *map(str, rows)], limit=60)
    assert np.array_equal(few.split.train, maps(limit=60).split.train)
