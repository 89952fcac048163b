import contextlib
import io
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as library
from pycocotools.coco import COCO
from scipy import ndimage

from wafer_lab.data.coco import CocoImage, read_coco, write_coco
from wafer_lab.data.outlines import outlines
from wafer_lab.errors import UserError

NAMES = ("Center", "Donut", "Loc")


def random_masks(count: int, seed: int = 0) -> list[np.ndarray]:
    """Blobs and crumbs of several shapes, some with holes, some touching at corners only."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        height, width = rng.integers(1, 30, 2)
        field = ndimage.gaussian_filter(rng.normal(size=(3, height, width)), (0, *[rng.choice([0, 0.7, 2.0])] * 2))
        masks.append(field > rng.normal(0, 0.1))
    return masks


def corner_cases() -> list[np.ndarray]:
    """Empty, full, one pixel, a hole, an island in a hole, and two dies that touch at a corner."""
    empty, full, dot, hole, island, touching = np.zeros((6, 7, 9), bool)
    full[:] = True
    dot[6, 8] = True
    hole[1:6, 1:6] = True
    hole[3, 3] = False
    island[:] = True
    island[1:6, 1:8] = False
    island[3, 4] = True
    touching[2, 2] = touching[3, 3] = True
    return [np.stack([empty, full, dot]), np.stack([hole, island, touching]), np.zeros((3, 1, 1), bool)]


def by_pycocotools(path: Path) -> tuple[COCO, dict[int, np.ndarray]]:
    """Masks by row, as the reference library reads them."""
    masks = {}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, by its decoder
        coco = COCO(str(path))
        for image in coco.loadImgs(coco.getImgIds()):
            masks[image["row"]] = np.zeros((len(NAMES), image["height"], image["width"]), bool)
            for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                masks[image["row"]][annotation["category_id"] - 1] = coco.annToMask(annotation)
    return coco, masks


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_masks_come_back_exactly(tmp_path, segmentation, scale):
    masks = random_masks(60) + corner_cases()
    images = (CocoImage(5 * row, mask) for row, mask in enumerate(masks))
    written = write_coco(tmp_path / "m.json", images, NAMES, segmentation=segmentation, scale=scale)
    coco, theirs = by_pycocotools(tmp_path / "m.json")
    ours = read_coco(tmp_path / "m.json")
    assert ours.class_names == NAMES
    assert sorted(ours.size) == sorted(theirs) == [5 * row for row in range(len(masks))]
    for row, mask in enumerate(masks):
        expected = mask.repeat(scale, 1).repeat(scale, 2)
        assert np.array_equal(theirs[5 * row], expected)
        assert np.array_equal(ours.masks(5 * row), expected)
    parts = [mask for wafer in masks for mask in wafer if mask.any()]
    holed = sum(ndimage.label(~np.pad(part, 1), np.ones((3, 3)))[1] > 1 for part in parts)
    counted = holed if segmentation == "polygons" else 0
    assert (written.images, written.annotations, written.holes) == (len(masks), len(parts), counted)
    kinds = [isinstance(annotation["segmentation"], dict) for annotation in coco.anns.values()]
    assert sum(kinds) == (len(parts) if segmentation == "rle" else holed) > 0
    assert min(len(parts) - holed, holed) > 20


def test_outlines_run_along_the_edges_of_the_dies():
    mask = np.zeros((3, 4), bool)
    mask[0, :2] = mask[1, 0] = mask[2, 3] = True
    polygons, hole = outlines(mask)
    assert not hole
    assert sorted(polygons) == [[2, 0, 2, 1, 1, 1, 1, 2, 0, 2, 0, 0], [4, 2, 4, 3, 3, 3, 3, 2]]


def test_many_outlines_take_no_longer_than_their_edges():
    began = time.process_time()
    polygons, hole = outlines(np.indices((150, 150)).sum(axis=0) % 2 == 0)
    assert (len(polygons), hole) == (150 * 150 // 2, False)
    assert time.process_time() - began < 2  # a search of all edges for each: 20 s


def test_run_lengths_need_no_outlines(tmp_path, monkeypatch):
    monkeypatch.setattr("wafer_lab.data.coco.outlines", None)
    assert write_coco(tmp_path / "m.json", [CocoImage(0, np.ones((1, 4, 4), bool))], ["a"]).annotations == 1


def test_scores_and_pictures(tmp_path):
    from PIL import Image

    states = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    image = CocoImage(12, np.stack([states == 2] * 3), states, np.array([0.5, 0.25, 1 / 3]))
    write_coco(tmp_path / "m.json", [image], NAMES, scale=2, pictures=tmp_path / "png")
    grey = np.asarray(Image.open(tmp_path / "png" / "12.png"))
    assert np.array_equal(grey, np.array([0, 110, 255])[states].repeat(2, 0).repeat(2, 1))
    annotations = json.loads((tmp_path / "m.json").read_text())["annotations"]
    assert [annotation["score"] for annotation in annotations] == [0.5, 0.25, 0.333333]
    with pytest.raises(UserError, match="png exists"):
        write_coco(tmp_path / "m.json", [image], NAMES, pictures=tmp_path / "png")


def test_nothing_is_left_of_a_failed_write(tmp_path):
    def broken():
        yield CocoImage(0, np.ones((3, 2, 2), bool), np.ones((2, 2), np.uint8))
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_coco(tmp_path / "m.json", broken(), NAMES, pictures=tmp_path / "png")
    assert not list(tmp_path.iterdir())


def test_a_file_that_reads_back_wrong_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("wafer_lab.data.coco.outlines", lambda mask: ([[0, 0, 2, 0, 2, 1]], False))
    with pytest.raises(RuntimeError, match="annotation 1 came back"):
        write_coco(tmp_path / "m.json", [CocoImage(0, np.ones((1, 4, 4), bool))], ["a"], segmentation="polygons")
    assert not list(tmp_path.iterdir())


def coco_file(path: Path, *segmentations, **changes) -> Path:
    """A file as a labelling tool may write it: rows by file name, category ids that start anywhere."""
    image = {"id": 7, "file_name": "folder/3.png", "height": 4, "width": 5} | changes.pop("image", {})
    annotation = {"image_id": 7, "category_id": 30} | changes.pop("annotation", {})
    data = {
        "images": [image],
        "categories": [{"id": 30, "name": "Donut"}, {"id": 4, "name": "Loc"}],
        "annotations": [{"id": i + 1, **annotation, "segmentation": where} for i, where in enumerate(segmentations)],
    }
    path.write_text(json.dumps(data | changes))
    return path


def test_files_of_labelling_tools_are_read(tmp_path):
    runs = {"size": [4, 5], "counts": [4, 4, 12]}  # column by column
    path = coco_file(tmp_path / "m.json", [[0, 0, 2, 0, 2, 1, 0, 1], [3, 3, 5, 3, 5, 4, 3, 4]], runs)
    annotations = read_coco(path)
    assert annotations.class_names == ("Loc", "Donut")
    expected = np.zeros((2, 4, 5), bool)
    expected[1, 0, :2] = expected[1, 3, 3:] = expected[1, :, 1] = True
    assert np.array_equal(annotations.masks(3), expected)


def test_compressed_run_lengths_are_checked_as_pycocotools_reads_them(tmp_path):
    for masks in random_masks(40, seed=3):
        height, width = masks.shape[1:]
        coded = library.encode(np.asfortranarray(masks[0], np.uint8))
        where = {"size": [height, width], "counts": coded["counts"].decode()}
        path = coco_file(tmp_path / "m.json", where, image={"height": int(height), "width": int(width)})
        assert np.array_equal(read_coco(path).masks(3)[1], masks[0])


SQUARE = [[0, 0, 2, 0, 2, 1]]
BAD = [
    ((SQUARE,), {"annotation": {"category_id": 5}}, "annotation 1 has category_id 5"),
    ((SQUARE,), {"annotation": {"image_id": 8}}, "annotation 1 has image_id 8"),
    ((SQUARE,), {"image": {"file_name": "wafer.png"}}, "'wafer.png' is named after no row"),
    ((SQUARE,), {"images": 3}, "no list of images"),
    ((SQUARE,), {"categories": [{"id": 30}]}, "categories has no name"),
    ((SQUARE,), {"image": {"height": "4"}}, "no height"),
    (([[0, 0, 2, 0]],), {}, "three or more"),
    (([[0, 0, 2, 0, 2, None]],), {}, "else than numbers"),
    (([[0, 0, 9, 0, 9, 2]],), {}, "beyond its image of 5 x 4"),
    (([],), {}, "no segmentation"),
    (({"size": [5, 4], "counts": [20]},), {}, r"is \[5, 4\] pixels, and its image \[4, 5\]"),
    (({"size": [4, 5], "counts": [4, 4]},), {}, "do not fill"),
    (({"size": [4, 5], "counts": "04"},), {}, "do not fill"),
    (({"size": [4, 5], "counts": "é"},), {}, "malformed run lengths"),
    (({"size": [4, 5], "counts": [25, -5]},), {}, "malformed run lengths"),
    (([[]],) * 7, {}, "and 2 more"),
    ((SQUARE,), {"annotation": {"image_id": [1]}}, r"annotation 1 has image_id \[1\]"),
    ((SQUARE,), {"annotation": {"category_id": {}}}, r"annotation 1 has category_id \{\}"),
    ((), {"image": {"id": True}}, "no id, or not a good one: True"),
    ((), {"image": {"height": -1, "width": -1}}, "is -1 x -1 pixels"),
    ((), {"image": {"height": 0}}, "is 5 x 0 pixels"),
    ((SQUARE,), {"image": {"height": 10**7, "width": 10**7}}, "is 10000000 x 10000000 pixels"),
    ((SQUARE,), {"image": {"height": 1, "width": 65_536}}, "at most 65,535 a side"),
    ((SQUARE,), {"image": {"height": 60_000, "width": 60_000}}, "16,777,216 in all"),
    ((), {"image": {"row": "9" * 5000}}, "named after no row"),
    (([[0, 0, 10**400, 0, 2, 1]],), {}, "beyond its image"),
    (([[0, 0, float("nan"), 0, 2, 1]],), {}, "beyond its image"),
    (([[0, 0, 4096, 4096] * 1000],), {"image": {"height": 4096, "width": 4096}}, "more than 4,194,304"),
    (({"size": [4, 5], "counts": "P" * 100},), {}, "malformed run lengths"),
    ((), {"categories": [{"id": 1, "name": "Loc"}, {"id": 2, "name": "Loc"}]}, "category name 'Loc' is there twice"),
    ((), {"categories": [{"id": 1, "name": "Loc"}, {"id": 1, "name": "a"}]}, "category id 1 is there twice"),
]


@pytest.mark.parametrize(("segmentations", "changes", "says"), BAD, ids=[says for *_, says in BAD])
def test_bad_files_are_refused(tmp_path, segmentations, changes, says):
    with pytest.raises(UserError, match=says):
        read_coco(coco_file(tmp_path / "m.json", *segmentations, **changes))


def test_a_row_may_not_be_there_twice(tmp_path):
    path = coco_file(tmp_path / "m.json")
    data = json.loads(path.read_text())
    data["images"].append({**data["images"][0], "id": 8})
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"3\.png' is there twice"):
        read_coco(path)


def test_an_image_id_may_not_be_there_twice(tmp_path):
    path = coco_file(tmp_path / "m.json", SQUARE)
    data = json.loads(path.read_text())
    data["images"].append({**data["images"][0], "file_name": "4.png"})
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="image id 7 is there twice"):
        read_coco(path)


def test_images_too_large_to_be_read_are_not_written(tmp_path):
    with pytest.raises(UserError, match="choose a smaller scale"):
        write_coco(tmp_path / "m.json", [CocoImage(0, np.ones((1, 2, 2), bool))], ["a"], scale=4096)
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_of_annotations_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_coco(tmp_path / "none.json")
    for text in ("{", "[" * 200_000):
        (tmp_path / "text.json").write_text(text)
        with pytest.raises(UserError, match="not JSON"):
            read_coco(tmp_path / "text.json")


@pytest.mark.parametrize("options", [{"segmentation": "png"}, {"scale": 0}])
def test_bad_options_are_refused(tmp_path, options):
    with pytest.raises(UserError):
        write_coco(tmp_path / "m.json", [], NAMES, **options)
