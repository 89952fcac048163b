"""Another data set in a run's classes."""

import numpy as np
import pytest

from wafer_lab.data.external import match_classes, open_external, relabel
from wafer_lab.data.prepare import prepare
from wafer_lab.errors import UserError

SEM = ("BRIDGE", "CLEAN_VIA", "OPEN")
WAFERS = ("Loc", "Center", "none")


class Labels:
    """What `relabel` reads of a store."""

    def __init__(self, label, names):
        self.label, self.class_names = np.asarray(label), names

    def __len__(self):
        return len(self.label)


def test_names_match_in_any_case_and_may_be_given():
    given = {"opens": "open", "DUST": None}
    found = match_classes(("bridge", "dust", "opens", "cracks"), SEM, "multiclass", given, "x")
    assert found == {"bridge": "BRIDGE", "dust": None, "opens": "OPEN", "cracks": None}
    # where there are labels, none is a wafer without any
    assert match_classes(WAFERS, ("Center", "Donut"), "multilabel", {}, "x") == {
        "Loc": None, "Center": "Center", "none": "none"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "classes", "says"),
    [
        (("a", "b"), {}, r"no class in common \(a, b; here BRIDGE, CLEAN_VIA, OPEN\).*external_classes={theirs: ours}"),
        ((), {}, r"no class in common \(no labels"),
        (("open",), {"open": None}, "no class in common"),
        (("open", "bridges"), {"bridge": "BRIDGE"}, "x has no class bridge; did you mean bridges?"),
        (("open", "gap"), {"gap": "OPENS"}, "this run has no class OPENS for gap; did you mean OPEN?, or null"),
    ],
)
def test_classes_that_do_not_fit_are_refused(theirs, classes, says):
    with pytest.raises(UserError, match=says.replace("?", r"\?")):
        match_classes(theirs, SEM, "multiclass", classes, "x")


def test_classes_of_one_kind():
    label, left, ambiguous = relabel(
        Labels([0, 1, 2, -1, 3, 1], ("opens", "via", "bridge", "dust")), SEM, "multiclass",
        {"opens": "OPEN", "via": "CLEAN_VIA", "bridge": "BRIDGE", "dust": None},
    )  # fmt: skip
    assert label.tolist() == [2, 1, 0, -1, -1, 1]
    assert (left, ambiguous) == ({"dust": 1}, 0)
    assert label.dtype == np.int16


def test_one_class_per_wafer_becomes_labels():
    renamed = {"Loc": None, "Center": "Center", "none": "none"}
    label, left, _ = relabel(Labels([0, 1, 2, -1], WAFERS), ("Donut", "Center"), "multilabel", renamed)
    assert label.tolist() == [[-1, -1], [0, 1], [0, 0], [-1, -1]]
    assert left == {"Loc": 1}
    assert label.dtype == np.int8


def test_wafers_of_one_label_become_classes():
    rows = [[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [-1, -1, -1]]
    renamed = {"Center": "Center", "Loc": "Loc", "Donut": None}
    label, left, ambiguous = relabel(Labels(rows, ("Center", "Loc", "Donut")), WAFERS, "multiclass", renamed)
    assert label.tolist() == [1, 2, -1, -1, -1, -1]  # Donut goes, and what has it besides others
    assert (left, ambiguous) == ({"Donut": 2}, 1)
    label, left, _ = relabel(Labels(rows, ("Center", "Loc", "Donut")), WAFERS[:2], "multiclass", renamed)
    assert label.tolist() == [1, -1, -1, -1, -1, -1]
    assert left == {"Donut": 2, "none": 1}  # a run without a normal class knows no such wafers


def test_a_store_of_another_kind_or_without_labels_is_refused(toy, tmp_path):
    options = {"class_names": ("a", "b", "none"), "target": "multiclass"}
    maps = prepare(toy.source(), tmp_path / "maps").folder
    with pytest.raises(UserError, match="holds maps, and this run is about images"):
        open_external(maps, tmp_path, kind="images", **options)
    with pytest.raises(UserError, match="there is nothing at"):
        open_external(tmp_path / "gone", tmp_path, kind="maps", **options)
    bare = toy.source([toy.rows(4, label=np.full(4, -1, np.int16))])
    with pytest.raises(UserError, match=r"no wafer of .* has a label that this run knows"):
        open_external(prepare(bare, tmp_path / "bare").folder, tmp_path, kind="maps", **options)


def test_a_limit_takes_its_share_of_every_class(toy, tmp_path):
    label = np.repeat(np.array([0, 1, 2, -1], np.int16), [60, 30, 10, 7])
    folder = prepare(toy.source([toy.rows(107, label=label)]), tmp_path / "s").folder
    options = {"kind": "maps", "class_names": ("none", "b", "A"), "target": "multiclass"}
    found = open_external(folder, tmp_path, limit=20, **options)
    assert np.bincount(found.store.label[found.rows]).tolist() == [2, 6, 12]
    assert (found.origin.wafers, found.origin.unsampled, found.origin.unlabelled) == (20, 80, 7)
    assert found.store.header.class_names == ("none", "b", "A")
    whole = open_external(folder, tmp_path, **options)
    assert len(whole.rows) == 100
    assert np.array_equal(whole.store.map(5), found.store.map(5))
