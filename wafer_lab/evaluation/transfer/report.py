"""The transfer study as numbers, CSV, Markdown and a figure."""

import csv
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.tables import aligned, table, with_interval
from wafer_lab.evaluation.transfer.points import SCORE, Bounds, Point
from wafer_lab.files import write_text

_ALPHA = 0.05

#: What `write` leaves; of figures, where they are wanted.
FILES = ("metrics.json", "transfer.csv", "transfer.md", "transfer.html", "figures")
_FIGURE = "figures/label_curves.png"


def write(
    folder: Path,
    name: str,
    found: Sequence[Point],
    wafers: str,
    notes: Sequence[str],
    runs: Sequence[str],
    draws: bool,
) -> Path:
    """Write everything into the study's folder.

    Args:
        folder: where to.
        name: the run's.
        found: the points.
        wafers: which test wafers were judged, in words.
        notes: what must be known of sources and labels.
        runs: folders of the single runs.
        draws: whether a figure is wanted; it takes matplotlib.

    Returns:
        What a person opens.
    """
    drawn = []
    if draws and find_spec("matplotlib"):
        from wafer_lab.evaluation import figures

        curves: dict[str, list[tuple[float, ...]]] = {}
        for one in found:
            curves.setdefault(one.source, []).append((one.labels, one.mean, *one.seeds, *one.scores))
        figures.save(figures.label_curves(curves, "test macro F1"), folder / _FIGURE)
        drawn.append(_FIGURE)
    write_text(folder / "metrics.json", json.dumps(flat(found), indent=1))
    write_text(folder / "transfer.csv", as_csv(found))
    return write_html(write_text(folder / "transfer.md", report(name, found, wafers, notes, drawn, runs)))


def flat(found: Sequence[Point]) -> dict[str, float]:
    """The points by the keys of metrics.json: `transfer/<source>/<fraction>/f1_macro`, `/difference`, bounds."""
    values: dict[str, float] = {}
    for point in found:
        key = f"transfer/{point.source}/{point.fraction:g}/{SCORE}"
        values |= {key: point.mean, f"{key}/low": point.wafers[0], f"{key}/high": point.wafers[1]}
        if point.difference is not None and point.difference_wafers is not None:
            low, high = point.difference_wafers
            values |= {f"{key}/difference": point.difference, f"{key}/difference/low": low}
            values |= {f"{key}/difference/high": high}
    return values


def as_csv(found: Sequence[Point]) -> str:
    """One row a source and fraction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("seeds_low", "seeds_high", "wafers_low", "wafers_high")
    heading = ["source", "fraction", "labels", "runs", SCORE, *ends, "difference"]
    writer.writerow([*heading, *(f"difference_{end}" for end in ends), "p_bootstrap", "p_mcnemar", "scores"])
    for one in found:
        row: list[Any] = [one.source, one.fraction, one.labels, len(one.scores), one.mean, *one.seeds, *one.wafers]
        bounds = (*(one.difference_seeds or ("", "")), *(one.difference_wafers or ("", "")))
        row += [one.difference, *bounds, one.p_bootstrap, one.p_mcnemar, " ".join(f"{s:.6g}" for s in one.scores)]
        writer.writerow(row)
    return text.getvalue()


def headline(found: Sequence[Point]) -> list[str]:
    """The points as lines of plain text."""
    rows = [["source", "labels", "macro F1", "over seeds", f"less {found[0].source}", "over seeds", ""]]
    for one in found:
        row = [one.source, f"{one.labels:,}", f"{one.mean:.4f}", _bounds(one.seeds)]
        rows.append([*row, _signed(one.difference), _bounds(one.difference_seeds, "+"), verdict(one)])
    return aligned(rows)


def verdict(point: Point) -> str:
    """What may be claimed of a source against the first one: it takes both intervals beside 0, and an adjusted p."""
    if point.difference is None or point.difference_wafers is None or point.difference_seeds is None:
        return ""
    if point.p_bootstrap is not None and point.p_bootstrap >= _ALPHA:
        return "not told apart"
    one_seed = bool(np.isnan(point.difference_seeds).any())
    intervals = [point.difference_wafers, *([] if one_seed else [point.difference_seeds])]
    tail = ", of one seed" if one_seed else ""
    if all(low > 0 for low, _ in intervals):
        return f"better{tail}"
    return f"worse{tail}" if all(high < 0 for _, high in intervals) else "not told apart"


def report(
    name: str, found: Sequence[Point], wafers: str, notes: Sequence[str], figures: Sequence[str], folders: Sequence[str]
) -> str:
    """The study as Markdown.

    Args:
        name: the run's.
        found: the points.
        wafers: which test wafers were judged, in words.
        notes: what must be known of sources and labels.
        figures: files of figures.
        folders: of the single runs.
    """
    first = found[0].source
    rows = []
    for one in found:
        row = [one.source, f"{one.fraction:g}", f"{one.labels:,}", with_interval(one.mean, one.wafers)]
        row += [_bounds(one.seeds), " ".join(f"{score:.4f}" for score in one.scores)]
        row += [_signed(one.difference), _bounds(one.difference_seeds, "+"), _bounds(one.difference_wafers, "+")]
        rows.append([*row, _p(one.p_bootstrap), _p(one.p_mcnemar), verdict(one)])
    heading = ["source", "fraction", "labels", "macro F1 [95 % over wafers]", "95 % over seeds", "runs"]
    heading += [f"less {first}", "95 % over seeds", "95 % over wafers", "p", "McNemar p", ""]
    lines = [f"# {name}: transfer", "", wafers, "", *table(heading, rows)]
    lines += [line for file in figures for line in ("", f"![macro F1 over labels]({file})")]
    lines += ["", "## What the sources had seen, and the labels", "", *(f"- {note}" for note in notes)]
    lines += ["", "## How to read this", "", *_NOTES, "", "## Runs", ""]
    return "\n".join([*lines, *(f"- [{folder}]({folder}/report.md)" for folder in folders)]) + "\n"


_NOTES = (
    "- All runs are selected and judged on the same val and test wafers. Fewer labels are a subset of more, and the "
    "same for every source, so runs are compared in pairs of equal labels and seed.",
    "- Over seeds: Student's t over the training runs; it covers another run on the same labels, not another draw of "
    "the labels. Over wafers: paired bootstrap of the test wafers, for these trained models.",
    "- `better` and `worse` are said where both intervals of the difference leave out 0 and p is below 0.05. p: paired "
    "bootstrap; McNemar p: exact, pairs of runs merged; both adjusted together by Holm's rule.",
)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _bounds(bounds: Bounds | None, sign: str = "") -> str:
    if bounds is None or np.isnan(bounds).any():
        return ""
    return f"[{bounds[0]:{sign}.4f}, {bounds[1]:{sign}.4f}]"


def _p(value: float | None) -> str:
    return "" if value is None else "<.0001" if value < 0.0001 else f"{value:.4f}"
