"""A fit that is one of many to choose from: it is measured on val, and test is never predicted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.tasks.base import Task
from wafer_lab.tracking.tracker import Run
from wafer_lab.workflows import outcome
from wafer_lab.workflows.predict import predict_split


@dataclass(frozen=True)
class Candidate:
    """What a fit takes from whoever chooses among many.

    Attributes:
        callbacks: Of its trainer, beside those of the config.
        tags: Of its run in the tracker.
        measure: The trained task, its data, its val predictions and the device -> scores that no epoch logs.
    """

    callbacks: Sequence[pl.Callback] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[Task, WaferDataModule, Predictions, torch.device], Mapping[str, float]] = lambda *_: {}

    def finish(
        self,
        task: Task,
        datamodule: WaferDataModule,
        device: torch.device,
        run_dir: Path,
        epoch: Mapping[str, float],
        tracked: Run,
    ) -> tuple[dict[str, float], Predictions]:
        """Predict val, and leave what the fit is chosen by in its folder and its run.

        Args:
            task: With the weights of the best epoch.
            datamodule: Its data.
            device: Where to compute.
            run_dir: Its folder.
            epoch: The val metrics of the best epoch.
            tracked: Its run.

        Returns:
            Its val scores and predictions.
        """
        predictions = predict_split(task.network, datamodule, ("val",), device)
        scores = {**epoch, **self.measure(task, datamodule, predictions, device)}
        outcome.write_candidate(run_dir, predictions, scores, tracked)
        return scores, predictions
