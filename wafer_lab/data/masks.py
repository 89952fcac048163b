"""Masks of failure patterns: which dies of a wafer each pattern covers, packed into bits beside the die states.

The simulator knows the regions of its patterns. Of real wafers they are guessed (`wafer_lab.data.weak_masks`), or read
from a COCO file that somebody has corrected.
"""

import difflib

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.coco import Annotations
from wafer_lab.data.rows import OFF_WAFER
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError


def mask_classes(store: Store) -> tuple[str, ...]:
    """The classes of a store that have a mask: all but the normal wafer, `none`."""
    return tuple(name for name in store.class_names if name != "none" or store.target == "multilabel")


def image_labels(store: Store) -> NDArray[np.int8]:
    """(N, K) labels of the classes that have a mask: 0 or 1, a row of -1 where unlabelled."""
    if store.target == "multilabel":
        return store.label
    index = np.array([store.class_names.index(name) for name in mask_classes(store)])
    labels: NDArray[np.int8] = (store.label[:, None] == index).astype(np.int8)
    labels[store.label < 0] = -1
    return labels


def pattern_masks(store: Store, rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """The simulator's own regions.

    Args:
        store: A store of simulated wafers.
        rows: (n,) rows of the store.

    Returns:
        Mask bits in the order of `mask_classes`, laid out like `store.cells(rows)`.

    Raises:
        UserError: The store is not of simulated wafers.
    """
    try:
        cells, _ = store.cells(rows, "patterns")
    except KeyError:
        raise UserError(
            f"data.masks=patterns: {store.name} does not say which dies its patterns cover, only simulated wafers do; "
            "use data.masks=weak, or a COCO file"
        ) from None
    bits = np.arange(256)
    place = [MIXEDWM38_CLASSES.index(name) for name in mask_classes(store)]
    table = sum((bits >> theirs & 1) << ours for ours, theirs in enumerate(place))
    bits_of: NDArray[np.int16] = np.asarray(table, np.int16)
    return bits_of[cells]


def annotated_masks(annotations: Annotations, store: Store, rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """Masks that somebody drew; a die of the wafer is inside where half of its pixels are.

    Args:
        annotations: Masks by row, in pixels: a whole number of them per die, along both sides alike.
        store: A store of wafer maps.
        rows: (n,) rows of the store.

    Returns:
        Mask bits in the order of `mask_classes`, laid out like `store.cells(rows)`. All masks of a row that is not
        annotated are unknown.

    Raises:
        UserError: The annotations do not fit the store.
    """
    place = _places(annotations, store)
    unknown = ((1 << len(mask_classes(store))) - 1) << 8
    parts = []
    for row in rows.tolist():
        if row not in annotations.size:
            parts.append(np.full(int(store.height[row]) * int(store.width[row]), unknown, np.uint16))
            continue
        planes = _dies(annotations, store, row).astype(np.uint16) << place[:, None, None].astype(np.uint16)
        parts.append(np.bitwise_or.reduce(planes, axis=0).ravel())
    return np.concatenate(parts).view(np.int16)


def annotated_labels(annotations: Annotations, store: Store) -> NDArray[np.int8]:
    """(N, K) which of the `annotated_masks` of a row are not empty; rows of -1 for those that are not annotated.

    Raises:
        UserError: The annotations do not fit the store.
    """
    place = _places(annotations, store)
    labels = np.full((len(store), len(mask_classes(store))), -1, np.int8)
    for row in annotations.size:
        labels[row] = 0
        labels[row, place] = _dies(annotations, store, row).any(axis=(1, 2))
    return labels


def _dies(annotations: Annotations, store: Store, row: int) -> NDArray[np.bool_]:
    """(categories, H, W) bool: the dies of an annotated row that each category covers by half or more."""
    height, width = int(store.height[row]), int(store.width[row])
    down, across = annotations.size[row]
    scale = down // height
    if scale < 1 or (down, across) != (scale * height, scale * width):
        raise UserError(
            f"{annotations.path}: the image of row {row} is {across} x {down} pixels, and the "
            f"wafer {width} x {height} dies; it must have a whole number of pixels per die"
        )
    masks = annotations.masks(row)
    share = masks.reshape(len(masks), height, scale, width, scale).mean(axis=(2, 4))
    return np.asarray((share >= 0.5) & (store.map(row) != OFF_WAFER))


def _places(annotations: Annotations, store: Store) -> NDArray[np.int64]:
    """(categories,) the class that each category of a file is."""
    names = mask_classes(store)
    for name in annotations.class_names:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"{store.name} has {', '.join(names)}"
            raise UserError(f"{annotations.path}: there is no class {name}; {hint}")
    if beyond := [row for row in annotations.size if row >= len(store)]:
        raise UserError(f"{annotations.path} has row {beyond[0]}, and {store.name} has {len(store):,} rows")
    return np.array([names.index(name) for name in annotations.class_names], np.int64)
