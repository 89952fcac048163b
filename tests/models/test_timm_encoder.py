"""timm: widths, input sizes, padding, names."""

import pytest
import timm
import torch

from wafer_lab.errors import UserError
from wafer_lab.models.timm_encoder import timm_encoder

# what comes out differs: a layer after the pooling, a norm after it, NHWC, tokens, fixed windows
FAMILIES = [
    "mobilenetv3_small_050",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "maxvit_pico_rw_256",
]
# with options that leave out layers like those that stay
WALKED = [
    ("vit_tiny_patch16_224", {"depth": 2}),
    ("convnext_atto", {"depths": [1, 1, 2, 1]}),
    ("efficientnet_b0", {}),
    ("mobilenetv3_small_050", {}),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_num_features_is_the_width_that_comes_out(name):
    encoder = timm_encoder(name, in_channels=2, img_size=52).eval()
    with torch.no_grad():
        assert encoder(torch.randn(2, 2, 52, 52)).shape == (2, encoder.num_features)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_feature_maps_are_channels_first_and_pool_to_the_features(name):
    encoder = timm_encoder(name, in_channels=3, img_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.forward_features(x)
        assert features.shape == (2, encoder.network.num_features, 2, 2)
        torch.testing.assert_close(encoder.pool(features), encoder(x))


def test_equals_timm_with_the_same_weights():
    torch.manual_seed(0)
    encoder = timm_encoder("resnet10t", in_channels=3, img_size=64).eval()
    reference = timm.create_model("resnet10t", num_classes=9).eval()
    reference.load_state_dict(encoder.network.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reference.fc(encoder(x)), reference(x))


@pytest.mark.parametrize(("name", "options"), WALKED, ids=[name for name, _ in WALKED])
def test_a_family_trains_at_64_and_exports_for_any_batch_size(name, options):
    torch.manual_seed(0)
    encoder = timm_encoder(name, in_channels=3, img_size=64, **options).train()
    encoder(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for parameter, value in encoder.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert value.grad.any(), parameter
    encoder.eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(encoder, (torch.randn(2, 3, 64, 64),), dynamic_shapes=(batch,))
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(program.module()(x), encoder(x))


@pytest.mark.parametrize(("name", "options"), WALKED, ids=[name for name, _ in WALKED])
def test_a_family_takes_canvases_of_224(name, options):
    encoder = timm_encoder(name, in_channels=3, img_size=224, **options).eval()
    assert encoder.padding == 0
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, 224, 224)).shape == (1, encoder.num_features)


def test_vit_from_the_config_at_canvas_64(build):
    encoder = build("timm", "model.name=vit_tiny_patch16_224", canvas=64).eval()
    assert encoder.padding == 0
    with pytest.raises(UserError, match="tokens, not a feature map"):
        encoder.forward_features(torch.randn(1, 3, 64, 64))


def test_vit_sees_the_edge_of_a_canvas_that_its_patches_do_not_tile():
    encoder = timm_encoder("vit_tiny_patch16_224", in_channels=3, img_size=52).eval()
    x = torch.zeros(1, 3, 52, 52, requires_grad=True)
    encoder(x).square().sum().backward()
    assert x.grad[0, :, -1, -1].abs().sum() > 0
    assert timm_encoder("vit_tiny_patch16_224", in_channels=3, img_size=48).padding == 0


def test_options_reach_timm():
    encoder = timm_encoder("vit_tiny_patch16_224", in_channels=3, img_size=32, depth=2)
    assert len(encoder.network.blocks) == 2


def test_a_typo_is_a_user_error_with_close_names():
    with pytest.raises(UserError, match=r"knows no model 'resnet10x'; did you mean .*resnet10t"):
        timm_encoder("resnet10x", in_channels=3, img_size=64)


def test_a_network_that_cannot_be_built_is_a_user_error():
    with pytest.raises(UserError, match="cannot build 'crossvit_tiny_240' for a 52x52 canvas"):
        timm_encoder("crossvit_tiny_240", in_channels=3, img_size=52)
    with pytest.raises(UserError, match="unexpected keyword argument 'detph'"):
        timm_encoder("vit_tiny_patch16_224", in_channels=3, img_size=32, detph=2)
