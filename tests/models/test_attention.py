"""Attention against the papers' formulas, written out with numpy and plain loops."""

import numpy as np
import pytest
import torch

from wafer_lab.errors import UserError
from wafer_lab.models.attention import CBAM, EfficientChannelAttention, SqueezeExcitation, build_attention


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def array(tensor):
    return tensor.detach().double().numpy()


def mlp(module, vector):
    first, _, second = module.mlp
    return np.maximum(vector @ array(first.weight).T, 0) @ array(second.weight).T


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 64, 5, 6)


def test_squeeze_excitation_is_the_formula(x):
    module = SqueezeExcitation(64)
    gate = sigmoid(mlp(module, array(x).mean((2, 3))))
    np.testing.assert_allclose(array(module(x)), array(x) * gate[:, :, None, None], atol=1e-6)


@pytest.mark.parametrize(("channels", "size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_eca_kernel_grows_as_in_the_paper(channels, size):
    """The authors' code: t = int(abs((log2(C) + 1) / 2)), plus 1 where that is even."""
    assert EfficientChannelAttention(channels).conv.weight.shape == (1, 1, size)


def test_eca_is_the_formula(x):
    module = EfficientChannelAttention(64)
    kernel = array(module.conv.weight)[0, 0]
    means = np.pad(array(x).mean((2, 3)), ((0, 0), (1, 1)))
    gate = np.zeros((2, 64))
    for channel in range(64):
        gate[:, channel] = sigmoid(means[:, channel : channel + 3] @ kernel)
    np.testing.assert_allclose(array(module(x)), array(x) * gate[:, :, None, None], atol=1e-6)


def test_cbam_is_the_formula(x):
    module = CBAM(64, reduction=16)
    y = array(x)
    gate = sigmoid(mlp(module, y.mean((2, 3))) + mlp(module, y.max((2, 3))))
    y = y * gate[:, :, None, None]
    summary = np.pad(np.stack([y.mean(1), y.max(1)], 1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    kernel = array(module.spatial.weight)[0]
    expected = np.empty_like(y)
    for row in range(5):
        for column in range(6):
            window = summary[:, :, row : row + 7, column : column + 7]
            expected[:, :, row, column] = y[:, :, row, column] * sigmoid((window * kernel).sum((1, 2, 3)))[:, None]
    np.testing.assert_allclose(array(module(x)), expected, atol=1e-6)


@pytest.mark.parametrize("reduction", [8, 16])
def test_parameter_counts(reduction):
    """Two matrices of C * C / reduction; CBAM adds a 7x7 kernel over two maps."""
    assert sum(p.numel() for p in SqueezeExcitation(64, reduction).parameters()) == 2 * 64 * 64 // reduction
    assert sum(p.numel() for p in CBAM(64, reduction).parameters()) == 2 * 64 * 64 // reduction + 98


def test_unknown_attention_is_a_user_error():
    with pytest.raises(UserError, match="choose cbam, se, eca or null"):
        build_attention("bam", 64, 16)
