"""The accumulated metrics against the scores of everything at once, and scikit-learn's ranking scores."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from wafer_lab.errors import UserError
from wafer_lab.metrics.collection import classification_metrics
from wafer_lab.metrics.scores import MultilabelCounts, confusion_matrix, multiclass_scores, multilabel_scores

NAMES = ("Center", "Donut", "Loc", "Scratch", "none")
SIZE = len(NAMES)
TARGETS = ["multiclass", "multilabel"]


def predictions(target: str, absent: int | None = None) -> tuple[Tensor, Tensor]:
    """300 probabilities with many ties, and targets they know something about."""
    rng = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(300, SIZE, generator=rng)).round()
    noisy = logits + 2 * torch.randn(300, SIZE, generator=rng)
    if absent is not None:
        noisy[:, absent] = -100
    if target == "multiclass":
        return logits.softmax(-1), noisy.argmax(-1)
    return logits.sigmoid(), (noisy > 1).to(torch.int8)


def expected_scores(target: str, probabilities: Tensor, true: Tensor) -> dict[str, float]:
    p, y = probabilities.numpy(), true.numpy()
    if target == "multiclass":
        scores = multiclass_scores(confusion_matrix(y, p.argmax(1), SIZE), NAMES)
        y = np.eye(SIZE, dtype=int)[y]
    else:
        scores = multilabel_scores(MultilabelCounts.of(y, p >= 0.5), NAMES)
    result = {key: float(value) for key, value in scores.items()}
    both = [k for k in range(SIZE) if 0 < y[:, k].sum() < len(y)]
    auroc = {f"auroc/{NAMES[k]}": roc_auc_score(y[:, k], p[:, k]) for k in both}
    ap = {f"average_precision/{NAMES[k]}": average_precision_score(y[:, k], p[:, k]) for k in both}
    means = {"auroc_macro": np.mean([*auroc.values()]), "average_precision_macro": np.mean([*ap.values()])}
    return result | auroc | ap | means


@pytest.mark.parametrize("absent", [None, 1])
@pytest.mark.parametrize("target", TARGETS)
def test_batches_equal_all_at_once_and_scikit_learn(target: str, absent: int | None) -> None:
    probabilities, true = predictions(target, absent)
    metrics = classification_metrics(target, SIZE, NAMES)
    for p, y in zip(probabilities.split(64), true.split(64), strict=True):
        metrics.update(p, y)
    computed = {key: value.item() for key, value in metrics.compute().items()}
    assert computed == pytest.approx(expected_scores(target, probabilities, true), abs=1e-6)
    assert ("auroc/Donut" in computed) is (absent is None)


@pytest.mark.parametrize("target", TARGETS)
def test_without_ranking_nothing_is_stored(target: str) -> None:
    probabilities, true = predictions(target)
    light, full = (classification_metrics(target, SIZE, NAMES, ranking=flag) for flag in (False, True))
    light.update(probabilities, true)
    full.update(probabilities, true)
    left_out = full.compute().keys() - light.compute().keys()
    assert len(left_out) == 2 * SIZE + 2
    assert all(key.startswith(("auroc", "average_precision")) for key in left_out)
    sizes = [state.numel() for metric in light.values() for state in metric.metric_state.values()]
    assert sum(sizes) <= SIZE * SIZE


@pytest.mark.parametrize("target", TARGETS)
def test_reset_forgets_and_prefix_names(target: str) -> None:
    probabilities, true = predictions(target)
    metrics = classification_metrics(target, SIZE, NAMES).clone(prefix="val/")
    metrics.update(probabilities[:100], true[:100])
    metrics.reset()
    metrics.update(probabilities[100:], true[100:])
    computed = {key.removeprefix("val/"): value.item() for key, value in metrics.compute().items()}
    assert computed == pytest.approx(expected_scores(target, probabilities[100:], true[100:]), abs=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_merged_processes_equal_one(target: str) -> None:
    probabilities, true = predictions(target)
    first, second, one = (classification_metrics(target, SIZE, NAMES) for _ in range(3))
    first.update(probabilities[:90], true[:90])
    second.update(probabilities[90:], true[90:])
    one.update(probabilities, true)
    for name, metric in first.items():
        metric.merge_state(second[name])  # applies each state's dist_reduce_fx
        assert metric.compute() == one[name].compute()


def test_threshold_is_reached_not_passed() -> None:
    metrics = classification_metrics("multilabel", 2, ("Center", "Loc"), threshold=0.7, ranking=False)
    metrics.update(torch.tensor([[0.7, 0.69], [0.1, 0.9]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    scores = metrics.compute()
    assert scores["f1/Center"] == 1
    assert scores["recall/Loc"] == 0.5
    assert scores["exact_match"] == 0.5


def test_normal_classes_are_no_defects() -> None:
    probabilities, true = predictions("multiclass")
    metrics = classification_metrics("multiclass", SIZE, NAMES, ranking=False, normal=["loc", "none"])
    metrics.update(probabilities, true)
    called = probabilities.argmax(1)
    defect, alarm = (true != 2) & (true != 4), (called != 2) & (called != 4)
    found = metrics.compute()
    assert found["escape_rate"] == pytest.approx((defect & ~alarm).sum() / defect.sum())
    assert found["false_alarm_rate"] == pytest.approx((~defect & alarm).sum() / (~defect).sum())
    with pytest.raises(UserError, match="clean"):
        classification_metrics("multiclass", SIZE, NAMES, normal=["clean"])


@pytest.mark.parametrize("ranking", [False, True])
def test_single_class_gives_no_ranking_scores_and_no_nan(ranking: bool) -> None:
    metrics = classification_metrics("multiclass", SIZE, NAMES, ranking=ranking)
    metrics.update(torch.full((4, SIZE), 1 / SIZE), torch.full((4,), 4))
    scores = metrics.compute()
    assert all(torch.isfinite(value) for value in scores.values())
    assert not [key for key in scores if key.startswith(("auroc/", "average_precision/"))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("target", TARGETS)
def test_other_precisions_are_taken(target: str, dtype: torch.dtype) -> None:
    probabilities, true = predictions(target)
    metrics = classification_metrics(target, SIZE, NAMES)
    metrics.update(probabilities.to(dtype), true)
    expected = expected_scores(target, probabilities.to(dtype).float(), true)
    assert {key: value.item() for key, value in metrics.compute().items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("target", TARGETS)
def test_logits_and_nan_are_refused(target: str, value: float) -> None:
    probabilities, true = predictions(target)
    probabilities[3, 2] = value
    for metric in classification_metrics(target, SIZE, NAMES).values():
        with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
            metric.update(probabilities, true)


def test_other_targets_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'mask'"):
        classification_metrics("mask", SIZE, NAMES)
    with pytest.raises(ValueError, match="5 class names do not fit 4 classes"):
        classification_metrics("multiclass", 4, NAMES)
