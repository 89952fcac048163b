"""Labelling wafers of any source, in a stream: one row per wafer, whatever judges; needs neither torch nor Lightning.

Rows are gathered into parts beside the file that is asked for, which is made of them at the end. So memory is bounded,
and a run of the same command after a stop goes on with the part that was open.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wafer_lab.data.dies import check_dies
from wafer_lab.data.readers import decode_grey
from wafer_lab.data.rows import Rows, Source
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.export.predictor import BATCH, named
from wafer_lab.files import replacing, write_text

#: Rows of a part: what a stop may cost.
PART = 16_384
# Images are of any size, so a batch of them ends by pixels, too.
_PIXELS = 16_000_000
_KEY = "key.json"


class Judge(Protocol):
    """What gives wafers probabilities: a trained network, or an exported file."""

    @property
    def kind(self) -> str:
        """`maps` or `images`."""

    @property
    def predictor(self) -> Predictor:
        """The classes and the decision rule."""

    def probabilities(self, wafers: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """Calibrated probabilities, (N, C), of N maps or grey images, (H, W) uint8 each, of any sizes."""


class Written(NamedTuple):
    """What was written.

    Attributes:
        wafers: Rows.
        faults: How many of them say what is wrong with the wafer, and no class.
        kept: How many were there already, from a run that was stopped.
    """

    wafers: int
    faults: int
    kept: int


class CannotWriteError(UserError):
    """The answers have nowhere to go, whatever the wafers are."""


class Portion(NamedTuple):
    """Some wafers in a row.

    Attributes:
        wafers: (H, W) uint8 each; of one with a fault, whatever stands in for it.
        paths: Their files' names; None where wafers are no files.
        faults: What is wrong with some, by place.
    """

    wafers: list[NDArray[np.uint8]]
    paths: list[str] | None
    faults: dict[int, str]


def label_source(
    judge: Judge,
    source: Source | Store,
    out: Path,
    progress: Callable[[int], None] = lambda count: None,
    key: str | None = None,
) -> Written:
    """Write what is said of every wafer of a source.

    Args:
        judge: Says it.
        source: Labelled or not; a tolerant one has single bad wafers reported in their rows.
        out: A .parquet or .csv file to write: `index` (row in the source), `path` where wafers are files,
            `prediction` (a class name, names joined by `+`, or `none`), `p_<class>` for every class, and `error`, empty
            but where a wafer could not be judged; then the others are.
        progress: Told how many wafers each step has finished.
        key: What model and source are; rows that a stopped run with the same key left are kept, also one that a full
            disk stopped. None: nothing is kept, nor left where this run is stopped.

    Raises:
        CannotWriteError: `out` cannot be written.
        UserError: The source does not fit the model, or cannot be read. Never is `out` there in part.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"predictions are written as .parquet or .csv, not '{out.suffix}'")
    found = source.header.kind if isinstance(source, Store) else source.kind
    if found != judge.kind:
        raise UserError(f"the model was trained on {judge.kind}, and the input holds {found}; name a model of those")
    if out.is_dir():
        raise CannotWriteError(f"cannot write {out}: it is a folder; choose another file")
    parts = _Parts(out, key)
    try:
        with writing(out):
            parts.open()
        kept, faults = parts.rows, parts.faults
        progress(kept)
        first = kept
        for batch in batches(source, kept):
            answers = _answers(judge, batch, first)
            with writing(out):
                parts.add(answers)
            first, faults = first + len(batch.wafers), faults + len(batch.faults)
            progress(len(batch.wafers))
        with writing(out):
            parts.finish()
    except BaseException as error:
        # What is wrong with the input will be wrong again; all else may be mended, and then the rows are of use.
        if key is None or (isinstance(error, UserError) and not isinstance(error, CannotWriteError)):
            parts.remove()
        if isinstance(error, OSError):
            raise UserError(f"the input cannot be read: {error.strerror or error}; check it and try again") from None
        raise
    return Written(first, faults, kept)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Where `out`, a file or folder, is written.

    Raises:
        CannotWriteError: An OSError came out of the block.
    """
    try:
        yield
    except OSError as error:
        fix = "free space, or choose another place for it"
        raise CannotWriteError(f"cannot write {out}: {error.strerror or error}; {fix}") from None


def batches(source: Source | Store, skip: int = 0) -> Iterator[Portion]:
    """Wafers in the source's order, at most `BATCH` at a time.

    Args:
        source: Of maps or images.
        skip: How many wafers to leave out at the start.
    """
    root = Path(getattr(source, "root", ""))
    for rows in source.rows():
        start, skip = min(skip, len(rows)), max(0, skip - len(rows))
        if rows.cells is None:
            yield from _images(rows, root, start)
            continue
        sizes = rows.height.astype(np.int64) * rows.width
        ends = np.cumsum(sizes)
        for low in range(start, len(rows), BATCH):
            places = range(low, min(low + BATCH, len(rows)))
            maps = [rows.cells[ends[i] - sizes[i] : ends[i]].reshape(rows.height[i], rows.width[i]) for i in places]
            faults = _within(rows, places)
            for place, states in enumerate(maps):
                if place not in faults:
                    try:
                        check_dies(states)
                    except UserError as error:
                        faults[place] = str(error)
            yield Portion(maps, None if rows.path is None else list(rows.path[low : places.stop]), faults)


def _images(rows: Rows, root: Path, start: int) -> Iterator[Portion]:
    paths = list(rows.path or [])
    pixels = rows.height.astype(np.int64) * rows.width
    while start < len(rows):
        fits = int(np.searchsorted(np.cumsum(pixels[start:]), _PIXELS, side="right"))
        places = range(start, min(start + max(1, min(fits, BATCH)), len(rows)))
        faults = _within(rows, places)
        blank = np.zeros((1, 1), np.uint8)
        grey = [blank if i - start in faults else decode_grey(root / paths[i]) for i in places]
        yield Portion(grey, paths[start : places.stop], faults)
        start = places.stop


def _within(rows: Rows, places: range) -> dict[int, str]:
    return {i - places.start: fault for i, fault in (rows.faults or {}).items() if i in places}


def _answers(judge: Judge, batch: Portion, first: int) -> pa.RecordBatch:
    """The rows of a batch."""
    names, count = judge.predictor.class_names, len(batch.wafers)
    good = [place for place in range(count) if place not in batch.faults]
    probabilities = np.full((count, len(names)), np.nan)
    decided: list[str | None] = [None] * count
    if good:
        probabilities[good] = judge.probabilities([batch.wafers[place] for place in good])
        for place, name in zip(good, named(judge.predictor, probabilities[good]), strict=True):
            decided[place] = name
    columns: dict[str, Any] = {"index": np.arange(first, first + count)}
    if batch.paths is not None:
        columns["path"] = batch.paths
    columns["prediction"] = pa.array(decided, pa.string())
    nothing = np.isin(np.arange(count), list(batch.faults))
    for k, name in enumerate(names):
        columns[f"p_{name}"] = pa.array(probabilities[:, k].astype(np.float32), mask=nothing)
    columns["error"] = pa.array([batch.faults.get(place) for place in range(count)], pa.string())
    return pa.RecordBatch.from_pydict(columns)


@dataclass
class _Parts:
    """Rows on their way into a file, in parts beside it."""

    out: Path
    key: str | None
    rows: int = 0
    faults: int = 0

    def __post_init__(self) -> None:
        self.folder = self.out.with_name(f".{self.out.name}.parts")
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0

    def open(self) -> None:
        """Keep the whole parts of a stopped run of the same key, or begin."""
        if not self._same():
            self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / _KEY, json.dumps(self.key))
        for part in self._files():
            errors = pq.read_table(part, columns=["error"])["error"]
            self.rows += len(errors)
            self.faults += len(errors) - errors.null_count

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows; a part is written when there are enough."""
        self._waiting.append(batch)
        self._count += len(batch)
        if self._count >= PART:
            self._write()

    def finish(self) -> None:
        """Make the file of the parts, and put it in its place."""
        if self._waiting:
            self._write()
        with replacing(self.out) as beside:
            _joined(self._files(), beside, self.out.suffix)
        self.remove()

    def remove(self) -> None:
        """Leave nothing of the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _same(self) -> bool:
        try:
            return self.key is not None and bool(json.loads((self.folder / _KEY).read_text()) == self.key)
        except (OSError, ValueError):
            return False

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _write(self) -> None:
        with replacing(self.folder / f"part-{self.rows:012d}.parquet") as beside:
            pq.write_table(pa.Table.from_batches(self._waiting), beside)
        self.rows += self._count
        self._waiting, self._count = [], 0


def _joined(parts: list[Path], out: Path, ending: str) -> None:
    """One file of many, a part in memory at a time."""
    if not parts:
        raise UserError("the input holds no wafers, so there is nothing to write")
    kind = pyarrow.csv.CSVWriter if ending == ".csv" else pq.ParquetWriter
    with kind(out, pq.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
