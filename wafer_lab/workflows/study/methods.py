"""Optuna's samplers and pruners by name."""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, GridSampler, RandomSampler, TPESampler

from wafer_lab.config.space import Entry
from wafer_lab.errors import UserError
from wafer_lab.workflows.study.settings import Study


class _Grid(GridSampler):
    """Optuna's grid, which would stop the study itself after its last trial; here the number of trials does."""

    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


def sampler(settings: Study, entries: Sequence[Entry], seed: int) -> BaseSampler:
    """The sampler of a study.

    Args:
        settings: of the study.
        entries: its search space.
        seed: of the next trial's draw; a grid takes the study's own, which all workers have to share.

    Raises:
        UserError: a package that it needs is not installed.
    """
    startup: dict[str, Any] = {"n_startup_trials": settings.startup_trials, "seed": seed}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if settings.sampler == "grid":
                return _Grid({entry.key: entry.values() or [] for entry in entries}, seed=settings.seed)
            if settings.sampler == "gp":
                return GPSampler(**startup)
            if settings.sampler == "cmaes":
                return CmaEsSampler(**startup, warn_independent_sampling=False)
    except ImportError as error:
        raise UserError(
            f"study.sampler={settings.sampler} needs the package {error.name}, which is not installed; "
            f"pip install {error.name}, or use study.sampler=tpe"
        ) from error
    return RandomSampler(seed=seed) if settings.sampler == "random" else TPESampler(**startup)


def pruner(settings: Study, epochs: int) -> BasePruner:
    """The pruner of a study.

    Args:
        settings: of the study.
        epochs: of all fits of a trial together.
    """
    kinds: dict[str, Any] = {
        "none": NopPruner,
        "median": lambda: MedianPruner(n_startup_trials=settings.startup_trials // 2),
        "hyperband": lambda: HyperbandPruner(min_resource=max(1, settings.warmup_epochs), max_resource=epochs),
        "wilcoxon": lambda: WilcoxonPruner(n_startup_steps=2),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made: optuna.pruners.BasePruner = kinds[settings.pruner]()
    return made
