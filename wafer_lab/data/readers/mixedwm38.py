"""MixedWM38 as it is published: one .npz of 38,015 maps of 52 x 52 dies with eight labels each."""

import tokenize
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.readers import files
from wafer_lab.data.rows import Kind, Rows, Target
from wafer_lab.errors import UserError

READER = "mixedwm38 1"
BATCH = 2048
SIDE = 52


class MixedWM38:
    """The MixedWM38 archive: ``arr_0 (N, 52, 52)`` die states and ``arr_1 (N, 8)`` labels, all zero = normal.

    Maps are unpacked a few thousand at a time. The value 3 (214 cells of the published file) is clipped to 2. An
    archive without ``arr_1`` is read as unlabelled.

    Source: J. Wang, C. Xu, Z. Yang, J. Zhang, X. Li, "Deformable Convolutional Networks for Efficient Mixed-Type
    Wafer Defect Pattern Recognition", IEEE Trans. Semiconductor Manufacturing 33(4), 2020.

    Args:
        path: the .npz, a .zip that holds it, or a folder that does.
        tolerant: see `open_source`.

    Raises:
        UserError: it is missing, damaged or evidently something else.
    """

    name = "mixedwm38"
    kind: Kind = "maps"
    target: Target = "multilabel"
    class_names: tuple[str, ...] = MIXEDWM38_CLASSES

    def __init__(self, path: str | Path, tolerant: bool = False) -> None:
        self.path, self._tolerant = Path(path), tolerant
        if self.path.is_dir():
            found = sorted(p for p in self.path.glob("*.npz") if not files.is_junk(p.name))
            if len(found) != 1:
                raise UserError(f"{self.path} should hold one .npz file and holds {len(found)}; name the file itself")
            self.path = found[0]
        self._clip = files.Clipping(tolerant)
        if not files.is_zip(files.head(self.path)):
            raise UserError(f"{self.path} is no .npz; expected Wafer_Map_Datasets.npz of MixedWM38")
        self._inner = "" if is_mixedwm38(self.path) else self._npz_inside()

    def _npz_inside(self) -> str:
        names = files.members(self.path)
        if not any(name.lower().endswith(".npz") for name in names):
            raise UserError(
                f"{self.path} holds {', '.join(sorted(names)[:6]) or 'nothing'}; MixedWM38 holds arr_0 (the maps, "
                f"N x {SIDE} x {SIDE}) and arr_1 (the labels, N x {len(MIXEDWM38_CLASSES)})"
            )
        return files.only_member(self.path, (".npz",))

    def fingerprint(self) -> str:
        """16 hex digits of the file's size, time and sampled content."""
        return files.fingerprint(self.path, READER)

    def notes(self) -> dict[str, int | str]:
        """``cells_clipped`` and ``maps_clipped``, where there were any."""
        return self._clip.notes()

    def rows(self) -> Iterator[Rows]:
        """Batches of up to 2048 maps, in the file's order.

        Raises:
            UserError: a shape, dtype, state or label that MixedWM38 does not have; a damaged file.
        """
        self._clip = files.Clipping(self._tolerant)
        with files.opened_zip(self.path) as outer:
            if not self._inner:
                yield from self._unpack(outer)
                return
            with outer.open(self._inner) as file, zipfile.ZipFile(file) as archive:
                yield from self._unpack(archive)

    def _unpack(self, archive: zipfile.ZipFile) -> Iterator[Rows]:
        if "arr_0.npy" not in archive.namelist():
            raise UserError(f"{self.path} has no arr_0, the maps; it is no MixedWM38 file")
        labels = self._labels(archive)
        with archive.open("arr_0.npy") as file:
            shape, dtype = self._layout(file, "arr_0")
            if len(shape) != 3 or shape[1:] != (SIDE, SIDE) or shape[0] < 1:
                raise UserError(f"{self.path}: arr_0 has shape {shape}; MixedWM38 has (N, {SIDE}, {SIDE})")
            if labels is not None and len(labels) != shape[0]:
                raise UserError(f"{self.path}: {shape[0]} maps in arr_0, but {len(labels)} labels in arr_1")
            for start in range(0, shape[0], BATCH):
                count = min(BATCH, shape[0] - start)
                cells = self._numbers(file, dtype, count * SIDE * SIDE)
                sides = np.full(count, SIDE, np.int32)
                yield Rows(
                    label=np.full((count, len(MIXEDWM38_CLASSES)), -1, np.int8)
                    if labels is None
                    else labels[start : start + count],
                    height=sides,
                    width=sides,
                    cells=self._clip(
                        cells,
                        np.full(count, SIDE * SIDE, np.int64),
                        partial(self._where, start),
                    ),
                    faults=self._clip.faults if self._tolerant else None,
                )
            file.read(1)  # past the end: has the archive check the sum of what was read

    def _where(self, start: int, row: int) -> str:
        return f"{self.path}: map {start + row} of arr_0"

    def _labels(self, archive: zipfile.ZipFile) -> NDArray[np.int8] | None:
        if self._tolerant or "arr_1.npy" not in archive.namelist():
            return None
        with archive.open("arr_1.npy") as file:
            shape, dtype = self._layout(file, "arr_1")
            if len(shape) != 2 or shape[1] != len(MIXEDWM38_CLASSES):
                raise UserError(f"{self.path}: arr_1 has shape {shape}; MixedWM38 has (N, {len(MIXEDWM38_CLASSES)})")
            values = self._numbers(file, dtype, shape[0] * shape[1]).reshape(shape)
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            row = int(np.flatnonzero(((values < 0) | (values > 1)).any(1))[0])
            raise UserError(f"{self.path}: row {row} of arr_1 holds {values[row].tolist()}; labels are 0 or 1")
        return values.astype(np.int8)

    def _layout(self, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:
            raise UserError(f"{self.path}: {name} is damaged ({error}); download it again") from None
        if dtype.kind not in "iub" or fortran:
            what = "objects, which are never unpickled" if dtype.hasobject else f"{dtype}"
            raise UserError(f"{self.path}: {name} holds {what}; MixedWM38 holds integers, row by row")
        return shape, dtype

    def _numbers(self, file: IO[bytes], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        raw = file.read(count * dtype.itemsize)
        if len(raw) != count * dtype.itemsize:
            raise UserError(f"{self.path} is cut off or damaged; download it again")
        return np.frombuffer(raw, dtype)


def is_mixedwm38(path: Path) -> bool:
    """Whether a zip archive is an .npz that holds ``arr_0``."""
    return "arr_0.npy" in files.members(path)
