"""FixMatch against the paper's equations, in plain loops."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Batch
from wafer_lab.errors import UserError
from wafer_lab.losses.modules import BCELoss, CrossEntropyLoss
from wafer_lab.tasks.fixmatch import FixMatchTask


def made(target="multiclass", **options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    loss = CrossEntropyLoss("multiclass") if target == "multiclass" else BCELoss("multilabel")
    named = {"target": target, "class_names": ["a", "b", "c"], "optimizer": torch.optim.AdamW, "strong": MapAugment()}
    return FixMatchTask(network, loss, **named | options)


def image(count, seed):
    return 2 * torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_a_step_is_equations_3_and_4_of_the_paper():
    task = made(threshold=0.6, mu=2, weight=0.7)
    task.trainer = SimpleNamespace(
        current_epoch=0, datamodule=SimpleNamespace(hidden_labels=lambda batch: batch.target)
    )
    task.log = task.log_dict = lambda *_, **__: None
    target = torch.tensor([0, 1, 2, 1])
    labelled = Batch(image(4, 0), target, torch.arange(4))
    unlabelled = Batch(image(16, 1), torch.full((8,), -1), torch.arange(8))
    found = float(task.training_step((labelled, unlabelled), 0).detach())

    logits = [task.network(batch.image).detach().double() for batch in (labelled, unlabelled)]
    supervised = sum(-math.log(row.softmax(0)[t]) for row, t in zip(logits[0], target, strict=True)) / 4
    unsupervised, sure = 0.0, 0
    for weak, strong in zip(logits[1][:8], logits[1][8:], strict=True):
        most, guess = weak.softmax(0).max(0)
        if most >= 0.6:
            sure += 1
            unsupervised += -math.log(strong.softmax(0)[guess])
    assert 0 < sure < 8
    assert found == pytest.approx(supervised + 0.7 * unsupervised / 8, rel=1e-5)
    assert float(task.pseudo.compute()["mask_rate"]) == sure / 8


def test_the_weak_view_teaches_and_is_not_taught():
    task = made(threshold=0.51)
    weak = torch.randn(6, 3, requires_grad=True)
    strong = torch.randn(6, 3, requires_grad=True)
    task.consistency(strong, *task.pseudo_labels(weak.detach())).backward()
    assert weak.grad is None
    assert strong.grad.abs().sum() > 0


def test_of_several_labels_each_counts_by_itself():
    task = made("multilabel", threshold=0.9)
    weak = torch.tensor([[4.0, -4.0, 0.1]])
    guess, counts = task.pseudo_labels(weak)
    assert guess.tolist() == [[1, 0, 1]]
    assert counts.tolist() == [[True, True, False]]
    strong = torch.tensor([[0.3, -0.2, 5.0]])
    expected = (math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-0.2))) / 3
    assert float(task.consistency(strong, guess, counts)) == pytest.approx(expected, rel=1e-5)


def test_alignment_scales_by_the_labels_shares_over_what_is_said():
    task = made(align=True, threshold=0.5001)
    task._shares = torch.tensor([0.2, 0.3, 0.5])
    task.trainer = SimpleNamespace(global_step=0)
    weak = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    says = None
    for step in range(3):
        task.trainer.global_step = step
        guess, counts = task.pseudo_labels(weak)
        probabilities = weak.double().softmax(1)
        mean = probabilities.mean(0)
        says = mean if says is None else 0.999 * says + 0.001 * mean
        scaled = probabilities * torch.tensor([0.2, 0.3, 0.5]).double() / says
        scaled = scaled / scaled.sum(1, keepdim=True)
        assert torch.equal(guess, scaled.argmax(1))
        assert torch.equal(counts, scaled.max(1).values >= 0.5001)
        weak = weak.flip(0) * 1.1


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"threshold": 1.2}, {"mu": 0}, {"weight": -1}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=r"task\.threshold must lie in"):
        made(**options)
    with pytest.raises(UserError, match=r"set task\.align=false"):
        made("multilabel", align=True)
