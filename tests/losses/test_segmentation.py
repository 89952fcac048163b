"""Losses of masks against plain loops, smp.losses, and their limits."""

import math

import pytest
import torch
from segmentation_models_pytorch import losses as smp
from torch import Tensor

from wafer_lab.errors import UserError
from wafer_lab.losses import functional, segmentation
from wafer_lab.losses.segmentation import dice, tversky

SHAPE = (2, 3, 5, 4)
WEIGHTS = torch.tensor([0.5, 3.0, 1.5], dtype=torch.float64)


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def masks() -> Tensor:
    return (torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) > 0.6).double()


@pytest.fixture
def partial(masks: Tensor) -> Tensor:
    """With every seventh element not known, and class 2 absent."""
    masks = masks.clone()
    masks[:, 2] = 0
    masks.view(-1)[::7] = -1
    return masks


def by_loop(logits: Tensor, masks: Tensor, alpha: float, beta: float, smooth: float, weights: Tensor) -> float:
    total = weight_sum = 0.0
    for k in range(SHAPE[1]):
        hits = false = missed = 0.0
        for x, y in zip(logits[:, k].flatten().tolist(), masks[:, k].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-x))
            if y >= 0:
                hits, false, missed = hits + p * y, false + p * (1 - y), missed + (1 - p) * y
        if (masks[:, k] > 0).any():
            index = (hits + smooth) / (hits + alpha * false + beta * missed + smooth)
            total, weight_sum = total + weights[k].item() * (1 - index), weight_sum + weights[k].item()
    return total / weight_sum


@pytest.mark.parametrize(("alpha", "beta", "smooth"), [(0.3, 0.7, 1.0), (1.0, 1.0, 0.0), (0.5, 0.5, 20.0)])
def test_tversky_by_loop(logits: Tensor, partial: Tensor, alpha: float, beta: float, smooth: float) -> None:
    for weights in (torch.ones(3), WEIGHTS):
        expected = by_loop(logits, partial, alpha, beta, smooth, weights)
        assert tversky(logits, partial, alpha, beta, smooth, weights).item() == pytest.approx(expected)
    assert tversky(logits, partial, alpha, beta, smooth).item() == tversky(
        logits, partial, alpha, beta, smooth, torch.ones(3)
    )


@pytest.mark.parametrize("smooth", [0.0, 3.0])
def test_equal_smps_where_every_class_occurs(logits: Tensor, masks: Tensor, smooth: float) -> None:
    masks.view(-1)[::7] = -1
    options = {"mode": "multilabel", "smooth": smooth, "ignore_index": -1}
    expected = smp.TverskyLoss(alpha=0.3, beta=0.7, **options)(logits, masks)
    torch.testing.assert_close(tversky(logits, masks, 0.3, 0.7, smooth), expected)
    expected = smp.DiceLoss(**options)(logits, masks)  # adds smooth to half of Dice's fraction
    torch.testing.assert_close(dice(logits, masks, 2 * smooth), expected)
    weighted = smp.DiceLoss(class_weights=WEIGHTS.tolist(), **options)(logits, masks)
    torch.testing.assert_close(dice(logits, masks, 2 * smooth, WEIGHTS), weighted, check_dtype=False)


def test_focal_of_masks_equals_smps(logits: Tensor, masks: Tensor, partial: Tensor) -> None:
    """Its binary mode: every pixel of every mask is one question."""
    expected = smp.FocalLoss("binary", alpha=0.25, gamma=2.0)(logits, masks)
    torch.testing.assert_close(functional.sigmoid_focal(logits, masks, 2.0, 0.25), expected)
    expected = smp.FocalLoss("binary", gamma=1.5, ignore_index=-1)(logits, partial)
    torch.testing.assert_close(functional.sigmoid_focal(logits, partial, 1.5), expected)


def test_dice_is_a_case_of_tversky(logits: Tensor, partial: Tensor) -> None:
    torch.testing.assert_close(dice(logits, partial, smooth=0.0), tversky(logits, partial, 0.5, 0.5, smooth=0.0))
    torch.testing.assert_close(dice(logits, partial, smooth=4.0), tversky(logits, partial, 0.5, 0.5, smooth=2.0))


def test_limits(masks: Tensor) -> None:
    right = 60 * (2 * masks - 1)
    for smooth in (0.0, 1.0):
        assert tversky(right, masks, 0.3, 0.7, smooth).item() == pytest.approx(0, abs=1e-12)
        assert tversky(-right, masks, 0.3, 0.7, smooth).item() == pytest.approx(1, abs=0.5 * smooth)
    loss = segmentation.DiceFocalLoss("mask")
    assert loss(right, masks).item() == pytest.approx(0, abs=1e-9)
    assert loss(-right, masks).item() > 10


def test_classes_absent_from_the_batch_count_nothing(logits: Tensor, masks: Tensor) -> None:
    """Neither in the mean nor in the gradient, until a batch has them; dice_focal's second half counts them."""
    masks[:, 1] = 0
    logits.requires_grad_()
    kept = [0, 2]
    torch.testing.assert_close(dice(logits, masks), dice(logits[:, kept], masks[:, kept]))
    for loss, learns in ((segmentation.DiceLoss("mask"), False), (segmentation.DiceFocalLoss("mask"), True)):
        (gradient,) = torch.autograd.grad(loss(logits, masks), logits)
        assert bool(gradient[:, 1].any()) is learns
    (gradient,) = torch.autograd.grad(dice(logits, torch.zeros(SHAPE), smooth=0.0), logits)
    assert not gradient.any()
    assert dice(logits, torch.zeros(SHAPE), smooth=0.0).item() == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: tversky(x, y, 0.3, 0.7, 1.0, WEIGHTS),
        lambda x, y: functional.sigmoid_focal(x, y, 2.0, 0.25, WEIGHTS),
        lambda x, y: functional.binary_cross_entropy(x, y, WEIGHTS),
        lambda x, y: functional.asymmetric(x, y, pos_weight=WEIGHTS),
    ],
)
def test_gradients_and_what_is_not_known(logits: Tensor, partial: Tensor, loss) -> None:  # type: ignore[no-untyped-def]
    """Elements that are not known change nothing; the others' gradient is that of the value."""
    unknown = partial < 0
    assert loss(torch.where(unknown, logits + 5, logits), partial).item() == loss(logits, partial).item()
    assert torch.autograd.gradcheck(lambda x: loss(x, partial), (logits.requires_grad_(),))
    (gradient,) = torch.autograd.grad(loss(logits, torch.full_like(partial, -1)), logits)
    assert not gradient.any()


def test_elementwise_losses_of_masks_are_those_of_labels(logits: Tensor, partial: Tensor) -> None:
    """A mask is as many labels as it has pixels: only the place of the classes differs."""
    known = (partial >= 0).all(1, keepdim=True)
    partial = torch.where(known, partial, -1)
    rows = lambda x: x.movedim(1, -1)[known[:, 0]]  # noqa: E731
    for loss in (functional.binary_cross_entropy, functional.sigmoid_focal, functional.asymmetric):
        torch.testing.assert_close(
            loss(logits, partial, pos_weight=WEIGHTS), loss(rows(logits), rows(partial), pos_weight=WEIGHTS)
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: segmentation.DiceLoss("mask", smooth=-1.0), "loss.smooth is -1.0"),
        (lambda: segmentation.TverskyLoss("mask", alpha=-1.0), "loss.alpha is -1.0"),
        (lambda: segmentation.TverskyLoss("mask", 0.0, 0.0), "both 0"),
        (lambda: segmentation.DiceFocalLoss("mask", focal_weight=-1.0), "loss.focal_weight is -1.0"),
        (lambda: segmentation.DiceLoss("mask", log_prior=torch.zeros(3)), r"set imbalance.tau=0"),
    ],
)
def test_what_cannot_be_is_refused(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        build()
