"""The size and the pooling of wafer_cnn."""

import torch

from wafer_lab.models.wafer_cnn import WaferCNN


def test_is_small():
    assert 250_000 < sum(p.numel() for p in WaferCNN(3).parameters()) < 400_000


def test_half_of_the_features_are_averages_and_half_maxima():
    torch.manual_seed(0)
    encoder = WaferCNN(3).eval()
    x = torch.randn(2, 3, 64, 64)
    features = encoder.forward_features(x)
    assert features.shape == (2, 96, 8, 8)
    positions = features.flatten(2)
    expected = torch.cat([positions.mean(2), positions.sort(2).values[:, :, -1]], 1)
    torch.testing.assert_close(encoder(x), expected)
