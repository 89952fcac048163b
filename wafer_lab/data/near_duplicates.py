"""Near duplicates: the same picture saved again, resized, cropped, relit or turned; the same wafer resampled.

Two steps. A perceptual hash of 256 bits, the signs of random projections of a thumbnail, finds candidates: bits
differ in proportion to the angle between two thumbnails (Charikar 2002), whatever they show. The DCT hash is no
use here: line gratings, most of what SEM sets show, have little of their energy in its 8 x 8 lowest frequencies.
Candidates are confirmed by correlation. Thresholds were set by looking at pairs of real files, see docs/data.md.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.readers import decode_grey
from wafer_lab.data.split import duplicate_groups, strata
from wafer_lab.data.store import Store
from wafer_lab.data.thumbnails import (
    IMAGE_SIDE,
    MAP_SIDE,
    correlation,
    cropped,
    detail,
    image_thumbnail,
    map_thumbnail,
    sign_bits,
    turned,
    unit,
)
from wafer_lab.files import replacing

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Progress = Callable[[int, int], None]

#: Changes with anything that decides which rows are near duplicates; it names the cached groups.
VERSION = 4
_HASHED_SIDE = 32
#: Margins cut off (top, bottom, left, right), in 64ths of the side: nothing, all round, or a corner.
CROPS = ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 0), (0, 1, 0, 1))
_LARGE = 4000  # rows; in larger sets copies cut at a corner are looked for upright only
#: Correlation of two images, and of their detail alone (what the means of 9 x 9 pixels leave).
IMAGE_CORRELATION, IMAGE_DETAIL = 0.95, 0.8
#: Correlation of the local detail of two wafers' failing dies, on one die grid and on two.
MAP_CORRELATION, RESAMPLED_CORRELATION = 0.85, 0.6
#: Correlation by chance has a standard deviation of 1 / sqrt(features); twins are this many of them away from 0.
MAP_DEVIATIONS = 5.7
#: Bits that may differ, of the first 128 and of all 256: 99.9 % of image pairs at .9 and 97 % of map pairs at .6 pass.
_BITS = {"images": (32, 56), "maps": (48, 92)}
_COARSE = {"images": 0.9, "maps": RESAMPLED_CORRELATION}
_FLAT = 2.0  # grey levels of standard deviation below which an image shows nothing
_BLOCK, _CHUNK = 32, 8192
#: Candidates of a block are compared in tables of 32 x 512 unless there are few of them, or few in a table.
_TABLE, _FEW_PAIRS, _SPARSE = 512, 64, 64
_MARGIN = 0.03  # what the window of 62 x 62 that all shifts share may cost a pair


@dataclass(frozen=True)
class Signatures:
    """What near duplicates are found by.

    Attributes:
        kind: `images` or `maps`.
        thumbnail: (N, 64, 64) uint8 grey levels; or (N, 32, 32) uint8 local detail of failing dies, 128 for none.
        features: (N,) float32, how many pixels of the thumbnail carry what it shows (its participation ratio); 0 for a
            flat image. Too few, as on a wafer of class none with little but its rim, and a row has exact copies only.
        grid: (N, 2) int32 height and width of each image or map.
    """

    kind: str
    thumbnail: NDArray[np.uint8]
    features: Floats
    grid: NDArray[np.int32]


class Pairs(NamedTuple):
    """Pairs of rows that show the same.

    Attributes:
        first: (P,) int64 rows of the one side.
        second: (P,) int64 rows of the other; larger than `first` where both sides are one.
        view: (P,) int8 symmetry of the square that lays the second upon the first, numbered as in `data.views`.
        score: (P,) float32 correlation, at most 1.
    """

    first: Rows
    second: Rows
    view: NDArray[np.int8]
    score: Floats


def signatures(store: Store, rows: Rows, progress: Progress | None = None) -> Signatures:
    """Look at some rows of a store once.

    Args:
        store: Of images or of wafer maps.
        rows: (N,) rows of the store.
        progress: Called now and then with how many rows are done, and of how many.

    Raises:
        UserError: An image is missing or damaged.
    """
    images = store.kind == "images"
    thumbnail = np.empty((len(rows), *(2 * [IMAGE_SIDE if images else MAP_SIDE])), np.uint8)
    root, names = Path(store.root), store.path or []

    def look(row: int) -> NDArray[np.uint8]:
        return image_thumbnail(decode_grey(root / names[row])) if images else map_thumbnail(store.map(row))

    with ThreadPoolExecutor() as pool:  # decoders release the interpreter lock
        for i, small in enumerate((pool.map if images else map)(look, rows.tolist())):
            thumbnail[i] = small
            if progress and i % 256 == 0:
                progress(i, len(rows))
    features = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = thumbnail[start : start + _CHUNK].reshape(-1, thumbnail[0].size if len(rows) else 1).astype(np.float32)
        spread = (1 / ((unit(part) ** 4).sum(axis=1) + 1e-6)).astype(np.float32)
        features[start : start + _CHUNK] = np.where(part.std(axis=1) < (_FLAT if images else 1e-3), 0, spread)
    return Signatures(store.kind, thumbnail, features, np.column_stack([store.height[rows], store.width[rows]]))


def find_pairs(
    one: Signatures, other: Signatures | None = None, orientations: int = 8, progress: Progress | None = None
) -> Pairs:
    """Find all pairs of near duplicates, inside a set or between two.

    Rows that are exact copies of one another are pairs too; where there are many, look at one row of each content.

    Args:
        one: A set.
        other: Another of the same kind; None: pairs inside `one`.
        orientations: 8 finds flipped and turned copies too, 1 upright ones only.
        progress: Called now and then with how much is done, and of how much.

    Returns:
        The pairs, by first and second row, each once, under the view with the best correlation.
    """
    whole, corner = (CROPS[:2], CROPS[2:]) if one.kind == "images" else (CROPS[:1], ())
    turned_too = orientations if len(one.thumbnail) <= _LARGE else 1  # both at once is rare, and most of the work
    views = [*product(whole, range(orientations)), *product(corner, range(turned_too))]
    sides = [(one, other or one, False)]
    if other is not None and one.kind == "images":
        sides.append((other, one, True))
    found: list[Pairs] = []
    known = np.empty(0, np.int64)
    for done, (a, b, swap) in enumerate(sides):
        upright = _vectors(a, CROPS[0], 0)
        hashes, mine, theirs = sign_bits(upright), _telling(a), _telling(b)
        for step, (crop, view) in enumerate(views):
            if view == 0:  # every orientation of a crop has its chance; what one crop found needs no other
                known = _keys(found, other is None)
            # Which side was cropped is not known, so both are tried; uncropped, one way is enough.
            if not (swap and not any(crop)):
                shown = _vectors(b, crop, view)
                half = other is None and not any(crop)
                for first, second in _candidates(hashes, sign_bits(shown), mine, theirs, _BITS[one.kind], half):
                    score = _products(upright, shown, first, second)
                    high = np.flatnonzero(score >= _COARSE[one.kind])
                    high = high[_fresh(first[high], second[high], known, swap, other is None)]
                    if one.kind == "images":
                        high = high[_promising(a, b, first[high], second[high], crop, view)]
                    near = _confirmed(a, b, first[high], second[high], crop, view, score[high])
                    found.append(_swapped(near) if swap else near)
            if progress:
                progress(done * len(views) + step + 1, len(sides) * len(views))
    return _best(found, same=other is None)


def _keys(found: list[Pairs], same: bool) -> Rows:
    """One number for each pair found; inside one set it does not tell which side comes first."""
    first, second = (np.concatenate([np.empty(0, np.int64), *(near[side] for near in found)]) for side in (0, 1))
    return np.unique(_key(first, second, same))


def _key(first: Rows, second: Rows, same: bool) -> Rows:
    low, high = (np.minimum(first, second), np.maximum(first, second)) if same else (first, second)
    return np.asarray(low << 32 | high, np.int64)


def _fresh(first: Rows, second: Rows, known: Rows, swap: bool, same: bool) -> NDArray[np.bool_]:
    """(n,) bool: candidates that are not known to be pairs; inside one set, nor a row with itself."""
    a, b = (second, first) if swap else (first, second)
    return np.asarray(~np.isin(_key(a, b, same), known) & ~(same & (a == b)), bool)


def _products(left: Floats, right: Floats, first: Rows, second: Rows) -> Floats:
    """(n,) float32 products of rows of both sides; all rows of a chunk at once, as candidates share most of them."""
    score = np.empty(len(first), np.float32)
    rows, i = np.unique(first, return_inverse=True)
    columns, j = np.unique(second, return_inverse=True)
    for start in range(0, len(columns), _CHUNK):
        here = np.flatnonzero((j >= start) & (j < start + _CHUNK))
        table = left[rows] @ right[columns[start : start + _CHUNK]].T
        score[here] = table[i[here], j[here] - start]
    return score


def _telling(of: Signatures) -> Rows:
    """Rows with enough features to be told from others."""
    least = 1 if of.kind == "images" else MAP_DEVIATIONS**2
    return np.flatnonzero(of.features >= least)


def _vectors(of: Signatures, crop: tuple[int, ...], view: int) -> Floats:
    """(N, 1024) float32 of mean 0 and length 1: the thumbnails cropped, turned and shrunk to 32 x 32."""
    out = np.empty((len(of.thumbnail), _HASHED_SIDE**2), np.float32)
    for start in range(0, len(out), _CHUNK):
        small = cropped(of.thumbnail[start : start + _CHUNK], crop, _HASHED_SIDE)
        out[start : start + _CHUNK] = unit(turned(small, view).reshape(len(small), -1))
    return out


def _candidates(
    left: NDArray[np.uint64], right: NDArray[np.uint64], mine: Rows, theirs: Rows, bits: tuple[int, int], half: bool
) -> Iterator[tuple[Rows, Rows]]:
    """Rows of both sides whose hashes differ in few bits, block by block; `half`: pairs of one set, each once."""

    def block(start: int) -> tuple[Rows, Rows]:
        rows = mine[start : start + _BLOCK]
        firsts, seconds = [rows[:0]], [rows[:0]]
        for begin in range(start + 1 if half else 0, len(theirs), _CHUNK):
            columns = theirs[begin : begin + _CHUNK]
            apart = np.bitwise_count(left[rows, 0, None] ^ right[columns, 0])
            apart += np.bitwise_count(left[rows, 1, None] ^ right[columns, 1])
            i, j = np.divmod(np.flatnonzero(apart.ravel() <= bits[0]), len(columns))
            first, second = rows[i], columns[j]
            whole = np.bitwise_count(left[first] ^ right[second]).sum(axis=1) <= bits[1]
            kept = whole & (second > first) if half else whole
            firsts.append(first[kept])
            seconds.append(second[kept])
        return np.concatenate(firsts), np.concatenate(seconds)

    with ThreadPoolExecutor() as pool:
        yield from pool.map(block, range(0, len(mine), _BLOCK))


def _confirmed(
    a: Signatures, b: Signatures, first: Rows, second: Rows, crop: tuple[int, ...], view: int, score: Floats
) -> Pairs:
    """The candidates that are near duplicates; images must agree at 64 x 64, in the large and in detail."""
    if a.kind == "images":
        score = np.empty(len(first), np.float32)
        for start in range(0, len(first), 512):
            part = slice(start, start + 512)
            shown = cropped(b.thumbnail[second[part]], crop, IMAGE_SIDE)
            score[part] = _agreement(a.thumbnail[first[part]].astype(np.float32), np.asarray(turned(shown, view)))
        kept = score >= IMAGE_CORRELATION
    else:
        resampled = (a.grid[first] != b.grid[second]).any(axis=1)
        least = np.minimum(a.features[first], b.features[second])
        kept = score >= np.where(resampled, RESAMPLED_CORRELATION, MAP_CORRELATION)
        kept &= score * np.sqrt(least) >= MAP_DEVIATIONS
    first, second, score = first[kept], second[kept], score[kept]
    return Pairs(first, second, np.full(len(first), view, np.int8), score)


def _promising(
    a: Signatures, b: Signatures, first: Rows, second: Rows, crop: tuple[int, ...], view: int
) -> NDArray[np.bool_]:
    """(n,) bool: candidates whose scores, with one window for all shifts, come near enough to what confirms them.

    In sets of alike images nearly all pairs are candidates: all at once. A few are left to `_agreement` as they are.
    """
    rows, i = np.unique(first, return_inverse=True)
    columns, j = np.unique(second, return_inverse=True)
    if len(first) < _FEW_PAIRS or len(rows) * len(columns) > _SPARSE * len(first):
        return np.ones(len(first), bool)
    maybe, mine = np.ones(len(first), bool), a.thumbnail[rows].astype(np.float32)
    for start in range(0, len(columns), _TABLE):
        theirs = np.asarray(turned(cropped(b.thumbnail[columns[start : start + _TABLE]], crop, IMAGE_SIDE), view))
        table = _near_enough(mine, theirs)
        here = np.flatnonzero((j >= start) & (j < start + _TABLE))
        maybe[here] = table[i[here], j[here] - start]
    return maybe


def _near_enough(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """(n, m) bool: which of (n, 64, 64) and (m, 64, 64) images nearly agree under a shift of up to a pixel."""
    flat, fine_b = (unit(v[:, 1:-1, 1:-1].reshape(len(b), -1)) for v in (b, detail(b)))
    fine_a = detail(a)
    size, good = a.shape[-1] - 2, np.zeros((len(a), len(b)), bool)
    for down, across in product(range(3), repeat=2):
        window = (slice(None), slice(down, down + size), slice(across, across + size))
        whole = unit(a[window].reshape(len(a), -1)) @ flat.T >= IMAGE_CORRELATION - _MARGIN
        if whole.any():
            fine = unit(fine_a[window].reshape(len(a), -1)) @ fine_b.T
            good |= whole & (fine >= IMAGE_DETAIL - 2 * _MARGIN)
    return good


def _agreement(a: Floats, b: Floats) -> Floats:
    """(n,) float32: correlation of (n, 64, 64) pairs, best of shifts by up to one pixel; 0 where detail disagrees."""
    best = np.zeros(len(a), np.float32)
    size = a.shape[-1]
    for down, across in product((0, 1, -1), repeat=2):
        open_ = np.flatnonzero(best < 0.99)
        mine = a[open_, max(down, 0) : size + min(down, 0), max(across, 0) : size + min(across, 0)]
        theirs = b[open_, max(-down, 0) : size + min(-down, 0), max(-across, 0) : size + min(-across, 0)]
        whole = correlation(mine, theirs)
        maybe = np.flatnonzero(whole >= IMAGE_CORRELATION)
        fine = correlation(detail(mine[maybe]), detail(theirs[maybe]))
        good = maybe[fine >= IMAGE_DETAIL]
        best[open_[good]] = np.maximum(best[open_[good]], whole[good])
    return best


#: The view that undoes each view.
INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7], np.int8)


def _swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.second, pairs.first, INVERSE[pairs.view], pairs.score)


def _best(found: list[Pairs], same: bool) -> Pairs:
    """One entry per pair, the one with the best score; inside one set the smaller row comes first."""
    empty = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.float32))
    first, second, view, score = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    if same:
        back = first > second
        first, second = np.where(back, second, first), np.where(back, first, second)
        view = np.where(back, INVERSE[view], view)
    order = np.lexsort((view, -score, second, first))
    first, second, view, score = first[order], second[order], view[order], score[order]
    new = np.r_[True, (first[1:] != first[:-1]) | (second[1:] != second[:-1])][: len(first)]
    return Pairs(first[new], second[new], view[new], score[new])


def group_numbers(count: int, first: Rows, second: Rows) -> Rows:
    """Number rows so that all rows that pairs link, one after another, share a group.

    Args:
        count: Number of rows N.
        first: (P,) rows.
        second: (P,) rows each of the first is linked to.

    Returns:
        (N,) int64 group numbers from 0, in the order of each group's first row.
    """
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return duplicate_groups(np.array([root(row) for row in range(count)], np.uint64))


def near_duplicate_groups(store: Store, cache: str | Path, label: NDArray[np.integer] | None = None) -> Rows:
    """Groups of exact and near duplicates among a store's labelled rows, looked for once per data set.

    Args:
        store: The data; rows without a label are grouped with their exact copies only.
        cache: Folder to keep the groups in, under the digest of the store and of which rows have a label; where it
            cannot be written to, the groups are looked for at every call.
        label: (N,) or (N, C) labels of the rows, negative for none, where they are not those of the store.

    Returns:
        (N,) int64 group numbers.

    Raises:
        UserError: An image is missing or damaged.
    """
    known = strata(store.label if label is None else label) >= 0
    own = np.array_equal(known, strata(store.label) >= 0)
    which = "" if own else "-" + hashlib.blake2b(np.packbits(known).tobytes(), digest_size=4).hexdigest()
    file = Path(cache) / f"near-duplicates-{store.header.digest}{which}-{VERSION}.npy"
    with suppress(OSError, ValueError, EOFError):  # none yet, or damaged: looked for again
        groups: Rows = np.load(file, allow_pickle=False)
        if groups.shape == (len(store),):
            return groups
    exact = duplicate_groups(store.content)
    labelled = np.flatnonzero(known)
    rows = labelled[np.unique(exact[labelled], return_index=True)[1]]  # one of each content
    what = "images" if store.kind == "images" else "wafers"
    source = Path(store.root).name if store.kind == "images" else store.name
    print(f"looking for near duplicates among {len(rows):,} {what} of {source} (once)", file=sys.stderr, flush=True)
    pairs = find_pairs(signatures(store, rows))
    links = group_numbers(int(exact.max()) + 1, exact[rows[pairs.first]], exact[rows[pairs.second]])
    groups = links[exact]
    try:
        with replacing(file) as beside, beside.open("wb") as out:
            np.save(out, groups)
    except OSError as error:
        print(f"cannot keep the near duplicates in {file}: {error.strerror}", file=sys.stderr, flush=True)
    return groups
