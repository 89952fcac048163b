"""Runs within a run: each a fit with a config of its own, made once however often the whole is started."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.build import build, resolved
from wafer_lab.config.messages import refuse
from wafer_lab.config.validate import problems
from wafer_lab.errors import Terminated, UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.files import write_text
from wafer_lab.tracking.tracker import Run
from wafer_lab.workflows import run_files
from wafer_lab.workflows.fit import FitResult, fit

# What a finished fit has in its folder.
_FINISHED = ("predictions.parquet", "predictor.json", "metrics.json", "report.md")
# What may differ between the start of a run and its continuation.
_FREE = ("ckpt_path", "paths", "tracking")


def child(cfg: DictConfig, name: str, changes: Mapping[str, Any]) -> DictConfig:
    """The config of a fit within a run: the run's own, with changes, in a folder below.

    It draws no figures and predicts the views that `evaluation.tta` averages over, no others.

    Args:
        cfg: The run's config; it stays as it is.
        name: The child's name and folder.
        changes: What to set, as nested mappings.

    Returns:
        A new config that also works by itself, as `workflow=fit`.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    plain["workflow"] = {"_target_": "wafer_lab.workflows.fit.fit"}
    own = {
        "name": f"{cfg.name} {name}",
        "figures": False,
        "data": {"views": cfg.evaluation.tta},
        "paths": {"run": f"{cfg.paths.run}/{name}"},
    }
    made = OmegaConf.merge(plain, own, changes)
    assert isinstance(made, DictConfig)
    OmegaConf.set_readonly(made, True)
    return made


@contextmanager
def parent(
    cfg: DictConfig, children: Sequence[DictConfig], tags: Mapping[str, str] | None = None, fits: int | None = None
) -> Iterator[Run]:
    """Open the run that others stand in, or open it again where it was stopped.

    Args:
        cfg: Its config.
        children: Those of the runs within; all are checked before the first one starts.
        tags: Of the run in the tracker, beside the revision of the code.
        fits: How many there will be, where the configs of some depend on what comes before them.

    Raises:
        UserError: A config cannot work, or the folder holds a run with other settings.
    """
    run_dir = Path(cfg.paths.run)
    if cfg.ckpt_path:
        folder = run_dir.parent if (run_dir.parent / "config.yaml").is_file() else "<its folder>"
        raise UserError(
            "ckpt_path goes on with one fit; to go on with a run that holds several, leave it out and repeat the "
            f"command with hydra.run.dir={folder}"
        )
    refuse(problem for one in children for problem in problems(one))
    _check_same(cfg)
    known = run_dir / "tracked_run"  # its id in the tracker
    earlier = known.read_text() if known.is_file() else None
    config, told = resolved(cfg), {"git_revision": git_revision(), **(tags or {})}
    with (
        run_files.claim(run_dir, config, resumes=(run_dir / "config.yaml").is_file()),
        build(cfg.tracking).run(cfg.name, run_files.choices() | config, told, resumes=earlier) as tracked,
    ):
        if tracked.id:
            write_text(known, tracked.id)
        number = fits or len(children)
        size = f"{number} fits; finished ones are kept" if number else "of finished runs"
        print(f"\nrun    {cfg.name}: {size}\nfolder {run_dir}", flush=True)
        try:
            yield tracked
        except (KeyboardInterrupt, Terminated):
            print(f"\nto go on with all: the same command with hydra.run.dir={run_dir}", flush=True)
            raise


def fit_once(cfg: DictConfig) -> FitResult:
    """Fit, unless it was done before; go on where it was stopped.

    Args:
        cfg: A child's config.

    Returns:
        The result, from the run's files where it was finished before.

    Raises:
        UserError: The folder holds a run with other settings, or as `fit`.
    """
    folder = Path(cfg.paths.run)
    _check_same(cfg)
    if all((folder / name).is_file() for name in _FINISHED):
        print(f"\n{folder.name} is finished and kept", flush=True)
        metrics = json.loads((folder / "metrics.json").read_text())
        scores = {name: value for name, value in metrics.items() if not _is_bound(name, metrics)}
        return FitResult(folder, _monitored(cfg), scores, Predictions.read(folder / "predictions.parquet"))
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        cfg = OmegaConf.merge(cfg, {"ckpt_path": str(last)})  # type: ignore[assignment]
    else:
        (folder / "config.yaml").unlink(missing_ok=True)  # stopped before there was anything to go on from
    return fit(cfg, nested=True)


def _is_bound(name: str, metrics: Mapping[str, float]) -> bool:
    """Whether an entry of metrics.json is an end of an interval."""
    score, _, end = name.rpartition("/")
    return end in ("low", "high") and score in metrics


def _check_same(cfg: DictConfig) -> None:
    """Refuse a folder whose run had other settings."""
    file, now = Path(cfg.paths.run) / "config.yaml", resolved(cfg)
    if not file.is_file():
        return
    text = file.read_text()
    folder = OmegaConf.create(text).paths.run  # another one where the run was moved since
    before: Any = OmegaConf.to_container(OmegaConf.create(text.replace(folder, str(cfg.paths.run))))
    changed = [key for key in now | before if key not in _FREE and before.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"{file.parent} holds a run with other settings of {', '.join(changed)} (see its config.yaml); repeat its "
            "command, or start in a new folder"
        )


def _monitored(cfg: DictConfig) -> float:
    """Best value of the monitored score in a finished run's history."""
    with Path(cfg.paths.run, "history.csv").open(newline="") as file:
        values = [float(row[cfg.task.monitor]) for row in csv.DictReader(file) if row[cfg.task.monitor]]
    return max(values) if cfg.task.mode == "max" else min(values)
