import pytest
import torch
from torch import nn

from wafer_lab.losses.modules import CrossEntropyLoss
from wafer_lab.tasks.classification import ClassificationTask
from wafer_lab.tasks.finetune import parameter_groups


def task(**options):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    names = ["a", "b"]
    return ClassificationTask(
        network, CrossEntropyLoss("multiclass"), target="multiclass", class_names=names, optimizer=torch.optim.AdamW,
        **options,
    )  # fmt: skip


def test_matrices_decay_and_vectors_do_not():
    decayed, spared = parameter_groups(task().network)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}
    assert spared["weight_decay"] == 0


def test_frozen_parameters_are_left_to_themselves():
    network = task().network
    network[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(network)) == 4


def test_a_checkpoint_holds_the_record_and_the_network_only():
    made = task(record={"class_names": ["a", "b"]})
    checkpoint = {}
    made.on_save_checkpoint(checkpoint)
    assert checkpoint["wafer_lab"] == {"class_names": ["a", "b"]}
    assert all(key.startswith("network.") for key in made.state_dict())


def test_compiling_adds_nothing_to_the_state_dict():
    assert task(compile=True).state_dict().keys() == task().state_dict().keys()


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_probabilities(target):
    made = task()
    made.target = target
    probabilities = made.probabilities(torch.tensor([[2.0, -1.0]], dtype=torch.bfloat16))
    assert probabilities.dtype == torch.float32
    expected = torch.tensor([[2.0, -1.0]])
    expected = expected.softmax(-1) if target == "multiclass" else expected.sigmoid()
    torch.testing.assert_close(probabilities, expected)
