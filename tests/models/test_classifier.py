"""Classifier and head: shapes, dropout, export."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from wafer_lab.models.classifier import Classifier
from wafer_lab.models.heads import LinearHead


def test_head_config_leaves_in_features_to_the_task(request):
    head = OmegaConf.load(request.config.rootpath / "conf/head/classification.yaml")
    cfg = OmegaConf.create({"data": {"num_classes": 9}, "head": head})
    assert instantiate(cfg.head, in_features=7)(torch.zeros(4, 7)).shape == (4, 9)


def test_head_is_affine_when_evaluated_and_drops_when_training():
    torch.manual_seed(0)
    head = LinearHead(64, 3, dropout=0.5)
    x = torch.randn(5, 64)
    expected = x @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head.eval()(x), expected)
    assert not torch.allclose(head.train()(x), expected)


@pytest.mark.parametrize("option", ["resnet18_cbam", "wafer_cnn", "timm"])
def test_exports_with_a_free_batch_dimension(option, build):
    """The exported graph, traced on three canvases, gives the same logits for seven."""
    encoder = build(option)
    network = Classifier(encoder, LinearHead(encoder.num_features, 9)).eval()
    batch = {"x": {0: torch.export.Dim("batch", min=1)}}
    graph = torch.export.export(network, (torch.randn(3, 3, 32, 32),), dynamic_shapes=batch)
    x = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(graph.module()(x), network(x), atol=1e-5, rtol=1e-5)
