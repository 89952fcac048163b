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
from wafer_lab.data.images import canvas, image_encoding, scale
from wafer_lab.data.rows import Rows, Source
from wafer_lab.data.store import Store
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.files import replacing
from wafer_lab.workflows.checkpoint import Loaded
from wafer_lab.workflows.predict import class_logits

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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, views = loaded.network.to(device), VIEWS[loaded.predictor.tta]
    written = 0
    try:
        with replacing(out) as beside, torch.inference_mode(), _Table(beside, out.suffix) as table:
            for image, paths, _ in inputs(source, config, device):
                said = [class_logits(network, network(turn(image, view)).float()).cpu() for view in views]
                table.write(_answers(torch.stack(said, dim=1).numpy(), loaded.predictor, written, paths))
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


def inputs(
    source: Source | Store, config: Any, device: torch.device
) -> Iterator[tuple[Tensor, list[str] | None, list[NDArray[np.uint8]]]]:
    """Network input, batch by batch, in the source's order, and what it was made of.

    Args:
        source: Labelled or not.
        config: The data of the network's run, whose canvas and encoding are drawn.
        device: Where the input shall be.

    Yields:
        (B, C, S, S) float32; the names of the B files, None where wafers are no files; the B maps, (H, W) die states
        each, none of images.

    Raises:
        UserError: The source is of another kind than the network was trained on.
    """
    kind = "images" if str(config._target_).endswith("ImageDataModule") else "maps"
    found = source.header.kind if isinstance(source, Store) else source.kind
    if found != kind:
        raise UserError(f"the model was trained on {kind}, and this input holds {found}")
    root = Path(getattr(source, "root", ""))
    for rows in source.rows():
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            paths = None if rows.path is None else list(rows.path[part])
            if kind == "maps":
                maps, dies = _maps(rows, part)
                states = render(maps.to(device), torch.arange(len(dies), device=device), config.canvas)
                image = encode(states, config.encoding)
            else:
                dies = []
                grey = np.stack([canvas(root / path, config.canvas) for path in paths or []])
                encoding = image_encoding(config.get("encoding", "grey"), config.in_channels)
                image = scale(torch.from_numpy(grey).to(device), encoding)
            yield image, paths, dies


def _maps(rows: Rows, part: slice) -> tuple[Maps, list[NDArray[np.uint8]]]:
    """Some of a batch's maps, to be rendered and as they are."""
    sizes = rows.height.astype(np.int64) * rows.width
    ends = np.cumsum(sizes)[part]
    starts = ends - sizes[part]
    assert rows.cells is not None
    shapes = zip(starts, ends, rows.height[part], rows.width[part], strict=True)
    dies = [rows.cells[start:end].reshape(height, width) for start, end, height, width in shapes]
    maps = Maps(
        torch.tensor(rows.cells[starts[0] : ends[-1]]),
        torch.from_numpy(starts - starts[0]),
        torch.from_numpy(rows.height[part]),
        torch.from_numpy(rows.width[part]),
    )
    return maps, dies


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
