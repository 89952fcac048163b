"""ResNet against torchvision's."""

import pytest
import torch
import torchvision
from torch import nn

from wafer_lab.errors import UserError
from wafer_lab.models.resnet import resnet


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_equals_torchvision_with_the_same_weights(depth):
    """State dicts load by name, and the features are bit for bit those before torchvision's last layer."""
    torch.manual_seed(0)
    reference = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    reference.fc = nn.Identity()
    encoder = resnet(3, depth).eval()
    encoder.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 52, 52)
    with torch.no_grad():
        assert torch.equal(encoder(x), reference(x))


def test_starts_like_torchvision():
    """Same initialisation: the same spread of weights in every layer."""
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(weights=None).state_dict()
    for name, weight in resnet(3).state_dict().items():
        if weight.numel() > 1000:
            torch.testing.assert_close(weight.std(), reference[name].std(), rtol=0.1, atol=0)
        else:
            torch.testing.assert_close(weight, reference[name])


def test_published_parameter_counts():
    reference = size(torchvision.models.resnet18(weights=None, num_classes=9))
    assert reference == 11_181_129
    plain = size(resnet(3))
    assert plain + 512 * 9 + 9 == reference
    assert size(resnet(3, attention="cbam")) - plain == 43_912
    assert size(resnet(3, attention="se")) - plain == 43_520
    assert size(resnet(3, attention="eca")) - plain == 3 + 5 + 5 + 5


@pytest.mark.parametrize("attention", [None, "cbam", "se", "eca"])
def test_attention_sees_and_gates_every_stage(attention):
    """Each stage's output is its blocks' output, gated once; the features are the last one's mean."""
    torch.manual_seed(0)
    encoder = resnet(2, attention=attention, width=16).eval()
    x = torch.randn(2, 2, 64, 64)
    y = encoder.maxpool(torch.relu(encoder.bn1(encoder.conv1(x))))
    for k, stage in enumerate(encoder.forward_stages(x)):
        y = getattr(encoder, f"layer{k + 1}")(y)
        if attention:
            assert not torch.allclose(stage, y)
            y = encoder.attention[k](y)
        torch.testing.assert_close(stage, y)
        assert stage.shape == (2, encoder.stage_features[k], 16 // 2**k, 16 // 2**k)
    torch.testing.assert_close(encoder(x), y.mean((2, 3)))


def test_3x3_stem_keeps_the_canvas():
    encoder = resnet(3, stem="3x3", width=16).eval()
    with torch.no_grad():
        sides = [stage.shape[-1] for stage in encoder.forward_stages(torch.randn(1, 3, 52, 52))]
    assert sides == [52, 26, 13, 7]


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_init_residual_starts_every_block_as_its_shortcut(depth):
    encoder = resnet(3, depth, width=16, zero_init_residual=True).eval()
    torch.manual_seed(0)
    x = torch.randn(1, encoder.stage_features[0], 8, 8)
    torch.testing.assert_close(encoder.layer1[1](x), torch.relu(x))


@pytest.mark.parametrize(("depth", "deformable", "layers"), [(18, [4], 4), (50, [3, 4], 6 + 3)])
def test_deformable_stages_take_the_weights_of_plain_ones(depth, deformable, layers):
    """Only the offsets are missing from torchvision's state dict, and as they start at zero the features agree."""
    torch.manual_seed(0)
    reference = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    reference.fc = nn.Identity()
    encoder = resnet(3, depth, deformable=deformable).eval()
    missing, unexpected = encoder.load_state_dict(reference.state_dict(), strict=False)
    assert not unexpected
    assert {f"layer{deformable[0]}.0.conv2.offset.weight", "layer4.1.conv2.offset.bias"} <= set(missing)
    assert {name.split(".")[0] for name in missing} == {f"layer{k}" for k in deformable}
    assert sum(name.endswith(".offset.weight") for name in missing) == len(missing) / 2 == layers
    x = torch.randn(2, 3, 64, 64)
    features = encoder(x)
    with torch.no_grad():
        torch.testing.assert_close(features, reference(x), rtol=1e-3, atol=1e-4)
    features.square().sum().backward()
    first = getattr(encoder, f"layer{deformable[0]}")[0].conv2
    assert (first.offset.weight.grad != 0).any()


def test_deformable_stages_start_like_plain_ones():
    torch.manual_seed(0)
    encoder = resnet(3, deformable=[2], width=32)
    conv = encoder.layer2[1].conv2
    torch.testing.assert_close(conv.weight.std(), torch.tensor((2 / (64 * 9)) ** 0.5), rtol=0.05, atol=0)
    assert not conv.offset.weight.any()
    assert not conv.offset.bias.any()


@pytest.mark.parametrize(
    "option", [{"depth": 20}, {"stem": "5x5"}, {"attention": "bam"}, {"deformable": [5]}, {"deformable": [0, 1]}]
)
def test_unknown_options_are_user_errors(option):
    with pytest.raises(UserError, match="choose"):
        resnet(3, **option)
