"""The members of an ensemble before they are trained, or as finished runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.build import check_plain, resolved
from wafer_lab.errors import UserError
from wafer_lab.workflows.finished import FinishedRun, check_comparable, find_runs, read_run
from wafer_lab.workflows.nested import child, fit_once
from wafer_lab.workflows.sources import Given, Start, check_different, check_name, read_sources, with_weights
from wafer_lab.workflows.variants import chosen, variant

#: The group of members that all come from the same source and model.
ONE = "members"
# What an ensemble has of its own; the rest of its config is its first member's.
_OWN = ("name", "seed", "paths", "tracking", "workflow", "evaluation", "figures", "ckpt_path", "callbacks", "trainer")

Runs = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Planned:
    """A member to train.

    Attributes:
        name: Its folder in the ensemble's.
        group: Where it comes from.
        config: Its own; `weights` are its source's, as far as they are there.
        source: Where its encoder starts.
        hydra: The composition behind it, where its model is not the command line's.
    """

    name: str
    group: str
    config: DictConfig
    source: Start
    hydra: DictConfig | None

    def trained(self, weights: str | None) -> Path:
        """Its folder, once it is trained from its source's weights."""
        with chosen(self.hydra):
            return fit_once(with_weights(self.config, weights)).run_dir


def plan(
    cfg: DictConfig,
    seeds: Sequence[int] | None,
    models: Sequence[str] | None,
    sources: Mapping[str, Given] | None,
    folds: int | None,
) -> list[Planned]:
    """The members to train: every source with every model, fold and seed.

    Args:
        cfg: The ensemble's config.
        seeds: Of the members; None for the run's own.
        models: Options of the group `model`; None for the run's own.
        sources: Name -> where encoders start; None for the run's own weights.
        folds: Each member is trained without another of so many parts of the training labels; None: with all.

    Raises:
        UserError: There are fewer than two, a name is there twice, or a model or source does not compose.
    """
    places = check_different("workflow.seeds", [cfg.seed] if seeds is None else seeds)
    if folds is not None and folds < 2:
        raise UserError(f"workflow.folds={folds} must be at least 2, or null")
    if folds is not None and cfg.data.split == "kfold" and folds != cfg.data.folds:
        raise UserError(f"with data.split=kfold, workflow.folds={folds} must be data.folds={cfg.data.folds}")
    bases = _models(cfg, models)
    starts = read_sources(cfg, sources) if sources else [Start("", cfg.weights)]
    parts: list[int | None] = [None] if folds is None else list(range(folds))
    every = [(s, m, f, seed) for s in starts for m in bases for f in parts for seed in places]
    if len(every) < 2:
        raise UserError(
            "an ensemble needs at least two members; name several workflow.seeds, workflow.models, workflow.folds or "
            "workflow.sources, or finished workflow.runs"
        )
    return [_planned(*one, folds=folds, seeds=len(places)) for one in every]


Base = tuple[str, DictConfig, DictConfig | None]


def _models(cfg: DictConfig, models: Sequence[str] | None) -> list[Base]:
    """Name, config and composition of every model."""
    if models is None:
        return [("", cfg, None)]
    found: list[Base] = []
    for name in check_different("workflow.models", models):
        made, whole = variant(cfg, [f"model={name}"], "workflow.models")
        found.append((check_name("workflow.models", name), made, whole))
    return found


def _planned(source: Start, base: Base, fold: int | None, seed: int, folds: int | None, seeds: int) -> Planned:
    model, cfg, whole = base
    kind = "_".join(filter(None, (source.name, model)))
    name = [kind] if kind else []
    name += [] if fold is None else [f"fold_{fold}"]
    name += [f"seed_{seed}"] if seeds > 1 or not name else []
    data = {} if fold is None else {"data": {"folds": folds, "train_without": fold}}
    config = child(cfg, "_".join(name), {"seed": seed, "weights": source.weights, **data})
    return Planned("_".join(name), kind or ONE, config, source, whole)


def finished(runs: Runs) -> tuple[list[FinishedRun], list[str]]:
    """Finished runs as members, and the group of each.

    Args:
        runs: Folders of runs, or folders that hold them; or group -> such folders.

    Raises:
        UserError: There are fewer than two, one is missing, unfinished or there twice, or they are not of one split,
            data and classes.
    """
    given = runs if isinstance(runs, Mapping) else {ONE: runs}
    folders = {str(group): find_runs(paths)[0] for group, paths in given.items()}
    find_runs([folder for own in folders.values() for folder in own])  # none may be in two groups
    groups = [group for group, own in folders.items() for _ in own]
    members = [read_run(folder) for own in folders.values() for folder in own]
    if len(members) < 2:
        raise UserError(f"an ensemble needs at least two members, and workflow.runs has {len(members)}; name more runs")
    check_comparable(members)
    return members, groups


def adopted(cfg: DictConfig, first: FinishedRun) -> DictConfig:
    """The config of an ensemble of finished runs: its own, and the data and all else of its first member.

    Raises:
        UserError: The member's config holds more than plain values.
    """
    with first.named():
        check_plain(first.config, first.folder)
    theirs = {key: value for key, value in first.config.items() if key not in _OWN}
    made = OmegaConf.create(resolved(cfg) | theirs)
    OmegaConf.set_readonly(made, True)
    return made


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Names of runs, with the folder above where two are called the same."""
    names = [folder.name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{folder.absolute().parent.name}/{name}"
        for folder, name in zip(folders, names, strict=True)
    ]
