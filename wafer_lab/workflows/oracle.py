"""Labels from a person: a file of wafers to label goes out, and comes back with answers."""

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.labelled import Labelled, read_labelled
from wafer_lab.data.split import strata
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation.palette import COLD
from wafer_lab.files import replacing

FILE = "to_label.csv"
_SIDE = 256  # pixels of a picture, at least


def write_questions(folder: Path, rows: NDArray[np.int64], store: Store) -> Path:
    """Write a CSV file with a line per wafer and an empty column `label`.

    Images are named by their paths; wafer maps by pictures that are drawn beside the file, where Pillow is installed.

    Args:
        folder: Of the file and the pictures.
        rows: (n,) rows of the store.
        store: Of the wafers.
    """
    shown: Sequence[str] = []
    if store.path is not None:
        shown = [str(Path(store.root) / store.path[row]) for row in rows]
    elif find_spec("PIL") is not None:
        shown = [_draw(store.map(row), folder / "pictures" / f"{row}.png") for row in rows.tolist()]
    with replacing(folder / FILE) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", *(["picture"] if shown else [])])
        writer.writerows([row, "", *shown[place : place + 1]] for place, row in enumerate(rows.tolist()))
    return folder / FILE


def _draw(states: NDArray[np.uint8], path: Path) -> str:
    """Draw a wafer map; its path from the file on."""
    from PIL import Image

    scale = -(-_SIDE // max(states.shape))
    pixels = (COLD[np.clip(states, 0, 2)] * 255).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
    with replacing(path) as beside:
        Image.fromarray(pixels).save(beside, format="png")
    return f"{path.parent.name}/{path.name}"


def read_answers(file: Path, datamodule: WaferDataModule) -> Labelled:
    """Read the answers; a wafer whose line was deleted is none of them.

    Raises:
        UserError: An answer is missing, or as `read_labelled`.
    """
    found = read_labelled(file, datamodule.class_names, datamodule.target, len(datamodule.store))
    missing = found.index[strata(found.label) < 0]
    if len(missing):
        raise UserError(
            f"{len(missing)} of {len(found.index)} wafers in {file} have no label yet, the first is row {missing[0]}; "
            f"write {', '.join(datamodule.class_names)} into the column label, or delete the lines that nobody can "
            "answer. Then repeat the command; what was trained is kept"
        )
    return found
