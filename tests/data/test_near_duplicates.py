"""Twins made on purpose are found; pictures that only look alike are not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from wafer_lab.data import near_duplicates
from wafer_lab.data.canvas import turn
from wafer_lab.data.images import ImageDataModule
from wafer_lab.data.near_duplicates import (
    Signatures,
    find_pairs,
    group_numbers,
    near_duplicate_groups,
    signatures,
)
from wafer_lab.data.prepare import prepare
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Rows
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.thumbnails import MAP_SIDE, image_thumbnail, map_thumbnail, turned


def scene(seed: int, size: int = 96) -> np.ndarray:
    """Boxes, as a circuit has, on a ramp with a little noise."""
    rng = np.random.default_rng(seed)
    picture = np.add.outer(np.linspace(60, 110, size), np.linspace(0, 30, size))
    for _ in range(25):
        y, x = rng.integers(0, size - 8, 2)
        h, w = rng.integers(6, 30, 2)
        picture[y : y + h, x : x + w] = rng.integers(20, 235)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file))


CHANGES = {
    "recompressed": jpeg,
    "resized": lambda p: np.asarray(Image.fromarray(p).resize((70, 70), Image.Resampling.BICUBIC)),
    "relit": lambda p: np.clip(p * 0.8 + 30, 0, 255).astype(np.uint8),
    "cropped": lambda p: p[2:-2, 2:-2],
    "shifted": lambda p: p[2:, 2:],
    "flipped": lambda p: p[:, ::-1],
    "turned": lambda p: np.rot90(p),
    "retouched": lambda p: np.where(np.hypot(*np.ogrid[-40:56, -50:46]) < 7, 128, p).astype(np.uint8),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve scenes and, in another class, each changed twin of the first; called by what was done."""
    path = tmp_path_factory.mktemp("scenes")
    for name in ("a", "b"):
        (path / name).mkdir()
    for seed in range(12):
        Image.fromarray(scene(seed)).save(path / "a" / f"{seed:02d}.png")
    for name, change in CHANGES.items():
        Image.fromarray(np.ascontiguousarray(change(scene(0)))).save(path / "b" / f"{name}.png")
    return path


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    return prepare(open_source(folder), tmp_path_factory.mktemp("store") / "scenes")


def test_changed_copies_are_found_and_nothing_else(store):
    groups = near_duplicate_groups(store, store.folder.parent)
    first = groups[store.path.index("a/00.png")]
    found = {path for path, group in zip(store.path, groups, strict=True) if group == first}
    assert found == {"a/00.png", *(f"b/{name}.png" for name in CHANGES)}
    assert len(np.unique(groups)) == 12


def test_the_view_lays_the_second_upon_the_first(store):
    names = store.path
    pairs = find_pairs(signatures(store, np.arange(len(store))))
    seen = {(names[i], names[j]): view for i, j, view in zip(*pairs[:3], strict=True)}
    assert (seen["a/00.png", "b/flipped.png"], seen["a/00.png", "b/relit.png"]) == (2, 0)
    again = turned(np.ascontiguousarray(np.rot90(scene(0))), int(seen["a/00.png", "b/turned.png"]))
    assert np.array_equal(again, scene(0))


def test_upright_search_leaves_turned_copies_out(store):
    pairs = find_pairs(signatures(store, np.arange(len(store))), orientations=1)
    linked = {store.path[row] for row in (*pairs.first, *pairs.second)}
    assert "b/relit.png" in linked
    assert not linked & {"b/flipped.png", "b/turned.png"}


def test_two_sets_give_the_pairs_of_one(store):
    """Whichever side was cropped or turned."""
    half = np.arange(12), np.arange(12, len(store))
    a, b = (signatures(store, rows) for rows in half)
    for one, other, place in ((a, b, 0), (b, a, 1)):
        pairs = find_pairs(one, other)
        assert set(pairs[place]) == {0}
        assert sorted(pairs[1 - place]) == list(range(len(CHANGES)))


def test_views_are_numbered_as_those_of_canvases():
    square = np.arange(16).reshape(4, 4)
    for view in range(8):
        assert np.array_equal(turned(square, view), turn(torch.from_numpy(square)[None, None], view)[0, 0].numpy())


def test_line_gratings_of_other_pitch_and_flat_pictures_are_no_twins():
    x = np.arange(96)
    gratings = [np.tile(128 + 90 * np.sin(2 * np.pi * x / pitch), (96, 1)).astype(np.uint8) for pitch in (6, 7, 9, 13)]
    flat = [np.full((96, 96), level, np.uint8) for level in (40, 41, 200)]
    thumbnails = np.stack([image_thumbnail(picture) for picture in (*gratings, *flat)])
    features = np.array([100] * 4 + [0] * 3, np.float32)
    assert len(find_pairs(Signatures("images", thumbnails, features, np.full((7, 2), 96, np.int32))).first) == 0


def wafer(seed: int, shape: tuple[int, int], rate: float = 0.3, ring: bool = True) -> np.ndarray:
    """Random fails inside a ring that all wafers share."""
    down, across = ((2 * np.arange(n) + 1) / n - 1 for n in shape)
    radius = np.hypot(down[:, None], across)
    fails = np.random.default_rng(seed).random(shape) < rate
    fails |= ring & (radius > 0.9)
    return np.where(radius <= 1, 1 + fails, 0).astype(np.uint8)


def resampled(states: np.ndarray, side: int) -> np.ndarray:
    """To another die grid as MixedWM38 was made: interpolated and rounded."""
    levels = Image.fromarray(states.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    return np.rint(np.asarray(levels)).astype(np.uint8)


@pytest.fixture
def maps(toy, tmp_path):
    def made(*wafers):
        height, width = np.array([w.shape for w in wafers], np.int32).T
        cells = np.concatenate([w.ravel() for w in wafers])
        rows = Rows(label=np.zeros(len(wafers), np.int16), height=height, width=width, cells=cells)
        return prepare(toy.source([rows]), tmp_path / "store")

    return made


def linked(store, **options) -> set[tuple[int, int]]:
    pairs = find_pairs(signatures(store, np.arange(len(store))), **options)
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_resampled_turned_and_retested_wafers_are_twins(maps):
    first = wafer(0, (30, 32))
    retested = first.copy()
    changed = np.random.default_rng(5).choice(np.flatnonzero(first > 0), 12, replace=False)
    retested.flat[changed] = 3 - retested.flat[changed]
    others = [wafer(seed, (30, 32)) for seed in range(1, 12)]
    store = maps(first, resampled(first, 52), retested, np.ascontiguousarray(first[::-1]), *others)
    assert linked(store) == {(i, j) for i in range(4) for j in range(i + 1, 4)}
    assert linked(store, orientations=1) == {(0, 1), (0, 2), (1, 2)}


def test_wafers_that_share_their_pattern_only_are_no_twins(maps):
    """A ring, a blob, and a few fails of their own: thousands of wafers of a class look like that."""
    wafers = [wafer(seed, (40, 40), rate=0.03) for seed in range(8)]
    for states in wafers:
        states[15:25, 15:25] = 2
    assert linked(maps(*wafers)) == set()


def test_nearly_empty_wafers_have_exact_copies_only(maps):
    one, two = wafer(0, (40, 40), rate=0, ring=False), wafer(0, (40, 40), rate=0, ring=False)
    one[20, 20] = two[20, 20] = two[20, 21] = 2
    full = [np.where(w, 3 - w, 0).astype(np.uint8) for w in (one, two)]
    assert linked(maps(one, two, *full)) == set()


def test_the_rim_of_a_map_does_not_count():
    inner = wafer(1, (40, 40), ring=False)
    assert np.array_equal(map_thumbnail(inner).shape, (MAP_SIDE, MAP_SIDE))
    rim = inner.copy()
    rim[:1] = 2 * (inner[:1] > 0)
    assert np.corrcoef(map_thumbnail(inner).ravel(), map_thumbnail(rim).ravel())[0, 1] > 0.99


def test_links_join_groups():
    groups = group_numbers(7, np.array([5, 1, 2]), np.array([1, 0, 4]))
    assert groups.tolist() == [0, 0, 1, 2, 1, 0, 3]


def test_groups_are_kept_and_a_broken_file_is_made_again(store, tmp_path, monkeypatch):
    groups = near_duplicate_groups(store, tmp_path)
    (file,) = tmp_path.glob("near-duplicates-*.npy")
    file.write_bytes(b"cut off")
    assert np.array_equal(near_duplicate_groups(store, tmp_path), groups)
    monkeypatch.setattr("wafer_lab.data.near_duplicates.find_pairs", None)
    assert np.array_equal(near_duplicate_groups(store, tmp_path), groups)


def test_exact_copies_are_of_one_group(tmp_path):
    store = prepare(Simulator(num_wafers=60, seed=1), tmp_path / "store")
    groups = near_duplicate_groups(store, tmp_path)
    assert all(len(set(groups[store.content == content])) == 1 for content in store.content)


@pytest.mark.parametrize("method", ["stratified", "kfold"])
def test_a_split_keeps_near_duplicates_together(folder, tmp_path, method):
    def sides(group):
        options = {"target": "multiclass", "num_classes": 2, "in_channels": 1, "canvas": 16, "val": 0.3, "test": 0.3}
        options |= {"path": str(folder), "cache": str(tmp_path), "split": method, "seed": 1, "folds": 3}
        datamodule = ImageDataModule(group=group, **options)
        datamodule.open_and_split()
        assert not hasattr(datamodule, "canvases")  # the split is known without decoding
        paths = datamodule.store.path
        twins = [row for row, path in enumerate(paths) if path == "a/00.png" or path.startswith("b/")]
        return sum(bool(set(twins) & set(getattr(datamodule.split, part))) for part in ("train", "val", "test"))

    assert sides("near_duplicates") == 1
    assert sides("none") >= sides("exact")
    assert sides("exact") > 1


def test_alike_gratings_are_told_apart_by_their_noise_without_comparing_each_pair_alone(monkeypatch):
    rng = np.random.default_rng(0)
    grating = np.tile(128 + 60 * np.sin(2 * np.pi * np.arange(64) / 8), (64, 1))
    thumbnails = np.clip(grating + rng.normal(0, 15, (40, 64, 64)), 0, 255).astype(np.uint8)
    thumbnails[39] = np.roll(thumbnails[3], 1, axis=0)
    compared = []
    agreement = near_duplicates._agreement
    monkeypatch.setattr(near_duplicates, "_agreement", lambda a, b: compared.append(len(a)) or agreement(a, b))
    pairs = find_pairs(Signatures("images", thumbnails, np.full(40, 500, np.float32), np.full((40, 2), 64, np.int32)))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([3], [39])
    assert 0 < sum(compared) < 40 * 39 / 2


def test_groups_that_cannot_be_kept_are_returned(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert len(np.unique(near_duplicate_groups(store, tmp_path / "file"))) == 12
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "images of scenes" in said[0]
    assert "cannot keep" in said[1]


def test_rows_are_labelled_by_what_is_passed(store, tmp_path):
    none = near_duplicate_groups(store, tmp_path, np.full(len(store), -1))
    assert len(np.unique(none)) == len(np.unique(store.content))
    assert len(np.unique(near_duplicate_groups(store, tmp_path))) == 12
