import importlib
import inspect

import pytest

from wafer_lab.config.signatures import expand_alias, read_signature
from wafer_lab.config.sources import UnknownTargetError


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "torch.optim.SGD",
        "torch.optim.lr_scheduler.OneCycleLR",
        "torch.nn.Identity",
        "torch.nn.CrossEntropyLoss",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.callbacks.EarlyStopping",
    ],
)
def test_source_tells_what_import_tells(target):
    module, _, name = target.rpartition(".")
    truth = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    keywords = [p for p in truth if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    read = read_signature(target)

    assert list(read.parameters) == [p.name for p in keywords]
    assert [p.required for p in read.parameters.values()] == [p.default is p.empty for p in keywords]
    assert read.accepts_kwargs == any(p.kind == p.VAR_KEYWORD for p in truth)


def test_a_package_that_re_exports_with_stars():
    assert list(read_signature("albumentations.Compose").parameters)[:2] == ["transforms", "bbox_params"]


def test_re_exports_and_types():
    read = read_signature("toy_fab.Network")
    assert {name: p.annotation for name, p in read.parameters.items()} == {
        "depth": "int",
        "width": "Size",
        "norm": "Module | None | None",
        "drop": "float",
        "name": "str | None",
    }
    assert [name for name, p in read.parameters.items() if p.required] == ["depth"]


def test_inherited_constructor_and_attributes():
    read = read_signature("toy_fab.CrossEntropy")
    assert list(read.parameters) == ["target", "class_weights"]
    assert read.attributes["targets"] == ("multiclass",)


def test_keywords_handed_on_to_the_base_are_the_bases():
    read = read_signature("toy_fab.losses.Focal")
    assert set(read.parameters) == {"target", "class_weights", "gamma", "mode"}
    assert not read.accepts_kwargs
    assert read.attributes["targets"] == ("multiclass", "multilabel")
    assert read_signature("toy_fab.losses.Anything").accepts_kwargs


def test_dataclass_fields_inherited_ones_first():
    read = read_signature("toy_fab.base.MoreOptions")
    assert {name: p.required for name, p in read.parameters.items()} == {
        "rate": True,
        "names": False,
        "depth": False,
    }


def test_functions_and_methods():
    make = read_signature("toy_fab.nets.make")
    assert list(make.parameters) == ["width", "flag"]
    assert make.accepts_kwargs
    assert list(read_signature("toy_fab.Network.small").parameters) == ["width"]
    assert list(read_signature("toy_fab.nets.Net.count").parameters) == ["of"]


@pytest.mark.parametrize("target", ["math.sqrt", "toy_fab.lazy.anything", "collections.OrderedDict"])
def test_unknown_where_source_cannot_tell(target):
    assert read_signature(target) is None


@pytest.mark.parametrize(
    ("target", "name", "candidate"),
    [
        ("toy_fab.nets.Nett", "Nett", "Net"),
        ("toy_fab.loses.Focal", "loses", "losses"),
        ("toy_fab.Foca", "Foca", "Focal"),
        ("torch.optim.AdmW", "AdmW", "AdamW"),
        ("torch.optm.AdamW", "optm", "optim"),
    ],
)
def test_a_name_that_is_not_there(target, name, candidate):
    with pytest.raises(UnknownTargetError) as caught:
        read_signature(target)
    assert caught.value.name == name
    assert candidate in caught.value.candidates


@pytest.mark.parametrize("target", ["no_such_package.Thing", "toy_fab.nets"])
def test_no_package_and_not_callable(target):
    with pytest.raises(UnknownTargetError):
        read_signature(target)


def test_aliases_and_classes_in_annotations():
    assert expand_alias("toy_fab.losses", "Target") == ("Literal['multiclass', 'multilabel']", "toy_fab.kinds")
    assert expand_alias("toy_fab.nets", "Module") == ("object", "")
    assert expand_alias("toy_fab.nets", "Nothing") is None
