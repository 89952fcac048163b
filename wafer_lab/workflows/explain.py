"""Showing where a trained network looks, and measuring it on simulated wafers, whose defects have known regions."""

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wafer_lab.data.rows import FAIL
from wafer_lab.errors import UserError
from wafer_lab.evaluation.explanations import METHODS, Method, Quality, energy_inside, explain, pointing_game
from wafer_lab.evaluation.tables import table as markdown_table
from wafer_lab.files import write_text
from wafer_lab.models.classifier import Classifier
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.material import BATCH, Material, members, run_wafers, simulated_wafers

#: Name of the row that pools the patterns with a region smaller than the wafer.
LOCALISED = "localised"
#: Wafers in one figure, what `heatmaps` has room for.
PER_FIGURE = 8

Pairs = NDArray[np.int64]


class Explanations(NamedTuple):
    """What `explain_run` leaves.

    Attributes:
        figures: Of examples, eight to a figure.
        quality: One entry per class and method, the pooled ones last; empty for test wafers.
        table: The Markdown file of them; None for test wafers.
        notes: What was left out, and why.
    """

    figures: list[Path]
    quality: list[Quality]
    table: Path | None
    notes: list[str]


def explain_run(
    run: Path,
    method: Method = "grad_cam",
    data: Literal["test", "simulated"] = "test",
    count: int = 16,
    label: str = "predicted",
    out: Path | None = None,
    wafers: int = 1600,
) -> Explanations:
    """Draw where a run's network looks; on simulated wafers, measure it too.

    What is predicted, and how probably, is what the run's predictor says (views, calibration, decision rule). The heat
    is of the wafer as it is, also where the predictor averages over views.

    Args:
        run: A run's folder.
        method: Of the figures, see `wafer_lab.evaluation.explanations`; the table has every method.
        data: `test`, the run's own test wafers; or `simulated`, for any run on wafer maps, whatever it was trained on.
        count: Examples to draw, spread over the classes.
        label: What to explain on a wafer: its `predicted` class or labels, its `true` ones, or the class of that name
            on the wafers that have it or are said to.
        out: Folder for the files; None: `explanations` in the run's folder.
        wafers: How many to simulate.

    Returns:
        The files and numbers.

    Raises:
        UserError: The run is incomplete, its data is not what it was trained on, or an option does not fit it.
    """
    if count < 1 or wafers < 1:
        raise UserError("--count and --wafers must be positive")
    if method not in METHODS:
        raise UserError(f"unknown method '{method}'; choose one of {', '.join(METHODS)}")
    out = run / "explanations" if out is None else out
    loaded = load_task(run)
    device = device_for()
    if not isinstance(loaded.network, Classifier):
        raise UserError(
            f"{run} draws masks, which show themselves where it looks; wafer-lab predict {run} INPUT --out masks.json "
            "writes them"
        )
    network = loaded.network.to(device)
    material = run_wafers(run, loaded) if data == "test" else simulated_wafers(loaded, network, device, wafers)
    pairs = chosen_pairs(material, label)
    if not len(pairs):
        raise UserError(f"there is nothing to explain: no {data} wafer has --label {label}; choose another label")
    shown = spread(pairs, count)
    heats = _heats(network, material, shown, method, device)
    quality: list[Quality] = []
    notes: list[str] = []
    if material.regions is not None:
        quality, notes = measured(network, material, pairs, device)
    try:
        out.mkdir(parents=True, exist_ok=True)
        figures = list(_draw(material, shown, heats, out / f"{data}_{method}"))
        table = _write(out, run, label, quality, notes) if material.regions is not None else None
    except OSError as error:
        raise UserError(f"cannot write into {out}: {error.strerror}; choose another folder with --out") from None
    return Explanations(figures, quality, table, notes)


def chosen_pairs(material: Material, label: str) -> Pairs:
    """Which class or label to explain on which wafer.

    Args:
        material: The wafers.
        label: `predicted` by the run's predictor, `true` or a class name.

    Returns:
        (P, 2) wafer and class, by wafer.

    Raises:
        UserError: There is no class of that name.
    """
    names = material.wafers.class_names
    truth, decided = (members(said, len(names)) for said in (material.wafers.target, material.decisions))
    if label in ("predicted", "true"):
        return np.argwhere(decided if label == "predicted" else truth)
    if label not in names:
        close = difflib.get_close_matches(label, names, n=3) or names
        raise UserError(f"--label {label} is neither predicted, true nor a class; did you mean {', '.join(close)}?")
    either = truth | decided
    return np.argwhere(either & (np.array(names) == label))


def spread(pairs: Pairs, count: int, seed: int = 0) -> Pairs:
    """At most `count` of the pairs, drawn at random and as evenly over the classes as they allow, by class."""
    drawn = np.random.default_rng(seed).permutation(pairs)
    rank = np.empty(len(drawn), np.int64)
    for name in np.unique(drawn[:, 1]):
        here = np.flatnonzero(drawn[:, 1] == name)
        rank[here] = np.arange(len(here))
    kept = drawn[np.lexsort((drawn[:, 1], rank))[:count]]
    return np.asarray(kept[np.lexsort((kept[:, 0], kept[:, 1]))])


def measured(
    network: Classifier, material: Material, pairs: Pairs, device: torch.device
) -> tuple[list[Quality], list[str]]:
    """Measure every method on the pairs whose wafer has the pattern that is explained.

    Heat off the wafer is left out, so that heat spread evenly scores exactly the chance level.

    Returns:
        The qualities, class by class, and what was left out.
    """
    assert material.regions is not None
    names = material.wafers.class_names
    truth = members(material.wafers.target, len(names))
    pairs = pairs[truth[pairs[:, 0], pairs[:, 1]]]
    masks, states = material.regions(pairs)
    visible = masks.any(2).any(1)
    pairs, masks, states = pairs[visible.numpy()], masks[visible], states[visible]
    quality: list[Quality] = []
    notes: list[str] = []
    if not len(pairs):
        return quality, ["nothing is measured: no chosen wafer has the pattern to explain; try --label true"]
    on = states > 0
    chance, failed = energy_inside(on, masks), energy_inside(states == FAIL, masks)
    local = (masks != on).any(2).any(1).numpy()
    groups = {name: pairs[:, 1] == k for k, name in enumerate(names)} | {LOCALISED: local}
    for method in METHODS:
        try:
            heat = _heats(network, material, pairs, method, device) * on
        except UserError as reason:
            notes.append(f"{method} is left out: {reason}")
            continue
        columns = [chance, failed, energy_inside(heat, masks), pointing_game(heat, masks), heat.amax((1, 2)) == 0]
        measures = torch.stack([column.double() for column in columns], 1).numpy()
        quality += [
            Quality.measured(name, method, measures[rows], pairs[rows, 0])
            for name, rows in groups.items()
            if rows.any()
        ]
    order = [*names, LOCALISED]
    return sorted(quality, key=lambda entry: order.index(entry.name)), notes


def markdown(quality: list[Quality]) -> str:
    """The qualities as a Markdown table that reads well in a terminal too."""
    cells = [["class", "method", "wafers", "chance", "failed dies", "energy inside", "pointing game", "no heat"]]
    for q in quality:
        energy, pointing = (
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, (low, high) in ((q.energy, q.energy_interval), (q.pointing, q.pointing_interval))
        )
        means = [f"{value:.3f}" for value in (q.chance, q.failed)]
        cells.append([q.name, q.method, f"{q.wafers:,}", *means, energy, pointing, f"{q.empty:.3f}"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    heading, *rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    return "\n".join(markdown_table(heading, rows))


def _heats(network: Classifier, material: Material, pairs: Pairs, method: str, device: torch.device) -> Tensor:
    """(P, S, S) heat of the pairs, on the CPU."""

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(pairs), BATCH):
            rows, labels = np.ascontiguousarray(pairs[start : start + BATCH].T)
            images = material.inputs(rows).to(device)
            yield explain(network, images, torch.from_numpy(labels).to(device), method).cpu()

    return torch.cat(list(batches()))


def _draw(material: Material, pairs: Pairs, heats: Tensor, stem: Path) -> Iterator[Path]:
    """Draw as many figures as the pairs need, named by the stem and a number."""
    from wafer_lab.evaluation.figures import heatmaps, save

    for stale in stem.parent.glob(f"{stem.name}_[0-9]*.png"):
        stale.unlink()
    images = [material.picture(int(row)) for row, _ in pairs]
    texts = _texts(material, pairs)
    for number, start in enumerate(range(0, len(pairs), PER_FIGURE), 1):
        part = slice(start, start + PER_FIGURE)
        figure = heatmaps(images[part], list(heats[part].numpy()), texts[part], material.kind)
        yield save(figure, stem.with_name(f"{stem.name}_{number}.png"))


def _texts(material: Material, pairs: Pairs) -> list[str]:
    """What is true, what the predictor says, and how probable it holds what the heat is about to be."""
    names, probabilities = np.array(material.wafers.class_names), material.probabilities
    truth, decided = (members(said, len(names)) for said in (material.wafers.target, material.decisions))
    return [
        f"true: {'+'.join(names[truth[row]]) or 'none'}\npredicted: {'+'.join(names[decided[row]]) or 'none'}\n"
        f"heat for {names[k]}, probability {probabilities[row, k]:.2f}"
        for row, k in pairs
    ]


def _write(out: Path, run: Path, label: str, quality: list[Quality], notes: list[str]) -> Path:
    """Write the table as CSV and as Markdown; returns the latter."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    pairs = [f"{name}{end}" for name in ("energy", "pointing") for end in ("", "_low", "_high")]
    writer.writerow(["class", "method", "wafers", "chance", "failed_dies", *pairs, "no_heat"])
    for name, method, wafers, chance, failed, energy, bounds, pointing, hits, empty in map(astuple, quality):
        writer.writerow([name, method, wafers, chance, failed, energy, *bounds, pointing, *hits, empty])
    write_text(out / "simulated_quality.csv", text.getvalue())
    lines = [
        f"# Where {run.name} looks, on simulated wafers",
        f"Explained: the {label} class of each wafer that has its pattern. Energy inside: share of the heat on the "
        "wafer that lies in the pattern's region. Pointing game: share of wafers whose hottest place lies in it. "
        "Chance: what heat without a clue scores in either, the region's share of the wafer. Failed dies: the share of "
        "them that lies in the region, the energy of a picture of them that asks no network. In brackets: 95 % "
        f"intervals over wafers, for this trained network and these simulated patterns. `{LOCALISED}` pools the "
        "patterns that leave part of the wafer free; all those of a wafer are drawn together. Near-full and Random "
        "cover all of it, so any heat is inside.",
        markdown(quality),
        *(f"- {note}" for note in notes),
    ]
    path = out / "simulated_quality.md"
    write_text(path, "\n\n".join(lines) + "\n")
    return path
