"""Segmenters of every option of conf/model, the place of their cells, image logits."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from wafer_lab.errors import UserError
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.heads import PixelHead
from wafer_lab.models.segmenter import Segmenter, map_features


def test_every_model_segments_or_says_why_not(config, build):
    """Logits as fine as the canvas, whatever the encoder's resolution and width."""
    encoder = build(config, canvas=32)
    training = encoder.training
    head = PixelHead(map_features(encoder, 3, 32), 4)
    assert encoder.training == training
    network = Segmenter(encoder, head).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 32, 32)).shape == (1, 4, 32, 32)


def test_networks_of_tokens_are_refused(build):
    with pytest.raises(UserError, match="tokens, not a feature map; choose a convolutional model"):
        map_features(build("timm", "model.name=vit_tiny_patch16_224"), 3, 32)


def test_every_parameter_learns_from_masks(build):
    encoder = build("unet_resnet18", "model.decoder_channels=[16,8,8,8,8]")
    network = Segmenter(encoder, PixelHead(8, 4)).train()
    logits = network(torch.randn(2, 3, 52, 52))
    nn.functional.binary_cross_entropy_with_logits(logits, torch.rand(2, 4, 52, 52).round()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


class Means(Encoder):
    """Means over blocks, the last ones cut off by the edge: what a convolution of stride 4 does to a ramp."""

    num_features = 1

    def forward_features(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4, ceil_mode=True)


@pytest.mark.parametrize("side", [32, 33, 34, 35])
def test_cells_stay_over_their_pixels(side):
    """A linear ramp comes back where it was: stretched over the canvas, 9 cells of 33 pixels would be off by 3."""
    ramp = torch.arange(side).float().expand(1, 1, side, side).contiguous()
    drawn = Segmenter(Means(), nn.Identity())(ramp)
    inner = slice(4, 4 * (side // 4) - 4)
    torch.testing.assert_close(drawn[..., inner], ramp[..., inner])


def test_image_logits_by_sorting():
    logits = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = [[sum(sorted(mask.flatten().tolist())[-16:]) / 16 for mask in masks] for masks in logits]
    torch.testing.assert_close(Segmenter.image_logits(logits), torch.tensor(expected))


def test_a_stray_pixel_calls_no_wafer_and_a_small_scratch_does():
    logits = torch.full((1, 2, 32, 32), -4.0)
    logits[0, 0, 5, 5] = 9.0
    logits[0, 1, 5, 5:13] = 1.0
    stray, scratch = Segmenter.image_logits(logits)[0]
    assert stray < 0 < scratch
    assert Segmenter.image_logits(logits[..., :2, :2]).isfinite().all()  # fewer pixels than 8


def test_head_is_linear_at_every_pixel(request):
    torch.manual_seed(0)
    file = OmegaConf.load(request.config.rootpath / "conf/head/segmentation.yaml")
    assert file._target_ == f"{PixelHead.__module__}.{PixelHead.__name__}"
    head = PixelHead(6, 3, dropout=0.5)
    x = torch.randn(2, 6, 5, 5)
    expected = torch.einsum("bchw,kc->bkhw", x, head.conv.weight[:, :, 0, 0]) + head.conv.bias[:, None, None]
    torch.testing.assert_close(head.eval()(x), expected)
    assert not torch.allclose(head.train()(x), expected)


def test_exports_with_a_free_batch_dimension(build):
    shallow = ["+model.encoder_depth=3", "model.decoder_channels=[8,8,8]"]
    network = Segmenter(build("unet_resnet18", *shallow), PixelHead(8, 4)).eval()
    batch = {"x": {0: torch.export.Dim("batch", min=1)}}
    graph = torch.export.export(network, (torch.randn(3, 3, 33, 33),), dynamic_shapes=batch)
    x = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        torch.testing.assert_close(graph.module()(x), network(x), atol=1e-4, rtol=1e-4)
