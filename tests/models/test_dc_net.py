"""DC-Net: resampling against torchvision and by hand."""

from itertools import pairwise

import torch
from torch import nn
from torchvision.ops import deform_conv2d

from wafer_lab.models.dc_net import ChannelOffset, DCNet


def test_starts_as_the_identity():
    x = torch.randn(2, 4, 9, 12)
    torch.testing.assert_close(ChannelOffset(4)(x), x, atol=1e-5, rtol=0)


def test_equals_torchvision_at_any_offset():
    """torchvision's, when every channel is an offset group of its own and the kernel is a one."""
    torch.manual_seed(0)
    resample = ChannelOffset(4).double()
    nn.init.normal_(resample.offset.weight, std=0.3)
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64, requires_grad=True)
    offsets = resample.offset(x)
    assert offsets.abs().max() > 1
    y, reference = resample(x), deform_conv2d(x, offsets, torch.ones(4, 1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(y, reference)
    sources = (x, resample.offset.weight, resample.offset.bias)
    along = torch.randn_like(y)
    gradients = torch.autograd.grad(y, sources, along)
    torch.testing.assert_close(gradients, torch.autograd.grad(reference, sources, along))


def test_each_channel_moves_by_its_own_offset():
    resample = ChannelOffset(3)
    with torch.no_grad():
        resample.offset.bias.copy_(torch.tensor([1, 0, 0, -0.5, 0, 0]))
        x = torch.rand(2, 3, 9, 12)
        down, left, still = resample(x).unbind(1)
    torch.testing.assert_close(down[:, :-1], x[:, 0, 1:])
    assert down[:, -1].abs().max() < 1e-5
    torch.testing.assert_close(left[:, :, 1:], (x[:, 1, :, 1:] + x[:, 1, :, :-1]) / 2)
    torch.testing.assert_close(left[:, :, 0], x[:, 1, :, 0] / 2)
    torch.testing.assert_close(still, x[:, 2])


def test_the_network_starts_as_five_plain_blocks_and_moves_its_offsets():
    torch.manual_seed(0)
    encoder = DCNet(3)
    channels = [3, 32, 64, 128, 256, 128]
    size = sum(a * b * 9 + 2 * b + 2 * a * (a * 9 + 1) for a, b in pairwise(channels))
    assert sum(p.numel() for p in encoder.parameters()) == size
    x = torch.randn(2, 3, 52, 52)
    plain = nn.Sequential(*(layer for layer in encoder.blocks if not isinstance(layer, ChannelOffset)))
    features = encoder.forward_features(x)
    assert features.shape == (2, 128, 4, 4)
    torch.testing.assert_close(features, plain(x), atol=1e-3, rtol=1e-3)
    features.square().sum().backward()
    for module in encoder.modules():
        if isinstance(module, ChannelOffset):
            assert (module.offset.bias.grad != 0).all()


def test_exports_for_any_batch_size():
    torch.manual_seed(0)
    encoder = DCNet(3).eval()
    nn.init.normal_(encoder.blocks[0].offset.weight)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(encoder, (torch.randn(2, 3, 33, 33),), dynamic_shapes=(batch,))
    x = torch.randn(3, 3, 33, 33)
    torch.testing.assert_close(program.module()(x), encoder(x))
