"""Labelling what a line drops into a folder, file by file, for as long as nobody stops it."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow as pa
import pyarrow.csv

from wafer_lab.data.readers import open_source
from wafer_lab.data.readers.files import is_junk
from wafer_lab.data.readers.images import IMAGE_ENDINGS
from wafer_lab.errors import UserError
from wafer_lab.files import replacing
from wafer_lab.workflows.labelling import CannotWriteError, Judge, label_source, writing

#: Endings of files of many wafers.
MANY = (".npz", ".pkl", ".pickle", ".zip")
#: Endings of the files that are looked at.
ENDINGS = (".npy", *MANY, *IMAGE_ENDINGS)
_SECONDS = 1.0


def watch(
    judge: Judge,
    folder: Path,
    results: Path,
    told: Callable[[Path, str], None],
    seconds: float = _SECONDS,
    polls: int | None = None,
) -> None:
    """Label every file that appears in a folder.

    Each gets a table of its own, `<results>/<its path in the folder>.csv`, written when the file has not changed from
    one look to the next. The table is given the time of its file, and a file that has a table of its time is done. So a
    restart goes on where it stopped, and a file that is replaced, by an older one too, is labelled anew. One that
    cannot be read gets a table of one row that says why.

    Args:
        judge: A trained network, or an exported file.
        folder: Where the line drops files; sub-folders are looked into.
        results: Where tables go; made where it is missing.
        told: Told each file and what came of it.
        seconds: Between looks.
        polls: How many looks; None: without end.

    Raises:
        UserError: There is no such folder, the tables would lie in it, or they cannot be written.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to watch; make it, or name another")
    _check(folder, results)
    seen: dict[Path, tuple[int, int]] = {}
    done: dict[Path, tuple[int, int]] = {}
    looks = 0
    while polls is None or looks < polls:
        if looks:
            time.sleep(seconds)
        looks += 1
        for file, state in _files(folder):
            table = results / f"{file.relative_to(folder).as_posix()}.csv"
            # Some file systems keep times in seconds: what this run has labelled it knows itself.
            if seen.get(file) == state and not (_done(table, state) or (done.get(file) == state and table.is_file())):
                outcome = _labelled(judge, file, table)
                with writing(table):
                    os.utime(table, ns=(state[0], state[0]))
                done[file] = state
                told(file, outcome)
            seen[file] = state


def _check(folder: Path, results: Path) -> None:
    """Make the folder of the tables, if it is a fit one."""
    if results.suffix in (".parquet", ".csv", ".json") or results.is_file():
        raise UserError(f"--watch writes a table per file into a folder, and {results} is the name of a file")
    if results.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{results} lies in the folder that is watched; choose one outside of {folder} with --out")
    with writing(results):
        results.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=results).close()


def _files(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Files to label, with time and size."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in ENDINGS and not is_junk(file.name):
            try:
                status = file.stat()
            except OSError:  # taken away in between
                continue
            yield file, (status.st_mtime_ns, status.st_size)


def _done(table: Path, state: tuple[int, int]) -> bool:
    """Whether the table is of the file's time; in microseconds, for network drives cut off what is below."""
    return table.is_file() and table.stat().st_mtime_ns // 1000 == state[0] // 1000


def _labelled(judge: Judge, file: Path, table: Path) -> str:
    try:
        done = label_source(judge, open_source(file, tolerant=True), table)
    except CannotWriteError:
        raise
    except UserError as error:
        columns = ["prediction", *(f"p_{name}" for name in judge.predictor.class_names)]
        named = {} if file.suffix.lower() in MANY else {"path": [file.name]}  # as the table of a good one has it
        row = {"index": [0], **named, **{name: pa.nulls(1, pa.string()) for name in columns}, "error": [str(error)]}
        with writing(table), replacing(table) as beside:
            pyarrow.csv.write_csv(pa.table(row), beside)
        return str(error)
    return f"{done.wafers:,} wafer{'s' if done.wafers != 1 else ''}" + (f", {done.faults:,} bad" if done.faults else "")
