"""Classes that are left out stand in the unknown part, whole, and nowhere else; other wafers stay where they were."""

import numpy as np
import pytest
import torch

from wafer_lab.data.datamodule import PARTS
from wafer_lab.data.maps import MapDataModule
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.split import Split, leave_out
from wafer_lab.errors import UserError

SINGLE = Simulator(num_wafers=300, seed=1, class_frequencies="uniform")
MIXED = Simulator(num_wafers=300, seed=1, target="multilabel")
CPU = torch.device("cpu")


@pytest.fixture
def maps(tmp_path):
    def made(source=SINGLE, **options):
        kind = source.target
        shape = {"target": kind, "num_classes": 9 if kind == "multiclass" else 8, "in_channels": 3}
        options = shape | {"canvas": 16, "batch_size": 32, "cache": str(tmp_path)} | options
        datamodule = MapDataModule(source=source, **options)
        datamodule.setup()
        return datamodule

    return made


def carries(datamodule, part, name):
    labels, column = datamodule.labels(part), datamodule.class_names.index(name)
    return labels == column if labels.ndim == 1 else labels[:, column] == 1


@pytest.mark.parametrize("source", [SINGLE, MIXED], ids=["multiclass", "multilabel"])
@pytest.mark.parametrize("method", ["stratified", "lot", "kfold"])
def test_the_whole_class_is_unknown_and_the_others_stay(maps, source, method):
    plain, without = maps(source, split=method), maps(source, split=method, leave_out=["Donut"])
    for part in PARTS:
        assert not carries(without, part, "Donut").any()
        stayed = getattr(plain.split, part)[~carries(plain, part, "Donut")]
        assert np.array_equal(getattr(without.split, part), stayed)
    assert carries(without, "unknown", "Donut").all()
    moved = np.concatenate([getattr(plain.split, part)[carries(plain, part, "Donut")] for part in PARTS])
    assert np.array_equal(without.split.unknown, np.sort(moved))
    assert without.class_names == plain.class_names


def test_unknown_wafers_come_as_batches(maps):
    datamodule = maps(leave_out=["Donut", "Loc"])
    rows = torch.cat([batch.row for batch in datamodule.batches("unknown", CPU)])
    assert rows.tolist() == datamodule.split.unknown.tolist()
    names = {datamodule.class_names[k] for k in datamodule.labels("unknown")}
    assert names == {"Donut", "Loc"}


def test_the_digest_changes_only_where_classes_are_left_out(maps):
    plain, empty, donut, loc = (maps(leave_out=names) for names in ((), [], ["Donut"], ["Loc"]))
    assert plain.split_digest == empty.split_digest
    assert len({plain.split_digest, donut.split_digest, loc.split_digest}) == 3
    val, test = np.array([3]), np.array([4])
    ordinary = Split(np.array([1]), val, test, np.array([], np.int64))
    assert ordinary.digest("data") == "0bef7eca4010"  # as before classes could be left out
    assert Split(np.array([1]), val, test, np.array([], np.int64), np.array([5])).digest("data") != "0bef7eca4010"


def test_the_limit_and_the_label_fraction_keep_the_unknown_part(maps):
    datamodule = maps(leave_out=["Donut"], limit=60, label_fraction=0.5)
    sizes = [len(getattr(datamodule.split, part)) for part in (*PARTS, "unknown")]
    assert min(sizes) > 0
    whole = maps(leave_out=["Donut"], limit=60)
    assert sum(len(getattr(whole.split, part)) for part in (*PARTS, "unknown")) == 60
    assert not carries(datamodule, "train", "Donut").any()


def test_a_copy_of_a_known_wafer_is_not_unknown():
    content = np.array([7, 8, 9, 10, 7], dtype=np.uint64)
    out = np.array([False, False, False, True, True])  # row 4 is row 0 under another label
    whole = Split(np.array([0, 3, 4]), np.array([1]), np.array([2]), np.array([], np.int64))
    found = leave_out(whole, out, content)
    assert (found.train.tolist(), found.unknown.tolist()) == ([0], [3])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"leave_out": ["Donnut"]}, "did you mean Donut"),
        ({"leave_out": ["zzz"]}, "choose among Center, Donut"),
        ({"leave_out": list(SINGLE.class_names)}, "leaves no wafer for train"),
        ({"leave_out": ["Donut"], "limit": 3}, "at least 4"),
    ],
)
def test_what_cannot_be_left_out_is_said(maps, options, says):
    with pytest.raises(UserError, match=says):
        maps(**options)


def test_a_class_without_wafers_cannot_be_left_out(maps):
    rare = Simulator(num_wafers=60, seed=1, class_frequencies={"none": 0.5, "Loc": 0.5})
    with pytest.raises(UserError, match="has no wafer"):
        maps(rare, leave_out=["Donut"])
