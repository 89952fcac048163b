"""What every option of conf/model promises; a new YAML file is tested by being there."""

import torch
from torch import nn

from wafer_lab.models.classifier import Classifier
from wafer_lab.models.heads import LinearHead

HEAVY = 10_000_000  # parameters; above it the odd canvas with one channel is enough


def test_trains_on_two_canvases_in_bf16_channels_last(config, build):
    """One training step of two 32x32 canvases: finite output, and a gradient for every parameter."""
    model = build(config).train()
    head = LinearHead(model.num_features, 9)
    network = Classifier(model, head).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    assert logits.shape == (2, 9)
    nn.functional.cross_entropy(logits.float(), torch.tensor([0, 5])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(buffer.isfinite().all() for buffer in network.buffers())


def test_takes_every_canvas_and_channel_count(config, build):
    """num_features is the width that comes out, also for odd sides and other channel counts."""
    for canvas, in_channels in [(52, 1), (33, 2), (96, 3)]:
        model = build(config, canvas=canvas, in_channels=in_channels).eval()
        with torch.no_grad():
            features = model(torch.randn(2, in_channels, canvas, canvas))
        assert features.shape == (2, model.num_features)
        assert features.isfinite().all()
        if sum(p.numel() for p in model.parameters()) > HEAVY:
            break


def test_pooling_the_feature_map_gives_the_features(config, build):
    """forward is pool of forward_features, so a class activation map explains what the head sees."""
    model = build(config, canvas=52).eval()
    x = torch.randn(2, 3, 52, 52)
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.ndim == 4
        torch.testing.assert_close(model.pool(features), model(x))


def test_features_depend_on_every_channel(config, build):
    model = build(config).eval()
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    model(x).square().sum().backward()
    assert (x.grad.abs().sum((0, 2, 3)) > 0).all()
