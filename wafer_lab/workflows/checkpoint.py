"""Reading checkpoints: nothing in them is run, and what does not fit is said in one line."""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn

from wafer_lab.errors import UserError
from wafer_lab.workflows.assemble import build_network

# What may not change when a run goes on; a longer trainer.max_epochs may.
RESUMED_GROUPS = ("task", "head", "model", "loss", "imbalance", "augment", "optimizer", "scheduler")


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


def check_resumable(path: str | Path, config: Any, class_names: tuple[str, ...], split_digest: str) -> None:
    """Refuse to resume a run as a different one.

    Args:
        path: The checkpoint to resume from.
        config: The resolved config of the run about to start.
        class_names: Its classes.
        split_digest: Its split.

    Raises:
        UserError: The checkpoint is unreadable, or of other classes, another split or another network.
    """
    record = read_checkpoint(path)["wafer_lab"]
    theirs = tuple(record["class_names"])
    if theirs != class_names:
        raise UserError(
            f"{path} was trained on {len(theirs)} classes ({', '.join(theirs)}), this run has {len(class_names)} "
            f"({', '.join(class_names)}); resume with the data it was trained on"
        )
    if record["split_digest"] != split_digest:
        raise UserError(
            f"{path} was trained on another split ({record['split_digest']}, now {split_digest}); resume with its "
            "data.path, data.split and data.seed, or its test wafers end up in training"
        )
    for group in RESUMED_GROUPS:
        if record["config"][group] != config[group]:
            raise UserError(
                f"{path} was trained with another {group}: {_difference(record['config'][group], config[group])}; "
                "resume with the same one"
            )


def _difference(theirs: dict[str, Any] | None, ours: dict[str, Any] | None) -> str:
    theirs, ours = theirs or {}, ours or {}
    keys = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
    return ", ".join(f"{k} was {theirs.get(k)}, is {ours.get(k)}" for k in keys)
