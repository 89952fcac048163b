import pytest

from wafer_lab.config.resolvers import run_name

USUAL = {"data": "wm811k", "task": "classification", "workflow": "fit", "model": "resnet18", "loss": "focal"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "wm811k_resnet18_focal"),
        ({"imbalance": "none"}, "wm811k_resnet18_focal_none"),
        ({"task": "fixmatch"}, "wm811k_fixmatch_resnet18_focal"),
        ({"workflow": "ensemble"}, "wm811k_ensemble_resnet18_focal"),
        ({"loss": None}, "wm811k_resnet18"),
    ],
)
def test_a_run_is_named_by_what_sets_it_apart(changes, name):
    assert run_name(USUAL | changes) == name
