"""Audit of a data set: copies and near duplicates, inside it, across its parts and between two sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.near_duplicates import (
    INVERSE,
    Pairs,
    Progress,
    Signatures,
    find_pairs,
    group_numbers,
    signatures,
)
from wafer_lab.data.split import duplicate_groups, strata
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError

Kind = Literal["exact", "near", "name"]
Rows = NDArray[np.int64]

#: The parts of a split, in the order in which a model meets them: what stands in an earlier one is known in a later.
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Audited:
    """The rows of a data set that are looked at.

    Attributes:
        title: What people call it.
        store: The data.
        rows: (N,) int64 rows of the store.
        part: (N,) "train", "val", "test", or "" for a row of no part.
    """

    title: str
    store: Store
    rows: Rows
    part: NDArray[np.str_]

    @classmethod
    def of(cls, title: str, store: Store, part: NDArray[np.str_] | None = None, unlabelled: bool = False) -> "Audited":
        """The labelled rows of a store; with `unlabelled`, or where it has no labels at all, every row.

        Args:
            title: What people call it.
            store: The data.
            part: (rows of the store,) names; None takes the parts that came with the data.
            unlabelled: Whether to look at unlabelled rows, too.
        """
        known = strata(store.label) >= 0
        rows = np.arange(len(store)) if unlabelled or not known.any() else np.flatnonzero(known)
        if part is None:
            part = np.full(len(store), "") if store.vendor_split is None else store.vendor_split
        return cls(title, store, rows, part[rows])

    @property
    def label(self) -> Rows:
        """(N,) stratum of each row: its class or combination of labels, -1 unlabelled."""
        return strata(self.store.label[self.rows])

    def class_name(self, place: int) -> str:
        """Class of a row, or the names of its labels joined by a plus; `none` without any, empty where unlabelled."""
        label, names = self.store.label[self.rows[place]], self.store.class_names
        if label.ndim == 0:
            return names[label] if label >= 0 else ""
        return "" if label[0] < 0 else "+".join(n for n, has in zip(names, label, strict=True) if has) or "none"

    def path(self, place: int) -> str:
        """Where the file of a row lies in its source; empty for the maps of one file."""
        return self.store.path[self.rows[place]] if self.store.path else ""

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows per class and part, and in all; of multi-label data, the rows that have each label."""
        label = self.store.label[self.rows]
        masks = [label == c if label.ndim == 1 else label[:, c] == 1 for c in range(len(self.store.class_names))]
        if label.ndim == 2:
            masks.append((label == 0).all(axis=1))
        masks.append(self.label < 0)
        names = (*self.store.class_names, *(["none"] if label.ndim == 2 else []), "unlabelled")
        parts = [*(p for p in PARTS if (self.part == p).any()), *([""] if (self.part == "").any() else [])]
        columns = {p or "no part": self.part == p for p in parts} if parts != [""] else {}
        columns["all"] = np.ones(len(self.rows), bool)
        table = {
            name: {column: int((mask & here).sum()) for column, here in columns.items()}
            for name, mask in zip(names, masks, strict=True)
        }
        return {name: row for name, row in table.items() if row["all"] or name != "unlabelled"}


class Link(NamedTuple):
    """Two rows that show the same, or have the same name.

    Attributes:
        kind: `exact`, `near`, or `name` for a file stem shared by different classes or parts.
        first: Place among the rows looked at.
        second: Place among the rows of the same set, or of the other one.
        view: Symmetry that lays the second upon the first.
        score: Correlation; 1 for exact copies, 0 for names.
        conflict: Whether both are labelled, and differently.
        leak: Whether they stand in different parts of the split.
    """

    kind: Kind
    first: int
    second: int
    view: int
    score: float
    conflict: bool
    leak: bool


@dataclass(frozen=True)
class Inside:
    """What was found inside a set.

    Attributes:
        links: Exact copies, each with the first of its group (or with one in another part); near duplicates; names.
        groups: (N,) int64 group of exact and near duplicates of each row.
        exact_groups: Contents that occur more than once.
        exact_rows: Rows of these.
        exact_conflicts: Contents that occur under different labels.
        near_pairs: Pairs of different contents that are near duplicates.
        near_conflicts: Pairs of them under different labels.
        leaks: Rows of a later part by what they have a twin of in an earlier one, such as {"test in train": 3}, for
            exact and for near duplicates (that are not exact ones).
    """

    links: list[Link]
    groups: Rows
    exact_groups: int
    exact_rows: int
    exact_conflicts: int
    near_pairs: int
    near_conflicts: int
    leaks: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def leaking(self) -> int:
        """Twins that cross the split, counted once for each later part they reach from each earlier one."""
        return sum(sum(counts.values()) for counts in self.leaks.values())


class _Contents(NamedTuple):
    """The different contents of a set: (U,) place of each one's first row, (N,) content of each row, what it shows."""

    first: Rows
    of: Rows
    signatures: Signatures


def look(audited: Audited, progress: Progress | None = None) -> _Contents:
    """Look at each content of a set once.

    Raises:
        UserError: An image is missing or damaged.
    """
    of = duplicate_groups(audited.store.content[audited.rows])
    first = np.unique(of, return_index=True)[1].astype(np.int64)
    order = np.argsort(first)  # so that contents count up with their first rows
    of, first = np.argsort(order)[of], first[order]
    return _Contents(first, of, signatures(audited.store, audited.rows[first], progress))


def inside(audited: Audited, seen: _Contents, orientations: int = 8, progress: Progress | None = None) -> Inside:
    """Find twins inside a set and across its parts.

    Args:
        audited: The set.
        seen: From `look`.
        orientations: 8 finds flipped and turned copies too, 1 upright ones only.
        progress: Called now and then with how much is done, and of how much.
    """
    pairs = find_pairs(seen.signatures, orientations=orientations, progress=progress)
    label, part = audited.label, _order(audited.part)
    exact = _copies(seen.of, part, label)
    near = [_nearest(seen.of, *pair, part, label) for pair in _by_content(seen.of, pairs)]
    size = np.bincount(seen.of)
    groups = group_numbers(len(seen.first), pairs.first, pairs.second)[seen.of]
    return Inside(
        links=[*exact, *near, *_names(audited)],
        groups=groups,
        exact_groups=int((size > 1).sum()),
        exact_rows=int(size[size > 1].sum()),
        exact_conflicts=sum(len(set(label[m].tolist()) - {-1}) > 1 for m in _members(seen.of) if len(m) > 1),
        near_pairs=len(pairs.first),
        near_conflicts=sum(link.conflict for link in near),
        leaks=_leaks(seen, pairs, part),
    )


def between(
    one: Audited, other: Audited, seen: _Contents, there: _Contents, orientations: int, progress: Progress | None = None
) -> list[Link]:
    """Find twins between two sets: a link per pair of contents or names, first place in `one`, second in `other`.

    Raises:
        UserError: One set is of images and the other of wafer maps.
    """
    if one.store.kind != other.store.kind:
        raise UserError(
            f"{one.title} holds {one.store.kind} and {other.title} {other.store.kind}, which cannot be compared; "
            "name two sets of a kind"
        )
    content = [a.store.content[a.rows[s.first]] for a, s in ((one, seen), (other, there))]
    _, i, j = np.intersect1d(content[0], content[1], return_indices=True)
    pairs = find_pairs(seen.signatures, there.signatures, orientations, progress)
    known = set(zip(i.tolist(), j.tolist(), strict=True))
    found: list[tuple[Kind, int, int, int, float]] = [("exact", a, b, 0, 1.0) for a, b in sorted(known)]
    listed = zip(*(column.tolist() for column in pairs), strict=True)
    found += [("near", a, b, view, score) for a, b, view, score in listed if (a, b) not in known]
    found = [(kind, int(seen.first[a]), int(there.first[b]), view, score) for kind, a, b, view, score in found]
    if one.store.kind == "images":
        twins = {(a, b) for _, a, b, _, _ in found}
        stems: dict[str, list[int]] = {}
        for place in range(len(one.rows)):
            stems.setdefault(_stem(one, place), []).append(place)
        same = ((a, place) for place in range(len(other.rows)) for a in stems.get(_stem(other, place), []))
        found += [("name", a, b, 0, 0.0) for a, b in same if (a, b) not in twins]
    links = []
    for kind, first, second, view, score in found:
        names = one.class_name(first).lower(), other.class_name(second).lower()
        links.append(Link(kind, first, second, view, score, all(names) and names[0] != names[1], False))
    return links


def _order(part: NDArray[np.str_]) -> Rows:
    """(N,) place of each row's part in PARTS, -1 for none."""
    return np.select([part == name for name in PARTS], range(len(PARTS)), -1)


def _members(of: Rows) -> list[Rows]:
    """Rows of each content, in order."""
    order = np.argsort(of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(of))[:-1])


def _link(kind: Kind, a: int, b: int, view: int, score: float, part: Rows, label: Rows) -> Link:
    """Two rows of a set; of two in different parts, the one that a model meets first comes first."""
    conflict = bool(label[a] != label[b] and min(label[a], label[b]) >= 0)
    leak = bool(part[a] != part[b] and min(part[a], part[b]) >= 0)
    if leak and part[a] > part[b]:
        a, b, view = b, a, int(INVERSE[view])
    return Link(kind, a, b, view, score, conflict, leak)


def _copies(of: Rows, part: Rows, label: Rows) -> list[Link]:
    """Each exact copy with the first of its group, which is one of the earliest part."""
    links = []
    for rows in _members(of):
        if len(rows) > 1:
            first, *others = rows[np.argsort(np.where(part[rows] < 0, len(PARTS), part[rows]), kind="stable")].tolist()
            links += [_link("exact", first, row, 0, 1.0, part, label) for row in others]
    return links


def _by_content(of: Rows, pairs: Pairs) -> list[tuple[Rows, Rows, int, float]]:
    """The rows of both contents of each pair, with its view and score."""
    members = _members(of)
    columns = zip(*(column.tolist() for column in pairs), strict=True)
    return [(members[a], members[b], view, score) for a, b, view, score in columns]


def _nearest(of: Rows, a: Rows, b: Rows, view: int, score: float, part: Rows, label: Rows) -> Link:
    """One row of each content: two in different parts, or else under different labels, where there are such."""
    # One row of each part and label has all there is to find, however many copies there are.
    mine, theirs = ({(int(part[i]), int(label[i])): i for i in rows[::-1].tolist()}.values() for rows in (a, b))
    firsts, seconds = sorted(mine), sorted(theirs)
    options = [_link("near", i, j, view, score, part, label) for i in firsts for j in seconds]
    return max(options, key=lambda link: (link.leak, link.conflict))


def _leaks(seen: _Contents, pairs: Pairs, part: Rows) -> dict[str, dict[str, int]]:
    """Rows of each later part with an exact, or else a near, twin in each earlier one."""
    present = np.zeros((len(seen.first), len(PARTS)), bool)
    present[seen.of[part >= 0], part[part >= 0]] = True
    beside = np.zeros_like(present)
    for a, b in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        np.logical_or.at(beside, a, present[b])
    found: dict[str, dict[str, int]] = {"exact": {}, "near": {}}
    # Of a test row with twins in train and in val, both are said.
    for late, early in ((1, 0), (2, 0), (2, 1)):
        contents = seen.of[part == late]
        exact = present[contents, early]
        key = f"{PARTS[late]} in {PARTS[early]}"
        for kind, count in (("exact", exact.sum()), ("near", (beside[contents, early] & ~exact).sum())):
            if count:
                found[kind][key] = int(count)
    return found


def _names(audited: Audited) -> list[Link]:
    """Files of one stem in different classes or parts; each with the first of its stem."""
    if not audited.store.path or audited.store.kind != "images":
        return []
    label, part = audited.label, _order(audited.part)
    first: dict[str, int] = {}
    links = []
    for place in range(len(audited.rows)):
        if (before := first.setdefault(_stem(audited, place), place)) != place:
            link = _link("name", before, place, 0, 0.0, part, label)
            links += [link] if link.conflict or link.leak else []
    return links


def _stem(audited: Audited, place: int) -> str:
    return PurePosixPath(audited.path(place)).stem.lower()


def spread(links: Sequence[Link], most: int) -> list[Link]:
    """At most so many of some links, evenly from the best score to the worst, label conflicts first."""
    ranked = sorted(links, key=lambda link: (not link.conflict, -link.score, link.first, link.second))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))
    return [ranked[place] for place in places]
