"""Another data set in a run's own classes, to test the run on: made by others, of other tools, under other names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Kind, Target
from wafer_lab.data.split import strata, subset
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError

NORMAL = "none"


@dataclass(frozen=True)
class Origin:
    """Where the wafers of an external test come from, and why others of that data set are not among them.

    Attributes:
        path: file or folder.
        kind: `maps` or `images`.
        classes: each of its classes -> the run's; None: left out. `none` of labels means a wafer without any.
        missing: classes of the run that it does not have.
        wafers: how many wafers are tested on.
        unlabelled: wafers without a label.
        left_out: class of the data set -> wafers that are left out with it.
        ambiguous: wafers with several labels, where the run knows one class per wafer.
        unsampled: wafers beyond `data.limit`.
    """

    path: str
    kind: Kind
    classes: dict[str, str | None]
    missing: tuple[str, ...]
    wafers: int
    unlabelled: int = 0
    left_out: Mapping[str, int] | None = None
    ambiguous: int = 0
    unsampled: int = 0


@dataclass(frozen=True)
class ExternalSet:
    """Wafers to test a run on.

    Attributes:
        store: the whole data set, its labels in the run's classes; -1 where the wafer is not to be tested on.
        rows: (n,) int64, the rows to test on.
        origin: where they come from.
    """

    store: Store
    rows: NDArray[np.int64]
    origin: Origin


def open_external(
    path: str | Path,
    cache: str | Path,
    *,
    kind: Kind,
    class_names: Sequence[str],
    target: Target,
    classes: Mapping[str, str | None] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ExternalSet:
    """Open a data set of anybody's as a test of a run.

    Labels need not be of one kind. One class per wafer becomes one label, or for `none` no label at all; a wafer of
    exactly one label becomes that class, one without labels `none`.

    Args:
        path: as `wafer_lab.data.readers.open_source` takes it.
        cache: folder of prepared stores.
        kind: of the run's data.
        class_names: the run's C classes or labels.
        target: the kind of its labels.
        classes: what a class of theirs is called here, None to leave it out; others keep their names, whose case does
            not matter, and are left out where this run has no class of that name.
        limit: use at most this many wafers, of every class its share.
        seed: of that choice.

    Raises:
        UserError: there is nothing at the path, its data are of another kind, the classes name what does not exist, or
            nothing is left to test on.
    """
    if not Path(path).exists():
        raise UserError(f"data.external: there is nothing at {path}; check the path")
    source = open_source(path)
    if source.kind != kind:
        raise UserError(f"data.external: {path} holds {source.kind}, and this run is about {kind}; name other data")
    renamed = match_classes(source.class_names, class_names, target, classes or {}, str(path))
    found = source if isinstance(source, Store) else cached(source, cache)
    label, left_out, ambiguous = relabel(found, class_names, target, renamed)
    known = label.reshape(len(label), -1)[:, 0] >= 0
    rows = np.flatnonzero(known)
    if not len(rows):
        raise UserError(f"data.external: no wafer of {path} has a label that this run knows; nothing can be tested")
    kept = rows
    if limit is not None and len(rows) > limit:
        kept = rows[subset(np.arange(len(rows)), strata(label[rows]), limit / len(rows), seed)[0]]
    origin = Origin(
        path=str(path),
        kind=kind,
        classes=renamed,
        missing=tuple(name for name in class_names if name not in renamed.values()),
        wafers=len(kept),
        unlabelled=int((found.label.reshape(len(found), -1)[:, 0] < 0).sum()),
        left_out=left_out,
        ambiguous=ambiguous,
        unsampled=len(rows) - len(kept),
    )
    return ExternalSet(found.relabelled(label, tuple(class_names), target), kept, origin)


def match_classes(
    theirs: Sequence[str], ours: Sequence[str], target: Target, classes: Mapping[str, str | None], where: str
) -> dict[str, str | None]:
    """The run's class for each class of another data set; None where it has none.

    Args:
        theirs: the data set's classes.
        ours: the run's.
        target: the kind of the run's labels; of labels, `none` may be named too.
        classes: what some of theirs are called here.
        where: the data set, for messages.

    Raises:
        UserError: `classes` names a class that one of the two does not have, or no class is in common.
    """
    here = [*ours, NORMAL] if target == "multilabel" and NORMAL not in ours else list(ours)
    wanted = {}
    for name, own in classes.items():
        their = _named(str(name), theirs)
        if their is None:
            raise UserError(f"data.external_classes: {where} has no class {name}; {_hint(str(name), theirs)}")
        wanted[their] = None if own is None else _named(str(own), here)
        if own is not None and wanted[their] is None:
            raise UserError(
                f"data.external_classes: this run has no class {own} for {their}; {_hint(str(own), here)}, or null to "
                "leave it out"
            )
    found = {name: wanted[name] if name in wanted else _named(name, here) for name in theirs}
    if not any(own in ours for own in found.values()):
        raise UserError(
            f"data.external: {where} and this run have no class in common ({', '.join(theirs) or 'no labels'}; here "
            f"{', '.join(ours)}); say which is which: data.external_classes={{theirs: ours}}"
        )
    return found


def _named(name: str, names: Sequence[str]) -> str | None:
    """The name among others, in any case."""
    if name in names:
        return name
    return next((one for one in names if one.lower() == name.lower()), None)


def _hint(name: str, names: Sequence[str]) -> str:
    lower = {one.lower(): one for one in names}
    close = get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[close[0]]}?" if close else f"choose from {', '.join(names)}"


def relabel(
    store: Store, class_names: Sequence[str], target: Target, classes: Mapping[str, str | None]
) -> tuple[NDArray[np.integer], dict[str, int], int]:
    """The labels of a store in other classes.

    Args:
        store: N wafers.
        class_names: the C classes or labels wanted.
        target: which of the two.
        classes: each class of the store -> one of `class_names`, `none`, or None to leave its wafers out.

    Returns:
        (N,) int16 or (N, C) int8, -1 where unlabelled or left out; class of the store -> wafers left out with it; and
        the number of wafers left out because they have several labels.
    """
    theirs = store.class_names
    known = store.label.reshape(len(store), -1)[:, 0] >= 0
    one_each = store.label.ndim == 1
    has = store.label[:, None] == np.arange(len(theirs)) if one_each else store.label == 1
    labels = np.zeros((len(store), len(class_names)), dtype=bool)
    dropped, left_out = ~known, {}
    for k, name in enumerate(theirs):
        own = classes[name]
        if own is None:
            dropped = dropped | has[:, k]
            left_out[name] = int(has[:, k].sum())
        elif own in class_names:
            labels[:, list(class_names).index(own)] |= has[:, k]
    ambiguous = 0
    result: NDArray[np.integer] = labels.astype(np.int8)
    if target == "multiclass":
        count = labels.sum(axis=1)
        result = labels.argmax(axis=1).astype(np.int16)
        bare = (count == 0) & ~dropped
        if NORMAL in class_names:
            result[bare] = list(class_names).index(NORMAL)
        elif bare.any():
            left_out[NORMAL], dropped = int(bare.sum()), dropped | bare
        ambiguous = int(((count > 1) & ~dropped).sum())
        dropped = dropped | (count > 1)
    result[dropped] = -1
    return result, {name: count for name, count in left_out.items() if count}, ambiguous
