"""What a run leaves in its folder and says on the console."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from wafer_lab.data.datamodule import PARTS, WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.intervals import evaluate
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.evaluation.report import headline, write_figures, write_report
from wafer_lab.metrics.collection import RankingScores
from wafer_lab.tasks.base import Task
from wafer_lab.tasks.history import History
from wafer_lab.tracking.tracker import Run


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename, so that a stop never leaves half of it."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)


@contextmanager
def claim(run_dir: Path, config: Mapping[str, Any], resumes: bool) -> Iterator[None]:
    """Make a folder this run's own, by its config.yaml; a mistake found before any checkpoint gives it back.

    Args:
        run_dir: The folder, made where it is missing.
        config: The resolved config.
        resumes: Whether the run goes on in a folder of its own.

    Raises:
        UserError: The folder holds another run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file, text = run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    if resumes:
        write_text(file, text)
    else:
        try:
            with file.open("x") as new:
                new.write(text)
        except FileExistsError:
            raise UserError(f"{run_dir} already holds a run; give this one another name=") from None
    try:
        yield
    except UserError:
        if not resumes and not (run_dir / "checkpoints").exists():
            file.unlink()
        raise


@contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Say how to go on after Ctrl-C, which Lightning turns into exit status 1 without a word."""
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        last = run_dir / "checkpoints" / "last.ckpt"
        if last.exists():
            print(f"\nto go on: the same command with ckpt_path={last}", flush=True)
        raise KeyboardInterrupt from None


def opening(cfg: DictConfig, datamodule: WaferDataModule, task: Task) -> str:
    """Lines that say what is about to be trained on what."""
    counts = ", ".join(f"{len(getattr(datamodule.split, part)):,} {part}" for part in PARTS)
    weights = sum(p.numel() for p in task.network.parameters())
    job = HydraConfig.get().job if HydraConfig.initialized() else None
    overrides = f"  ({job.override_dirname})" if job and job.override_dirname else ""
    resumes = f"\nresumes {cfg.ckpt_path}" if cfg.ckpt_path else ""
    return (
        f"\nrun    {cfg.name}{overrides}\n"
        f"data   {datamodule.store.header.name}: {counts}; split {datamodule.split_digest}\n"
        f"model  {weights:,} parameters, {datamodule.in_channels} x {datamodule.canvas} x {datamodule.canvas} input\n"
        f"folder {cfg.paths.run}{resumes}"
    )


def tags(datamodule: WaferDataModule) -> dict[str, str]:
    """What identifies a run's code and data."""
    return {
        "git_revision": git_revision(),
        "split_digest": datamodule.split_digest,
        "data_fingerprint": datamodule.fingerprint,
    }


def choices() -> dict[str, Any]:
    """The options chosen for the groups that people compare runs by; empty without a command line."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    compared = ("data", "model", "loss", "imbalance", "augment")
    return {"choice": {group: chosen[group] for group in compared if group in chosen}}


def ranking_scores(predictions: Predictions) -> dict[str, float]:
    """AUROC and average precision of every split, keyed `split/name`."""
    scores: dict[str, float] = {}
    for split in predictions.splits():
        part = predictions.select(split=split, view=0)
        metric = RankingScores(part.class_names)
        metric.update(torch.from_numpy(part.probabilities()), torch.from_numpy(part.target))
        scores |= {f"{split}/{name}": float(value) for name, value in metric.compute().items()}
    return scores


def write(
    run_dir: Path,
    predictions: Predictions,
    history: History,
    config: Mapping[str, Any],
    made: Mapping[str, Any],
    tracked: Run,
) -> dict[str, float]:
    """Score the predictions; write metrics.json, predictions.parquet, figures and report.md; log them; print them.

    Args:
        run_dir: The run's folder.
        predictions: Of val and test.
        history: Every epoch's metrics.
        config: The resolved config.
        made: How the run was made, for the report: provenance and duration.
        tracked: Where the run is recorded.

    Returns:
        The scores, as in metrics.json.
    """
    scores, intervals = evaluate(predictions)
    scores |= ranking_scores(predictions)
    monitor, mode = config["task"]["monitor"], config["task"]["mode"]
    predictions.write(run_dir / "predictions.parquet")
    bounds = {
        f"{name}/{side}": v for name, pair in intervals.items() for side, v in zip(("low", "high"), pair, strict=True)
    }
    write_text(run_dir / "metrics.json", json.dumps(scores | bounds, indent=1))
    if config["figures"]:
        write_figures(run_dir, predictions, scores, intervals, history.epochs, monitor, mode)
    facts = {"name": config["name"], "seed": config["seed"], "data_seed": config["data"]["seed"], **made}
    facts |= {"monitor": monitor, **history.best(mode)}
    write_report(run_dir, predictions, scores, intervals, facts)
    tracked.log_metrics({k: v for k, v in scores.items() if k.startswith("test/")})
    for name in ("metrics.json", "predictions.parquet", "report.md", "figures"):
        if (run_dir / name).exists():
            tracked.log_artifact(run_dir / name)
    print("\n".join(["", *headline(scores, intervals), "", f"report  {run_dir / 'report.md'}"]))
    if tracked.how_to_open():
        print(f"MLflow  {tracked.how_to_open()}", flush=True)
    return scores
