"""Pretrained weights: what loads, what is refused, and that nothing else happens."""

import os
import pickle
from urllib.error import URLError

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from wafer_lab.errors import UserError
from wafer_lab.models import mobilenet, weights
from wafer_lab.models.resnet import resnet
from wafer_lab.models.timm_encoder import timm_encoder
from wafer_lab.models.wafer_cnn import WaferCNN
from wafer_lab.models.weights import fit_channels, load_weights

VIT = {"depth": 1, "embed_dim": 48, "num_heads": 3}


def vit(canvas, **options):
    return timm_encoder("vit_tiny_patch16_224", in_channels=3, img_size=canvas, **VIT, **options)


@pytest.fixture(scope="module")
def published():
    """A ResNet-18 of torchvision, its batch norm moved away from its initial values."""
    torch.manual_seed(1)
    network = torchvision.models.resnet18(weights=None)
    network(torch.randn(4, 3, 32, 32))
    return network.eval()


def features(network, x):
    """What a torchvision ResNet computes before its last layer."""
    kept = torch.nn.Sequential(*list(network.children())[:-1])
    with torch.no_grad():
        return kept(x).flatten(1)


@pytest.mark.parametrize("form", ["weights.pth", "weights.safetensors", "state_dict", "model", "module."])
def test_torchvisions_resnet_gives_its_features_from_every_form_of_file(published, form, tmp_path):
    state, path = published.state_dict(), tmp_path / "weights.pth"
    if form.endswith("safetensors"):
        path = tmp_path / form
        safetensors.torch.save_file(state, path)
    elif form == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    else:
        torch.save(state if form == "weights.pth" else {form: state, "epoch": 3}, path)
    encoder = resnet(3).eval()
    loaded = load_weights(encoder, str(path))
    assert (loaded.tensors, loaded.initial, loaded.channels) == (120, (), None)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), features(published, x))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_a_timm_network_with_its_classifier_loads_into_its_encoder(name, ending, tmp_path):
    reference = timm.create_model(name, num_classes=7).eval()
    (torch.save if ending == "pth" else safetensors.torch.save_file)(reference.state_dict(), tmp_path / f"x.{ending}")
    encoder = timm_encoder(name, in_channels=3, img_size=64).eval()
    load_weights(encoder, str(tmp_path / f"x.{ending}"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reference.get_classifier()(encoder(x)), reference(x))


def test_position_embeddings_are_resampled_for_another_canvas(tmp_path):
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT)
    torch.save(reference.state_dict(), tmp_path / "vit.pth")
    encoder = vit(64)
    load_weights(encoder, str(tmp_path / "vit.pth"))
    expected = timm.layers.resample_abs_pos_embed(reference.pos_embed, (4, 4), num_prefix_tokens=1)
    torch.testing.assert_close(encoder.network.pos_embed, expected)
    assert not torch.equal(encoder.network.pos_embed, vit(64).network.pos_embed)


def test_torchvisions_mobilenets_lose_only_their_last_layer(tmp_path):
    for name in ("mobilenet_v2", "mobilenet_v3_small"):
        reference = getattr(torchvision.models, name)(weights=None)
        torch.save(reference.state_dict(), tmp_path / "x.pth")
        encoder = getattr(mobilenet, name)(3)
        load_weights(encoder, str(tmp_path / "x.pth"))
        expected = dict(reference.state_dict())
        dropped = expected.keys() - encoder.state_dict().keys()
        last = f"classifier.{len(reference.classifier) - 1}."
        assert dropped == {f"{last}weight", f"{last}bias"}
        assert all(torch.equal(tensor, expected[key]) for key, tensor in encoder.state_dict().items())


def test_attention_and_offsets_keep_their_initial_values_and_are_named(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "x.pth")
    encoder = resnet(3, attention="cbam", deformable=(4,))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    loaded = load_weights(encoder, str(tmp_path / "x.pth"))
    new = {name for name in before if name.startswith("attention.") or ".offset." in name}
    assert set(loaded.initial) == new
    assert "keep their initial values" in str(loaded)
    assert all(torch.equal(encoder.state_dict()[name], before[name]) for name in new)
    assert torch.equal(encoder.layer4[0].conv1.weight, published.layer4[0].conv1.weight)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 2), (3, 3), (3, 4), (3, 6), (1, 3), (1, 2), (2, 3)])
def test_a_grey_picture_gives_the_same_activations_whatever_the_channels(before, after):
    torch.manual_seed(0)
    weight, grey = torch.randn(5, before, 3, 3), torch.rand(2, 1, 9, 9)
    fitted = fit_channels(weight, after)
    assert fitted.shape == (5, after, 3, 3)
    activations = [torch.conv2d(grey.expand(-1, w.shape[1], -1, -1), w) for w in (weight, fitted)]
    torch.testing.assert_close(activations[1], activations[0], atol=1e-5, rtol=1e-5)


def test_filters_repeat_in_turn():
    weight = torch.randn(5, 3, 3, 3)
    torch.testing.assert_close(fit_channels(weight, 6), torch.cat([weight, weight], 1) / 2)


def test_the_first_convolution_takes_other_channels(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "x.pth")
    encoder = resnet(1).eval()
    assert load_weights(encoder, str(tmp_path / "x.pth")).channels == (3, 1)
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(grey), features(published, grey.expand(-1, 3, -1, -1)))


def test_a_checkpoint_of_ours_and_a_runs_folder(tmp_path):
    donor, best = WaferCNN(3), tmp_path / "checkpoints" / "best.ckpt"
    state = {f"network.encoder.{name}": tensor for name, tensor in donor.state_dict().items()}
    best.parent.mkdir()
    record = {"config": {"model": {"_target_": "wafer_lab.models.wafer_cnn.WaferCNN", "width": 24}}}
    torch.save({"state_dict": state | {"network.head.linear.bias": torch.zeros(9)}, "wafer_lab": record}, best)
    for source in (tmp_path, best):
        encoder = WaferCNN(3)
        assert load_weights(encoder, str(source)).record == record
        assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in encoder.state_dict().items())
    with pytest.raises(UserError, match=r"They are of a run with model: target=wafer_lab.*WaferCNN, width=24"):
        load_weights(WaferCNN(3, width=8), str(tmp_path))
    with pytest.raises(UserError, match="a folder without checkpoints/best"):
        load_weights(encoder, str(tmp_path / "checkpoints"))


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(published, tmp_path):
    state = {name: tensor for name, tensor in published.state_dict().items() if not name.startswith("layer4.1.")}
    torch.save(state | {"conv1.weight": torch.zeros(32, 3, 7, 7), "neck.weight": torch.zeros(1)}, tmp_path / "x.pth")
    encoder = resnet(3)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(UserError) as told:
        load_weights(encoder, str(tmp_path / "x.pth"))
    said = str(told.value)
    assert "10 missing: layer4.1.conv1.weight, layer4.1.bn1.weight," in said
    assert "1 unexpected: neck.weight" in said
    assert "1 of another shape: conv1.weight 32x3x7x7 for 64x3x7x7" in said
    assert said.count("layer4.1.") == 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_weights_that_timms_own_reader_stumbles_over_are_listed(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"does not fit TimmEncoder, 0 of .* names agree"):
        load_weights(timm_encoder("convnext_atto", 3, 32, depths=(1, 1, 1, 1)), str(tmp_path / "resnet.pth"))


def test_half_of_an_attention_is_not_an_old_network(published, tmp_path):
    state = published.state_dict() | {"attention.0.mlp.0.weight": torch.zeros(4, 64, 1, 1)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"missing: .*attention\.1\."):
        load_weights(resnet(3, attention="cbam"), str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("network", "guess"),
    [
        (lambda: torchvision.models.resnet18(weights=None), "model=resnet18, or model=timm"),
        (lambda: torchvision.models.resnet50(weights=None), "model=resnet50, or model=timm"),
        (lambda: torchvision.models.mobilenet_v2(weights=None), "model=mobilenetv2"),
        (lambda: torchvision.models.mobilenet_v3_large(weights=None), "model=mobilenetv3_large"),
        (lambda: torchvision.models.mobilenet_v3_small(weights=None), "model=mobilenetv3_small"),
        (lambda: timm.create_model("mobilenetv3_small_050"), "an EfficientNet or MobileNet of timm"),
        (lambda: timm.create_model("vit_tiny_patch16_224", **VIT), "a vision transformer of timm"),
    ],
)
def test_the_model_that_weights_belong_to_is_named(network, guess, tmp_path):
    with torch.device("meta"):
        made = network()
    torch.save({name: torch.zeros(()) for name in made.state_dict()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=f"look like those of {guess}"):
        load_weights(WaferCNN(3, width=8), str(tmp_path / "x.pth"))


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.ckpt"])
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused(write, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write({"state_dict": {"conv1.weight": Trap()}}, tmp_path / name)
    with pytest.raises(UserError, match="loading it could run code"):
        load_weights(resnet(3), str(tmp_path / name))
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"PK\x03\x04 cut short", "damaged or not a checkpoint"),
        ("x.safetensors", b"\x08\0\0\0\0\0\0\0{}", "damaged or not a .safetensors file"),
        ("x.pth", [1, 2], "holds no state dict"),
        ("x.pth", {"epoch": 3}, "holds no tensors by name"),
        ("x.pth", {0: torch.zeros(1)}, "holds no tensors by name"),
        ("y.pth", None, "there is no such file"),
    ],
)
def test_what_is_no_weights_file(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_weights(resnet(3), str(path))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No internet, and empty caches in a temporary folder."""

    def unreachable(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr(weights, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


def test_offline_imagenet_names_the_address_and_the_place(offline):
    place = offline / "hub/checkpoints/resnet18-f37072fd.pth"
    with pytest.raises(UserError) as told:
        load_weights(resnet(3), "imagenet")
    assert f"are not at {place}, and cannot be downloaded" in str(told.value)
    assert "put https://download.pytorch.org/models/resnet18-f37072fd.pth there" in str(told.value)
    assert list(place.parent.iterdir()) == []


def test_imagenet_from_the_cache_needs_no_internet(offline, published):
    place = offline / "hub/checkpoints"
    place.mkdir(parents=True)
    torch.save(published.state_dict(), place / "resnet18-f37072fd.pth")
    encoder = resnet(3)
    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    load_weights(encoder, "imagenet")
    assert torch.rand(1) == drawn
    assert torch.equal(encoder.conv1.weight, published.conv1.weight)
    (place / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth is damaged"):
        load_weights(encoder, "imagenet")


def test_timm_offline_from_its_cache_or_a_message_that_says_what_to_fetch(offline):
    encoder = timm_encoder("resnet10t", in_channels=1, img_size=64)
    with pytest.raises(UserError, match=r"`hf download timm/resnet10t.c3_in1k model.safetensors --local-dir \.`"):
        load_weights(encoder, "imagenet")
    cache = offline / "hf/models--timm--resnet10t.c3_in1k"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("0" * 40)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    reference = timm.create_model("resnet10t")
    safetensors.torch.save_file(reference.state_dict(), snapshot / "model.safetensors")
    assert load_weights(encoder, "imagenet").channels == (3, 1)
    assert torch.equal(encoder.network.layer1[0].conv1.weight, reference.layer1[0].conv1.weight)


def test_a_network_without_imagenet_weights_says_so(offline):
    with pytest.raises(UserError, match="WaferCNN has no ImageNet weights; use weights=FILE"):
        load_weights(WaferCNN(3), "imagenet")
    encoder = timm_encoder("test_resnet", 3, 64)
    encoder.network.pretrained_cfg = {"architecture": "resnet8", "tag": None}
    with pytest.raises(UserError, match="timm has no weights of resnet8"):
        load_weights(encoder, "imagenet")


def test_every_parameter_is_in_one_stage(config, build):
    with torch.device("meta"):
        encoder = build(config, canvas=64)
    held = [id(parameter) for parameters in encoder.stages().values() for parameter in parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in encoder.parameters())
    assert len(encoder.stages()) > 2


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("vit_tiny_patch16_224", "cls_token", "blocks.11.norm1.weight", 13),
        ("convnext_atto", "stem.0.weight", "head.norm.weight", 6),
        ("tf_efficientnet_lite0", "conv_stem.weight", "conv_head.weight", 8),
    ],
)
def test_timms_stages_go_from_the_input_up(name, first, last, count):
    with torch.device("meta"):
        encoder = timm_encoder(name, in_channels=3, img_size=64)
    stages, names = list(encoder.stages().values()), dict(encoder.network.named_parameters())
    assert len(stages) == count
    assert any(p is names[first] for p in stages[0])
    assert any(p is names[last] for p in stages[-1])
    assert sum(map(len, stages)) == len(names)
