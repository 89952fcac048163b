"""Masks as COCO JSON, the format that labelling tools read and write (Lin et al. 2014, arXiv:1405.0312).

One image stands for one wafer, one annotation for one pattern on it. Files are written through pycocotools and read
back by it before they take their place.
"""

import contextlib
import io
import json
import reprlib
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.outlines import outlines
from wafer_lab.errors import UserError
from wafer_lab.files import replacing

Segmentation = Literal["rle", "polygons"]
# Grey levels of the pictures: off the wafer, pass, fail.
_GREY = np.array([0, 110, 255], np.uint8)
# The largest image, and the longest outline of one polygon, in pixels: a small file may ask for any memory.
_MOST_SIDE, _MOST_PIXELS, _MOST_OUTLINE = 65_535, 4096 * 4096, 1 << 22
# How what a file says is quoted, however long or nested.
_QUOTED = reprlib.Repr()
_QUOTED.maxstring = 80
_MOST = f"and at most {_MOST_SIDE:,} a side and {_MOST_PIXELS:,} in all are taken"


@dataclass(frozen=True)
class CocoImage:
    """A wafer to be written.

    Attributes:
        row: Its row in the source.
        masks: (K, H, W) bool, in dies, which may overlap; empty ones are not written.
        states: (H, W) uint8 die states, needed for pictures only.
        scores: (K,) confidence in [0, 1] of each mask; None for masks that somebody drew.
    """

    row: int
    masks: NDArray[np.bool_]
    states: NDArray[np.uint8] | None = None
    scores: NDArray[np.floating] | None = None


@dataclass
class Written:
    """What a file holds.

    Attributes:
        images: Number of images.
        annotations: Number of annotations.
        holes: How many of them are run lengths though polygons were asked for, because they have a hole.
    """

    images: int = 0
    annotations: int = 0
    holes: int = 0


def write_coco(
    out: str | Path,
    images: Iterable[CocoImage],
    class_names: Iterable[str],
    *,
    segmentation: Segmentation = "rle",
    scale: int = 1,
    pictures: str | Path | None = None,
) -> Written:
    """Write masks, and check by pycocotools that they can be read, before the file takes its place.

    Args:
        out: The .json file.
        images: Wafers, each row once; they may come in a stream.
        class_names: Names of the K masks; category k + 1 is name k.
        segmentation: `rle` (compressed run lengths) or `polygons` along the edges of the dies. Both give the mask back
            exactly. A polygon has no holes: a mask with one is written as run lengths all the same.
        scale: Pixels per die, along both sides.
        pictures: A new folder for a grey PNG of each wafer, named as in the file; None for none.

    Returns:
        Counts.

    Raises:
        UserError: A file cannot be written, an image is larger than `read_coco` takes, or `pictures` exists. Nothing
            is left behind.
    """
    if segmentation not in ("rle", "polygons"):
        raise UserError(f"masks are written as rle or polygons, not '{segmentation}'")
    if scale < 1:
        raise UserError(f"scale={scale} pixels per die must be 1 or more")
    names = list(class_names)
    try:
        with replacing(out) as beside, _new_folder(pictures) as folder:
            with beside.open("w", encoding="utf-8") as file:
                written = _write(file, images, names, segmentation, scale, folder)
            _check(beside, written)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; free space or choose another place") from None
    return written


@contextlib.contextmanager
def _new_folder(path: str | Path | None) -> Iterator[Path | None]:
    """A folder beside `path` that takes its place when the block ends well."""
    if path is None:
        yield None
        return
    folder = Path(path)
    if folder.exists():
        raise UserError(f"{folder} exists; name a new folder for the pictures")
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    file: TextIO, images: Iterable[CocoImage], names: list[str], segmentation: str, scale: int, folder: Path | None
) -> Written:
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(names)]
    info = {"description": "wafer failure patterns, one image per wafer", "pixels_per_die": scale}
    file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"annotations": [')
    written = Written()
    entries: list[str] = []
    for image in images:
        height, width = (scale * side for side in image.masks.shape[1:])
        if not _fits(height, width):
            raise UserError(f"row {image.row} is {width} x {height} pixels, {_MOST}; choose a smaller scale")
        entry = {"id": len(entries) + 1, "file_name": f"{image.row}.png", "row": int(image.row)}
        entries.append(json.dumps({**entry, "height": height, "width": width}))
        if folder is not None:
            _picture(image, scale, folder / f"{image.row}.png")
        for k in np.flatnonzero(image.masks.any(axis=(1, 2))).tolist():
            segments, hole = _segments(image.masks[k], segmentation, scale)
            annotation = {"id": written.annotations + 1, "image_id": len(entries), "category_id": k + 1, **segments}
            if image.scores is not None:
                annotation["score"] = round(float(image.scores[k]), 6)
            file.write(("," if written.annotations else "") + "\n" + json.dumps(annotation))
            written.annotations += 1
            written.holes += hole
    file.write('],\n"images": [\n' + ",\n".join(entries) + "]}\n")
    written.images = len(entries)
    return written


def _segments(mask: NDArray[np.bool_], segmentation: str, scale: int) -> tuple[dict[str, Any], bool]:
    """The part of an annotation that says where, and whether a hole kept it from being polygons."""
    library = _library()
    drawn = mask.repeat(scale, 0).repeat(scale, 1)
    run_lengths = library.encode(np.asfortranarray(drawn, np.uint8))
    where: Any = {"size": list(drawn.shape), "counts": run_lengths["counts"].decode("ascii")}
    hole = False
    if segmentation == "polygons":
        polygons, hole = outlines(mask)
        where = where if hole else [[scale * corner for corner in polygon] for polygon in polygons]
    size, box = int(library.area(run_lengths)), [float(side) for side in library.toBbox(run_lengths)]
    return {"segmentation": where, "area": size, "bbox": box, "iscrowd": 0}, hole


def _picture(image: CocoImage, scale: int, path: Path) -> None:
    from PIL import Image

    if image.states is None:
        raise ValueError(f"row {image.row} has no states to draw")
    Image.fromarray(_GREY[image.states].repeat(scale, 0).repeat(scale, 1)).save(path)


def _check(path: Path, written: Written) -> None:
    """Read a file by pycocotools; a mask that does not fit its own area, box and image is a bug."""
    from pycocotools.coco import COCO

    library = _library()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, by its decoder
        coco = COCO(str(path))
        if (len(coco.imgs), len(coco.anns)) != (written.images, written.annotations):
            raise RuntimeError(f"{path}: {len(coco.imgs)} images and {len(coco.anns)} annotations came back")
        for number, annotation in coco.anns.items():
            image = coco.imgs[annotation["image_id"]]
            mask = coco.annToMask(annotation)
            box = library.toBbox(library.encode(np.asfortranarray(mask))).tolist()
            if mask.shape != (image["height"], image["width"]) or not mask.any():
                raise RuntimeError(f"{path}: annotation {number} came back empty or of another size")
            if mask.sum() != annotation["area"] or box != annotation["bbox"]:
                raise RuntimeError(f"{path}: annotation {number} came back with another area or box")


@dataclass(frozen=True)
class Annotations:
    """What a COCO file says of wafers.

    Attributes:
        path: The file.
        class_names: Names of its categories, by their ids.
        size: Row -> height and width of its image, in pixels.
        found: Row -> category (an index into `class_names`) of each of its annotations, and its run lengths: dies
            outside, inside, outside, and so on, column by column.
    """

    path: Path
    class_names: tuple[str, ...]
    size: dict[int, tuple[int, int]]
    found: dict[int, list[tuple[int, list[int]]]]

    def masks(self, row: int) -> NDArray[np.bool_]:
        """(K, H, W) bool masks of a row, in pixels; annotations of one category are united."""
        masks = np.zeros((len(self.class_names), *self.size[row]), bool)
        for k, runs in self.found[row]:
            inside = np.arange(len(runs)) % 2 == 1
            masks[k] |= np.repeat(inside, runs).reshape(masks.shape[:0:-1]).T
        return masks


def read_coco(path: str | Path) -> Annotations:
    """Read masks from a COCO file, such as one that `write_coco` wrote and somebody corrected.

    Polygons and run lengths, compressed or not, are read. An image is a row by its key `row`, else by its file name
    (`17.png`, in any folder).

    Args:
        path: The .json file.

    Returns:
        The annotations.

    Raises:
        UserError: The file is no COCO file, or lists up to five mistakes in it: an annotation of an unknown image or
            category, of another size than its image or beyond its border, or one that is malformed; an image without
            a row or too large; an id, a row or the name of a category twice.
    """
    path = Path(path)
    images, annotations, categories = _tables(path)
    mistakes: list[str] = []
    for table, key in ((images, "id"), (categories, "id"), (categories, "name")):
        counts = Counter(entry[key] for entry in table)
        of = "image" if table is images else "category"
        mistakes += [f"{of} {key} {_QUOTED.repr(value)} is there twice" for value, n in counts.items() if n > 1]
    ids = {category["id"]: k for k, category in enumerate(categories)}
    rows, size = _sizes(images, mistakes)
    found: dict[int, list[tuple[int, list[int]]]] = {row: [] for row in size}
    for number, annotation in enumerate(annotations):
        name = f"annotation {_QUOTED.repr(annotation['id']) if 'id' in annotation else f'number {number + 1}'}"
        row, k = _known(rows, annotation.get("image_id")), _known(ids, annotation.get("category_id"))
        if row is None or k is None:
            missing = "image_id" if row is None else "category_id"
            mistakes.append(f"{name} has {missing} {_QUOTED.repr(annotation.get(missing))}, which is not in the file")
            continue
        try:
            found[row].append((k, _run_lengths(annotation.get("segmentation"), *size[row])))
        except ValueError as error:
            mistakes.append(f"{name} {error}")
    if mistakes:
        more = f"; and {len(mistakes) - 5} more" if len(mistakes) > 5 else ""
        raise UserError(f"{path}: {'; '.join(mistakes[:5])}{more}; mend the file")
    return Annotations(path, tuple(category["name"] for category in categories), size, found)


def _sizes(images: list[dict[str, Any]], mistakes: list[str]) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    """The row of every image by its id, and the size by its row; what is wrong is added to the mistakes."""
    rows, size = {}, {}
    for image in images:
        row, height, width = _row(image), image["height"], image["width"]
        why = ""
        if row is None:
            why = "is named after no row; name it <row>.png"
        elif row in size:
            why = "is there twice"
        elif not _fits(height, width):
            why = f"is {_QUOTED.repr(width)} x {_QUOTED.repr(height)} pixels, {_MOST}"
        if row is None or why:
            mistakes.append(f"image {_QUOTED.repr(image.get('file_name'))} {why}")
            continue
        rows[image["id"]], size[row] = row, (height, width)
    return rows, size


def _fits(height: int, width: int) -> bool:
    return min(height, width) >= 1 and max(height, width) <= _MOST_SIDE and height * width <= _MOST_PIXELS


def _known(of: dict[int, int], key: Any) -> int | None:
    return of.get(key) if type(key) is int else None


def _tables(path: Path) -> list[list[dict[str, Any]]]:
    """Images, annotations and categories, by id, with the keys that they cannot be read without."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the path") from None
    except (ValueError, RecursionError):  # the second where it is nested too deeply to be one
        raise UserError(f"{path} is not JSON; give a COCO file") from None
    needed: dict[str, dict[str, type]] = {
        "images": {"id": int, "height": int, "width": int},
        "annotations": {},
        "categories": {"id": int, "name": str},
    }
    tables = []
    for name, keys in needed.items():
        table = data.get(name) if isinstance(data, dict) else None
        if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
            raise UserError(f"{path} is no COCO file: it has no list of {name}")
        for entry in table:
            for key, kind in keys.items():
                if type(entry.get(key)) is not kind:  # true is no number here
                    said = _QUOTED.repr(entry.get(key))
                    raise UserError(f"{path}: an entry of {name} has no {key}, or not a good one: {said}")
        tables.append(sorted(table, key=lambda entry: entry["id"]) if "id" in keys else table)
    return tables


def _row(image: dict[str, Any]) -> int | None:
    row, name = image.get("row"), image.get("file_name")
    if row is None and isinstance(name, str):
        row = Path(name).stem
    text = str(row) if isinstance(row, int | str) else ""
    return int(text) if text.isdecimal() and len(text) < 19 else None  # it fits 64 bits


def _run_lengths(where: Any, height: int, width: int) -> list[int]:
    """A segmentation as run lengths that fill the image.

    Raises:
        ValueError: It is malformed; the message goes on from the annotation's name.
    """
    if isinstance(where, dict):
        if where.get("size") != [height, width]:
            raise ValueError(f"is {_QUOTED.repr(where.get('size'))} pixels, and its image {[height, width]}")
        counts = where.get("counts")
        runs = _runs(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
            raise ValueError("has malformed run lengths")
        if sum(runs) != height * width:
            raise ValueError("has run lengths that do not fill its image")
        return runs
    if not isinstance(where, list) or not where:
        raise ValueError("has no segmentation")
    for polygon in where:
        _check_polygon(polygon, height, width)
    united = _library().merge(_library().frPyObjects(where, height, width))
    return _runs(united["counts"].decode("ascii"))


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("has a polygon that is no list of three or more x, y")
    if not all(isinstance(value, int | float) for value in polygon):
        raise ValueError("has a polygon with something else than numbers")
    # A pixel of grace: tools round. Compared as they are: an integer may be too large to become a float.
    if not all(-1 <= value <= (height if i % 2 else width) + 1 for i, value in enumerate(polygon)):
        raise ValueError(f"reaches beyond its image of {width} x {height} pixels")
    corners = np.array(polygon, float).reshape(-1, 2)
    if np.abs(np.diff(corners, axis=0)).max(axis=1).sum() > _MOST_OUTLINE:
        raise ValueError(f"has a polygon with an outline of more than {_MOST_OUTLINE:,} pixels")


def _runs(text: str) -> list[int]:
    """Compressed run lengths as numbers; pycocotools would read on past the end of a text that is too short.

    A number has five bits in each character and a sixth that says whether it goes on, the lowest first; from the
    fourth on it is the difference to the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            raise ValueError("has malformed run lengths")
        if shift > 60:
            raise ValueError("has malformed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _library() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError("COCO files need pycocotools; pip install pycocotools") from None
    return mask
