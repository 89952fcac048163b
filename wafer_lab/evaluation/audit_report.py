"""The report of an audit: one HTML page with the pairs side by side, and the same findings as JSON."""

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data import near_duplicates
from wafer_lab.data.audit import Audited, Inside, Link, spread
from wafer_lab.data.readers import decode_grey
from wafer_lab.data.thumbnails import turned
from wafer_lab.evaluation.html import page
from wafer_lab.files import write_text

#: Pairs shown per section; audit.json has all.
SHOWN = 24
_SIDE = 128
# Off-wafer, pass, fail: apart in brightness, too.
_STATES = np.array([[255, 255, 255], [201, 214, 229], [168, 30, 45]], np.uint8)
_FLIPS = ("", "flipped top to bottom", "flipped left to right", "turned by 180°")
_TURNS = (*_FLIPS, "flipped along a diagonal", "turned by 90°", "turned by 90°", "flipped along a diagonal")
_STYLE = """
.verdict { border-left: 6px solid #999; background: #f5f5f5; padding: .75rem 1rem; margin: 1rem 0; }
.verdict.good { border-color: #2c7a51; background: #eef6f1; }
.verdict.bad { border-color: #a81e2d; background: #fbeeee; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 1.25rem 1rem; }
figure { margin: 0; break-inside: avoid; }
figure div { display: flex; gap: 6px; }
figure img { margin: 0; width: 132px; height: 132px; image-rendering: pixelated; border: 1px solid #d5d5d5; }
figcaption { font-size: .78rem; line-height: 1.4; overflow-wrap: anywhere; margin-top: .25rem; }
figcaption b { color: #a81e2d; }
td.number, th.number { text-align: right; }
"""


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
        one: The set.
        found: Inside it.
        other: The set it was held against, if any.
        across: Twins between the two.
        orientations: 8, or 1 where only upright twins were looked for.
        seconds: How long it took.
    """

    one: Audited
    found: Inside
    other: Audited | None
    across: list[Link]
    orientations: int
    seconds: float


def write(findings: Findings, out: Path) -> tuple[Path, Path]:
    """Write report.html and audit.json.

    Returns:
        Their paths.
    """
    data = out / "audit.json"
    write_text(data, json.dumps(as_json(findings), indent=1, ensure_ascii=False) + "\n")
    body = "\n".join(_body(findings))
    return write_text(out / "report.html", page(f"Audit of {findings.one.title}", body, _STYLE)), data


def as_json(findings: Findings) -> dict[str, Any]:
    """Every number and every pair, as plain values."""
    one, other, found = findings.one, findings.other, findings.found
    sizes = np.bincount(np.bincount(found.groups))
    result: dict[str, Any] = {
        "source": _described(one),
        "method": {
            "version": near_duplicates.VERSION,
            "orientations": findings.orientations,
            "correlation": {
                "images": near_duplicates.IMAGE_CORRELATION,
                "images_detail": near_duplicates.IMAGE_DETAIL,
                "maps_same_grid": near_duplicates.MAP_CORRELATION,
                "maps_resampled": near_duplicates.RESAMPLED_CORRELATION,
            },
        },
        "seconds": round(findings.seconds, 1),
        "exact": {"contents": found.exact_groups, "rows": found.exact_rows, "label_conflicts": found.exact_conflicts},
        "near": {"pairs": found.near_pairs, "label_conflicts": found.near_conflicts},
        "groups_by_size": {str(size): int(n) for size, n in enumerate(sizes) if size > 1 and n},
        "same_name": sum(link.kind == "name" for link in found.links),
        "leaks": found.leaks,
        "pairs": [_as_json(link, one, one) for link in found.links],
    }
    if other is not None:
        kinds = Counter(link.kind for link in findings.across)
        result["against"] = {
            "source": _described(other),
            "exact": kinds["exact"],
            "near": kinds["near"],
            "same_name": kinds["name"],
            "rows_with_a_twin": {
                "source": len({link.first for link in _twins(findings.across)}),
                "against": len({link.second for link in _twins(findings.across)}),
            },
            "label_conflicts": sum(link.conflict for link in _twins(findings.across)),
            "classes": _class_pairs(findings),
            "pairs": [_as_json(link, one, other) for link in findings.across],
        }
    return result


def summary(findings: Findings) -> list[str]:
    """The findings in a few lines for a console."""
    found, one = findings.found, findings.one
    parts = [f"{int((one.part == p).sum()):,} {p}" for p in ("train", "val", "test") if (one.part == p).any()]
    lines = [
        f"{one.title}: {len(one.rows):,} {_unit(one)}{', ' + ', '.join(parts) if parts else ''}",
        f"exact copies     {found.exact_rows:,} {_unit(one)} share {found.exact_groups:,} contents; "
        f"{found.exact_conflicts:,} of these under different labels",
        f"near duplicates  {found.near_pairs:,} pairs; {found.near_conflicts:,} under different labels",
    ]
    if names := sum(link.kind == "name" for link in found.links):
        lines.append(f"same file name   {names:,} in another class or part")
    if findings.other is not None:
        twins = _twins(findings.across)
        lines.append(
            f"against {findings.other.title}: {len({t.first for t in twins}):,} {_unit(one)} have a twin there; "
            f"{sum(t.conflict for t in twins):,} of {len(twins):,} pairs under different labels"
        )
    return [*lines, verdict(found, parts)]


def verdict(found: Inside, parts: Sequence[object]) -> str:
    """One sentence on the split."""
    if not parts:
        return "no split to judge: the data comes in one part"
    if not found.leaking:
        return "no leak: no twin stands on two sides of the split"
    said = [
        f"{count:,} {kind} {'copies' if kind == 'exact' else 'duplicates'} of {where.replace(' in ', ' stand in ')}"
        for kind, counts in found.leaks.items()
        for where, count in counts.items()
    ]
    return f"LEAK across the split: {'; '.join(said)}. Split with data.group=near_duplicates to keep twins together"


def _unit(audited: Audited) -> str:
    return "images" if audited.store.kind == "images" else "wafers"


def _twins(links: Sequence[Link]) -> list[Link]:
    return [link for link in links if link.kind != "name"]


def _class_pairs(findings: Findings) -> dict[str, int]:
    """How many twins between two sets are of which class in each, the most frequent first."""
    other = findings.other
    assert other is not None
    pairs = ((findings.one.class_name(k.first), other.class_name(k.second)) for k in _twins(findings.across))
    return {f"{a or 'unlabelled'} / {b or 'unlabelled'}": n for (a, b), n in Counter(pairs).most_common()}


def _described(audited: Audited) -> dict[str, Any]:
    store = audited.store
    return {
        "title": audited.title,
        "name": store.name,
        "kind": store.kind,
        "digest": store.header.digest,
        "rows": len(store),
        "rows_audited": len(audited.rows),
        "class_counts": audited.counts(),
    }


def _as_json(link: Link, one: Audited, other: Audited) -> dict[str, Any]:
    def side(of: Audited, place: int) -> dict[str, Any]:
        named = {"path": of.path(place), "class": of.class_name(place), "part": str(of.part[place])}
        return {"row": int(of.rows[place]), **{key: value for key, value in named.items() if value}}

    return {
        "kind": link.kind,
        "first": side(one, link.first),
        "second": side(other, link.second),
        "view": link.view,
        "score": round(float(link.score), 4),
        "label_conflict": link.conflict,
        "leak": link.leak,
    }


def _body(findings: Findings) -> list[str]:
    one, other, found = findings.one, findings.other, findings.found
    lines = summary(findings)
    tone = " bad" if found.leaking else " good" if one.part.astype(bool).any() else ""
    body = [
        f"<h1>Audit of {html.escape(one.title)}</h1>",
        f'<p class="verdict{tone}">{html.escape(lines[-1][0].upper() + lines[-1][1:])}.</p>',
        _numbers(findings),
        "<h2>Classes</h2>",
        _class_table(one),
    ]
    inside = _twins(found.links)
    sections: list[tuple[str, list[Link], Audited]] = [
        ("Twins on two sides of the split", [k for k in inside if k.leak], one),
        ("Twins under different labels", [k for k in inside if k.conflict and not k.leak], one),
        ("Near duplicates", [k for k in inside if k.kind == "near" and not k.conflict and not k.leak], one),
        ("Exact copies", [k for k in inside if k.kind == "exact" and not k.conflict and not k.leak], one),
        ("Same file name in another class or part", [k for k in found.links if k.kind == "name"], one),
    ]
    if other is not None:
        twins = _twins(findings.across)
        body.append(f"<h2>Against {html.escape(other.title)}</h2>\n{_cross_table(findings)}")
        sections += [
            (f"Twins in {other.title}", twins, other),
            (f"Same file name in {other.title}", [k for k in findings.across if k.kind == "name"], other),
        ]
    for title, links, second in sections:
        if links:
            body += _section(title, links, one, second)
    return [*body, _method(findings)]


def _numbers(findings: Findings) -> str:
    one, found = findings.one, findings.found
    sizes = np.bincount(found.groups)
    rows = [
        (f"{_unit(one).capitalize()} looked at", f"{len(one.rows):,} of {len(one.store):,}"),
        ("Contents that occur more than once", f"{found.exact_groups:,}, in {found.exact_rows:,} {_unit(one)}"),
        ("Of these under different labels", f"{found.exact_conflicts:,}"),
        ("Pairs of near duplicates", f"{found.near_pairs:,}"),
        ("Of these under different labels", f"{found.near_conflicts:,}"),
        (
            "Groups of exact and near duplicates",
            f"{(sizes > 1).sum():,}, in {sizes[sizes > 1].sum():,} {_unit(one)}; the largest has {sizes.max():,}",
        ),
        ("Files of a name found in another class or part", f"{sum(k.kind == 'name' for k in found.links):,}"),
    ]
    return _table(("", ""), rows)


def _class_table(one: Audited) -> str:
    counts = one.counts()
    columns = list(next(iter(counts.values())))
    rows = [(name, *(f"{row[c]:,}" for c in columns)) for name, row in counts.items()]
    return _table(("class", *columns), rows)


def _cross_table(findings: Findings) -> str:
    rows = [(*name.split(" / "), f"{count:,}") for name, count in _class_pairs(findings).items()]
    assert findings.other is not None
    head = (f"class in {findings.one.title}", f"class in {findings.other.title}", "pairs")
    return _table(head, rows[:20]) if rows else "<p>No twin was found.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if not c[:1].isdigit() and tag == "td" else ' class="number"' for c in cells]
        kinds[0] = ""
        parts = [f"<{tag}{kind}>{html.escape(c)}</{tag}>" for c, kind in zip(cells, kinds, strict=True)]
        return f"<tr>{''.join(parts)}</tr>"

    heading = f"<thead>{line(head, 'th')}</thead>" if any(head) else ""
    return f"<table>{heading}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def _section(title: str, links: list[Link], one: Audited, other: Audited) -> list[str]:
    shown = spread(links, SHOWN)
    what = "All" if len(shown) == len(links) else f"{len(shown)} of {len(links):,}, spread from the most alike to the"
    told = f"{what} least" if len(shown) < len(links) else f"{what} {len(links):,}" if len(links) > 1 else "One pair"
    figures = "\n".join(_figure(link, one, other) for link in shown)
    return [f"<h2>{html.escape(title)}</h2>", f"<p>{told}.</p>", f'<div class="pairs">\n{figures}\n</div>']


def _figure(link: Link, one: Audited, other: Audited) -> str:
    pictures = [(_picture(one, link.first), 0), (_picture(other, link.second), link.view)]
    shown = "".join(f'<img alt="" src="{_png(np.asarray(_turned(p, view)))}">' for p, view in pictures)
    named = [html.escape(_caption(of, place)) for of, place in ((one, link.first), (other, link.second))]
    notes = [f"correlation {link.score:.3f}" if link.kind == "near" else "exact copy" if link.kind == "exact" else ""]
    notes += [_TURNS[link.view], "<b>different labels</b>" if link.conflict else ""]
    said = ", ".join(note for note in notes if note)
    caption = "<br>".join([*named, *([said] if said else [])])
    return f"<figure><div>{shown}</div><figcaption>{caption}</figcaption></figure>"


def _caption(of: Audited, place: int) -> str:
    name = of.path(place) or f"row {of.rows[place]:,}: {of.class_name(place) or 'unlabelled'}"
    return f"{name} ({of.part[place]})" if of.part[place] else name


def _picture(of: Audited, place: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    row = int(of.rows[place])
    if of.store.kind == "images":
        return np.repeat(decode_grey(Path(of.store.root) / (of.store.path or [])[row])[..., None], 3, axis=2)
    return np.asarray(_STATES[of.store.map(row)])


def _turned(picture: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    return np.moveaxis(turned(np.moveaxis(picture, 2, 0), view), 0, 2)


def _png(picture: NDArray[np.uint8]) -> str:
    """A picture as a data address: large ones shrunk, the dies of small ones left for the browser to enlarge."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    if max(image.size) > 2 * _SIDE:
        image.thumbnail((2 * _SIDE, 2 * _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _method(findings: Findings) -> str:
    turns = "in all eight orientations" if findings.orientations == 8 else "upright only"
    images = findings.one.store.kind == "images"
    rule = (
        f"they correlate at {near_duplicates.IMAGE_CORRELATION:g} or more, shrunk to 64 by 64 pixels, and at "
        f"{near_duplicates.IMAGE_DETAIL:g} or more in detail"
        if images
        else f"what fails on them beyond its surroundings correlates at {near_duplicates.MAP_CORRELATION:g} or more, "
        f"on different die grids at {near_duplicates.RESAMPLED_CORRELATION:g}"
    )
    threshold = near_duplicates.IMAGE_CORRELATION if images else near_duplicates.MAP_CORRELATION
    return (
        f"<h2>What next</h2><p>Near duplicates were found at a correlation of {threshold:g} or more. A run with "
        "data.group=near_duplicates keeps them on one side of the split. Two pictures of one scene under different "
        "labels need not be a labelling error: each may have been taken for another defect in it.</p>"
        f"<h2>How</h2><p>Exact copies have equal {'pixels' if images else 'dies'}. Near duplicates are candidates of a "
        f"perceptual hash, {turns}, of which {rule}. Pairs near the threshold want a look: line gratings of one pitch "
        "are alike without being copies. Files of one name are not counted as leaks unless they show the same. "
        f"Every pair is in audit.json. Took {findings.seconds:,.0f} s.</p>"
    )
