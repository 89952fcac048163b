"""A trial as an experiment file, which train.py runs like any other."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from wafer_lab.config.diagnose import parse
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import finished

# Where things are, and what trials are called: not the experiment's.
_LEFT_OUT = ("name", "paths", "tracking", "figures")
_LATER = ("debug",)  # groups that train.yaml composes after the experiment, so that no experiment can choose them


def command(folder: Path) -> str:
    """What trains the best trial again and judges it on test."""
    return f"python train.py --config-dir {folder} experiment=best"


def text(trial: FrozenTrial, study: optuna.Study, settings: Study, overrides: Sequence[str], folder: Path) -> str:
    """The experiment of a trial.

    Args:
        trial: of the study.
        study: the study.
        settings: of the study.
        overrides: the command line without what is the study's.
        folder: of the study.

    Returns:
        A YAML file for the folder `experiment` of a folder of configs.
    """
    groups, values, rest = _parts(overrides, trial.params)
    score = ", ".join(f"{one.metric} {v:.4f}" for one, v in zip(settings.targets, trial.values, strict=True))
    among = len(finished(study))
    lines = [
        "# @package _global_",
        f"# Trial {trial.number} of the study {settings.name}, chosen among {among}: {score}, on val alone.",
        f"# {command(folder)}",
        f"# Found by: {Path(sys.argv[0]).name} {' '.join(HydraConfig.get().overrides.task)}",
        *([f"# Needs on the command line too: {' '.join(rest)}"] if rest else []),
    ]
    base = groups.pop("experiment", None)
    defaults: list[Any] = [base] if base else []
    defaults += [{f"override /{group}": option} for group, option in groups.items()]
    body: dict[str, Any] = {"defaults": [*defaults, "_self_"]} if defaults else {}
    written: str = yaml.safe_dump(body | values, sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(lines) + "\n" + written


def _parts(overrides: Sequence[str], params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Group choices, values as nested mappings, and arguments that a file cannot hold."""
    known = HydraConfig.get().runtime.choices
    groups: dict[str, Any] = {}
    values: Any = OmegaConf.create()
    rest = []
    chosen = [parse(argument) for argument in overrides]
    flat = [(one.key_or_group, one.value(), one.is_delete(), str(one.input_line)) for one in chosen]
    flat += [(key.lstrip("+"), value, False, "") for key, value in params.items()]
    for key, value, deleted, argument in flat:
        if key.split(".")[0] in _LEFT_OUT:
            continue
        if key in _LATER or (deleted and (key in known or "." not in key)):
            rest.append(argument)
        elif key in known and isinstance(value, str):
            groups[key] = value
        else:
            nested: Any = None if deleted else value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            values = OmegaConf.merge(values, nested)
    plain: Any = OmegaConf.to_container(values)
    return groups, plain, rest
