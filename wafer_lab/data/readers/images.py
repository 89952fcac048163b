"""A folder of images, one sub-folder per class: SEM pictures as they are usually handed round."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.readers.files import is_junk
from wafer_lab.data.rows import Kind, Rows, Target, content_hash
from wafer_lab.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

READER = "images 2"
BATCH = 256
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm")
# Named, because Pillow would otherwise try every plug-in, and the one for EPS runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
MAX_PIXELS = 64_000_000
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_PARTS.update(dict.fromkeys(("val", "valid", "validation"), "val"))


class ImageFolder:
    """Images in class folders, in the order of their paths.

    Folder names that are equal but for case are one class, spelt as in the folder with the most images; names that
    differ in a plural s only are kept apart and noted. Folders called train, val and test may lie above the class
    folders. Images outside of any class folder are unlabelled. What operating systems leave behind is passed over.

    Args:
        path: the folder.
        tolerant: see `open_source`.

    Raises:
        UserError: there is no such folder, it holds no image, or a class folder is empty.
    """

    name = "images"
    kind: Kind = "images"
    target: Target = "multiclass"

    def __init__(self, path: str | Path, tolerant: bool = False) -> None:
        self.path, self._tolerant = Path(path).resolve(), tolerant
        if not self.path.is_dir():
            raise UserError(f"there is no folder {path}; an image data set is a folder with one sub-folder per class")
        self.path = _unwrapped(self.path)
        self.root = str(self.path)
        self._skipped = 0
        self._files = sorted(self._walk())
        if not self._files:
            raise UserError(f"{path} holds no images ({', '.join(IMAGE_ENDINGS)})")
        folders = [self._class_folder(file) for file in self._files]
        self._spelling = _spellings([folder for folder in folders if folder])
        self.class_names = tuple(sorted(set(self._spelling.values())))
        index = {name: i for i, name in enumerate(self.class_names)}
        self._labels = [index[self._spelling[folder]] if folder else -1 for folder in folders]

    def _walk(self) -> Iterator[str]:
        """Relative POSIX paths of all images."""
        for folder, inside, names in os.walk(self.path):
            inside[:] = sorted(name for name in inside if not is_junk(name))
            kept = [name for name in names if not is_junk(name)]
            images = [name for name in kept if name.lower().endswith(IMAGE_ENDINGS)]
            self._skipped += len(kept) - len(images)
            if not images and not inside and Path(folder) != self.path:
                raise UserError(f"the class folder {folder} holds no images; fill it or delete it")
            for name in images:
                yield (Path(folder) / name).relative_to(self.path).as_posix()

    def _class_folder(self, file: str) -> str:
        parts = file.split("/")[:-1]
        if parts and parts[0].lower() in _PARTS:
            parts = parts[1:]
        return parts[0] if parts else ""

    def fingerprint(self) -> str:
        """16 hex digits of where the folder is and of every image's path, size and time."""
        digest = hashlib.blake2b(f"{READER} {self.root}".encode(), digest_size=8)
        for file in self._files:
            status = (self.path / file).stat()
            digest.update(f"\0{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def notes(self) -> dict[str, int | str]:
        """``files_skipped``, ``merged_class_folders``, ``similar_class_names``, where there were any."""
        notes: dict[str, int | str] = {}
        if self._skipped:
            notes["files_skipped"] = self._skipped
        merged = sorted(f"{old} -> {new}" for old, new in self._spelling.items() if old != new)
        if merged:
            notes["merged_class_folders"] = ", ".join(merged)
        known = {name.lower(): name for name in self.class_names}
        plural = sorted(f"{known[low]} / {known[low + 's']}" for low in known if low + "s" in known)
        if plural:
            notes["similar_class_names"] = ", ".join(plural)
        return notes

    def rows(self) -> Iterator[Rows]:
        """Batches of up to 256 images, decoded once for their size and content hash.

        Raises:
            UserError: an image is damaged, of an unknown kind, or too large.
        """
        has_parts = any(file.split("/")[0].lower() in _PARTS and file.count("/") > 1 for file in self._files)
        for start in range(0, len(self._files), BATCH):
            files = self._files[start : start + BATCH]
            pictures, faults = self._decoded(files)
            yield Rows(
                label=np.array(self._labels[start : start + BATCH], np.int16),
                height=np.array([p.shape[0] for p in pictures], np.int32),
                width=np.array([p.shape[1] for p in pictures], np.int32),
                path=files,
                content=np.array([content_hash(p.data, *p.shape) for p in pictures], np.uint64),
                vendor_split=[_PARTS.get(file.split("/")[0].lower(), "") for file in files] if has_parts else None,
                faults=faults if self._tolerant else None,
            )

    def _decoded(self, files: list[str]) -> tuple[list[NDArray[np.uint8]], dict[int, str]]:
        pictures, faults = [], {}
        for i, file in enumerate(files):
            try:
                pictures.append(decode_grey(self.path / file))
            except UserError as error:
                if not self._tolerant:
                    raise
                faults[i] = str(error)
                pictures.append(np.zeros((1, 1), np.uint8))
        return pictures, faults


def _unwrapped(folder: Path) -> Path:
    """The folder of class folders, below any number of folders that an archive put around it."""
    while True:
        inside = [item for item in folder.iterdir() if not is_junk(item.name)]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name.lower() in _PARTS:
            return folder
        below = [item for item in inside[0].iterdir() if not is_junk(item.name)]
        if not below or not all(item.is_dir() for item in below):
            return folder
        folder = inside[0]


def _spellings(folders: list[str]) -> dict[str, str]:
    """Class name of each folder name: names equal but for case share the most frequent spelling."""
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for folder in folders:
        counts[folder.lower()][folder] += 1
    return {
        folder: max(sorted(variants), key=variants.__getitem__) for variants in counts.values() for folder in variants
    }


def decode_grey(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file of any usual mode into 8-bit grey.

    Colour becomes ITU-R 601 luma. Transparent pixels are laid over black: what a file keeps under full transparency
    is arbitrary, and black is what a detector that received nothing shows. 16-bit values are divided by 257,
    so that the same value is the same grey in every image of a set; nothing is stretched.

    Returns:
        ``(H, W) uint8``.

    Raises:
        UserError: it cannot be decoded, or has over 64 million pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's warnings, only the size matters here, and it is checked below
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{path} has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS:,}; "
                        "cut it into tiles"
                    )
                return _grey(image, path)
    except FileNotFoundError:
        raise UserError(f"there is no image {path}; was it moved after the data were prepared?") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is no image that can be read; mend or delete it") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has over {MAX_PIXELS:,} pixels; cut it into tiles") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} is a damaged image ({error}); mend or delete it") from None


def _grey(image: "Image", path: str | Path) -> NDArray[np.uint8]:
    from PIL import Image

    if image.mode.startswith("I"):  # I;16, I;16B, I;16L and, from some writers, I
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise UserError(f"{path} holds 32-bit values; save it as 8-bit or 16-bit grey")
        return ((wide + 128) // 257).astype(np.uint8)
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values; save it as 8-bit or 16-bit grey")
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, layered)
    return np.array(image.convert("L"), dtype=np.uint8)
