"""The sweep: trials until the study has enough, then what was found. Several processes may run it on one study."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from optuna.trial import Trial

from wafer_lab.config.build import build, resolved
from wafer_lab.config.study import trial_overrides
from wafer_lab.errors import Terminated, UserError
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.workflows import run_files
from wafer_lab.workflows.faults import terminable
from wafer_lab.workflows.quiet import silence
from wafer_lab.workflows.study import report
from wafer_lab.workflows.study.console import Console
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import Shared, finished
from wafer_lab.workflows.study.tracked import end_runs, study_run
from wafer_lab.workflows.study.trial import composed, epochs_of, run_trial, sample
from wafer_lab.workflows.study.worker import Worker


def sweep(cfg: DictConfig) -> optuna.Study:
    """Run trials until `study.n_trials` are finished, and report.

    Args:
        cfg: A composed and validated config of sweep.py, under Hydra.

    Returns:
        The study.

    Raises:
        UserError: The storage, the data or the tracker are not what the config says.
    """
    silence()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings: Study = build(cfg.study)
    overrides = trial_overrides(HydraConfig.get().overrides.task)
    folder = Path(cfg.paths.run)
    try:
        shared = Shared(settings, _identity(settings, overrides), epochs_of(cfg))
    except UserError:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Hydra made it before the mistake was found
        raise
    tracker = build(cfg.tracking)
    config = run_files.choices() | resolved(cfg)
    tags = {"git_revision": git_revision(), "study": settings.name}
    with terminable(), ExitStack() as stack:
        tracked = stack.enter_context(study_run(shared, tracker, config, tags))
        shared.given_up = lambda number: end_runs(tracker, tracked.id, number)
        console = stack.enter_context(Console(settings, shared.study).open(str(folder)))

        def objective(trial: Trial) -> list[float]:
            sampled = sample(settings.entries, trial)
            with composed(overrides, sampled, settings.name, folder / f"trial_{trial.number}") as one:
                return run_trial(one, settings, trial)

        try:
            Worker(shared, objective, console).work(settings.timeout)
        except (KeyboardInterrupt, Terminated):
            if finished(shared.study):
                with shared.alone():
                    report.write(folder, shared.study, settings, overrides, tracked)
            console.note("\nto go on: the same command")
            raise
        with shared.alone():
            report.write(folder, shared.study, settings, overrides, tracked)
    return shared.study


def _identity(settings: Study, overrides: list[str]) -> dict[str, Any]:
    """What makes trials comparable; where things are, and how many trials there shall be, is not part of it."""
    kept = sorted(text for text in overrides if not text.lstrip("+~").startswith(("paths", "tracking", "figures")))
    known = {"command": kept, "space": settings.space, "objectives": settings.objectives, "seeds": settings.seeds}
    return dict(json.loads(json.dumps(known)))
