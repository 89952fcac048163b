"""A tiny folder with every kind of trouble, and the counts of it."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from wafer_lab.data.audit import Audited, Link, between, inside, look, spread
from wafer_lab.data.prepare import prepare
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Rows
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(30, 220, (12, 12)), np.ones((5, 5))).astype(np.uint8)


def relit(grey: np.ndarray) -> np.ndarray:
    return (grey * 0.7 + 40).astype(np.uint8)


@pytest.fixture
def audited(tmp_path):
    def made(pictures: dict[str, np.ndarray], name: str = "set") -> Audited:
        for path, grey in pictures.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(file)
        return Audited.of(name, prepare(open_source(tmp_path / name), tmp_path / f"{name}.store"))

    return made


def named(audited: Audited, link: Link) -> tuple[str, str, str]:
    return link.kind, audited.path(link.first), audited.path(link.second)


def test_leaks_conflicts_and_names_are_counted(audited):
    one = audited(
        {
            "train/a/1.png": picture(1),
            "train/a/2.png": picture(2),
            "train/b/3.png": picture(3),
            "train/b/copy.png": picture(2),  # exact, inside train, under another label
            "val/a/5.png": picture(5),
            "val/b/6.png": relit(picture(3)),  # near, val in train
            "test/a/7.png": picture(1),  # exact, test in train
            "test/a/8.png": relit(picture(5)),  # near, test in val
            "test/b/9.png": relit(picture(2)),  # near, test in train, of a content with both labels
            "test/b/1.png": picture(10),  # the name alone
        }
    )
    found = inside(one, look(one), orientations=1)
    assert found.leaks == {
        "exact": {"test in train": 1},
        "near": {"val in train": 1, "test in train": 1, "test in val": 1},
    }
    assert (found.exact_groups, found.exact_rows, found.exact_conflicts, found.near_pairs) == (2, 4, 1, 3)
    assert found.leaking == 4
    links = {named(one, link): link for link in found.links}
    assert links.keys() == {
        ("exact", "train/a/1.png", "test/a/7.png"),
        ("exact", "train/a/2.png", "train/b/copy.png"),
        ("near", "train/b/3.png", "val/b/6.png"),
        ("near", "val/a/5.png", "test/a/8.png"),
        ("near", "train/a/2.png", "test/b/9.png"),
        ("name", "train/a/1.png", "test/b/1.png"),
    }
    assert [(link.conflict, link.leak) for link in links.values() if link.kind == "exact"] == [
        (False, True),
        (True, False),
    ]
    sizes = sorted(np.bincount(found.groups).tolist())
    assert sizes == [1, 2, 2, 2, 3]


def test_without_parts_nothing_leaks(audited):
    one = audited({"a/1.png": picture(1), "a/2.png": picture(1), "b/3.png": relit(picture(1))})
    found = inside(one, look(one), orientations=1)
    assert (found.leaking, found.exact_groups, found.near_pairs, found.near_conflicts) == (0, 1, 1, 1)
    assert one.counts() == {"a": {"all": 2}, "b": {"all": 1}}


def test_copies_in_the_same_set_and_in_two_parts_count_by_row(audited):
    """Each test row counts once, however many copies train has; val rows are held against train, too."""
    pictures = {f"train/a/{i}.png": picture(1) for i in range(3)} | {f"val/a/v{i}.png": picture(1) for i in range(2)}
    one = audited(pictures | {f"test/a/t{i}.png": picture(1) for i in range(4)} | {"test/b/x.png": picture(2)})
    found = inside(one, look(one), orientations=1)
    assert found.leaks["exact"] == {"val in train": 2, "test in train": 4, "test in val": 4}
    assert one.counts() == {
        "a": {"train": 3, "val": 2, "test": 4, "all": 9},
        "b": {"train": 0, "val": 0, "test": 1, "all": 1},
    }


def test_two_sets_are_held_against_each_other(audited):
    one = audited({"scratch/1.png": picture(1), "scratch/2.png": picture(2), "other/3.png": picture(3)}, "one")
    two = audited(
        {
            "Scratch/x.png": picture(1),
            "dust/y.png": relit(picture(2)),
            "dust/z.png": picture(9),
            "dust/3.png": picture(8),
        },
        "two",
    )
    links = between(one, two, look(one), look(two), orientations=1)
    assert [(link.kind, one.path(link.first), two.path(link.second), link.conflict) for link in links] == [
        ("exact", "scratch/1.png", "Scratch/x.png", False),
        ("near", "scratch/2.png", "dust/y.png", True),
        ("name", "other/3.png", "dust/3.png", True),
    ]


def test_unlabelled_rows_wait_to_be_asked_for(toy, tmp_path):
    rows = Rows(
        label=np.array([0, -1, 1], np.int16),
        height=np.full(3, 4, np.int32),
        width=np.full(3, 4, np.int32),
        cells=np.ones(48, np.uint8),
    )
    store = prepare(toy.source([rows]), tmp_path / "store")
    some, every = Audited.of("s", store), Audited.of("s", store, unlabelled=True)
    assert (some.rows.tolist(), every.rows.tolist()) == ([0, 2], [0, 1, 2])
    assert every.counts()["unlabelled"] == {"all": 1}
    assert inside(every, look(every)).exact_conflicts == 1
    other = Audited("images", cast(Store, SimpleNamespace(kind="images")), every.rows, every.part)
    with pytest.raises(UserError, match="s holds maps and images images"):
        between(some, other, look(some), look(some), 1)


def test_what_is_shown_is_spread_over_the_scores():
    links = [Link("near", i, i + 1, 0, i / 100, i == 0, False) for i in range(100)]
    shown = spread(links, 5)
    assert [link.first for link in shown] == [0, 75, 50, 26, 1]
    assert spread(links[:3], 5) == [links[0], links[2], links[1]]


def test_a_conflict_among_many_copies_and_every_file_of_a_name_are_found(audited):
    copies = {f"a/{i:02d}.png": picture(1) for i in range(25)} | {"b/z.png": picture(1)}
    one = audited(copies | {"a/twin.png": relit(picture(1)), "c/zz.png": picture(5), "d/zz.png": picture(6)}, "one")
    found = inside(one, look(one), orientations=1)
    assert (found.near_pairs, found.near_conflicts) == (1, 1)
    two = audited({"c/zz.png": picture(7)}, "two")
    links = between(one, two, look(one), look(two), orientations=1)
    assert [one.path(link.first) for link in links] == ["c/zz.png", "d/zz.png"]
