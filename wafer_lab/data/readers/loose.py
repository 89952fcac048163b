"""Loose wafers: one map or image, or a folder of maps, as a production line drops them."""

from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.dies import as_states
from wafer_lab.data.readers.files import is_junk
from wafer_lab.data.readers.images import decode_grey
from wafer_lab.data.rows import Kind, Rows, Target, content_hash
from wafer_lab.errors import UserError

# What numpy raises over a damaged file: its header is read as a Python literal, and its shape may be of any size.
_DAMAGED = (ValueError, OSError, EOFError, MemoryError, SyntaxError, TokenError, TypeError, LookupError, RecursionError)


class MapFiles:
    """Unlabelled wafer maps from .npy files, sorted by path.

    Args:
        path: A .npy file of one (H, W) map or of a stack (N, H, W), or a folder of such files. States are
            0 off-wafer, 1 pass, 2 fail; 3 is read as 2, as in MixedWM38.
        tolerant: see `open_source`. A single file that is no map stays an error.

    Raises:
        UserError: There is no such file, or it is not a map.
    """

    name = "maps"
    kind: Kind = "maps"
    target: Target = "multiclass"
    class_names: tuple[str, ...] = WM811K_CLASSES

    def __init__(self, path: str | Path, tolerant: bool = False) -> None:
        self.path, self._tolerant = Path(path), tolerant
        files = sorted(self.path.rglob("*.npy")) if self.path.is_dir() else [self.path]
        self._files = [file for file in files if not is_junk(file.name)]
        if not self._files:
            raise UserError(f"{path} holds no .npy files")
        self._clipped = 0

    def fingerprint(self) -> str:
        """16 hex digits of every file's path, size and time."""
        status = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self._files]
        return f"{content_hash(repr(status).encode(), 0, 0):016x}"

    def rows(self) -> Iterator[Rows]:
        """One batch per file."""
        root = self.path if self.path.is_dir() else self.path.parent
        for file in self._files:
            faults: dict[int, str] = {}
            try:
                maps = self._read(file, faults)
            except UserError as error:
                if not (self._tolerant and self.path.is_dir()):
                    raise
                maps, faults = np.zeros((1, 1, 1), np.uint8), {0: str(error)}
            count, height, width = maps.shape
            yield Rows(
                label=np.full(count, -1, np.int16),
                height=np.full(count, height, np.int32),
                width=np.full(count, width, np.int32),
                cells=maps.reshape(-1),
                path=[file.relative_to(root).as_posix()] * count,
                faults=faults if self._tolerant else None,
            )

    def notes(self) -> dict[str, int | str]:
        """How many cells held 3."""
        return {"cells_clipped": self._clipped} if self._clipped else {}

    def _read(self, file: Path, faults: dict[int, str]) -> NDArray[np.uint8]:
        """The (N, H, W) maps of a file; of a stack, what is wrong with single ones goes into `faults` if tolerant."""
        try:
            with file.open("rb") as opened:  # not np.load, which takes an archive of another name, too
                array = np.lib.format.read_array(opened, allow_pickle=False)
        except _DAMAGED as error:
            raise UserError(f"{file} is not a .npy file of numbers ({error})") from None
        stack = array[None] if array.ndim == 2 else array
        if stack.ndim != 3 or stack.dtype.kind not in "uif" or not stack.size:
            raise UserError(f"{file} holds {array.dtype} of shape {array.shape}; a wafer map is (H, W) of 0, 1, 2")
        maps = np.zeros(stack.shape, np.uint8)
        for i, wafer in enumerate(stack):
            try:
                maps[i] = as_states(wafer)
                self._clipped += int((wafer == 3).sum())
            except UserError as error:
                if len(stack) == 1 or not self._tolerant:
                    raise UserError(f"{file}: {error}") from None
                faults[i] = str(error)
        return maps


class ImageFile:
    """One unlabelled image.

    Args:
        path: An image file.
    """

    name = "image"
    kind: Kind = "images"
    target: Target = "multiclass"
    class_names: tuple[str, ...] = ()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.root = str(self.path.parent.resolve())

    def fingerprint(self) -> str:
        """16 hex digits of the pixels."""
        grey = decode_grey(self.path)
        return f"{content_hash(grey, *grey.shape):016x}"

    def rows(self) -> Iterator[Rows]:
        """One batch of the one image."""
        grey = decode_grey(self.path)
        yield Rows(
            label=np.full(1, -1, np.int16),
            height=np.array([grey.shape[0]], np.int32),
            width=np.array([grey.shape[1]], np.int32),
            path=[self.path.name],
            content=np.array([content_hash(grey, *grey.shape)], np.uint64),
        )

    def notes(self) -> dict[str, int | str]:
        """Nothing is mended."""
        return {}
