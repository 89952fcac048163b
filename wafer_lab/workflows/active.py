"""Active learning: label a few wafers, train, let the model choose the next ones to label, and train again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from wafer_lab.active.curves import RANDOM, Point
from wafer_lab.config.build import build
from wafer_lab.config.messages import did_you_mean
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.workflows.active_report import leave
from wafer_lab.workflows.fit import FitResult
from wafer_lab.workflows.nested import parent
from wafer_lab.workflows.oracle import FILE
from wafer_lab.workflows.pool import check_acquisition
from wafer_lab.workflows.rounds import Oracle, Rounds


@dataclass(frozen=True)
class ActiveResult:
    """What active learning leaves.

    Attributes:
        run_dir: Its folder; the run of each model lies in it.
        monitored: Mean over the models of the last round of the best monitored validation score.
        points: One per model, the start once for every acquisition.
    """

    run_dir: Path
    monitored: float
    points: list[Point]


def active(
    cfg: DictConfig,
    start: int | None = 100,
    batch: int = 100,
    rounds: int = 5,
    acquisition: str | Sequence[str] = "hybrid",
    seeds: Sequence[int] = (0,),
    balanced: bool = True,
    oracle: Oracle = "dataset",
    passes: int = 20,
    oversample: int = 5,
    score: str = "f1_macro",
) -> ActiveResult:
    """Compare ways of choosing wafers to label with choosing them at random, or let a person label what one chooses.

    Started again in its folder, it keeps the rounds that were finished and goes on with the others.

    Args:
        cfg: A composed and validated config.
        start: Wafers that are labelled at first; None takes all training wafers that have a label.
        batch: Wafers to label in each round.
        rounds: Rounds after the start.
        acquisition: How wafers are chosen, see `wafer_lab.active.acquisition`; several are compared.
        seeds: Of the start, the choices and the training; one run of all rounds for each.
        balanced: Whether the start has every class at least once.
        oracle: Who labels: `dataset`, whose labels of the training wafers are looked up as they are chosen, or `file`,
            a person who is asked for the labels of training wafers and of those that have none.
        passes: Draws of dropout, of `bald`.
        oversample: Of `hybrid`, see `wafer_lab.active.acquisition.Pool`.
        score: What the curves show, of val and test.

    Returns:
        The result; curves.csv, report.md, metrics.json and a figure lie in `cfg.paths.run`.

    Raises:
        UserError: The pool is too small, an acquisition is unknown or cannot be computed, an answer is missing, or as
            `fit`.
    """
    names = _names(cfg, [acquisition] if isinstance(acquisition, str) else acquisition, seeds, oracle)
    datamodule: WaferDataModule = build(cfg.data)
    datamodule.open_and_split()
    plan = Rounds(cfg, datamodule, start, balanced, batch, rounds, oracle, passes, oversample)
    plan.check()
    return _compared(plan, names, seeds, score)


def _compared(plan: Rounds, names: Sequence[str], seeds: Sequence[int], score: str) -> ActiveResult:
    """Run all rounds of every acquisition and seed, and leave the result."""
    cfg, run_dir = plan.cfg, Path(plan.cfg.paths.run)
    settings: Evaluation = build(cfg.evaluation)
    each = [(seed, name) for seed in seeds for name in names]
    fits = {plan.folder(name, seed, number) for seed, name in each for number in range(plan.rounds + 1)}
    points: list[Point] = []
    monitored: dict[tuple[int, str], float] = {}
    with parent(cfg, [plan.child(names[0], seed, 0) for seed in seeds], fits=len(fits)) as tracked:
        for seed, name in each:
            for one in plan.run(name, seed):
                points.append(_point(name, seed, one.number, len(one.labelled.index), one.result, score))
                monitored[seed, name] = one.result.monitored  # the last round's, in the end
        leave(cfg, points, settings, score, tracked)
        if points[-1].round < plan.rounds:  # only of a person, who is asked for one acquisition and one seed
            print(
                f"\nwafers wait for labels in {plan.folder(names[0], seeds[0], points[-1].round + 1) / FILE}: write "
                f"{', '.join(plan.datamodule.class_names)} into its column label. Then go on: the same command with "
                f"hydra.run.dir={run_dir}",
                flush=True,
            )
    return ActiveResult(run_dir, float(np.mean(list(monitored.values()))), points)


def _names(cfg: DictConfig, acquisition: Sequence[str], seeds: Sequence[int], oracle: Oracle) -> list[str]:
    """The acquisitions to run, checked; with labels at hand random is always among them, last."""
    if cfg.data.labelled is not None:
        raise UserError("workflow=active chooses the labelled wafers itself; leave data.labelled out")
    if not seeds or not acquisition or len(set(seeds)) < len(seeds):
        raise UserError("workflow.seeds and workflow.acquisition need at least one entry, and every seed once")
    for name in acquisition:
        check_acquisition(name, cfg)
    if oracle == "dataset":
        return [*dict.fromkeys(name for name in acquisition if name != RANDOM), RANDOM]
    if len(acquisition) > 1 or len(seeds) > 1:
        raise UserError(
            "workflow.oracle=file asks a person, for the wafers of one acquisition and one seed; set "
            f"workflow.acquisition={acquisition[0]} and 'workflow.seeds=[{seeds[0]}]'"
        )
    return list(acquisition)


def _point(name: str, seed: int, number: int, labels: int, result: FitResult, score: str) -> Point:
    found = result.scores
    if f"test/{score}" not in found:
        names = [key.removeprefix("test/") for key in found if key.startswith("test/")]
        raise UserError(f"workflow.score: models are not judged by {score}{did_you_mean(score, names)}")
    return Point(name, seed, number, labels, found[f"val/{score}"], found[f"test/{score}"])
