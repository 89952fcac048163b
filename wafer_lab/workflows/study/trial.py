"""One trial: sampled values -> a config -> its fits -> the values of the objectives."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import optuna
import torch
from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.build import build, resolved
from wafer_lab.config.messages import refuse
from wafer_lab.config.space import Entry, override
from wafer_lab.config.study import KFOLD, repeats
from wafer_lab.config.validate import problems
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import DivergedError
from wafer_lab.evaluation.judgement import judge_wafers
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import fit_predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.tasks.base import Task
from wafer_lab.workflows import run_files
from wafer_lab.workflows.candidate import Candidate
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.nested import child
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.variants import chosen, plain, whole_config

_TIMED = 30  # passes, after a few that warm up
_FEW = 100  # resamples, as few as intervals may be made of


def sample(entries: Sequence[Entry], trial: optuna.Trial) -> dict[str, Any]:
    """Values of the entries whose conditions hold."""
    by_key = {entry.key: entry for entry in entries}
    sampled: dict[str, Any] = {}
    for entry in entries:
        if entry.follows(sampled, by_key):
            sampled[entry.key] = entry.suggest(trial)
    return sampled


@contextmanager
def composed(overrides: Sequence[str], sampled: Mapping[str, Any], study: str, folder: Path) -> Iterator[DictConfig]:
    """The validated config of a trial; while the block lasts, Hydra's groups are as it chose them.

    Args:
        overrides: the command line without what is the study's.
        sampled: what the trial adds.
        study: its name.
        folder: of the trial; its last part names it.

    Raises:
        UserError: the sampled values do not go together.
    """
    lines = [*overrides, *(override(key, value) for key, value in sampled.items())]
    whole = whole_config(lines)
    with chosen(whole):
        own: Any = OmegaConf.merge(plain(whole), {"name": study, "paths": {"run": str(folder.parent)}})
        made = child(own, folder.name, {"workflow": dict(own.workflow)})
        refuse(problems(made))
        yield made


def fits_of(cfg: DictConfig, seeds: int) -> list[DictConfig]:
    """The configs of a trial's fits: the trial itself, or one child per seed and fold."""
    folds = range(cfg.data.folds) if cfg.workflow["_target_"] == KFOLD else [None]
    each = [(seed, fold) for seed in range(cfg.seed, cfg.seed + seeds) for fold in folds]
    if len(each) == 1:
        return [cfg]
    made = []
    for seed, fold in each:
        parts = [f"seed_{seed}"] * (seeds > 1) + ([f"fold_{fold}"] if fold is not None else [])
        changes = {"seed": seed} | ({"data": {"fold": fold}} if fold is not None else {})
        made.append(child(cfg, "_".join(parts), changes))
    return made


class Watch(pl.Callback):
    """Report every epoch to the study and stop a trial that it does not want; stop one whose loss is no number.

    Args:
        trial: the study's side of it.
        metric: what is reported; None reports nothing.
        earlier: epochs of the trial's fits before this one.
        warmup: epochs of this fit before which it is not stopped.
    """

    def __init__(self, trial: optuna.Trial, metric: str | None, earlier: int, warmup: int = 0) -> None:
        self.trial, self.metric, self.earlier, self.warmup = trial, metric, earlier, warmup

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the epoch's values."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name in ("train/loss", "val/loss", self.metric):
            if name in values and not np.isfinite(values[name]):
                raise DivergedError(f"{name} is {values[name]} after epoch {trainer.current_epoch + 1}")
        if self.metric in values:
            self.trial.report(values[self.metric], self.earlier + trainer.current_epoch)
            if trainer.current_epoch >= self.warmup and self.trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {trainer.current_epoch + 1}")


def run_trial(cfg: DictConfig, settings: Study, trial: optuna.Trial) -> list[float]:
    """Fit a trial's config as often as the study wants, in the folder of the trial.

    Args:
        cfg: of the trial, as `composed` makes it.
        settings: of the study.
        trial: the study's side of it.

    Returns:
        The mean of every objective over the fits.

    Raises:
        TrialPruned: the pruner has seen enough.
        DivergedError: a loss or objective is not finite.
        UserError: as `fit`.
    """
    wanted = [objective.metric for objective in settings.targets]
    each = fits_of(cfg, settings.seeds)
    pairs = settings.pruner == "wilcoxon"
    watched = None if settings.pruner == "none" or pairs else wanted[0]
    tags = {"trial": str(trial.number), "study": settings.name}
    folder = Path(cfg.paths.run)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[list[float]] = []
    with (folder / "console.txt").open("w") as console, redirect_stdout(console), _parent(cfg, each, tags) as tracked:
        for place, one in enumerate(each):
            watch = Watch(trial, watched, place * cfg.trainer.max_epochs, settings.warmup_epochs)
            measure = _Measure(wanted, one)
            result = fit(one, nested=True, candidate=Candidate([watch], tags if len(each) == 1 else {}, measure))
            scores = {**result.scores, cfg.task.monitor: result.monitored}
            found.append([scores[metric] for metric in wanted])
            if not np.isfinite(found[-1]).all():
                raise DivergedError(f"{', '.join(wanted)} came out as {found[-1]}")
            if pairs:
                trial.report(found[-1][0], place)
                if place + 1 < len(each) and trial.should_prune():
                    raise optuna.TrialPruned(f"after {place + 1} of {len(each)} fits")
        means = [float(value) for value in np.mean(found, axis=0)]
        if tracked is not None:
            tracked.log_metrics(dict(zip(wanted, means, strict=True)))
    return means


@contextmanager
def _parent(cfg: DictConfig, each: Sequence[DictConfig], tags: Mapping[str, str]) -> Iterator[Any]:
    """The run that a trial's fits stand in; a single fit is the trial's run itself."""
    if len(each) == 1:
        yield None
        return
    with run_files.claim(Path(cfg.paths.run), resolved(cfg), resumes=False):
        config = run_files.choices() | resolved(cfg)
        with build(cfg.tracking).run(cfg.name, config, dict(tags), nested=True) as tracked:
            yield tracked


class _Measure:
    """What no epoch logs, of the objectives that ask for it."""

    def __init__(self, wanted: Sequence[str], cfg: DictConfig) -> None:
        self.wanted, self.cfg = wanted, cfg

    def __call__(
        self, task: Task, datamodule: WaferDataModule, predictions: Predictions, device: torch.device
    ) -> dict[str, float]:
        made: dict[str, Callable[[], float]] = {
            "latency": lambda: latency(task.network, datamodule, device),
            "parameters": lambda: float(sum(weight.numel() for weight in task.network.parameters())),
            "cost": lambda: self._cost(predictions),
        }
        return {name: make() for name, make in made.items() if name in self.wanted}

    def _cost(self, predictions: Predictions) -> float:
        """Mean cost per val wafer under the config's decision rule, out of fold."""
        settings = build(self.cfg.evaluation)
        val = wafers(predictions, "val", settings.tta)
        fitted = fit_predictor(val, settings)
        few = replace(settings, resamples=_FEW)  # the score is wanted here, not its interval
        return judge_wafers(val, fitted.probabilities, fitted.decisions, few, ranking=False).scores["cost"]


@torch.inference_mode()
def latency(network: torch.nn.Module, datamodule: WaferDataModule, device: torch.device) -> float:
    """Milliseconds that the network takes for one wafer by itself: the median of some passes."""
    batch = next(iter(datamodule.batches("val", device)))
    image = batch.image[:1].contiguous()
    times = []
    for _ in range(_TIMED + 5):
        _synchronize(device)
        started = time.perf_counter()
        network(image)
        _synchronize(device)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[5:]))


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def epochs_of(cfg: DictConfig) -> int:
    """Epochs of all fits of a trial."""
    return int(cfg.trainer.max_epochs) * repeats(cfg)
