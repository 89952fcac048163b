"""The main workflow: fit on train, select on val, predict val and test once, leave everything in the run's folder."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

import wafer_lab
from wafer_lab.config.build import build, resolved
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import provenance
from wafer_lab.imbalance.strategy import Imbalance, class_counts
from wafer_lab.tasks.base import Task
from wafer_lab.workflows import run_files
from wafer_lab.workflows.checkpoint import build_network, check_resumable, read_checkpoint, restore
from wafer_lab.workflows.predict import predict_split
from wafer_lab.workflows.quiet import silence


@dataclass(frozen=True)
class FitResult:
    """What a run leaves.

    Attributes:
        run_dir: Its folder.
        monitored: Best value of the monitored validation score.
        scores: Flat metrics of val and test, as in metrics.json.
        predictions: The predictions table of val and test.
    """

    run_dir: Path
    monitored: float
    scores: dict[str, float]
    predictions: Predictions


def fit(cfg: DictConfig) -> FitResult:
    """Train and judge one model.

    Args:
        cfg: A composed and validated config.

    Returns:
        The result; the files of the run lie in `cfg.paths.run`.

    Raises:
        UserError: Data, checkpoint or tracking server are not what the config says.
    """
    silence()
    started, made = time.monotonic(), provenance()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run_dir = Path(cfg.paths.run)
    config = resolved(cfg)
    datamodule: WaferDataModule = build(cfg.data)
    datamodule.setup()
    task = build_task(cfg, config, datamodule)
    if cfg.ckpt_path:
        check_resumable(cfg.ckpt_path, config, datamodule.class_names, datamodule.split_digest)
    run_dir.mkdir(parents=True, exist_ok=True)
    run_files.write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    print(run_files.opening(datamodule, task, run_dir), flush=True)
    with build(cfg.tracking).run(cfg.name, config, run_files.tags(datamodule)) as tracked:
        trainer, callbacks = build_trainer(cfg, tracked.logger)
        trainer.fit(task, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
        best = run_dir / "checkpoints" / "best.ckpt"
        restore(task.network, read_checkpoint(best), best)
        predictions = predict_split(task.network, datamodule, ("val", "test"), task.device)
        made["duration"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
        scores = run_files.write(run_dir, predictions, callbacks["history"], config, made, tracked)
    return FitResult(run_dir, float(callbacks["best"].best_model_score), scores, predictions)


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
    return task


def build_trainer(cfg: DictConfig, logger: Any) -> tuple[pl.Trainer, dict[str, Any]]:
    """The trainer and its callbacks by name."""
    callbacks = {name: build(node) for name, node in cfg.callbacks.items() if node is not None}
    if not logger:
        callbacks.pop("learning_rate", None)  # it has nowhere to write
    trainer: pl.Trainer = build(
        cfg.trainer,
        callbacks=list(callbacks.values()),
        logger=logger or False,
        default_root_dir=cfg.paths.run,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer, callbacks


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)
