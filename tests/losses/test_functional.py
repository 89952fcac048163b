"""Losses against plain loops, torch, torchvision, and their limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from wafer_lab.losses import functional

CLASSES, SAMPLES = 4, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(SAMPLES, CLASSES, generator=generator(), dtype=torch.float64)


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 0, 2])


@pytest.fixture
def labels() -> Tensor:
    return (torch.rand(SAMPLES, CLASSES, generator=generator(1)) > 0.6).double()


@pytest.fixture
def soft() -> Tensor:
    return torch.rand(SAMPLES, CLASSES, generator=generator(2), dtype=torch.float64).softmax(-1)


WEIGHTS = torch.tensor([0.5, 1.0, 4.0, 2.0], dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cross_entropy_is_torchs_weighted_mean(logits: Tensor, classes: Tensor) -> None:
    expected = F.cross_entropy(logits, classes, weight=WEIGHTS, label_smoothing=0.1)
    torch.testing.assert_close(functional.cross_entropy(logits, classes, WEIGHTS, 0.1), expected)
    torch.testing.assert_close(functional.cross_entropy(logits, classes), F.cross_entropy(logits, classes))


def test_cross_entropy_by_loop(logits: Tensor, classes: Tensor) -> None:
    total = weight_sum = 0.0
    for row, k in zip(logits.tolist(), classes.tolist(), strict=True):
        total -= WEIGHTS[k].item() * math.log(softmax(row)[k])
        weight_sum += WEIGHTS[k].item()
    assert functional.cross_entropy(logits, classes, WEIGHTS).item() == pytest.approx(total / weight_sum)


def test_soft_targets_match_torch_without_weights(logits: Tensor, soft: Tensor) -> None:
    torch.testing.assert_close(functional.cross_entropy(logits, soft), F.cross_entropy(logits, soft))
    torch.testing.assert_close(functional.softmax_focal(logits, soft, 0.0), F.cross_entropy(logits, soft))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_one_hot_targets_give_the_hard_loss(logits: Tensor, classes: Tensor, weights: Tensor | None) -> None:
    one_hot = F.one_hot(classes, CLASSES).double()
    for loss in (
        lambda target: functional.cross_entropy(logits, target, weights),
        lambda target: functional.softmax_focal(logits, target, 2.0, weights),
    ):
        torch.testing.assert_close(loss(one_hot), loss(classes))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_softmax_focal_by_loop(logits: Tensor, classes: Tensor, gamma: float) -> None:
    total = weight_sum = 0.0
    for row, k in zip(logits.tolist(), classes.tolist(), strict=True):
        p = softmax(row)[k]
        total -= WEIGHTS[k].item() * (1 - p) ** gamma * math.log(p)
        weight_sum += WEIGHTS[k].item()
    result = functional.softmax_focal(logits, classes, gamma, WEIGHTS).item()
    assert result == pytest.approx(total / weight_sum)


def test_softmax_focal_without_focus_is_cross_entropy(logits: Tensor, classes: Tensor) -> None:
    expected = F.cross_entropy(logits, classes, weight=WEIGHTS)
    torch.testing.assert_close(functional.softmax_focal(logits, classes, 0.0, WEIGHTS), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_equals_torchvision(logits: Tensor, labels: Tensor, gamma: float, alpha: float | None) -> None:
    expected = sigmoid_focal_loss(logits, labels, -1 if alpha is None else alpha, gamma, reduction="mean")
    torch.testing.assert_close(functional.sigmoid_focal(logits, labels, gamma, alpha), expected)


def test_binary_losses_without_focus_are_torchs_bce(logits: Tensor, labels: Tensor) -> None:
    expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=WEIGHTS)
    torch.testing.assert_close(functional.binary_cross_entropy(logits, labels, WEIGHTS), expected)
    torch.testing.assert_close(functional.sigmoid_focal(logits, labels, 0.0, None, WEIGHTS), expected)
    torch.testing.assert_close(functional.asymmetric(logits, labels, 0.0, 0.0, 0.0, WEIGHTS), expected)


def test_asymmetric_with_equal_gammas_is_focal(logits: Tensor, labels: Tensor) -> None:
    expected = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(functional.asymmetric(logits, labels, 2.0, 2.0, 0.0), expected)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4.0, 0.0, 0.05), (4.0, 1.0, 0.2), (0.5, 2.0, 0.0)])
def test_asymmetric_by_loop(logits: Tensor, labels: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> None:
    total = 0.0
    for xs, ys in zip(logits.tolist(), labels.tolist(), strict=True):
        for x, y, weight in zip(xs, ys, WEIGHTS.tolist(), strict=True):
            p, p_m = sigmoid(x), max(sigmoid(x) - clip, 0)
            total -= weight * (1 - p) ** gamma_pos * math.log(p) if y else p_m**gamma_neg * math.log(1 - p_m)
    result = functional.asymmetric(logits, labels, gamma_neg, gamma_pos, clip, WEIGHTS).item()
    assert result == pytest.approx(total / logits.numel())


def test_asymmetric_ignores_easy_negatives() -> None:
    easy = torch.full((1, 1), math.log(0.04 / 0.96), requires_grad=True)
    loss = functional.asymmetric(easy, torch.zeros(1, 1), clip=0.05)
    (gradient,) = torch.autograd.grad(loss, easy)
    assert loss.item() == 0
    assert gradient.item() == 0


def test_ldam_margins_by_hand() -> None:
    margins = functional.ldam_margins(torch.tensor([16, 1, 0, 81]), max_m=0.6)
    torch.testing.assert_close(margins, torch.tensor([0.3, 0.6, 0.6, 0.2]))


def test_ldam_by_loop(logits: Tensor, classes: Tensor) -> None:
    margins, s = [0.1, 0.5, 0.2, 0.3], 3.0
    total = weight_sum = 0.0
    for row, k in zip(logits.tolist(), classes.tolist(), strict=True):
        moved = [s * (x - margins[k] * (j == k)) for j, x in enumerate(row)]
        total -= WEIGHTS[k].item() * math.log(softmax(moved)[k])
        weight_sum += WEIGHTS[k].item()
    result = functional.ldam(logits, classes, torch.tensor(margins), s, WEIGHTS).item()
    assert result == pytest.approx(total / weight_sum)


def test_ldam_without_margins_is_cross_entropy(logits: Tensor, classes: Tensor) -> None:
    margins = functional.ldam_margins(torch.tensor([5, 1, 3, 2]), max_m=0.0)
    expected = F.cross_entropy(logits, classes)
    torch.testing.assert_close(functional.ldam(logits, classes, margins, s=1.0), expected)


def test_gradients(logits: Tensor, classes: Tensor, labels: Tensor, soft: Tensor) -> None:
    margins = functional.ldam_margins(torch.tensor([5, 1, 3, 2]), max_m=0.5)
    losses = [
        lambda x: functional.cross_entropy(x, classes, WEIGHTS, 0.1),
        lambda x: functional.cross_entropy(x, soft, WEIGHTS, 0.1),
        lambda x: functional.softmax_focal(x, classes, 2.0, WEIGHTS),
        lambda x: functional.softmax_focal(x, soft, 0.5),
        lambda x: functional.ldam(x, classes, margins, 2.0, WEIGHTS),
        lambda x: functional.binary_cross_entropy(x, labels, WEIGHTS),
        lambda x: functional.sigmoid_focal(x, labels, 2.0, 0.25, WEIGHTS),
        lambda x: functional.sigmoid_focal(x, labels, 0.5),
        lambda x: functional.asymmetric(x, labels, pos_weight=WEIGHTS),
        lambda x: functional.asymmetric(x, labels, 4.0, 1.0, 0.0),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))
