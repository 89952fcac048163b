"""Labelling wafers of any source with a trained network, in a stream, one row per wafer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from wafer_lab.data.canvas import Maps, encode, render, turn
from wafer_lab.data.images import canvas, scale
from wafer_lab.data.rows import Rows, Source
from wafer_lab.data.store import Store
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.files import replacing
from wafer_lab.workflows.checkpoint import Loaded

BATCH = 256


def predict_source(
    loaded: Loaded, source: Source | Store, out: Path, progress: Callable[[int], None] = lambda count: None
) -> int:
    """Write the answer of a network and its predictor (views, calibration, decision rule) for every wafer of a source.

    Args:
        loaded: A trained network and its predictor.
        source: Labelled or not.
        out: A .parquet or .csv file to write: `index` (row in the source), `path` where wafers are files,
            `prediction` (a class name, names joined by `+`, or `none`) and `p_<class>` for every class.
        progress: Told how many wafers each step has finished.

    Returns:
        Number of wafers.

    Raises:
        UserError: The source does not fit the network, or `out` cannot be written. No partial file is left.
    """
    config = loaded.config.data
    kind = "images" if str(config._target_).endswith("ImageDataModule") else "maps"
    found = source.header.kind if isinstance(source, Store) else source.kind
    if found != kind:
        raise UserError(f"the model was trained on {kind}, and this input holds {found}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, views = loaded.network.to(device), VIEWS[loaded.predictor.tta]
    written = 0
    try:
        with replacing(out) as beside, torch.inference_mode(), _Table(beside, out.suffix) as table:
            for image, paths in _images(source, kind, config, device):
                logits = torch.stack([network(turn(image, view)).float().cpu() for view in views], dim=1)
                table.write(_answers(logits.numpy(), loaded.predictor, written, paths))
                written += len(image)
                progress(len(image))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; free space or choose another file") from None
    return written


class _Table:
    """A table written batch by batch, as Parquet or CSV by the file's ending."""

    def __init__(self, path: Path, ending: str):
        if ending not in (".parquet", ".csv"):
            raise UserError(f"predictions are written as .parquet or .csv, not '{ending}'")
        self.path, self.ending = path, ending
        self.writer: Any = None

    def __enter__(self) -> "_Table":
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        if self.writer is None:
            import pyarrow.csv
            import pyarrow.parquet

            kind = pyarrow.csv.CSVWriter if self.ending == ".csv" else pyarrow.parquet.ParquetWriter
            self.writer = kind(self.path, batch.schema)
        self.writer.write_batch(batch)

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()


def _images(
    source: Source | Store, kind: str, config: Any, device: torch.device
) -> Iterator[tuple[Tensor, list[str] | None]]:
    """Network input and file names, batch by batch, in the source's order."""
    root = Path(getattr(source, "root", ""))
    for rows in source.rows():
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            paths = None if rows.path is None else list(rows.path[part])
            if kind == "maps":
                image = encode(_draw(rows, part, config.canvas, device), config.encoding)
            else:
                grey = np.stack([canvas(root / path, config.canvas) for path in paths or []])
                image = scale(torch.from_numpy(grey).to(device), config.in_channels)
            yield image, paths


def _draw(rows: Rows, part: slice, size: int, device: torch.device) -> Tensor:
    """(B, size, size) uint8 states of some of a batch's maps."""
    ends = np.cumsum(rows.height.astype(np.int64) * rows.width)
    starts = np.concatenate([[0], ends[:-1]])
    first, last = starts[part][0], ends[part][-1]
    assert rows.cells is not None
    maps = Maps(
        torch.tensor(rows.cells[first:last]),
        torch.from_numpy(starts[part] - first),
        torch.from_numpy(rows.height[part]),
        torch.from_numpy(rows.width[part]),
    ).to(device)
    return render(maps, torch.arange(len(maps.offset), device=device), size)


def _answers(logits: NDArray[np.float32], predictor: Predictor, first: int, paths: list[str] | None) -> pa.RecordBatch:
    """The rows of (B, V, C) logits."""
    names = predictor.class_names
    probabilities = predictor.probabilities(logits)
    decisions = predictor.decision(probabilities)
    columns: dict[str, Any] = {"index": np.arange(first, first + len(logits))}
    if paths is not None:
        columns["path"] = paths
    if predictor.target_kind == "multiclass":
        columns["prediction"] = [names[k] for k in decisions]
    else:
        columns["prediction"] = ["+".join(np.array(names)[row]) or "none" for row in decisions == 1]
    columns |= {f"p_{name}": probabilities[:, k].astype(np.float32) for k, name in enumerate(names)}
    return pa.RecordBatch.from_pydict(columns)
