"""From a composed config to the objects of a run."""

import difflib
import sys
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
from wafer_lab.tasks.base import Task
from wafer_lab.tasks.checkpointing import AtomicCheckpointIO
from wafer_lab.tasks.progress import Progress


def build_network(config: Any) -> nn.Module:
    """The untrained network of a config: its encoder under its head."""
    encoder = build(config.model)
    return Classifier(encoder, build(config.head, in_features=encoder.num_features))


def build_task(cfg: DictConfig, config: dict[str, Any], datamodule: WaferDataModule) -> Task:
    """Build network, loss and optimizer round a data set; its label counts feed the imbalance strategy.

    Args:
        cfg: The composed config.
        config: The same, resolved; it goes into every checkpoint.
        datamodule: Set up. Its training sampler follows the imbalance strategy from here on.

    Returns:
        The task.
    """
    labels = datamodule.labels("train")
    counts = class_counts(labels, datamodule.num_classes, datamodule.target)
    imbalance: Imbalance = build(cfg.imbalance)
    datamodule.sample_weights = imbalance.sample_weights_for(labels, datamodule.target)
    loss = build(
        cfg.loss,
        class_weights=_tensor(imbalance.class_weights_for(counts, len(labels), datamodule.target)),
        log_prior=_tensor(imbalance.log_prior_for(counts, len(labels), datamodule.target)),
        class_counts=_tensor(counts),
    )
    record = {
        "config": config,
        "class_names": list(datamodule.class_names),
        "split_digest": datamodule.split_digest,
        "data_fingerprint": datamodule.fingerprint,
        "version": wafer_lab.__version__,
    }
    task: Task = build(
        cfg.task,
        network=build_network(cfg),
        loss=loss,
        class_names=datamodule.class_names,
        optimizer=build(cfg.optimizer),
        scheduler=build(cfg.scheduler) if cfg.scheduler else None,
        record=record,
    )
    if cfg.task.monitor not in (names := task.monitors()):
        close = difflib.get_close_matches(cfg.task.monitor, names, n=3)
        raise UserError(f"task.monitor: there is no {cfg.task.monitor}; choose {', '.join(close or names[:8])}")
    return task


def build_trainer(cfg: DictConfig, logger: Any) -> tuple[pl.Trainer, dict[str, Any]]:
    """The trainer and its callbacks by name."""
    callbacks = {name: build(node) for name, node in cfg.callbacks.items() if node is not None}
    terminal = sys.stderr.isatty()
    trainer: pl.Trainer = build(
        cfg.trainer,
        callbacks=[*callbacks.values(), *([Progress()] if terminal else [])],
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
