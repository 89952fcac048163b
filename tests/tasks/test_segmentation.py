"""The segmentation task in a bare training loop and in its validation."""

import pytest
import torch
from torch import nn

from wafer_lab.data.batches import Batch
from wafer_lab.errors import UserError
from wafer_lab.losses.segmentation import DiceFocalLoss
from wafer_lab.metrics.collection import mask_metrics
from wafer_lab.models.heads import PixelHead
from wafer_lab.models.segmenter import Segmenter
from wafer_lab.models.wafer_cnn import WaferCNN
from wafer_lab.tasks.segmentation import SegmentationTask

NAMES = ("Center", "Scratch")


@pytest.fixture
def task() -> SegmentationTask:
    torch.manual_seed(0)
    network = Segmenter(WaferCNN(1, width=8), PixelHead(32, 2))
    made = SegmentationTask(network, DiceFocalLoss("mask"), class_names=NAMES, optimizer=torch.optim.AdamW)
    made.log = made.log_dict = lambda *args, **kwargs: None  # there is no trainer
    return made


@pytest.fixture
def batch() -> Batch:
    """Eight wafers with a square each, whose place is the first pattern; the second is never there."""
    masks = torch.zeros(8, 2, 32, 32)
    for wafer in range(8):
        masks[wafer, 0, 8 * (wafer // 4) : 8 * (wafer // 4) + 16, 4 * (wafer % 4) : 4 * (wafer % 4) + 16] = 1
    return Batch(masks[:, :1].clone(), masks, torch.arange(8))


def test_overfits_eight_wafers(task: SegmentationTask, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for step in range(60):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    scores = mask_metrics(NAMES)
    with torch.no_grad():
        scores.update(task.probabilities(task(batch.image)), batch.target)
    assert scores.compute()["iou/Center"] > 0.85


def test_monitors_are_what_validation_logs(task: SegmentationTask, batch: Batch) -> None:
    logged: dict[str, float] = {}
    task.log = lambda name, value, **_: logged.update({name: value})
    task.log_dict = lambda values, **_: logged.update(values)
    task.eval()
    task.validation_step(batch, 0)
    task.on_validation_epoch_end()
    assert logged.keys() == {*task.monitors()}
    assert {"val/loss", "val/iou_macro", "val/dice/Scratch"} <= logged.keys()
    assert task.monitor in task.monitors()
    assert not task.scores["MaskScores"].counts.any()  # the next epoch starts from nothing


def test_diverged_outputs_end_the_run(task: SegmentationTask, batch: Batch) -> None:
    nn.init.constant_(task.network.head.conv.bias, torch.nan)
    with pytest.raises(UserError, match="training diverged"):
        task.validation_step(batch, 0)
