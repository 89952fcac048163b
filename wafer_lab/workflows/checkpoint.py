"""Reading checkpoints: nothing in them is run, and what does not fit is said in one line."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from torch import nn

from wafer_lab import models
from wafer_lab.config.build import check_plain, check_targets
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import TargetKind
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.models.weights import read_pickle
from wafer_lab.tasks.checkpointing import LAST, PREVIOUS
from wafer_lab.tasks.finetune import Finetune
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.finished import PREDICTOR

# What may not change when a run goes on.
RESUMED_GROUPS = ("task", "head", "model", "loss", "imbalance", "optimizer", "scheduler")
# Settings of data that older runs lack, as what they did.
_SINCE = {"encoding": "grey", "group": "exact"}
RESUMED_TRAINER = ("precision", "gradient_clip_val", "accumulate_grad_batches")


class Loaded(NamedTuple):
    """A trained network and what its checkpoint says of it.

    Attributes:
        network: In evaluation mode, on the CPU.
        config: The resolved config of its run.
        record: What the task put beside the weights: `class_names`, `split_digest`, `data_fingerprint`, ...
        predictor: How logits become decisions: what was fitted for the run, or for a bare .ckpt file argmax.
    """

    network: nn.Module
    config: Any
    record: dict[str, Any]
    predictor: Predictor


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
    checkpoint = read_pickle(path)
    record = checkpoint.get("wafer_lab") if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise UserError(f"{path} is not a wafer_lab checkpoint; use one that train.py wrote")
    return dict(checkpoint)


def load_task(path: str | Path) -> Loaded:
    """Rebuild the trained network of a run.

    Args:
        path: A run's folder (its best checkpoint and its predictor are taken) or a .ckpt file.

    Returns:
        The network with its config and record.

    Raises:
        UserError: As `read_checkpoint`, or its config names no network of `wafer_lab.models`, or the weights do not
            fit it.
    """
    path = fitted = Path(path)
    if path.is_dir():
        parts = sorted(file.parts[-3] for file in path.glob("*/checkpoints/best.ckpt"))
        if parts and not (path / "checkpoints").exists():
            raise UserError(f"{path} holds several models; name one of them: {', '.join(parts)}")
        path = path / "checkpoints" / "best.ckpt"
    checkpoint = read_checkpoint(path)
    record = checkpoint["wafer_lab"]
    check_plain(record["config"], path)  # whoever reads a value of the config would resolve it
    network = _network(record["config"], path)
    restore(network, checkpoint, path)
    return Loaded(network.eval(), OmegaConf.create(record["config"]), record, _predictor(fitted / PREDICTOR, record))


def _network(config: Mapping[str, Any], path: Path) -> nn.Module:
    """Build the network of a stored config from nothing but the nodes that were checked."""
    nodes = {group: _without_files(config.get(group)) for group in ("model", "head")}
    if not all(isinstance(node, dict) for node in nodes.values()):
        raise UserError(f"{path} names no model and head; use a checkpoint that train.py wrote")
    check_targets(nodes, models.__name__, path)
    try:
        return build_network(OmegaConf.create(nodes))
    except TypeError as error:
        raise UserError(
            f"the network in {path} does not fit this version of wafer_lab ({error}); use the version that trained it"
        ) from error


def _without_files(node: Any) -> Any:
    """A network's config without files of weights, such as timm reads: its weights are those of the checkpoint."""
    if isinstance(node, Mapping):
        return {key: _without_files(value) for key, value in node.items() if key != "checkpoint_path"}
    return [_without_files(value) for value in node] if isinstance(node, list | tuple) else node


def _predictor(file: Path, record: dict[str, Any]) -> Predictor:
    names, target = record["class_names"], record["config"]["data"]["target"]
    kind: TargetKind = "multiclass" if target == "multiclass" else "multilabel"
    if not file.is_file():
        return Predictor.plain(names, kind)
    predictor = Predictor.read(file)
    if (list(predictor.class_names), predictor.target_kind) != (list(names), kind):
        raise UserError(f"{file} was fitted for other classes than the checkpoint beside it; wafer-lab evaluate RUN")
    return predictor


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


def check_resumable(path: str | Path, ours: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Refuse to resume a run as a different one.

    Args:
        path: The checkpoint to resume from; where a `last.ckpt` is damaged, the one before it is taken.
        ours: The record of the run about to start, as its checkpoints will hold it.

    Returns:
        The checkpoint to resume from, and its record.

    Raises:
        UserError: The checkpoint is unreadable, or of other classes, other data, another split or other settings.
    """
    path, theirs = _readable(Path(path))
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
    return path, dict(theirs)


def _readable(path: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its record; the `previous.ckpt` beside a `last.ckpt` that is missing or damaged."""
    try:
        return path, _intact(path)
    except UserError as error:
        previous = path.with_name(PREVIOUS)
        if path.name != LAST or not previous.is_file():
            raise
        try:
            record = _intact(previous)
        except UserError:
            best = path.with_name("best.ckpt")
            raise UserError(f"{error}, and so is {previous}; go on from the best epoch: ckpt_path={best}") from None
        print(f"warning: {error}; going on from the checkpoint before it, {previous}", flush=True)
        return previous, record


def _intact(path: Path) -> dict[str, Any]:
    """The record of a checkpoint whose every byte is as it was written."""
    record: dict[str, Any] = read_checkpoint(path)["wafer_lab"]
    with zipfile.ZipFile(path) as archive:
        if part := archive.testzip():  # torch reads on where a checksum does not fit
            raise UserError(f"{path} is damaged ({part} is not what was written)")
    return record


def _names(record: dict[str, Any]) -> str:
    return f"{len(record['class_names'])} classes ({', '.join(record['class_names'])})"


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """Every setting that decides the weights, by its dotted path."""
    groups = {group: config[group] for group in RESUMED_GROUPS}
    tuned = asdict(Finetune()) | (config.get("finetune") or {})  # older runs lack it
    groups |= {"weights": config.get("weights"), "finetune": {k: v for k, v in tuned.items() if k != "_target_"}}
    groups["callbacks"] = {"ema": (config.get("callbacks") or {}).get("ema")}  # a checkpoint holds its averages
    free = ("path", "cache", "num_workers", "views", "external", "external_classes")
    groups["data"] = {k: v for k, v in (_SINCE | config["data"]).items() if k not in free}
    # A schedule spans the whole run; without one a run may be made longer.
    kept = (*RESUMED_TRAINER, "max_epochs") if config["scheduler"] else RESUMED_TRAINER
    groups["trainer"] = {k: config["trainer"].get(k) for k in kept}
    return {path: value for path, value in _flat(groups, "") if value not in ([], None)}  # older runs lack what is off


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node
