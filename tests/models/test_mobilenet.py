"""MobileNets against torchvision's."""

import pytest
import torch
import torchvision
from torch import nn

from wafer_lab.errors import UserError
from wafer_lab.models import mobilenet


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_equals_torchvision_with_the_same_weights(name):
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(weights=None).eval()
    reference.classifier[-1] = nn.Identity()
    encoder = getattr(mobilenet, name)(3).eval()
    encoder.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), reference(x))


def test_width_mult_narrows_the_feature_maps():
    def size(encoder):
        return sum(p.numel() for p in encoder.parameters())

    narrow = mobilenet.mobilenet_v2(3, width_mult=0.5)
    assert narrow.num_features == 1280
    assert size(narrow) < size(mobilenet.mobilenet_v2(3)) / 2


@pytest.mark.parametrize("error", [ImportError("none"), RuntimeError("operator torchvision::nms does not exist")])
def test_a_missing_or_wrong_torchvision_is_a_user_error(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(mobilenet.importlib, "import_module", fail)
    with pytest.raises(UserError, match="torchvision cannot be imported"):
        mobilenet.mobilenet_v2(3)
