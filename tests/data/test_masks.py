from pathlib import Path

import numpy as np
import pytest

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.data.coco import Annotations, CocoImage, read_coco, write_coco
from wafer_lab.data.masks import annotated_labels, annotated_masks, image_labels, mask_classes, pattern_masks
from wafer_lab.data.prepare import prepare
from wafer_lab.data.rows import Rows
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.store import Store
from wafer_lab.data.weak_masks import cached_weak_masks, region, weak_masks
from wafer_lab.errors import UserError


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> dict[str, Store]:
    """Simulated wafers with one pattern, and with several."""
    folder = tmp_path_factory.mktemp("masks")
    sources = {
        "multiclass": Simulator(num_wafers=540, class_frequencies="uniform", seed=2),
        "multilabel": Simulator(num_wafers=114, target="multilabel", seed=2),
    }
    return {target: prepare(source, folder / target) for target, source in sources.items()}


@pytest.fixture
def wafers(toy, tmp_path):
    """Make a store of given maps: wafers([map, ...], [label, ...])."""

    def made(maps, labels, class_names=("Center", "Donut", "none")):
        label = np.array(labels, np.int16 if np.ndim(labels) == 1 else np.int8)
        height, width = (np.array(side, np.int32) for side in zip(*(m.shape for m in maps), strict=True))
        rows = Rows(label, height, width, np.concatenate([m.ravel() for m in maps]).astype(np.uint8))
        target = "multiclass" if label.ndim == 1 else "multilabel"
        return prepare(toy.source([rows], class_names=class_names, target=target), tmp_path / "store")

    return made


def planes(bits, store, rows):
    """Mask bits of each row as (K, H, W) of 1, 0 and -1."""
    k = np.arange(len(mask_classes(store)))[:, None, None]
    ends = np.cumsum(store.height[rows].astype(int) * store.width[rows])
    for row, part in zip(rows, np.split(bits, ends[:-1]), strict=True):
        part = part.view(np.uint16).reshape(store.height[row], store.width[row])
        yield (part >> k & 1).astype(int) - (part >> (k + 8) & 1)


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_pattern_masks_are_the_simulators_bits_by_class_name(simulated, target):
    store = simulated[target]
    rows = np.arange(len(store))[::-3]
    labels, names = image_labels(store), mask_classes(store)
    assert names == (WM811K_CLASSES[:-1] if target == "multiclass" else MIXEDWM38_CLASSES)
    for row, masks in zip(rows, planes(pattern_masks(store, rows), store, rows), strict=True):
        for name, mask in zip(names, masks, strict=True):
            assert np.array_equal(mask == 1, store.patterns(row) >> MIXEDWM38_CLASSES.index(name) & 1)
        assert np.array_equal(masks.any(axis=(1, 2)), labels[row] == 1)


def test_labels_of_whole_wafers(wafers):
    store = wafers([np.ones((2, 2))] * 4, [1, 2, -1, 0])
    assert image_labels(store).tolist() == [[0, 1], [0, 0], [-1, -1], [1, 0]]


def test_real_wafers_have_no_patterns(wafers):
    with pytest.raises(UserError, match=r"data\.masks=weak"):
        pattern_masks(wafers([np.ones((2, 2))], [0]), np.arange(1))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("Center", 0.7),
        ("Donut", 0.75),
        ("Edge-Loc", 0.65),
        ("Edge-Ring", 0.7),
        ("Loc", 0.65),
        ("Scratch", 0.45),
        ("Near-full", 1),
        ("Random", 1),
    ],
)
def test_weak_masks_find_what_the_simulator_drew(simulated, name, least):
    store = simulated["multiclass"]
    rows = np.flatnonzero(store.label == WM811K_CLASSES.index(name))
    k = mask_classes(store).index(name)
    weak, true = (list(planes(make(store, rows), store, rows)) for make in (weak_masks, pattern_masks))
    assert not any(np.delete(masks, k, axis=0).any() for masks in weak)
    on = [store.map(row) > 0 for row in rows]
    overlap = sum(((w[k] == 1) & (t[k] == 1) & o).sum() for w, t, o in zip(weak, true, on, strict=True))
    either = sum((((w[k] == 1) | (t[k] == 1)) & o).sum() for w, t, o in zip(weak, true, on, strict=True))
    assert overlap / either >= least


def test_weak_masks_are_unknown_where_nobody_can_say(simulated):
    store = simulated["multilabel"]
    rows = np.flatnonzero(store.label.sum(axis=1) != 1)
    covered = dies = 0
    for row, masks, true in zip(
        rows, planes(weak_masks(store, rows), store, rows), planes(pattern_masks(store, rows), store, rows), strict=True
    ):
        present = store.label[row] == 1
        assert not masks[~present].any()
        assert not (masks == 1).any()
        unknown = (masks[present] == -1).any(axis=0)
        assert (unknown <= (store.map(row) > 0)).all()
        assert all(np.array_equal(mask == -1, unknown) for mask in masks[present])
        covered += (unknown & (true[present] == 1).any(axis=0)).sum() if present.any() else 0
        dies += (true[present] == 1).any(axis=0).sum() if present.any() else 0
    assert covered / dies > 0.9  # next to nothing of a pattern counts as free of it


def test_weak_masks_of_unlabelled_and_of_featureless_wafers(wafers):
    clean, off = np.ones((20, 20)), np.zeros((20, 20))
    clean[0, 0] = 0
    store = wafers([clean, clean, clean, off], [0, -1, 2, 0])
    found, unlabelled, none, _ = planes(weak_masks(store, np.arange(4)), store, np.arange(4))
    assert np.array_equal(found, np.stack([-(clean > 0).astype(int), off]))
    assert np.array_equal(unlabelled, np.stack([-(clean > 0).astype(int)] * 2))
    assert not none.any()


def test_weak_masks_know_eight_names_only(wafers):
    with pytest.raises(UserError, match="Blob, Streak"):
        weak_masks(wafers([np.ones((2, 2))], [0], ("Blob", "Streak", "none")), np.arange(1))


def test_a_line_of_fails_is_a_scratch_and_a_broken_one_too():
    on = np.ones((1, 30, 30), bool)
    fail = np.zeros_like(on)
    line = np.arange(8, 22)
    fail[0, line, line] = True
    assert np.array_equal(region("Scratch", fail, on), fail)
    whole = fail.copy()
    fail[0, 14, 14] = False
    fail[0, 2, 27] = fail[0, 25, 3] = True
    found = region("Scratch", fail, on)
    assert not (found & ~whole).any()
    assert found[0, line[1:], line[1:]].all()  # with a die missing beside it, an end may fall off


def test_real_weak_masks_lie_on_the_wafer_and_are_denser_than_the_rest(real_data, toy, tmp_path):
    file = np.load(real_data / "mixedwm38_sample.npz")
    label = file["arr_1"].astype(np.int8)
    chosen = np.flatnonzero((label.sum(axis=1) == 1) & (label[:, [5, 7]].sum(axis=1) == 0))[::90]
    cells = np.minimum(file["arr_0"][chosen], 2).astype(np.uint8)
    side = np.full(len(chosen), 52, np.int32)
    source = toy.source(
        [Rows(label[chosen], side, side, cells.ravel())], class_names=MIXEDWM38_CLASSES, target="multilabel"
    )
    store, rows = prepare(source, tmp_path / "store"), np.arange(len(chosen))
    masks = np.stack(list(planes(weak_masks(store, rows), store, rows)))
    assert (masks >= 0).all()
    assert np.array_equal(masks.any(axis=(2, 3)), label[chosen] == 1)
    inside = masks.any(axis=1)
    assert not (inside & (cells == 0)).any()
    rates = [[(cells[i][where] == 2).mean() for where in (inside[i], ~inside[i] & (cells[i] > 0))] for i in rows]
    assert all(within > 0.5 > 2 * without for within, without in rates)

    images = [CocoImage(int(row), mask == 1) for row, mask in enumerate(masks)]
    for kind in ("rle", "polygons"):
        written = write_coco(tmp_path / "real.json", images, MIXEDWM38_CLASSES, segmentation=kind)
        assert written.annotations == len(rows)
        annotations = read_coco(tmp_path / "real.json")
        assert np.array_equal(annotated_masks(annotations, store, rows).view(np.uint16), weak_masks(store, rows))
        assert np.array_equal(annotated_labels(annotations, store), label[chosen])


def test_annotations_by_name_and_scale(wafers, tmp_path):
    store = wafers([np.ones((2, 3)), np.ones((4, 2)), np.ones((2, 2))], [-1, 0, 1])
    first = np.zeros((2, 2, 3), bool)
    first[0, 0, 0] = first[1, 1, 1:] = True
    images = [CocoImage(0, first), CocoImage(2, np.zeros((2, 2, 2), bool))]
    write_coco(tmp_path / "m.json", images, ["Donut", "Center"], scale=3)
    annotations = read_coco(tmp_path / "m.json")
    assert annotated_labels(annotations, store).tolist() == [[1, 1], [-1, -1], [0, 0]]
    rows = np.array([2, 1, 0])
    third, second, drawn = planes(annotated_masks(annotations, store, rows), store, rows)
    assert not third.any()
    assert (second == -1).all()
    assert np.array_equal(drawn, first[::-1])


def test_a_die_is_inside_where_half_of_its_pixels_are(wafers, tmp_path):
    store = wafers([np.ones((1, 2))], [0])
    pixels = np.zeros((1, 2, 4), bool)
    pixels[0, 0, :2] = pixels[0, 0, 2] = True  # two of the first die's four, one of the second's
    write_coco(tmp_path / "m.json", [CocoImage(0, pixels)], ["Center"])
    (masks,) = planes(annotated_masks(read_coco(tmp_path / "m.json"), store, np.arange(1)), store, np.arange(1))
    assert masks.tolist() == [[[1, 0]], [[0, 0]]]


def test_masks_end_where_the_wafer_does_and_labels_with_them(wafers, tmp_path):
    store = wafers([np.array([[0, 1], [0, 2]])], [0])
    pixels = np.zeros((2, 4, 4), bool)
    pixels[0, :2] = True  # the upper dies, of which one is on the wafer
    pixels[1, :, :2] = pixels[1, 3, 3] = True  # all that is off it, and a quarter of a die
    write_coco(tmp_path / "m.json", [CocoImage(0, pixels)], ["Center", "Donut"])
    annotations, rows = read_coco(tmp_path / "m.json"), np.arange(1)
    (masks,) = planes(annotated_masks(annotations, store, rows), store, rows)
    assert masks.tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert annotated_labels(annotations, store).tolist() == [[1, 0]]


def test_a_category_that_is_there_twice_sets_no_other_class(wafers):
    store = wafers([np.ones((1, 1))], [0])
    drawn = Annotations(Path("m.json"), ("Center", "Center"), {0: (1, 1)}, {0: [(0, [0, 1]), (1, [0, 1])]})
    assert annotated_masks(drawn, store, np.arange(1)).tolist() == [1]


def test_annotations_of_another_size_are_refused_before_they_are_decoded(wafers, tmp_path, monkeypatch):
    write_coco(tmp_path / "m.json", [CocoImage(0, np.ones((1, 3, 3), bool))], ["Center"])
    monkeypatch.setattr("wafer_lab.data.coco.Annotations.masks", None)
    store = wafers([np.ones((2, 2))], [0])
    for read in (lambda found: annotated_masks(found, store, np.arange(1)), lambda f: annotated_labels(f, store)):
        with pytest.raises(UserError, match="whole number of pixels per die"):
            read(read_coco(tmp_path / "m.json"))


def test_weak_masks_are_made_once(wafers, tmp_path, monkeypatch):
    maps = [np.ones((12, 10 + i)) for i in range(6)]
    for i, wafer in enumerate(maps):
        wafer[3 : 7 + i % 2, 3:8] = 2
    store, rows = wafers(maps, [0, 1, -1, 2, 0, 0]), np.array([5, 0, 3, 1])
    expected, cache = weak_masks(store, rows), tmp_path / "cache"
    assert expected.any()
    assert np.array_equal(cached_weak_masks(store, rows, cache), expected)
    (file,) = cache.iterdir()
    assert store.header.digest in file.name
    with monkeypatch.context() as patch:
        patch.setattr("wafer_lab.data.weak_masks.weak_masks", None)
        assert np.array_equal(cached_weak_masks(store, rows, cache), expected)
    for damaged in (b"", file.read_bytes()[:-100]):
        file.write_bytes(damaged)
        assert np.array_equal(cached_weak_masks(store, rows, cache), expected)
    np.save(file, np.zeros(5, np.int16))
    assert np.array_equal(cached_weak_masks(store, rows, cache), expected)
    assert np.array_equal(cached_weak_masks(store, rows, file), expected)  # no folder: nothing can be kept


def test_masks_of_few_or_unlabelled_wafers_are_not_kept(wafers, tmp_path):
    store = wafers([np.ones((5, 5))] * 3, [0, -1, 2])
    for rows in (np.arange(3), np.arange(0)):
        assert np.array_equal(cached_weak_masks(store, rows, tmp_path / "cache"), weak_masks(store, rows))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("row", "shape", "name", "says"),
    [
        (0, (4, 5), "Center", "5 x 4 pixels, and the wafer 2 x 2 dies"),
        (0, (1, 1), "Center", "1 x 1 pixels"),
        (1, (2, 2), "Center", "has row 1, and toy has 1 rows"),
        (0, (2, 2), "Centre", "did you mean Center"),
        (0, (2, 2), "none", "no class none"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(wafers, tmp_path, row, shape, name, says):
    store = wafers([np.ones((2, 2))], [0])
    write_coco(tmp_path / "m.json", [CocoImage(row, np.ones((1, *shape), bool))], [name])
    with pytest.raises(UserError, match=says):
        annotated_masks(read_coco(tmp_path / "m.json"), store, np.arange(1))
