"""What the readers of single files share: opening, telling a wrong file from a right one, fingerprints."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.rows import FAIL
from wafer_lab.errors import UserError

JUNK_NAMES = frozenset(["__MACOSX", "desktop.ini", "Thumbs.db", "ehthumbs.db"])
_BLOCK = 1 << 16
_SAMPLED_BLOCKS = 32


def is_junk(name: str) -> bool:
    """Whether an operating system left a file or folder of this name behind (``._*``, ``.DS_Store``, ...)."""
    return name.startswith(".") or name in JUNK_NAMES


def head(path: Path, size: int = 512) -> bytes:
    """First bytes of a file that should be data.

    Raises:
        UserError: it is missing, empty, unreadable, or a well-known kind of not-the-data.
    """
    try:
        with path.open("rb") as file:
            start = file.read(size)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not start:
        raise UserError(f"{path} is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a Git LFS pointer, not the data; run `git lfs pull` where it came from, or download the file"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise UserError(f"{path} is a web page, not the data; the download needs a login or another link")
    for magic, kind, fix in _PACKED:
        if start.startswith(magic):
            raise UserError(f"{path} is still packed ({kind}); {fix}")
    return start


_PACKED = (
    (b"\x1f\x8b", "gzip", "unpack it with gunzip first"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "unpack it with 7z x first"),
    (b"Rar!", "RAR", "unpack it with unrar x first"),
    (b"\xfd7zXZ", "xz", "unpack it with unxz first"),
    (b"BZh", "bzip2", "unpack it with bunzip2 first"),
)


def is_zip(start: bytes) -> bool:
    """Whether a file that starts so is a zip archive (an .npz is one)."""
    return start.startswith(b"PK\x03\x04")


def members(path: Path) -> list[str]:
    """Names of the files in a zip archive, without those an operating system left there.

    Raises:
        UserError: the archive is damaged or cut off.
    """
    with opened_zip(path) as archive:
        return [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not any(is_junk(part) for part in PurePosixPath(name).parts)
        ]


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive; whatever shows it damaged while it is open becomes a UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}); download it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} cannot be unpacked here ({error}); unpack it first") from None


def only_member(path: Path, endings: tuple[str, ...], preferred: tuple[str, ...] = ()) -> str:
    """The one member of a zip archive that ends as asked; ``preferred`` stems win where there are several.

    Raises:
        UserError: there is none, or no telling which.
    """
    found = [name for name in members(path) if name.lower().endswith(endings)]
    best = [name for name in found if PurePosixPath(name).stem.lower() in preferred]
    chosen = best if len(best) == 1 else found
    if len(chosen) != 1:
        what = f"several ({', '.join(found[:5])})" if found else "none"
        raise UserError(f"{path} should hold one {' or '.join(endings)} file and holds {what}; unpack it first")
    return chosen[0]


def fingerprint(path: Path, reader: str) -> str:
    """16 hex digits that change with the file or the reader: size, time and a sample of the content.

    Args:
        path: the file.
        reader: its reader's name and version.
    """
    head(path)
    status = path.stat()
    digest = hashlib.blake2b(f"{reader} {status.st_size} {status.st_mtime_ns}".encode(), digest_size=8)
    last = max(status.st_size - _BLOCK, 0)
    with path.open("rb") as file:
        for i in range(_SAMPLED_BLOCKS):
            file.seek(last * i // (_SAMPLED_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


class Clipping:
    """Counts the cells that hold 3, which both public files do here and there, and clips them to 2 (fail).

    Args:
        tolerant: note maps that hold what is no die state in `faults`, by their place in the batch, instead of
            refusing them; such cells become 0.
    """

    def __init__(self, tolerant: bool = False) -> None:
        self.tolerant = tolerant
        self.faults: dict[int, str] = {}
        self.cells = 0
        self.maps = 0

    def __call__(
        self, cells: NDArray[np.integer], sizes: NDArray[np.int64], where: Callable[[int], str]
    ) -> NDArray[np.uint8]:
        """Die states of a batch.

        Args:
            cells: maps end to end, any integer dtype.
            sizes: ``(n,)`` cells of each map.
            where: names map i of the batch in an error.

        Returns:
            The same as ``uint8`` of 0, 1, 2.

        Raises:
            UserError: a value outside 0..3, with its row, unless tolerant.
        """
        self.faults = {}
        low, high = (int(cells.min()), int(cells.max())) if cells.size else (0, 0)
        if low < 0 or high > 3:
            wrong = (cells < 0) | (cells > 3)
            at = np.flatnonzero(wrong)
            row, first = np.unique(np.searchsorted(np.cumsum(sizes), at, side="right"), return_index=True)
            known = "die states are 0 (off-wafer), 1 (pass) and 2 (fail)"
            told = [f"holds the value {value}; {known}" for value in cells[at[first]]]
            if not self.tolerant:
                raise UserError(f"{where(int(row[0]))} {told[0]}")
            self.faults = dict(zip(row.tolist(), told, strict=True))
            cells = np.where(wrong, 0, cells)
            high = int(cells.max())
        states = cells.astype(np.uint8, copy=False)
        if high == 3:
            at_three = np.flatnonzero(states == 3)
            self.cells += len(at_three)
            self.maps += len(np.unique(np.searchsorted(np.cumsum(sizes), at_three, side="right")))
            states = np.minimum(states, np.uint8(FAIL))
        return states

    def notes(self) -> dict[str, int | str]:
        """Counters for a source's notes; empty where nothing was clipped."""
        return {"cells_clipped": self.cells, "maps_clipped": self.maps} if self.cells else {}


def binary(path: Path, archive: zipfile.ZipFile | None, member: str) -> IO[bytes]:
    """The file itself, or a member of the archive that it is, unpacked as it is read."""
    return path.open("rb") if archive is None else archive.open(member)
