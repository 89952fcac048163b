"""The transfer study: sources of weights x label fractions x seeds, all on the same val and test wafers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.build import build
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.transfer import report
from wafer_lab.evaluation.transfer.points import Point, Run, points
from wafer_lab.evaluation.views import wafers
from wafer_lab.tracking.tracker import Run as Tracked
from wafer_lab.tracking.tracker import log_files
from wafer_lab.workflows.nested import child, fit_once, parent
from wafer_lab.workflows.seen import Seen, seen_by, told, unseen_test
from wafer_lab.workflows.sources import Given, Start, check_different, check_fit, read_sources, with_weights


@dataclass(frozen=True)
class TransferResult:
    """What a transfer study leaves.

    Attributes:
        run_dir: Its folder; `<source>_<fraction>_seed_<seed>` in it is one run.
        monitored: Mean over the runs of the best monitored validation score.
        points: Every source at every number of labels.
        seen: Source -> which wafers it had seen.
    """

    run_dir: Path
    monitored: float
    points: list[Point]
    seen: dict[str, Seen]


def transfer(
    cfg: DictConfig,
    sources: Mapping[str, Given],
    fractions: Sequence[float],
    seeds: Sequence[int],
    drop_seen: bool = True,
) -> TransferResult:
    """Train from every source at every fraction of the labels with every seed, and compare with scratch.

    Started again in its folder, it keeps the runs that were finished and goes on with the others.

    Args:
        cfg: A composed and validated config; its `weights` and `data.label_fraction` are not used.
        sources: Name -> weights, see `sources.Given`; scratch comes first, whether named or not.
        fractions: Of the training labels, each in (0, 1].
        seeds: Of the runs.
        drop_seen: Whether test wafers that some source was trained on are left out of the judgement, for all sources.

    Returns:
        The result; transfer.csv, transfer.md, metrics.json and a figure lie in `cfg.paths.run`.

    Raises:
        UserError: A fraction is out of range, a list names a thing twice, no test wafer is unseen, or as `fit`.
    """
    if wrong := [f for f in check_different("workflow.fractions", fractions) if not 0 < f <= 1]:
        raise UserError(f"workflow.fractions: {wrong[0]} must lie in (0, 1]")
    places = check_different("workflow.seeds", seeds)
    if sources.get("scratch") is not None:
        raise UserError("workflow.sources.scratch stands for random weights, which all are compared with; rename it")
    scratch = {name: what for name, what in sources.items() if what is None} or {"scratch": None}
    starts = read_sources(cfg, {**scratch, **sources})
    labels, notes = _labels(cfg, fractions)
    first = [start.pretraining for start in starts if start.pretraining is not None]
    cells = [(start, fraction, seed) for start in starts for fraction in sorted(fractions) for seed in places]
    children = [_child(cfg, *cell) for cell in cells]
    with parent(cfg, [*first, *children]) as tracked:
        check_fit((cell[0], one) for cell, one in zip(cells, children, strict=True))
        weights = {start.name: start.ready() for start in starts}
        target: WaferDataModule = build(cfg.data)
        target.open_and_split()
        seen = {name: seen_by(path, target) for name, path in weights.items()}
        judged = unseen_test(target, seen.values()) if drop_seen else target.split.test
        runs, monitored = [], []
        for (start, fraction, seed), one in zip(cells, children, strict=True):
            result = fit_once(with_weights(one, weights[start.name]))
            monitored.append(result.monitored)
            predictor = Predictor.read(result.run_dir / "predictor.json")
            part = wafers(result.predictions, "test", predictor.tta)
            part = part.take(np.isin(part.index, judged))
            runs.append(Run.of(start.name, fraction, seed, part, predictor, 2 * len(fractions) * (len(starts) - 1)))
        found, said = points(runs, labels), [_wafers(target, judged, drop_seen), *told(seen), *notes]
        _leave(cfg, found, said, [Path(one.paths.run).name for one in children], tracked)
    return TransferResult(Path(cfg.paths.run), float(np.mean(monitored)), found, seen)


def _leave(
    cfg: DictConfig, found: Sequence[Point], said: Sequence[str], folders: Sequence[str], tracked: Tracked
) -> None:
    """Write, log and print what was found."""
    run_dir, (judged, *notes) = Path(cfg.paths.run), said
    page = report.write(run_dir, str(cfg.name), found, judged, notes, folders, bool(cfg.figures))
    tracked.log_metrics(report.flat(found))
    log_files(tracked, run_dir, report.FILES)
    lines = ["", *report.headline(found), "", judged, *(f"note: {note}" for note in notes)]
    print("\n".join([*lines, "", f"report  {page}"]), flush=True)


def _child(cfg: DictConfig, source: Start, fraction: float, seed: int) -> DictConfig:
    data = {"label_fraction": float(fraction)}
    return child(
        cfg, f"{source.name}_{fraction:g}_seed_{seed}", {"seed": seed, "weights": source.weights, "data": data}
    )


def _labels(cfg: DictConfig, fractions: Sequence[float]) -> tuple[dict[float, int], list[str]]:
    """Labelled training wafers at every fraction, and what is to be said of classes that it leaves one wafer of."""
    counts, notes = {}, []
    for fraction in sorted(fractions):
        node = OmegaConf.merge(cfg, {"data": {"label_fraction": float(fraction)}}).data
        datamodule: WaferDataModule = build(node)
        datamodule.open_and_split()
        counts[fraction] = len(datamodule.split.train)
        if datamodule.scarce:
            notes.append(datamodule.scarce)
            print(f"warning: {datamodule.scarce}", flush=True)
    return counts, notes


def _wafers(target: WaferDataModule, judged: NDArray[np.int64], drop_seen: bool) -> str:
    left = len(target.split.test) - len(judged)
    said = f"Judged on {len(judged):,} of {len(target.split.test):,} test wafers"
    if left:
        return f"{said}, the same for all; the other {left:,} have a twin among those that a source was trained on."
    return f"{said}, the same for all." if drop_seen else f"{said}, also on those that a source was trained on."
