"""Facts that a config derives, as OmegaConf resolvers."""

import functools
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from wafer_lab.errors import UserError
from wafer_lab.processes import rank

CHANNELS = {"one_hot": 3, "grey": 1, "masks": 2, "grey_rgb": 3, "imagenet": 3, "inception": 3}


def channels(encoding: str) -> int:
    """Channels that an encoding of wafer maps or images gives."""
    if encoding not in CHANNELS:
        raise UserError(f"unknown data.encoding '{encoding}'; choose one of {', '.join(CHANNELS)}")
    return CHANNELS[encoding]


@functools.cache
def class_folders(path: str) -> int:
    """Classes in a folder of class folders, so that no one has to count them for the config."""
    from wafer_lab.data.readers import open_source

    return len(open_source(Path(path)).class_names)


def absolute(path: str) -> str:
    """A path that means the same wherever it is read."""
    return str(Path(path).absolute())


def run_folder(outputs: str, fresh: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one, or when it resumes, the one whose checkpoint it resumes from.

    Of processes that train together, the first alone names and writes a new one.
    """
    if ckpt_path:
        checkpoints = Path(ckpt_path).resolve().parent
        if checkpoints.name == "checkpoints":
            return str(checkpoints.parent)
    return f"{outputs}/runs" if rank() else f"{outputs}/runs/{fresh}"


def run_name(choices: Mapping[str, str]) -> str:
    """What a run is called: the choices that set it apart, the task and the workflow where they are not the usual."""
    usual = {"task": "classification", "workflow": "fit"}
    groups = ("data", "task", "workflow", "model", "loss", "imbalance")
    return "_".join(str(choices[group]) for group in groups if choices.get(group) not in (None, usual.get(group)))


def register() -> None:
    """Make the resolvers known to OmegaConf; safe to call again."""
    for function in (absolute, channels, class_folders, run_folder, run_name):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True, use_cache=False)
