"""The main workflow: fit on train, select on val, predict val and test once, leave everything in the run's folder."""

import time
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig

from wafer_lab.config.build import build, resolved
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.external import judge_external
from wafer_lab.evaluation.judgement import check_settings, judge_predictions
from wafer_lab.evaluation.neighbours import judge_neighbours
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import provenance
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.tasks.base import Task
from wafer_lab.tasks.simclr import SimCLRTask
from wafer_lab.workflows import outcome, run_files, together
from wafer_lab.workflows.assemble import build_task, build_trainer
from wafer_lab.workflows.candidate import Candidate
from wafer_lab.workflows.checkpoint import check_resumable, read_checkpoint, restore
from wafer_lab.workflows.external import external_set, external_test
from wafer_lab.workflows.masks import MaskCounter, judge_counted, mask_counter
from wafer_lab.workflows.novelty import knn_column
from wafer_lab.workflows.outcome import Gallery
from wafer_lab.workflows.predict import predict_split
from wafer_lab.workflows.pretraining import write_encoder
from wafer_lab.workflows.pseudo_labels import add_pseudo_labels, report
from wafer_lab.workflows.quiet import silence


@dataclass(frozen=True)
class FitResult:
    """What a run leaves.

    Attributes:
        run_dir: Its folder.
        monitored: Best value of the monitored validation score.
        scores: Flat metrics of val and test, as in metrics.json.
        predictions: The predictions table of val and test; of a candidate, of val alone.
    """

    run_dir: Path
    monitored: float
    scores: dict[str, float]
    predictions: Predictions


def fit(cfg: DictConfig, nested: bool = False, candidate: Candidate | None = None) -> FitResult:
    """Train and judge one model.

    Args:
        cfg: A composed and validated config.
        nested: Whether it is a child of the run that is open: judged without alternatives, and on one device.
        candidate: Where it is only to be chosen from, what that takes.

    Returns:
        The result; the files of the run lie in `cfg.paths.run`.

    Raises:
        UserError: Data, checkpoint or tracking server are not what the config says, or the disk is full. Of its kinds,
            DivergedError: a training loss was NaN or infinite; OutOfMemoryError: the run needs more than there is.
        SystemExit: 0 after training in every process but the first, which alone judges the model.
    """
    silence()
    together.check(cfg, nested)
    started, made = time.monotonic(), provenance()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run_dir, config = Path(cfg.paths.run), resolved(cfg)
    datamodule: WaferDataModule = build(cfg.data)
    datamodule.open_and_split()
    elsewhere = external_set(datamodule)
    settings: Evaluation = build(cfg.evaluation)
    check_settings(settings, datamodule.class_names, datamodule.label_kind, datamodule.views)
    pseudo = add_pseudo_labels(cfg, datamodule)
    task = build_task(cfg, config, datamodule)
    datamodule.setup()  # which loads what the task trains on
    resumes_from, earlier = check_resumable(cfg.ckpt_path, task.record) if cfg.ckpt_path else (None, {})
    tags = run_files.tags(datamodule) | dict(candidate.tags if candidate else {})
    with (
        run_files.claim(run_dir, config, resumes=bool(cfg.ckpt_path)),
        build(cfg.tracking).run(cfg.name, run_files.choices() | config, tags, nested, earlier.get("run_id")) as tracked,
        run_files.interruptible(run_dir, nested),
    ):
        task.record["run_id"] = tracked.id
        trainer, callbacks = build_trainer(cfg, tracked.logger, candidate.callbacks if candidate else None)
        device = trainer.strategy.root_device  # after fit the task is back on the CPU
        if together.is_first(trainer):
            print(run_files.opening(cfg, datamodule, task), *report(pseudo, datamodule, run_dir), sep="\n", flush=True)
            outcome.remove(run_dir)
        trainer.fit(task, datamodule=datamodule, ckpt_path=resumes_from, weights_only=True)
        together.part(trainer)
        restore(task.network, read_checkpoint(best := run_dir / "checkpoints" / "best.ckpt"), best)
        monitored = float(callbacks["best"].best_model_score)
        if candidate:
            epoch = callbacks["history"].best_epoch(cfg.task.mode)
            return FitResult(run_dir, monitored, *candidate.finish(task, datamodule, device, run_dir, epoch, tracked))
        print("judging the best checkpoint on val and test", flush=True)
        predictions, counter = _predict(task, datamodule, device, run_dir)
        made["duration"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
        made |= run_files.facts(cfg, datamodule, tracked.id) | callbacks["history"].best(cfg.task.mode)
        outcome.write_facts(run_dir, made)
        external = external_test(task.network, datamodule, elsewhere, device, run_dir)
        judgement = judge_external(judge_predictions(predictions, settings, alternatives=not nested), external)
        judgement = judge_counted(judge_neighbours(judgement, run_dir), counter, task.network, run_dir, cfg.figures)
        outcome.write(run_dir, judgement, config, Gallery.of(datamodule.store))
        outcome.publish(run_dir, judgement, tracked)
    return FitResult(run_dir, monitored, judgement.scores, predictions)


def _predict(
    task: Task, datamodule: WaferDataModule, device: torch.device, run_dir: Path
) -> tuple[Predictions, MaskCounter | None]:
    """Predict val and test once, and write the table; of a pretrained encoder also what its features are worth."""
    network = task.network
    if isinstance(task, SimCLRTask):
        write_encoder(network, datamodule, device, run_dir, task.neighbours)
    parts = ("val", "test", "unknown") if len(datamodule.split.unknown) else ("val", "test")
    distances = knn_column(network, datamodule, parts, device) if "unknown" in parts else None
    counter = mask_counter(datamodule)
    predictions = predict_split(network, datamodule, parts, device, distances, counter)
    predictions.write(run_dir / "predictions.parquet")
    return predictions, counter
