"""What a source hands over: batches of rows, on their way into a store."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Kind = Literal["maps", "images"]
Target = Literal["multiclass", "multilabel"]

OFF_WAFER, PASS, FAIL = 0, 1, 2


@dataclass(frozen=True)
class Rows:
    """A batch of wafers or images.

    Attributes:
        label: multiclass ``(n,) int16``, -1 = unlabelled; multilabel ``(n, C) int8`` of 0/1, a row of -1 =
            unlabelled.
        height: ``(n,) int32``, rows of each map or image.
        width: ``(n,) int32``, columns of each map or image.
        cells: maps only: die states 0 off-wafer, 1 pass, 2 fail, all maps end to end and each row-major:
            ``uint8`` of ``sum(height * width)``.
        patterns: simulator only: laid out like ``cells``; bit k is set where pattern k covers the die.
        lot: lot name of each wafer, ``""`` where unknown.
        wafer: ``(n,) int32``, place of each wafer in its lot, -1 where unknown.
        vendor_split: ``"train"``, ``"val"``, ``"test"`` or ``""``, as the data's publisher divided it.
        path: images only: POSIX path of each image relative to the source's root.
        content: ``(n,) uint64`` hash of each row's pixels (see ``content_hash``); the store computes that of
            maps.
        faults: rows of the batch that could not be read, and why; a tolerant reader gives them one off-wafer cell.
            None where the reader stops at the first.
    """

    label: NDArray[Any]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    cells: NDArray[np.uint8] | None = None
    patterns: NDArray[np.uint8] | None = None
    lot: Sequence[str] | None = None
    wafer: NDArray[np.int32] | None = None
    vendor_split: Sequence[str] | None = None
    path: Sequence[str] | None = None
    content: NDArray[np.uint64] | None = None
    faults: Mapping[int, str] | None = None

    def __len__(self) -> int:
        """Number of rows in the batch."""
        return len(self.label)


@runtime_checkable
class Source(Protocol):
    """Anything wafers can be read from: a public file, a folder of images, the simulator.

    Attributes:
        name: short name, fit for a folder's name, such as ``"wm811k"``.
        kind: ``"maps"`` of die states or ``"images"`` of grey pixels.
        target: ``"multiclass"`` or ``"multilabel"``.
        class_names: in the order that labels index them.
    """

    name: str
    kind: Kind
    target: Target
    class_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """A short hexadecimal key that changes when the data, or the reader's reading of it, would."""
        ...

    def rows(self) -> Iterator[Rows]:
        """Stream the rows in the source's order, unlabelled ones included: store row i is source row i."""
        ...

    def notes(self) -> dict[str, int | str]:
        """What was mended or skipped on the way, known once ``rows()`` ran: ``{"cells_clipped": 214}``."""
        ...


def content_hash(pixels: bytes | memoryview | NDArray[np.uint8], height: int, width: int) -> int:
    """Hash of one map or image by its shape and its row-major bytes: equal content, equal hash.

    64 bits of BLAKE2b: among 811,457 rows the chance of any false match is below 2e-8.
    """
    digest = hashlib.blake2b(height.to_bytes(4, "little") + width.to_bytes(4, "little"), digest_size=8)
    digest.update(pixels.data if isinstance(pixels, np.ndarray) else pixels)
    return int.from_bytes(digest.digest(), "little")


def content_hashes(cells: NDArray[np.uint8], height: NDArray[np.int32], width: NDArray[np.int32]) -> NDArray[np.uint64]:
    """``content_hash`` of maps that lie end to end in ``cells``: ``(n,) uint64``."""
    view = memoryview(np.ascontiguousarray(cells).data)
    ends = np.cumsum(height.astype(np.int64) * width).tolist()
    hashes, start = np.empty(len(ends), np.uint64), 0
    for i, (end, h, w) in enumerate(zip(ends, height.tolist(), width.tolist(), strict=True)):
        hashes[i] = content_hash(view[start:end], h, w)
        start = end
    return hashes
