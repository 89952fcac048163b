"""Loss modules: every YAML option with every target, precision, buffers and errors."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from wafer_lab.errors import UserError
from wafer_lab.losses import modules, segmentation
from wafer_lab.losses.modules import Loss

CONF = Path(__file__).resolve().parents[2] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
LOSSES = {loss.option: loss for loss in Loss.__subclasses__()}
COUNTS = torch.tensor([50, 10, 3, 1])
PAIRS = [(option, target) for option in OPTIONS for target in LOSSES[option].targets]


@cache
def config(option: str, target: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+loss={option}", f"+data.target={target}"])


def composed(option: str, target: str, **statistics: Tensor) -> Loss:
    loss = instantiate(config(option, target).loss, class_counts=COUNTS, **statistics)
    assert isinstance(loss, Loss)
    return loss


def batch(target: str, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(8, 4, generator=rng)
    if target == "multiclass":
        return logits, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    labels = (torch.rand(8, 4, generator=rng) > 0.5).to(torch.uint8)
    return (logits, labels) if target == "multilabel" else (logits[..., None, None], labels[..., None, None])


def test_options_and_classes_are_the_same_set() -> None:
    assert sorted(LOSSES) == OPTIONS


@pytest.mark.parametrize("target", ["multiclass", "multilabel", "mask"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains_or_names_those_that_do(option: str, target: str) -> None:
    if target in LOSSES[option].targets:
        logits, labels = batch(target)
        loss = composed(option, target)(logits.requires_grad_(), labels)
        assert loss.shape == ()
        assert loss.item() > 0
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.abs().sum() > 0
        return
    with pytest.raises(InstantiationException) as error:
        composed(option, target)
    cause = error.value.__cause__
    assert isinstance(cause, UserError)
    assert f"loss={option} is for" in str(cause)
    assert "loss=focal" in str(cause)


def test_supported_targets_can_be_read_without_importing() -> None:
    source = "\n".join(Path(module.__file__).read_text(encoding="utf-8") for module in (modules, segmentation))
    tree = ast.parse(source)
    read = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name != "Loss":
            values = {
                item.targets[0].id: ast.literal_eval(item.value)
                for item in node.body
                if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
            }
            read[values["option"]] = values["targets"]
    assert read == {option: loss.targets for option, loss in LOSSES.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("option", "target"), PAIRS)
def test_extreme_logits_stay_finite(option: str, target: str, dtype: torch.dtype) -> None:
    logits, labels = batch(target)
    extreme = (1e4 * logits.sign()).to(dtype)
    extreme[0] = 0
    # every class is once all right and once all wrong, and ties at the extremes occur
    extreme = torch.cat([extreme, -extreme, torch.full_like(extreme, 1e4)]).requires_grad_()
    loss = composed(option, target)(extreme, torch.cat([labels, labels, labels]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert extreme.grad is not None
    assert torch.isfinite(extreme.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 5.0])
@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_focal_gradient_is_finite_where_the_focus_vanishes(target: str, gamma: float) -> None:
    # from doubt to certainty past the smallest float32, where x ** (gamma - 1) overflows
    sweep = torch.linspace(-120, 120, 481)
    logits = torch.stack([sweep, -sweep], dim=1).requires_grad_()
    labels = torch.zeros(481, dtype=torch.long) if target == "multiclass" else torch.tensor([[0, 1]] * 481)
    modules.FocalLoss(target, gamma)(logits, labels).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("option", "target"), PAIRS)
def test_autocast_changes_nothing(option: str, target: str) -> None:
    logits, labels = batch(target)
    loss = composed(option, target, class_weights=torch.tensor([0.3, 1.1, 2.7, 5.9]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss(logits, labels)
    assert lowered.dtype == torch.float32
    assert lowered.item() == loss(logits, labels).item()


@pytest.mark.parametrize(("option", "target"), PAIRS)
def test_class_weights_count(option: str, target: str) -> None:
    logits, labels = batch(target)
    plain, weighted = composed(option, target), composed(option, target, class_weights=COUNTS.float())
    equal = composed(option, target, class_weights=torch.ones(4))
    assert weighted(logits, labels).item() != pytest.approx(plain(logits, labels).item())
    assert equal(logits, labels).item() == pytest.approx(plain(logits, labels).item())


@pytest.mark.parametrize(("option", "target"), [pair for pair in PAIRS if pair[1] != "mask"])
def test_log_prior_is_added_in_training_only(option: str, target: str) -> None:
    logits, labels = batch(target)
    prior = torch.tensor([-0.2, -1.5, -3.0, -4.0])
    plain, adjusted = composed(option, target), composed(option, target, log_prior=prior)
    assert adjusted(logits, labels).item() == plain(logits + prior, labels).item()
    assert adjusted.eval()(logits, labels).item() == plain.eval()(logits, labels).item()


@pytest.mark.parametrize(("option", "target"), PAIRS)
def test_statistics_move_but_stay_out_of_the_checkpoint(option: str, target: str) -> None:
    prior = {} if target == "mask" else {"log_prior": torch.zeros(4)}
    loss = composed(option, target, class_weights=torch.ones(4), **prior)
    assert loss.state_dict() == {}
    assert all(buffer.device.type == "meta" for buffer in loss.to("meta").buffers())
    assert {"class_weights", *prior} <= {name for name, _ in loss.named_buffers()}


@pytest.mark.parametrize("option", ["cross_entropy", "focal"])
def test_soft_targets_are_allowed(option: str) -> None:
    logits, labels = batch("multiclass")
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    loss = composed(option, "multiclass", class_weights=COUNTS.float())
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))


def test_ldam_refuses_what_it_cannot_do() -> None:
    logits, labels = batch("multiclass")
    with pytest.raises(UserError, match="turn mixup off"):
        composed("ldam", "multiclass")(logits, torch.nn.functional.one_hot(labels, 4).float())
    with pytest.raises(UserError, match="class_counts"):
        modules.LDAMLoss("multiclass")


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("multiclass", torch.zeros(8, 1, dtype=torch.long)),
        ("multiclass", torch.zeros(7, dtype=torch.long)),
        ("multiclass", torch.zeros(8)),
        ("multilabel", torch.zeros(8)),
        ("multilabel", torch.zeros(8, 1)),
        ("mask", torch.zeros(8, 4)),
    ],
)
def test_targets_of_the_wrong_shape_are_refused(target: str, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="does not fit logits of shape"):
        modules.FocalLoss(target)(batch(target)[0], labels)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: modules.CrossEntropyLoss("multiclass", label_smoothing=1.5), "label_smoothing"),
        (lambda: modules.FocalLoss("multiclass", gamma=-1.0), "gamma"),
        (lambda: modules.FocalLoss("multiclass", gamma=float("nan")), "gamma"),
        (lambda: modules.FocalLoss("multilabel", alpha=2.0), "alpha"),
        (lambda: modules.FocalLoss("multiclass", alpha=0.25), "alpha"),
        (lambda: modules.LDAMLoss("multiclass", max_m=-0.5, class_counts=COUNTS), "max_m"),
        (lambda: modules.LDAMLoss("multiclass", s=0.0, class_counts=COUNTS), "s"),
        (lambda: modules.AsymmetricLoss("multilabel", gamma_neg=-1.0), "gamma_neg"),
        (lambda: modules.AsymmetricLoss("multilabel", clip=1.0), "clip"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused_with_the_key(build, key: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=f"loss.{key} "):
        build()


@pytest.mark.parametrize("option", ["cross_entropy", "focal", "bce", "asymmetric"])
def test_labels_and_pixels_that_are_not_known_count_nothing(option: str) -> None:
    for target in ("multilabel", "mask"):
        logits, labels = batch(target)
        unknown = labels.to(torch.int8)
        unknown[5:] = -1
        loss = composed(option, target, class_weights=COUNTS.float())
        assert loss(logits, unknown).item() == pytest.approx(loss(logits[:5], labels[:5]).item())


def test_smoothing_leaves_pixels_that_are_not_known_alone() -> None:
    logits, labels = batch("mask")
    unknown = labels.to(torch.int8)
    unknown[5:] = -1
    loss = modules.CrossEntropyLoss("mask", label_smoothing=0.8)
    torch.testing.assert_close(loss(logits, unknown), loss(logits[:5], labels[:5]))
