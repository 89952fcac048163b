"""Everything wrong with a study, found before its first trial: its settings, its search space, its trials' configs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.diagnose import CommandLine, Composer, diagnose, parse
from wafer_lab.config.messages import Problem, did_you_mean, listed, show
from wafer_lab.config.rules import MONITORS, MONITORS_PER_CLASS, value_at
from wafer_lab.config.space import PATH, Entry, override, probes, read_space
from wafer_lab.tracking.mlflow_tracker import masked

# Objectives that no epoch logs.
MEASURED = ("latency", "parameters", "cost")
FIT, KFOLD = "wafer_lab.workflows.fit.fit", "wafer_lab.workflows.kfold.kfold"
_STORES = ("sqlite:///", "postgresql+psycopg://")
_MIN_PAIRS = 5  # of 4 pairs the most one-sided have p = 1/16, below Wilcoxon's 0.1; a fifth is what pruning saves


def trial_overrides(overrides: Sequence[str]) -> list[str]:
    """The arguments of sweep.py's command line that are each trial's too: all but those of the study and of Hydra."""
    return [text for text in overrides if _top(text) not in ("study", "hydra")]


def study_problems(line: CommandLine) -> list[Problem]:
    """Problems of a study and of what it would try; empty when all is well.

    Args:
        line: a command line of sweep.py without problems of its own.
    """
    if line.multirun:
        return [Problem("--multirun", "belongs to train.py; sweep.py runs one study, so leave it out")]
    composer = Composer.create(line)
    cfg = composer.compose([parse(text) for text in line.overrides])
    space: Any = OmegaConf.to_container(cfg.study.space, resolve=True)
    entries, found = read_space(space)
    found += _key_problems(composer, entries, line.overrides)
    found += _fixed_condition_problems(cfg, entries)
    found += _setting_problems(cfg, entries)
    return found or _trial_problems(line, entries)


def repeats(cfg: DictConfig) -> int:
    """Fits per trial: seeds, times folds in a cross-validation."""
    folds = int(cfg.data.folds) if value_at(cfg, "workflow._target_") == KFOLD else 1
    return int(cfg.study.seeds) * folds


def _top(text: str) -> str:
    return text.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".").partition(".")[0]


# ------------------------------------------------------------------------------------------------- the space


def _key_problems(composer: Composer, entries: Sequence[Entry], overrides: Sequence[str]) -> Iterator[Problem]:
    """Keys that cannot be sampled, or that the command line has fixed."""
    fixed = {text.lstrip("+~").partition("=")[0] for text in trial_overrides(overrides)}
    for entry in entries:
        path, key = f"{PATH}.{entry.key}", entry.key.lstrip("+")
        try:
            parse(override(entry.key, entry.ends()[0]))
        except HydraException:
            yield Problem(path, "is not written like a key; write it as on the command line, such as optimizer.lr")
            continue
        if key in fixed:
            drop = f"'+study.space={{{entry.key}: null}}'"
            yield Problem(
                path, f"is sampled, but the command line sets {key} too; leave one out ({drop} drops this one)"
            )
        if _top(key) in ("study", "hydra", "paths", "tracking", "workflow", "experiment", "debug"):
            yield Problem(path, f"cannot be sampled; {_top(key)} is the same for all trials")
        if key in ("seed", "data.seed", "ckpt_path"):
            yield Problem(path, "cannot be sampled: luck is no setting; study.seeds averages over seeds")
        if entry.kind != "choice" and key in composer.loader.list_groups(""):
            yield Problem(path, f"is a group of options; list some of {listed(composer.options(key))}")


def _fixed_condition_problems(cfg: DictConfig, entries: Sequence[Entry]) -> Iterator[Problem]:
    """Conditions on keys outside the space, which are the same in all trials, so they hold always or never."""
    sampled = {entry.key for entry in entries}
    known = [*sampled, *(str(name) for name in cfg.hydra.runtime.choices)]
    for entry in entries:
        for key, wanted in entry.when.items():
            if key in sampled:
                continue
            path = f"{PATH}.{entry.key}.when"
            group = key in cfg.hydra.runtime.choices
            value = cfg.hydra.runtime.choices[key] if group else value_at(cfg, key)
            if value is None and not group:
                yield Problem(path, f"there is no {key}{did_you_mean(key, known)}")
            elif value not in wanted:
                want = " or ".join(show(one) for one in wanted)
                yield Problem(
                    path, f"{key} is {show(value)} in every trial, never {want}; sample {key} too, or drop it"
                )


def _trial_problems(line: CommandLine, entries: Sequence[Entry]) -> list[Problem]:
    """Problems of the configs that the samples compose, as train.py would tell them."""
    found: dict[str, Problem] = {}
    plain = trial_overrides(line.overrides)
    for sampled in probes(entries):
        arguments = (*plain, *(override(key, value) for key, value in sampled.items()))
        for problem in diagnose(CommandLine(line.config_dir, "train", arguments, extra_dir=line.extra_dir)):
            told = _told(problem, sampled)
            found.setdefault(f"{told.path}: {told.message.partition(' (with ')[0]}", told)
    return list(found.values())


def _told(problem: Problem, sampled: Mapping[str, Any]) -> Problem:
    """A problem of a trial as one of the entry that it comes from, whichever of the entry's values was tried."""
    typed = problem.path.partition("=")[0].lstrip("+~")
    by_name = {key.lstrip("+"): key for key in sampled}
    known = typed if typed in by_name else next((name for name in by_name if typed.startswith(f"{name}.")), None)
    message = problem.message if known == typed else f"{problem}"
    if known is not None:
        tried = override(known, sampled[by_name[known]])
        message = message.removeprefix(f"{tried}: ").replace(tried.removeprefix(known) + "?", "?")
    others = [f"{key}={value}" for key, value in sampled.items() if isinstance(value, str) and key != known]
    context = f" (with {', '.join(others)})" if others else ""
    return Problem(f"{PATH}.{known}" if known else PATH, message + context, problem.level)


# ---------------------------------------------------------------------------------------------- the settings


def _setting_problems(cfg: DictConfig, entries: Sequence[Entry]) -> Iterator[Problem]:
    study = cfg.study
    for name, least in (("n_trials", 1), ("seeds", 1), ("startup_trials", 0), ("warmup_epochs", 0), ("heartbeat", 1)):
        if study[name] < least:
            yield Problem(f"study.{name}", f"must be at least {least}, not {study[name]}")
    if study.timeout is not None and study.timeout <= 0:
        yield Problem("study.timeout", f"must be greater than 0 seconds, or null, not {study.timeout}")
    name = value_at(cfg, "study.name")  # None: it follows ${hydra:...}, which has a value only inside a run
    if name is not None and not re.fullmatch(r"\w[\w.-]*", str(name)):
        yield Problem("study.name", f"names a folder, so use letters, digits, - _ and . only, not {show(name)}")
    yield from _storage_problems(str(study.storage))
    yield from _objective_problems(cfg)
    yield from _run_problems(cfg)
    yield from _sampler_problems(cfg, entries)
    yield from _pruner_problems(cfg)


def _storage_problems(storage: str) -> Iterator[Problem]:
    if not storage.startswith(_STORES):
        yield Problem(
            "study.storage",
            f"must be sqlite:///<file> or postgresql+psycopg://user@host/database, not {masked(storage)}",
        )
    elif masked(storage) != storage:
        yield Problem(
            "study.storage",
            "has a password, and a config is kept with every study; put it into the environment variable PGPASSWORD "
            "or into ~/.pgpass",
        )


def _objective_problems(cfg: DictConfig) -> Iterator[Problem]:
    names = [value_at(one, "metric") for one in cfg.study.objectives]
    if not names:
        yield Problem("study.objectives", "is empty; name a metric, such as {metric: val/f1_macro, direction: max}")
    for place, one in enumerate(cfg.study.objectives):
        path = f"study.objectives.{place}"
        if not isinstance(one, DictConfig) or set(one) != {"metric", "direction"}:
            yield Problem(path, "must be of the form {metric: val/f1_macro, direction: max}")
            continue
        if one.direction not in ("max", "min"):
            yield Problem(f"{path}.direction", f"must be max or min, not {show(one.direction)}")
        yield from _metric_problems(cfg, f"{path}.metric", str(one.metric))
        if names.count(one.metric) > 1 and names.index(one.metric) == place:
            yield Problem(path, f"{one.metric} is an objective twice; name it once")


def _metric_problems(cfg: DictConfig, path: str, metric: str) -> Iterator[Problem]:
    split, _, score = metric.partition("/")
    target = value_at(cfg, "data.target")
    names = MONITORS.get(str(target), set())
    if split == "test":
        yield Problem(path, f"{metric} would choose by the test wafers, which are to judge the choice; use val/{score}")
    elif metric in MEASURED:
        if metric == "cost" and target == "mask":
            yield Problem(path, "cost is of decisions on whole wafers; masks have none")
    elif split != "val" or not score:
        yield Problem(path, f"must be a validation score such as val/f1_macro, or {listed(MEASURED)}, not {metric}")
    elif names and score not in names and not score.startswith(MONITORS_PER_CLASS[str(target)]):
        yield Problem(path, f"validation of {target} data gives no {score}{did_you_mean(score, names)}")


def _run_problems(cfg: DictConfig) -> Iterator[Problem]:
    """What a single run may be, but not a trial."""
    if value_at(cfg, "workflow._target_") not in (FIT, KFOLD):
        yield Problem("workflow", "a trial is workflow=fit or workflow=kfold; choose one of them")
    if value_at(cfg, "ckpt_path") is not None:
        yield Problem("ckpt_path", "goes on with one run; a study goes on when its command is repeated")
    for key in ("trainer.devices", "trainer.num_nodes"):
        several = value_at(cfg, key)
        if several not in (None, 1, "1") and not (isinstance(several, Sequence) and len(several) == 1):
            yield Problem(key, f"a trial trains on one device; set {key}=1 and start one worker per device")


def _sampler_problems(cfg: DictConfig, entries: Sequence[Entry]) -> Iterator[Problem]:
    sampler = cfg.study.sampler
    if sampler == "cmaes":
        numbers = [entry.key for entry in entries if entry.kind != "choice" and not entry.when]
        if len(numbers) < 2:
            yield Problem("study.sampler", "cmaes needs two or more numbers without conditions in the space; use tpe")
        if len(cfg.study.objectives) > 1:
            yield Problem("study.sampler", "cmaes serves one objective; use tpe or gp")
    if sampler == "grid":
        for entry in entries:
            if entry.values() is None:
                yield Problem(f"{PATH}.{entry.key}", "a grid needs countable values; list choices, or give a step")
            if entry.when:
                yield Problem(f"{PATH}.{entry.key}.when", "a grid knows no conditions; use tpe, or two studies")
        size = prod(len(entry.values() or ()) for entry in entries)
        if 0 < size < cfg.study.n_trials:
            yield Problem("study.n_trials", f"the grid has only {size} points; set study.n_trials={size} or fewer")


def _pruner_problems(cfg: DictConfig) -> Iterator[Problem]:
    pruner, several = cfg.study.pruner, len(cfg.study.objectives) > 1
    if pruner == "none":
        return
    metric = value_at(cfg.study.objectives[0], "metric") if len(cfg.study.objectives) else None
    if several:
        yield Problem("study.pruner", "only one objective can be pruned by; set study.pruner=none")
    elif metric in MEASURED:
        yield Problem("study.pruner", f"{metric} is known only at the end of a trial; set study.pruner=none")
    elif pruner == "wilcoxon" and repeats(cfg) < _MIN_PAIRS:
        yield Problem(
            "study.pruner",
            f"wilcoxon compares fits of two trials pairwise and can tell nothing from {repeats(cfg)} of them; set "
            f"study.seeds={_MIN_PAIRS} or more, or workflow=kfold, or study.pruner=median",
        )


def space_of(study: Mapping[str, Any]) -> list[Entry]:
    """The entries of a study that has no problems."""
    return read_space(study["space"])[0]
