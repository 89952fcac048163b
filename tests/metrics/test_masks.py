"""Mask scores against plain sets, scikit-learn's jaccard and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor
from torchmetrics.functional.classification import multilabel_jaccard_index

from wafer_lab.metrics.collection import mask_counts, mask_metrics
from wafer_lab.metrics.masks import MaskCounts, mask_scores

NAMES = ("Center", "Donut", "Loc")


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    """Probabilities and masks of six wafers that agree more often than not; wafers 4 and 5 have nothing."""
    rng = torch.Generator().manual_seed(0)
    masks = (torch.rand(6, 3, 9, 9, generator=rng) > 0.7).float()
    masks[4:] = 0
    probabilities = (0.6 * masks + 0.6 * torch.rand(6, 3, 9, 9, generator=rng)).clamp(max=1)
    probabilities[5] = 0
    return probabilities, masks


def computed(*batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    metrics = mask_metrics(NAMES).clone(prefix="val/")
    for probabilities, masks in batches:
        metrics.update(probabilities, masks)
    return {key.removeprefix("val/"): value.item() for key, value in metrics.compute().items()}


def test_scores_are_those_of_scikit_learn_and_torchmetrics(drawn: tuple[Tensor, Tensor]) -> None:
    probabilities, masks = drawn
    called, true = (x.movedim(1, -1).reshape(-1, 3) for x in ((probabilities >= 0.5).int(), masks.int()))
    expected = {f"iou/{name}": jaccard_score(true[:, k], called[:, k]) for k, name in enumerate(NAMES)}
    expected |= {f"dice/{name}": f1_score(true[:, k], called[:, k]) for k, name in enumerate(NAMES)}
    expected |= {"iou_macro": jaccard_score(true, called, average="macro")}
    expected |= {"dice_macro": f1_score(true, called, average="macro")}
    scores = computed(*zip(probabilities.split(4), masks.split(4), strict=True))
    assert scores == pytest.approx(expected, abs=1e-6)
    reference = multilabel_jaccard_index(called.float(), true, num_labels=3)
    assert scores["iou_macro"] == pytest.approx(reference.item(), abs=1e-6)


def test_what_is_not_known_counts_nothing(drawn: tuple[Tensor, Tensor]) -> None:
    probabilities, masks = drawn
    unknown = masks.clone()
    unknown[:, :, 4:] = -1
    assert computed((probabilities, unknown)) == computed((probabilities[:, :, :4], masks[:, :, :4]))


def test_counts_of_each_wafer_by_sets(drawn: tuple[Tensor, Tensor]) -> None:
    probabilities, masks = drawn
    masks[0, 0, 0, :5] = -1
    counts = mask_counts(probabilities >= 0.5, masks)
    assert counts.shape == (3, 6, 3)
    for wafer in range(6):
        for k in range(3):
            known = {(i, j) for i in range(9) for j in range(9) if masks[wafer, k, i, j] >= 0}
            true = {at for at in known if masks[(wafer, k, *at)] == 1}
            called = {at for at in known if probabilities[(wafer, k, *at)] >= 0.5}
            assert counts[:, wafer, k].tolist() == [len(true & called), len(called), len(true)]


def test_empty_masks_rightly_predicted_change_nothing_and_false_ones_cost(drawn: tuple[Tensor, Tensor]) -> None:
    probabilities, masks = drawn
    without = computed((probabilities[:4], masks[:4]))
    empty = probabilities.clone()
    empty[4:] = 0
    assert computed((empty, masks)) == without
    assert computed(drawn)["iou_macro"] < without["iou_macro"]


def test_a_class_nowhere_is_left_out_of_the_mean() -> None:
    scores = mask_scores(MaskCounts(np.array([3, 0, 0]), np.array([4, 0, 5]), np.array([4, 0, 0])), NAMES)
    assert scores["iou/Center"] == pytest.approx(3 / 5)
    assert scores["dice/Center"] == pytest.approx(3 / 4)
    assert (scores["iou/Donut"], scores["iou/Loc"]) == (0, 0)
    assert scores["iou_macro"] == pytest.approx(3 / 5 / 2)
    assert scores["dice_macro"] == pytest.approx(3 / 4 / 2)
    nothing = mask_scores(MaskCounts(*np.zeros((3, 3), dtype=int)), NAMES)
    assert nothing["iou_macro"] == 0


def test_replicates_keep_their_dimension(drawn: tuple[Tensor, Tensor]) -> None:
    counts = mask_counts(drawn[0] >= 0.5, drawn[1]).numpy()
    draws = np.random.default_rng(0).integers(0, 6, (10, 6))
    many = mask_scores(MaskCounts(*(part[draws].sum(1) for part in counts)), NAMES)
    one = mask_scores(MaskCounts(*(part[draws[7]].sum(0) for part in counts)), NAMES)
    assert {key: values[7] for key, values in many.items()} == pytest.approx({k: float(v) for k, v in one.items()})


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="counts of 2 classes do not fit 3 class names"):
        mask_scores(MaskCounts(*np.ones((3, 2))), NAMES)
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        computed((torch.full((1, 3, 2, 2), 1.5), torch.zeros(1, 3, 2, 2)))
