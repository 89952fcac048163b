"""Deformable convolutions against the plain one, torchvision's and numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from wafer_lab.models.deformable import DeformCNN, DeformConv


@pytest.fixture
def layer():
    """layer(stride=2, ...): a deformable convolution of 5 to 4 channels, weights of seed 0."""

    def build(size=3, **options):
        torch.manual_seed(0)
        return DeformConv(5, 4, size, **options)

    return build


def shifted(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """The image read at positions moved by (down, right): linear along columns, then along rows; zero outside."""
    height, width = image.shape
    framed = np.pad(image, 1)
    rows, columns = np.arange(height) + down, np.arange(width) + right
    tall = np.stack([np.interp(rows, np.arange(-1, height + 1), column) for column in framed.T], 1)
    return np.stack([np.interp(columns, np.arange(-1, width + 1), row) for row in tall])


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_starts_as_the_plain_convolution(layer, size, stride, modulated):
    conv = layer(size, stride=stride, modulated=modulated)
    x = torch.randn(2, 5, 9, 12)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, stride=stride, padding=size // 2))
    assert conv(x[:, :, :1, :1]).shape == (2, 4, 1, 1)


def test_positions_keep_their_precision_under_autocast(layer):
    """Over 52 pixels a bfloat16 coordinate would be off by up to a tenth of a pixel."""
    conv = layer()
    x = torch.randn(1, 5, 52, 52)
    with torch.autocast("cpu", torch.bfloat16):
        y, plain = conv(x), F.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(y.float(), plain.float(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_torchvision_at_any_offset(layer, stride, modulated):
    """Values, and the gradients of input, weight and offset convolution."""
    conv = layer(stride=stride, modulated=modulated).double()
    nn.init.normal_(conv.offset.weight, std=0.3)
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64, requires_grad=True)
    predicted = conv.offset(x)
    offsets, mask = predicted[:, :18], 2 * predicted[:, 18:].sigmoid() if modulated else None
    assert offsets.abs().max() > 1
    reference = deform_conv2d(x, offsets, conv.weight, stride=stride, padding=1, mask=mask)
    y = conv(x)
    torch.testing.assert_close(y, reference)
    sources = (x, conv.weight, conv.offset.weight, conv.offset.bias)
    along = torch.randn_like(y)
    gradients = torch.autograd.grad(y, sources, along)
    torch.testing.assert_close(gradients, torch.autograd.grad(reference, sources, along))


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (0.5, 0), (0.3, -1.6), (-20, 0)])
def test_a_constant_offset_shifts_the_field(layer, down, right):
    """With a kernel that copies, the output is the input read elsewhere; beyond the edge there are zeros."""
    conv = layer()
    with torch.no_grad():
        conv.offset.bias.copy_(torch.tensor([down, right]).repeat(9))
        conv.weight.zero_()
        conv.weight[range(4), range(4), 1, 1] = 1
        x = torch.rand(2, 5, 9, 12)
        y = conv(x)
    expected = [[shifted(channel, down, right) for channel in image[:4]] for image in x.numpy()]
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)


def test_the_mask_scales_each_tap(layer):
    conv = layer(modulated=True)
    share = torch.linspace(0.1, 0.9, 9)
    with torch.no_grad():
        conv.offset.bias[18:] = share.logit()
        x = torch.randn(2, 5, 9, 12)
        scaled = conv.weight * (2 * share).reshape(3, 3)
        torch.testing.assert_close(conv(x), F.conv2d(x, scaled, padding=1))


@pytest.mark.parametrize("modulated", [False, True])
def test_the_network_is_four_blocks_and_moves_its_offsets(modulated):
    torch.manual_seed(0)
    encoder = DeformCNN(3, modulated)
    channels = [3, 32, 64, 128, 128]
    predicted = 27 if modulated else 18
    size = sum(a * b * 9 + 2 * b + predicted * (a * 9 + 1) for a, b in pairwise(channels))
    assert sum(p.numel() for p in encoder.parameters()) == size
    x = torch.randn(2, 3, 52, 52)
    features = encoder.forward_features(x)
    assert features.shape == (2, 128, 7, 7)
    features.square().sum().backward()
    for module in encoder.modules():
        if isinstance(module, DeformConv):
            assert (module.offset.bias.grad != 0).all()


def test_exports_for_any_batch_size():
    torch.manual_seed(0)
    encoder = DeformCNN(3, modulated=True).eval()
    nn.init.normal_(encoder.blocks[0].offset.weight)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(encoder, (torch.randn(2, 3, 33, 33),), dynamic_shapes=(batch,))
    x = torch.randn(3, 3, 33, 33)
    torch.testing.assert_close(program.module()(x), encoder(x))
