"""Reading checkpoints: nothing in them is run, and what does not fit is said in one line."""

import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn

from wafer_lab import models
from wafer_lab.errors import UserError
from wafer_lab.workflows.assemble import build_network

# What may not change when a run goes on.
RESUMED_GROUPS = ("task", "head", "model", "loss", "imbalance", "optimizer", "scheduler")
RESUMED_TRAINER = ("precision", "gradient_clip_val", "accumulate_grad_batches")


class Loaded(NamedTuple):
    """A trained network and what its checkpoint says of it.

    Attributes:
        network: In evaluation mode, on the CPU.
        config: The resolved config of its run.
        record: What the task put beside the weights: `class_names`, `split_digest`, `data_fingerprint`, ...
    """

    network: nn.Module
    config: Any
    record: dict[str, Any]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours as plain data and tensors.

    Args:
        path: A .ckpt file.

    Returns:
        Lightning's checkpoint dictionary; `wafer_lab` holds the record.

    Raises:
        UserError: The file is missing, damaged, not a wafer_lab checkpoint, or would run code.
    """
    path = Path(path)
    if (last := path / "checkpoints" / "last.ckpt").is_file():
        raise UserError(f"{path} is a run's folder; name the checkpoint to go on from: {last}")
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; a run leaves them in its folder under checkpoints/")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than weights and plain values, or is not a checkpoint; it was not loaded, "
            "because loading it could run code. Use a checkpoint that train.py wrote"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or not a checkpoint ({str(error).partition(chr(10))[0] or type(error).__name__})"
        ) from None
    if not isinstance(checkpoint, dict) or "config" not in checkpoint.get("wafer_lab", {}):
        raise UserError(f"{path} is not a wafer_lab checkpoint; use one that train.py wrote")
    return checkpoint


def load_task(path: str | Path) -> Loaded:
    """Rebuild the trained network of a run.

    Args:
        path: A run's folder (its best checkpoint is taken) or a .ckpt file.

    Returns:
        The network with its config and record.

    Raises:
        UserError: As `read_checkpoint`, or the weights do not fit the config beside them.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    checkpoint = read_checkpoint(path)
    record = checkpoint["wafer_lab"]
    for group in ("model", "head"):
        _check_targets(record["config"][group], path)
    config = OmegaConf.create(record["config"])
    network = build_network(config)
    restore(network, checkpoint, path)
    return Loaded(network.eval(), config, record)


def restore(network: nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a network.

    Raises:
        UserError: They belong to another network.
    """
    prefix = "network."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"the weights in {path} are of another network: {detail}") from None


def check_resumable(path: str | Path, ours: dict[str, Any]) -> dict[str, Any]:
    """Refuse to resume a run as a different one.

    Args:
        path: The checkpoint to resume from.
        ours: The record of the run about to start, as its checkpoints will hold it.

    Returns:
        The checkpoint's record.

    Raises:
        UserError: The checkpoint is unreadable, or of other classes, other data, another split or other settings.
    """
    theirs = read_checkpoint(path)["wafer_lab"]
    if theirs["class_names"] != ours["class_names"]:
        raise UserError(
            f"{path} was trained on {_names(theirs)}, this run has {_names(ours)}; resume with its own data"
        )
    for key, what in (("data_fingerprint", "other data"), ("split_digest", "another split")):
        if theirs[key] != ours[key]:
            raise UserError(
                f"{path} was trained on {what} ({theirs[key]}, now {ours[key]}); resume with its data.path, data.split "
                "and data.seed, or its test wafers end up in training"
            )
    before, now = _decisive(theirs["config"]), _decisive(ours["config"])
    changed = [f"{k} was {before.get(k)}, is {now.get(k)}" for k in before | now if before.get(k) != now.get(k)]
    if changed:
        raise UserError(f"{path} was trained with other settings: {'; '.join(changed)}; resume with the same ones")
    return dict(theirs)


def _names(record: dict[str, Any]) -> str:
    return f"{len(record['class_names'])} classes ({', '.join(record['class_names'])})"


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """Every setting that decides the weights, by its dotted path."""
    groups = {group: config[group] for group in RESUMED_GROUPS}
    groups["data"] = {k: v for k, v in config["data"].items() if k not in ("path", "cache", "num_workers")}
    # A schedule spans the whole run; without one a run may be made longer.
    kept = (*RESUMED_TRAINER, "max_epochs") if config["scheduler"] else RESUMED_TRAINER
    groups["trainer"] = {k: config["trainer"].get(k) for k in kept}
    return dict(_flat(groups, ""))


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def _check_targets(node: Any, path: str | Path) -> None:
    """Let a checkpoint name networks of wafer_lab.models only: its config comes from whoever made the file."""
    if isinstance(node, dict):
        if "_target_" in node:
            module, _, name = str(node["_target_"]).rpartition(".")
            known = module in {f"{models.__name__}.{m.name}" for m in pkgutil.iter_modules(models.__path__)}
            found = getattr(importlib.import_module(module), name, None) if known else None
            if getattr(found, "__module__", None) != module:
                raise UserError(
                    f"{path} asks for {node['_target_']}, which is no network of wafer_lab.models; it was not loaded, "
                    "because loading it could run code"
                )
        for value in node.values():
            _check_targets(value, path)
    elif isinstance(node, list):
        for value in node:
            _check_targets(value, path)
