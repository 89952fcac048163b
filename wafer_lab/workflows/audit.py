"""Auditing a data set or a run's split for twins."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wafer_lab.data.audit import Audited, between, inside, look
from wafer_lab.data.near_duplicates import Progress
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation import audit_report
from wafer_lab.evaluation.audit_report import Findings
from wafer_lab.workflows.finished import CONFIG, datamodule_of, read_config

#: Shows progress: what is being done -> a function of how much is done, and of how much.
Stages = Callable[[str], Progress | None]


def audit(
    src: Path,
    out: Path,
    cache: Path,
    against: Path | None = None,
    unlabelled: bool = False,
    orientations: int = 8,
    stage: Stages = lambda what: None,
) -> Findings:
    """Look for exact and near duplicates and write report.html and audit.json.

    Args:
        src: Anything a data set is read from, a store, or a run's folder, whose own split is then judged.
        out: Folder to write to.
        cache: Folder of prepared stores.
        against: Another data set, or run, to look for twins in.
        unlabelled: Whether to look at unlabelled rows, too.
        orientations: 8 finds flipped and turned copies too, 1 upright ones only.
        stage: Where to show progress.

    Returns:
        What was found.

    Raises:
        UserError: A source is missing, damaged, or of another kind than the other; or `out` cannot be written.
    """
    began = time.monotonic()
    one = _opened(src, cache, unlabelled)
    other = _opened(against, cache, unlabelled) if against is not None else None
    seen = look(one, stage(f"looking at {one.title}"))
    found = inside(one, seen, orientations, stage(f"looking for near duplicates in {one.title}"))
    across = []
    if other is not None:
        there = look(other, stage(f"looking at {other.title}"))
        across = between(one, other, seen, there, orientations, stage(f"comparing with {other.title}"))
    findings = Findings(one, found, other, across, orientations, time.monotonic() - began)
    try:
        audit_report.write(findings, out)
    except OSError as error:
        raise UserError(f"cannot write into {out}: {error.strerror}; choose another folder with --out") from None
    return findings


def _opened(path: Path, cache: Path, unlabelled: bool) -> Audited:
    """The rows to look at, and their parts."""
    if (path / CONFIG).is_file():
        return _run(path)
    source = open_source(path)
    store = source if isinstance(source, Store) else cached(source, cache)
    return Audited.of(path.resolve().name, store, unlabelled=unlabelled)


def _run(path: Path) -> Audited:
    """The rows that a run's split uses, in its parts."""
    datamodule = datamodule_of(read_config(path), path)
    datamodule.open_and_split()
    whole = datamodule.split
    rows = np.sort(np.concatenate([whole.train, whole.val, whole.test]))
    part = np.full(len(datamodule.store), "", dtype="<U5")
    for name in ("train", "val", "test"):
        part[getattr(whole, name)] = name
    return Audited(path.resolve().name, datamodule.store, rows, part[rows])
