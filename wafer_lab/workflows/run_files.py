"""A run's folder, and what it says on the console at the start."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from wafer_lab.data.datamodule import PARTS, WaferDataModule
from wafer_lab.errors import DivergedError, OutOfMemoryError, Terminated, UserError
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.files import write_text
from wafer_lab.processes import rank
from wafer_lab.tasks.base import Task
from wafer_lab.workflows.faults import LOCK, explained, last_checkpoint, locked


@contextmanager
def claim(run_dir: Path, config: Mapping[str, Any], resumes: bool) -> Iterator[None]:
    """Make a folder this run's own, by its config.yaml; a mistake found before any checkpoint gives it back.

    A folder in which a run died before its first checkpoint is free again. Of processes that train together, the
    first claims the folder for all.

    Args:
        run_dir: The folder, made where it is missing.
        config: The resolved config.
        resumes: Whether the run goes on in a folder of its own.

    Raises:
        UserError: The folder holds another run, or another process is running in it.
    """
    if rank():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    file, text = run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    with locked(run_dir):
        last = last_checkpoint(run_dir)
        if file.exists() and not resumes and (last.exists() or any(run_dir.glob("*/config.yaml"))):
            go_on = f", or go on with it: ckpt_path={last}" if last.exists() else ""
            raise UserError(f"{run_dir} already holds a run; give this one another name= or hydra.run.dir={go_on}")
        write_text(file, text)
        try:
            yield
        except UserError as error:
            tried = isinstance(error, DivergedError | OutOfMemoryError)  # its config is worth a look
            if not (resumes or tried or last_checkpoint(run_dir).exists()):
                file.unlink()
                (run_dir / LOCK).unlink()
            raise


@contextmanager
def interruptible(run_dir: Path, nested: bool) -> Iterator[None]:
    """Say how to go on after Ctrl-C, which Lightning makes exit status 1, and after a signal; a parent says its own.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        UserError: As `explained`.
    """
    try:
        with explained(run_dir):
            yield
    except (KeyboardInterrupt, SystemExit) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)
        if not interrupted and not isinstance(stop, Terminated):
            raise
        last = last_checkpoint(run_dir)
        if last.exists() and not nested:
            print(f"\nto go on: the same command with ckpt_path={last}", flush=True)
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def opening(cfg: DictConfig, datamodule: WaferDataModule, task: Task) -> str:
    """Lines that say what is about to be trained on what."""
    parts = [*PARTS, "unlabelled"] if len(datamodule.split.unlabelled) else PARTS
    counts = ", ".join(f"{len(getattr(datamodule.split, part)):,} {part}" for part in parts)
    weights = sum(p.numel() for p in task.network.parameters())
    job = HydraConfig.get().job if HydraConfig.initialized() else None
    overrides = f"  ({job.override_dirname})" if job and job.override_dirname else ""
    resumes = f"\nresumes {cfg.ckpt_path}" if cfg.ckpt_path else ""
    scarce = f"\nwarning: {datamodule.scarce}" if datamodule.scarce else ""
    return (
        f"\nrun    {cfg.name}{overrides}\n"
        f"data   {datamodule.store.header.name}: {counts}; split {datamodule.split_digest}\n"
        f"model  {weights:,} parameters, {datamodule.in_channels} x {datamodule.canvas} x {datamodule.canvas} input\n"
        f"folder {cfg.paths.run}{resumes}{scarce}"
    )


def tags(datamodule: WaferDataModule) -> dict[str, str]:
    """What identifies a run's code and data."""
    return {
        "git_revision": git_revision(),
        "split_digest": datamodule.split_digest,
        "data_fingerprint": datamodule.fingerprint,
    }


def facts(cfg: DictConfig, datamodule: WaferDataModule, run_id: str | None) -> dict[str, str]:
    """What a report says of how a run was made, beside its code and its time."""
    began = {"weights": str(cfg.weights), "finetune": cfg.finetune.mode} if cfg.weights else {}
    return tags(datamodule) | began | ({"run_id": run_id} if run_id else {})


def choices() -> dict[str, Any]:
    """The options chosen for the groups that people compare runs by; empty without a command line."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    compared = ("data", "task", "workflow", "model", "loss", "imbalance", "augment", "finetune")
    return {"choice": {group: chosen[group] for group in compared if group in chosen}}
