"""Class activation maps against their definitions, and the measures by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.evaluation.explanations import (
    METHODS,
    Quality,
    cam,
    energy_inside,
    explain,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    mean_interval,
    pointing_game,
)
from wafer_lab.models.classifier import Classifier
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.heads import LinearHead
from wafer_lab.models.mobilenet import mobilenet_v2, mobilenet_v3_small
from wafer_lab.models.resnet import resnet
from wafer_lab.models.timm_encoder import timm_encoder

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


class Tiny(Encoder):
    """A ReLU feature map of 3 channels at full size; the mean, or two more piecewise linear layers after it."""

    def __init__(self, hidden: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.after = nn.Sequential(nn.Linear(3, 5), nn.ReLU()) if hidden else nn.Identity()
        self.num_features = 5 if hidden else 3

    def forward_features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def pool(self, features: Tensor) -> Tensor:
        return self.after(features.mean((2, 3)))


def tiny(hidden: bool = False, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    encoder = Tiny(hidden)
    network = Classifier(encoder, LinearHead(encoder.num_features, 4)).double()
    with torch.no_grad():
        network.head.linear.weight[:, 0].abs_()  # something speaks for every label
    return network


def scaled(evidence: Tensor) -> Tensor:
    evidence = evidence.detach().relu()
    assert evidence.max() > 0
    return (evidence / evidence.max()).float()


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_grad_cam_plus_plus_is_the_papers_formula_on_the_exponential_score(hidden, label):
    """Derivatives of exp(S) to the third order by autograd, position by position."""
    network = tiny(hidden, seed=1)
    image = torch.randn(1, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(label))
    features = network.encoder.forward_features(image).detach().requires_grad_()
    y = network.head(network.encoder.pool(features))[0, label].exp()
    first = torch.autograd.grad(y, features, create_graph=True)[0]
    weights = torch.zeros(3, dtype=torch.float64)
    for k, i, j in torch.cartesian_prod(*(torch.arange(3),) * 3).tolist():
        second = torch.autograd.grad(first[0, k, i, j], features, create_graph=True)[0][0, k, i, j]
        third = torch.autograd.grad(second, features, retain_graph=True)[0][0, k, i, j]
        denominator = 2 * second + features[0, k].sum() * third
        alpha = second / denominator if denominator != 0 else torch.zeros(())
        weights[k] += (alpha * first[0, k, i, j].relu()).item()
    expected = torch.einsum("k,kij->ij", weights, features[0].detach())
    found = grad_cam_plus_plus(network, image, torch.tensor([label]))
    torch.testing.assert_close(found[0], scaled(expected))


def test_grad_cam_plus_plus_survives_scores_and_gradients_of_any_size():
    network = tiny().float()
    images, labels = torch.randn(40, 1, 6, 6), torch.arange(40) % 4
    expected = grad_cam_plus_plus(network, images, labels)
    warm = expected.amax((1, 2)) > 0
    assert warm.any()
    with torch.no_grad():
        network.head.linear.bias += 1000  # exp(1000) is infinite
    torch.testing.assert_close(grad_cam_plus_plus(network, images, labels), expected)
    with torch.no_grad():
        network.head.linear.weight *= 1e-25  # to the power of three: zero
    assert torch.equal(grad_cam_plus_plus(network, images, labels).amax((1, 2)), warm.float())


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_cam_by_its_definition(label):
    network = tiny()
    images = torch.randn(3, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(label))
    features = network.encoder.forward_features(images)
    heat = cam(network, images, torch.full((3,), label))
    for i in range(3):
        expected = sum(network.head.linear.weight[label, k] * features[i, k] for k in range(3))
        torch.testing.assert_close(heat[i], scaled(expected))


@pytest.mark.parametrize("method", [grad_cam, hires_cam])
def test_equals_cam_behind_the_mean_and_a_linear_head(method):
    """The gradients then are the weights, divided by the number of positions."""
    network, images, labels = tiny(), torch.randn(8, 1, 7, 7, dtype=torch.float64), torch.arange(8) % 4
    torch.testing.assert_close(method(network, images, labels), cam(network, images, labels))


def test_grad_cam_averages_gradients_that_differ_between_positions():
    """With a maximum beside the mean, the gradient has a spike; by hand on a map of one channel."""

    class Peak(Encoder):
        num_features = 2

        def forward_features(self, x: Tensor) -> Tensor:
            return x

        def pool(self, features: Tensor) -> Tensor:
            return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)

    network = Classifier(Peak(), LinearHead(2, 2))
    with torch.no_grad():
        network.head.linear.weight.copy_(torch.tensor([[1.0, -0.5], [-1.0, 2.0]]))
    image = torch.tensor([[[[4.0, 1.0], [2.0, 1.0]]]])
    # Gradients of label 0: 1/4 - 1/2 at the peak, 1/4 elsewhere, 1/8 on average.
    torch.testing.assert_close(grad_cam(network, image, torch.tensor([0]))[0], image[0, 0] / 4)
    expected = torch.tensor([[0.0, 0.5], [1.0, 0.5]])
    torch.testing.assert_close(hires_cam(network, image, torch.tensor([0]))[0], expected)
    assert (hires_cam(network, image, torch.tensor([1]))[0] > 0).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("method", METHODS)
def test_finds_a_planted_blob(method):
    """A network that knows bright from dark, label by label: the heat lies on the blob of the label asked for."""

    class Tones(Encoder):
        num_features = 2

        def forward_features(self, x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(torch.cat([x, -x], 1).relu(), 4)

    network = Classifier(Tones(), LinearHead(2, 2))
    with torch.no_grad():
        network.head.linear.weight.copy_(torch.eye(2))
    image = torch.zeros(1, 1, 32, 32)
    image[..., 4:12, 20:28], image[..., 20:28, 4:12] = 1, -1
    heat = explain(network, image.repeat(2, 1, 1, 1), torch.tensor([0, 1]), method)
    blobs = torch.cat([image[0] > 0, image[0] < 0])
    assert pointing_game(heat, blobs).all()
    assert (energy_inside(heat, blobs) > 0.6).all()
    assert (energy_inside(heat, blobs.flip(0)) == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_evidence_is_no_heat(method):
    network = tiny().float()
    with torch.no_grad():
        network.head.linear.weight.fill_(-1)
    heat = explain(network, torch.randn(2, 1, 6, 6), torch.tensor([0, 1]), method)
    assert torch.equal(heat, torch.zeros(2, 6, 6))


@pytest.mark.parametrize("config", MODELS)
def test_every_model_is_explained(config):
    data = ["+data.in_channels=3", "+data.canvas=40"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+model={config}", *data])
    torch.manual_seed(0)
    encoder = instantiate(cfg.model)
    network = Classifier(encoder, LinearHead(encoder.num_features, 5))
    images, labels = torch.rand(3, 3, 40, 40), torch.tensor([0, 4, 2])
    refused: dict[str, str] = {}
    for method in METHODS:
        try:
            heat = explain(network, images, labels, method)
        except UserError as reason:
            refused[method] = str(reason)
            continue
        assert heat.shape == (3, 40, 40)
        assert heat.dtype == torch.float32
        assert ((heat.amax((1, 2)) == 1) | (heat == 0).all(2).all(1)).all()
        assert heat.min() >= 0
        alone = explain(network, images[1:2], labels[1:2], method)
        torch.testing.assert_close(alone, heat[1:2], atol=1e-4, rtol=1e-3)
    assert set(refused) <= {"cam"}
    assert not refused or config in ("wafer_cnn", "mobilenetv3_small", "mobilenetv3_large")


def test_cam_wants_the_mean_and_a_linear_head():
    images, labels = torch.rand(2, 1, 32, 32), torch.tensor([0, 1])
    for encoder in (mobilenet_v2(1), timm_encoder("resnet10t", 1, 32)):  # they pool by the mean, each in its own way
        network = Classifier(encoder, LinearHead(encoder.num_features, 3))
        torch.testing.assert_close(cam(network, images, labels), grad_cam(network, images, labels))
    encoder = mobilenet_v3_small(1)
    with pytest.raises(UserError, match="use grad_cam"):
        cam(Classifier(encoder, LinearHead(encoder.num_features, 3)), images, labels)
    encoder = Tiny()
    with pytest.raises(UserError, match="use grad_cam"):
        cam(Classifier(encoder, nn.Sequential(LinearHead(3, 3), nn.Tanh())), images, labels)


def test_the_map_explained_is_the_one_that_pooling_sees():
    """With CBAM after the last stage, CAM of the gated map sums to the logit, up to bias; of the map before, not."""
    torch.manual_seed(0)
    encoder = resnet(1, attention="cbam", stem="3x3", width=8)
    network = Classifier(encoder, LinearHead(encoder.num_features, 3)).eval()
    images = torch.rand(2, 1, 32, 32)
    before = []
    encoder.layer4.register_forward_hook(lambda module, inputs, output: before.append(output))
    with torch.no_grad():
        logits = network(images) - network.head.linear.bias
        weights = network.head.linear.weight
        after = encoder.forward_features(images)
    for features, whole in ((after, True), (before[0], False)):
        total = torch.einsum("ck,bkhw->bchw", weights, features).mean((2, 3))
        assert torch.allclose(total, logits, atol=1e-5) == whole
    best = int(logits[0].argmax())
    evidence = torch.einsum("k,khw->hw", weights[best], after[0])
    enlarged = nn.functional.interpolate(evidence.relu()[None, None], (32, 32), mode="bilinear")[0, 0]
    torch.testing.assert_close(cam(network, images, torch.tensor([best, 0]))[0], scaled(enlarged))


def test_hires_cam_of_a_resnet_is_gradient_times_value_of_its_first_stage():
    torch.manual_seed(0)
    encoder = resnet(1, attention="cbam", stem="3x3", width=8)
    network = Classifier(encoder, LinearHead(encoder.num_features, 3)).eval()
    images, kept = torch.rand(2, 1, 32, 32), []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = encoder.attention[0].register_forward_hook(keep)
    network(images)[:, 2].sum().backward()
    hook.remove()
    expected = (kept[0].grad * kept[0]).sum(1).relu().detach()
    found = hires_cam(network.requires_grad_(False), images, torch.tensor([2, 2]))
    torch.testing.assert_close(found, expected / expected.amax((1, 2), keepdim=True), atol=1e-5, rtol=1e-4)


def test_a_padded_canvas_is_not_stretched():
    """timm pads 52 to 64 for a network of fixed size: the last 12 pixels of what its map covers are no canvas."""
    encoder = timm_encoder("maxvit_pico_rw_256", 1, 52).eval()
    network = Classifier(encoder, LinearHead(encoder.num_features, 2))
    assert encoder.padding == 12
    images, labels = torch.rand(1, 1, 52, 52), torch.tensor([1])
    heat = grad_cam(network, images, labels)
    encoder.padding = 0
    padded = grad_cam(network, nn.functional.pad(images, (0, 12, 0, 12)), labels)[:, :52, :52]
    assert heat.shape == (1, 52, 52)
    torch.testing.assert_close(heat, padded / padded.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_network_is_left_as_it_was_under_any_grad_mode(method, mode):
    torch.manual_seed(0)
    encoder = resnet(1, width=8)
    network = Classifier(encoder, LinearHead(encoder.num_features, 3)).train()
    encoder.layer1.eval()
    frozen = encoder.conv1.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    training = [module.training for module in network.modules()]
    expected = explain(network, images := torch.rand(2, 1, 32, 32), labels := torch.tensor([0, 1]), method)
    with mode():
        found = explain(network, images * 1, labels * 1, method)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == training
    assert all(p.grad is None for p in network.parameters())
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["encoder.conv1.weight"]
    assert frozen.grad is None


def test_an_unknown_method_is_a_user_error():
    with pytest.raises(UserError, match=r"score_cam.*choose one of cam, grad_cam"):
        explain(tiny(), torch.rand(1, 1, 8, 8), torch.tensor([0]), "score_cam")


def test_energy_inside_by_hand():
    heat = torch.tensor([[[1.0, 0.5], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    mask = torch.tensor([[True, False], [True, True]]).expand(3, 2, 2)
    assert energy_inside(heat, mask).tolist() == [0.75, 0.0, 0.75]


def test_pointing_game_by_hand():
    heat = torch.zeros(1, 5, 5)
    heat[0, 1, 1], heat[0, 3, 3] = 1, 0.9
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 3, 3] = True
    distance = 8**0.5
    assert [pointing_game(heat, mask, t).item() for t in (0, distance - 0.01, distance + 0.01)] == [False, False, True]
    mask[0, 1, 1] = True
    assert pointing_game(heat, mask).tolist() == [True]
    assert pointing_game(torch.zeros(1, 5, 5), mask).tolist() == [False]


def test_the_middle_of_a_plateau_stands_for_it():
    heat = torch.zeros(2, 6, 6)
    heat[0, :3, :3] = 1
    heat[1, 0, :5] = heat[1, :5, 0] = 1  # an L, whose centroid is not on it
    middle = torch.zeros(2, 6, 6, dtype=torch.bool)
    middle[0, 1, 1] = middle[1, 0, 1] = middle[1, 1, 0] = True
    assert pointing_game(heat, middle).tolist() == [True, True]
    assert pointing_game(heat, ~middle).tolist() == [False, False]


def test_quality_by_hand():
    measures = (
        torch.tensor([[1, 4, 5, 10, 0], [3, 4, 7, 0, 0], [2, 0, 0, 0, 10], [2, 4, 4, 10, 0]]).double().numpy() / 10
    )
    quality = Quality.measured("Loc", "cam", measures, np.arange(4))
    assert (quality.name, quality.method, quality.wafers) == ("Loc", "cam", 4)
    assert (quality.chance, quality.failed, quality.energy) == pytest.approx((0.2, 0.3, 0.4))
    assert (quality.pointing, quality.empty) == (0.5, 0.25)
    assert quality.energy_interval[0] < 0.4 < quality.energy_interval[1]
    assert quality.pointing_interval == pytest.approx((0.15004, 0.84996), abs=1e-5)  # Wilson 1927, 2 of 4


def test_the_interval_of_a_mean():
    values, wafer = np.random.default_rng(0).random(400), np.arange(400)
    reach = 1.96 * values.std() / 20
    found = mean_interval(values, wafer)
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.1 * reach)
    assert found == mean_interval(values, wafer)


def test_patterns_of_a_wafer_are_no_new_wafers():
    """Each value three times over: pairs drawn one by one would make the intervals 1.7 times too narrow."""
    values, wafer = np.random.default_rng(0).random(100), np.arange(100)
    assert mean_interval(np.tile(values, 3), np.tile(wafer, 3)) == pytest.approx(mean_interval(values, wafer))
    measures = np.stack([values, values, values, values.round(), np.zeros(100)], axis=1)
    once = Quality.measured("Loc", "cam", measures, wafer)
    thrice = Quality.measured("Loc", "cam", np.tile(measures, (3, 1)), np.tile(wafer, 3))
    assert thrice.wafers == 100
    assert thrice.energy_interval == pytest.approx(once.energy_interval)
    assert thrice.pointing_interval == pytest.approx(once.pointing_interval)
