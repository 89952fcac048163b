import pytest
import torch
from torch import nn

from wafer_lab.data.batches import Batch
from wafer_lab.errors import UserError
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


def test_a_mixture_costs_what_its_two_wafers_cost_in_its_shares():
    """Of a network that is linear in its input and a loss that is linear in its target, as cross-entropy is."""
    made = task(mixup=0.4)
    image, target = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 1, 0, 1, 0])
    torch.manual_seed(0)
    mixed = made._mixed(Batch(image, target, torch.arange(6)))
    torch.manual_seed(0)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    other = torch.randperm(6)
    torch.testing.assert_close(mixed.image, share * image + (1 - share) * image[other])
    logits = torch.randn(6, 2)
    cost = torch.nn.functional.cross_entropy
    expected = share * cost(logits, target) + (1 - share) * cost(logits, target[other])
    torch.testing.assert_close(made.loss(logits, mixed.target), expected)


def test_mixtures_come_in_all_shares():
    made = task(mixup=1.0)
    torch.manual_seed(0)
    images = torch.eye(2)[:, :, None, None].repeat(1, 1, 8, 8)
    shares = [float(made._mixed(Batch(images, torch.tensor([0, 1]), torch.arange(2))).target[0, 0]) for _ in range(400)]
    mixed = [share for share in shares if share != 1]  # the other half are mixed with themselves
    assert len(mixed) == pytest.approx(200, abs=40)
    assert sum(mixed) / len(mixed) == pytest.approx(0.5, abs=0.08)


def test_a_negative_mixup_is_refused():
    with pytest.raises(UserError, match=r"task\.mixup=-1"):
        task(mixup=-1)
