"""From a composed config to the objects of a run."""

import difflib
import sys
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import nn

import wafer_lab
from wafer_lab.config.build import build
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.imbalance.strategy import Imbalance, class_counts
from wafer_lab.models.classifier import Classifier
from wafer_lab.models.segmenter import Segmenter, map_features
from wafer_lab.models.weights import load_weights
from wafer_lab.tasks.base import Task
from wafer_lab.tasks.checkpointing import LAST, AtomicCheckpointIO
from wafer_lab.tasks.divergence import FiniteLoss
from wafer_lab.tasks.progress import Progress
from wafer_lab.tasks.stopping import StopOnSignal
from wafer_lab.workflows.devices import check_device, fastest_precision, kind_of_device

PIXEL_HEAD = "wafer_lab.models.heads.PixelHead"
_PROBE = 64  # pixels; side of a canvas that every encoder takes which is not built for one size


def build_network(config: Any) -> nn.Module:
    """The untrained network of a config: its encoder under its head, which says whether wafers or pixels are classed.

    Raises:
        UserError: The head is for pixels, and the encoder has no feature map.
    """
    encoder = build(config.model)
    if config.head.get("_target_") != PIXEL_HEAD:
        return Classifier(encoder, build(config.head, in_features=encoder.num_features))
    width = map_features(encoder, config.model.in_channels, config.model.get("img_size", _PROBE))
    return Segmenter(encoder, build(config.head, in_features=width))


def build_task(cfg: DictConfig, config: dict[str, Any], datamodule: WaferDataModule) -> Task:
    """Build network, loss and optimizer round a data set; its label counts feed the imbalance strategy.

    Args:
        cfg: The composed config.
        config: The same, resolved; it goes into every checkpoint.
        datamodule: Opened and split. Its training batches follow the imbalance strategy and the task from here on.

    Returns:
        The task.
    """
    loss = build_loss(cfg, datamodule)
    record = {
        "config": config,
        "class_names": list(datamodule.class_names),
        "split_digest": datamodule.split_digest,
        "data_fingerprint": datamodule.fingerprint,
        "version": wafer_lab.__version__,
    }
    network = build_network(cfg)
    if cfg.weights and not cfg.ckpt_path:  # a checkpoint has its own
        _pretrain(network.encoder, cfg, datamodule)
    task: Task = build(
        cfg.task,
        network=network,
        loss=loss,
        class_names=datamodule.class_names,
        optimizer=build(cfg.optimizer),
        scheduler=build(cfg.scheduler) if cfg.scheduler else None,
        finetune=build(cfg.finetune),
        record=record,
    )
    datamodule.streams = task.streams
    if cfg.task.monitor not in (names := task.monitors()):
        close = difflib.get_close_matches(cfg.task.monitor, names, n=3)
        raise UserError(f"task.monitor: there is no {cfg.task.monitor}; choose {', '.join(close or names[:8])}")
    return task


def build_loss(config: Any, datamodule: WaferDataModule) -> nn.Module:
    """The loss of a config, told of the classes' shares; the training batches follow its imbalance strategy from here.

    Args:
        config: With its groups loss and imbalance.
        datamodule: Opened and split.
    """
    labels, kind = datamodule.labels("train"), datamodule.label_kind
    counts = class_counts(labels, datamodule.num_classes, kind)
    imbalance: Imbalance = build(config.imbalance)
    datamodule.sample_weights = imbalance.sample_weights_for(labels, kind)
    loss: nn.Module = build(
        config.loss,
        class_weights=_tensor(imbalance.class_weights_for(counts, len(labels), kind)),
        log_prior=_tensor(imbalance.log_prior_for(counts, len(labels), kind)),
        class_counts=_tensor(counts),
    )
    return loss


def _pretrain(encoder: Any, cfg: DictConfig, datamodule: WaferDataModule) -> None:
    """Load `weights`, say so, and say what the weights may know of the test wafers."""
    loaded = load_weights(encoder, cfg.weights)
    print(loaded)
    if loaded.initial and cfg.finetune.mode == "linear_probe":
        raise UserError(
            f"{cfg.weights} lacks {', '.join(loaded.initial[:3])}, ..., and finetune=linear_probe would leave them "
            "random; use finetune=frozen, which trains them with the head, or a model without them"
        )
    data, split = (loaded.record.get(key) for key in ("data_fingerprint", "split_digest"))
    if data == datamodule.fingerprint and split != datamodule.split_digest:
        why = "was trained on another split of these data, and may have seen the test wafers"
        print(f"warning: {cfg.weights} {why}")


def build_trainer(
    cfg: DictConfig, logger: Any, watchers: Sequence[pl.Callback] | None = None
) -> tuple[pl.Trainer, dict[str, Any]]:
    """The trainer and the config's callbacks by name.

    Args:
        cfg: The composed config.
        logger: Of the tracker.
        watchers: Callbacks of whoever runs many fits and shows their progress itself; None shows that of this one.
    """
    check_device(cfg.trainer.accelerator)
    callbacks = {name: build(node) for name, node in cfg.callbacks.items() if node is not None}
    guards = [FiniteLoss(cfg.paths.run), StopOnSignal(f"{cfg.paths.run}/checkpoints/{LAST}")]
    terminal = sys.stderr.isatty() and watchers is None
    automatic: dict[str, Any] = {}
    if cfg.trainer.precision == "auto":
        automatic["precision"] = fastest_precision(cfg.trainer.accelerator)
    if cfg.trainer.get("sync_batchnorm") and kind_of_device(cfg.trainer.accelerator) == "cpu":
        automatic["sync_batchnorm"] = False  # torch has none on the CPU: every process normalises its own share
    trainer: pl.Trainer = build(
        cfg.trainer,
        **automatic,
        callbacks=[*callbacks.values(), *guards, *(watchers or ()), *([Progress()] if terminal else [])],
        plugins=[AtomicCheckpointIO()],
        logger=logger or False,
        default_root_dir=cfg.paths.run,
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer, callbacks


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)
