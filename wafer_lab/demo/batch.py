"""A file of wafers: its answers as a table to filter and download, and what they add up to."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import FAIL, PASS, Kind, Rows, Source, Target
from wafer_lab.data.store import Store
from wafer_lab.demo.model import DemoModel
from wafer_lab.demo.page import chart, percent, rows_page
from wafer_lab.demo.reading import without_folder
from wafer_lab.errors import UserError
from wafer_lab.workflows.labelling import label_source

#: Rows shown; the download has all.
SHOWN = 500
_HEADERS = ("row", "file", "prediction", "probability", "error")
EVERY = "every class"


@dataclass
class Counted:
    """A source that counts dies as its rows pass.

    Attributes:
        source: Of maps or images.
        passed: Passing dies so far.
        failed: Failing dies so far.
    """

    source: Source | Store
    passed: int = 0
    failed: int = 0
    name: str = field(init=False)
    kind: Kind = field(init=False)
    target: Target = field(init=False)
    class_names: tuple[str, ...] = field(init=False)
    root: str = field(init=False)

    def __post_init__(self) -> None:
        told: Any = self.source.header if isinstance(self.source, Store) else self.source
        self.name, self.kind, self.target = told.name, told.kind, told.target
        self.class_names, self.root = tuple(told.class_names), str(getattr(self.source, "root", ""))

    def fingerprint(self) -> str:
        """The source's own."""
        return str(self.source.fingerprint())

    def notes(self) -> dict[str, int | str]:
        """Nothing: what is wrong with wafers stands in their rows."""
        return {}

    def rows(self) -> Iterator[Rows]:
        """The source's own."""
        for rows in self.source.rows():
            if rows.cells is not None:
                counts = np.bincount(rows.cells, minlength=FAIL + 1)
                self.passed += int(counts[PASS])
                self.failed += int(counts[FAIL])
            yield rows


class Answers(NamedTuple):
    """The answers for a file.

    Attributes:
        table: The CSV that `wafer-lab predict` would write.
        class_names: The model's.
        wafers: Rows.
        faults: Rows that say what is wrong with the wafer.
        passed: Passing dies.
        failed: Failing dies; both 0 of images.
        counts: Class -> wafers that have it, `none` included.
    """

    table: Path
    class_names: tuple[str, ...]
    wafers: int
    faults: int
    passed: int
    failed: int
    counts: dict[str, int]


def judge_file(model: DemoModel, file: Path, folder: Path, progress: Callable[[int], None]) -> Answers:
    """Ask the model about every wafer of a file, in bounded memory.

    Args:
        model: The model.
        file: Anything that `wafer-lab predict` reads, as one file.
        folder: Where the table goes.
        progress: Told how many wafers each step has finished.

    Raises:
        UserError: It cannot be read, or is of another kind than the model judges.
    """
    table = folder / f"{file.stem}_predictions.csv"
    try:
        source = Counted(open_source(file, tolerant=True))
        done = label_source(model.judge, source, table, progress)
    except UserError as error:
        raise UserError(without_folder(str(error), file)) from None
    counts: Counter[str] = Counter()
    for batch in _read(table, model.class_names):
        counts.update(name for said in batch["prediction"].drop_null().to_pylist() for name in said.split("+"))
    ordered = {name: counts[name] for name in (*model.class_names, "none") if counts[name]}
    return Answers(table, model.class_names, done.wafers, done.faults, source.passed, source.failed, ordered)


class Matching(NamedTuple):
    """Rows that a filter lets through.

    Attributes:
        rows: The first `SHOWN`, see `listing`.
        total: How many there are in all.
    """

    rows: list[list[Any]]
    total: int


def filtered(batch: Answers, name: str = EVERY, least: float = 0.0, only_errors: bool = False) -> Matching:
    """Look through the whole table, a part of it in memory at a time.

    Args:
        batch: The answers.
        name: Only wafers that have this class, or `EVERY`.
        least: Only wafers whose answer has at least this probability; 0 lets those through that have none.
        only_errors: Only wafers that could not be judged.
    """
    shown: list[list[Any]] = []
    count = 0
    for part in _read(batch.table, batch.class_names):
        said = part["prediction"].to_pylist()
        sure = _sure(part, said, batch.class_names)
        errors = part["error"].to_pylist()
        files = part["path"].to_pylist() if "path" in part.schema.names else [""] * len(said)
        for k, row in enumerate(part["index"].to_pylist()):
            has = name == EVERY or name in (said[k] or "").split("+")
            if not has or (least > 0 and not sure[k] >= least) or (only_errors and errors[k] is None):
                continue
            count += 1
            if len(shown) < SHOWN:
                known = "" if np.isnan(sure[k]) else percent(sure[k])
                shown.append([row, files[k], said[k] or "", known, errors[k] or ""])
    return Matching(shown, count)


def listing(batch: Answers, name: str = EVERY, least: float = 0.0, only_errors: bool = False) -> str:
    """What `filtered` lets through as HTML, without columns that say nothing: one file's name, or no errors."""
    found = filtered(batch, name, least, only_errors)
    first = f"; the first {SHOWN:,} are shown, the download has all" if found.total > SHOWN else ""
    told = f"{found.total:,} of {batch.wafers:,} rows{first}."
    said = [k for k in range(len(_HEADERS)) if k != 1 or len({row[1] for row in found.rows}) > 1]
    said = [k for k in said if k != 4 or any(row[4] for row in found.rows)]
    return rows_page([_HEADERS[k] for k in said], [[row[k] for k in said] for row in found.rows], told)


def together(uploads: Sequence[Path], folder: Path) -> Path:
    """One upload as it is; several as a folder of them.

    Args:
        uploads: At least one file.
        folder: Where the folder may be made.

    Raises:
        UserError: Two have one name.
    """
    if len(uploads) == 1:
        return uploads[0]
    twice = [name for name, count in Counter(file.name for file in uploads).items() if count > 1]
    if twice:
        raise UserError(f"two of the files are called {twice[0]}; rename one")
    made = folder / "uploads"
    made.mkdir()
    for file in uploads:
        os.link(file, made / file.name)
    return made


def summary(batch: Answers) -> str:
    """What a file adds up to, as HTML."""
    facts = {"wafers": f"{batch.wafers:,}", "not judged": f"{batch.faults:,}"}
    dies = batch.passed + batch.failed
    if dies:
        facts |= {"dies": f"{dies:,}", "yield (passing dies)": f"{100 * batch.passed / dies:.1f} %"}
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    judged = max(1, batch.wafers - batch.faults)
    shares = {f"{name} ({count:,})": count / judged for name, count in batch.counts.items()}
    table = chart(shares, set(), "class", "Share of the judged wafers")
    return f'<div class="wl"><dl>{boxes}</dl><h3>Share of the judged wafers per class</h3>{table}</div>'


def _read(table: Path, class_names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """The table in parts, its types said, because a part may hold nothing of a column."""
    types: dict[str, pa.DataType] = {"index": pa.int64(), "path": pa.string(), "prediction": pa.string()}
    types |= {f"p_{name}": pa.float32() for name in class_names} | {"error": pa.string()}
    options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    with pyarrow.csv.open_csv(table, convert_options=options) as parts:
        yield from parts


def _sure(part: pa.RecordBatch, said: list[str | None], class_names: tuple[str, ...]) -> NDArray[np.float64]:
    """(n,) probability of each answer: of labels the least of theirs, of none that of the strongest not being there."""
    p = np.stack([part[f"p_{name}"].to_numpy(zero_copy_only=False) for name in class_names], axis=1).astype(np.float64)
    found = np.full(len(said), np.nan)
    place = {name: k for k, name in enumerate(class_names)}
    for row, names in enumerate(said):
        if names is not None:
            own = [place[name] for name in names.split("+") if name in place]
            found[row] = p[row, own].min() if own else 1 - p[row].max()
    return found
