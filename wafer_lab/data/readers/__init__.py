"""Readers of the public data sets, each a ``Source``; ``open_source`` finds the one for a path."""

from pathlib import Path

from wafer_lab.data.readers import files
from wafer_lab.data.readers.images import IMAGE_ENDINGS, ImageFolder, decode_grey
from wafer_lab.data.readers.loose import ImageFile, MapFiles
from wafer_lab.data.readers.lswmd import LSWMD, is_pickle
from wafer_lab.data.readers.mixedwm38 import MixedWM38, is_mixedwm38
from wafer_lab.data.store import Source, Store, is_store
from wafer_lab.errors import UserError

__all__ = ["LSWMD", "ImageFile", "ImageFolder", "MapFiles", "MixedWM38", "decode_grey", "open_source"]

_ACCEPTED = (
    "accepted are LSWMD.pkl of WM-811K, Wafer_Map_Datasets.npz of MixedWM38, a .zip or folder that holds one of them, "
    "a folder of images with one sub-folder per class, a prepared store, and loose .npy maps or images"
)


def open_source(path: str | Path, tolerant: bool = False) -> Source | Store:
    """Look at a file or folder and return its reader, or the store that it is.

    Args:
        path: the file or folder.
        tolerant: note single wafers that cannot be read in `Rows.faults` and go on, and pass over what labels say;
            for judging wafers. Else the first such wafer is an error.

    Raises:
        UserError: it is missing, damaged, or none of what is accepted; the message lists that.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, tolerant)
    start = files.head(path)
    if is_pickle(start):
        return LSWMD(path, tolerant)
    if files.is_zip(start):
        if is_mixedwm38(path):
            return MixedWM38(path, tolerant)
        names = [name.lower() for name in files.members(path)]
        if any(name.endswith((".pkl", ".pickle")) for name in names):
            return LSWMD(path, tolerant)
        if any(name.endswith(".npz") for name in names):
            return MixedWM38(path, tolerant)
        if any(name.endswith(IMAGE_ENDINGS) for name in names):
            raise UserError(f"{path} is a zip of images; unpack it and name the folder")
        raise UserError(f"{path} is a zip of {', '.join(names[:5]) or 'nothing'}; {_ACCEPTED}")
    if path.suffix.lower() == ".npy":
        return MapFiles(path, tolerant)
    if path.suffix.lower() in IMAGE_ENDINGS:
        return ImageFile(path)
    raise UserError(f"{path} is no data set that wafer_lab can read; {_ACCEPTED}")


def _open_folder(path: Path, tolerant: bool) -> Source | Store:
    if is_store(path):
        return Store.open(path)
    items = [item for item in path.iterdir() if not files.is_junk(item.name)]
    endings = [".pkl", ".pickle", ".npz"]
    if not any(item.is_dir() for item in items):
        endings.append(".zip")  # beside sub-folders it is what they were unpacked from
    found = sorted(item for item in items if item.suffix.lower() in endings)
    maps = next(path.rglob("*.npy"), None)
    if len(found) == 1 and maps:
        raise UserError(f"{path} holds {found[0].name} and loose maps such as {maps.name}; name one of them")
    if len(found) == 1:
        return open_source(found[0], tolerant)
    if len(found) > 1:
        raise UserError(f"{path} holds several data files ({', '.join(f.name for f in found[:5])}); name one of them")
    if maps:
        return MapFiles(path, tolerant)
    return ImageFolder(path, tolerant)
