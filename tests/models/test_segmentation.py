"""Networks of segmentation-models-pytorch: sizes, widths, equality with smp, names, weights, stages."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from wafer_lab.errors import UserError
from wafer_lab.models.heads import PixelHead
from wafer_lab.models.segmentation import SmpEncoder, smp_network
from wafer_lab.models.segmenter import Segmenter
from wafer_lab.models.weights import load_weights

THIN = [16, 8, 8, 8, 8]


@pytest.fixture(scope="module")
def unet() -> SmpEncoder:
    torch.manual_seed(0)
    return smp_network(3, encoder="resnet18", decoder_channels=THIN).eval()


@pytest.mark.parametrize("side", [33, 52, 64])
def test_every_size_is_padded_and_cut_back(unet: SmpEncoder, side: int):
    with torch.no_grad():
        assert unet.forward_features(torch.randn(1, 3, side, side)).shape == (1, 8, side, side)
        assert unet(torch.randn(2, 3, side, side)).shape == (2, unet.num_features)


def test_the_last_row_and_column_are_seen_and_drawn(unet: SmpEncoder):
    """Cropping to a multiple of 32 would leave both out."""
    x = torch.randn(1, 3, 33, 33, requires_grad=True)
    y = unet.forward_features(x)
    for part in (y[..., -1, :], y[..., -1]):
        (gradient,) = torch.autograd.grad(part.square().sum(), x, retain_graph=True)
        assert (gradient[0, :, -1, :].abs().sum() > 0) & (gradient[0, :, :, -1].abs().sum() > 0)
    with torch.no_grad():
        changed = x.detach().clone()
        changed[..., -1, :] += 1
        assert not torch.allclose(unet.forward_features(changed)[..., -1, :], y[..., -1, :])


def test_equals_smp_with_the_same_weights(unet: SmpEncoder):
    """At a size that smp takes itself, its own head included."""
    reference = smp.Unet("resnet18", encoder_weights=None, decoder_channels=THIN, classes=1).eval()
    left = reference.load_state_dict(unet.network.state_dict(), strict=False)
    assert left.missing_keys == ["segmentation_head.0.weight", "segmentation_head.0.bias"]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = unet.forward_features(x)
        torch.testing.assert_close(reference.segmentation_head(features), reference(x))


@pytest.mark.parametrize(
    ("architecture", "encoder", "cell"),
    [
        ("fpn", "resnet18", 4),
        ("PAN", "mobilenet_v2", 4),
        ("DPT", "tu-vit_tiny_patch16_224", 2),
        ("Unet", "tu-mobilenetv3_small_050", 1),
    ],
)
def test_any_architecture_on_any_encoder(architecture: str, encoder: str, cell: int):
    """Coarse decoders leave cells that only show padding out; the segmenter's logits are as fine as the canvas."""
    made = smp_network(2, architecture, encoder).eval()
    with torch.no_grad():
        assert made.forward_features(torch.randn(1, 2, 33, 33)).shape[1:] == (made.num_features, *[-(-33 // cell)] * 2)
        assert Segmenter(made, PixelHead(made.num_features, 5))(torch.randn(1, 2, 33, 33)).shape == (1, 5, 33, 33)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"architecture": "Unett"}, r"no architecture 'Unett'; did you mean Unet"),
        ({"architecture": "xyz"}, r"no architecture 'xyz'; choose one of Unet, .*DPT"),
        ({"encoder": "resnet-18"}, r"no encoder 'resnet-18'; did you mean resnet18.*tu-<a timm network>"),
        ({"encoder": "tu-resnet10x"}, r"no encoder 'tu-resnet10x'"),
        ({"encoder_weights": "imagenet"}, r"model.encoder_weights cannot be set; use weights="),
        ({"classes": 3}, r"model.classes cannot be set; use head=segmentation"),
        ({"decoder_channels": [16, 8]}, r"cannot build Unet on resnet18 with 3 channels .*Model depth is 5"),
        ({"decoder_chanels": 8}, r"Unet takes no decoder_chanels; did you mean decoder_channels"),
        ({"architecture": "DPT"}, r"cannot build DPT on resnet18 .*must start with 'tu-'"),
    ],
)
def test_what_cannot_be_built_is_a_user_error(choice: dict, message: str):
    with pytest.raises(UserError, match=message):
        smp_network(**{"in_channels": 3, "encoder": "resnet18", **choice})


def test_stages_go_from_the_stem_to_the_decoder(unet: SmpEncoder):
    stages = unet.stages()
    assert [*stages] == ["conv1", "layer1", "layer2", "layer3", "layer4", "decoder"]
    held = [id(parameter) for parameters in stages.values() for parameter in parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in unet.parameters())


def test_weights_of_a_classifier_fill_the_encoder(tmp_path: Path):
    """In torchvision's names and with its last layer; another number of channels; the decoder stays as it was."""
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    published = torch.load(tmp_path / "r18.pth", weights_only=True)
    made = smp_network(1, encoder="resnet18", decoder_channels=THIN)
    before = {name: tensor.clone() for name, tensor in made.network.decoder.state_dict().items()}
    loaded = load_weights(made, str(tmp_path / "r18.pth"))
    assert loaded.channels == (3, 1)
    assert all(".decoder." in name for name in loaded.initial)
    inner = made.network.encoder.state_dict()
    torch.testing.assert_close(inner.pop("conv1.weight"), published["conv1.weight"].sum(1, keepdim=True))
    assert all(torch.equal(tensor, published[name]) for name, tensor in inner.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.network.decoder.state_dict().items())


def test_imagenet_weights_come_through_smp(unet: SmpEncoder, monkeypatch):
    made = smp_network(3, encoder="resnet18", decoder_channels=THIN)
    asked = []

    def get_encoder(name: str, weights: str) -> torch.nn.Module:
        asked.append((name, weights))
        return unet.network.encoder

    monkeypatch.setattr("wafer_lab.models.weights._answers", lambda address: True)
    monkeypatch.setattr(smp.encoders, "get_encoder", get_encoder)
    load_weights(made, "imagenet")
    assert asked == [("resnet18", "imagenet")]
    torch.testing.assert_close(made.network.encoder.state_dict(), unet.network.encoder.state_dict())


def test_without_a_network_imagenet_weights_say_what_to_fetch(unet: SmpEncoder, monkeypatch, tmp_path):
    monkeypatch.setattr("wafer_lab.models.weights._answers", lambda address: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"no weights of resnet18 .*hf download smp-hub/resnet18.imagenet"):
        unet.pretrained()
