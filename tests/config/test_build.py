import ast
from collections import OrderedDict, UserList
from pathlib import Path
from types import MappingProxyType

import pytest
from omegaconf import DictConfig, OmegaConf

import wafer_lab
from wafer_lab.config.build import build, check_plain, check_targets, function, resolved
from wafer_lab.errors import UserError


def config(yaml):
    cfg = OmegaConf.create(yaml)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def test_runtime_objects_arrive_as_they_are():
    weights = {"not": ["copied"]}
    loss = build(config("loss: {_target_: toy_fab.CrossEntropy, target: x}").loss, class_weights=weights)
    assert loss.class_weights is weights


def test_runtime_beats_the_config():
    assert build(config("model: {_target_: toy_fab.Network, depth: 1}").model, depth=5).depth == 5


def test_containers_are_plain_and_nodes_below_are_built():
    cfg = config("""
        n: 3
        x: {_target_: toy_fab.losses.Anything, sizes: [1, {a: 2}], net: {_target_: toy_fab.Network, depth: "${n}"}}
    """)
    rest = build(cfg.x).rest
    assert (type(rest["sizes"]), type(rest["sizes"][1]), rest["net"].depth) == (list, dict, 3)


def test_partials_stay_partial():
    cfg = config("s: {_target_: toy_fab.nets.schedule, _partial_: true, warmup: 0.3}")
    assert build(cfg.s)(None, 10) == 0.3
    assert build(cfg.s, steps=10)(None) == 0.3


def test_nothing_gives_nothing():
    assert build(None) is None


def test_function_hands_the_very_config_on():
    cfg = config("workflow: {_target_: toy_fab.nets.run}")
    assert function(cfg.workflow)(cfg) is cfg


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("loss: {_target_: toy_fab.CrossEntropy, target: bad}", "loss: target is bad"),
        (
            "task: {_target_: toy_fab.losses.Anything, loss: {_target_: toy_fab.CrossEntropy, target: bad}}",
            "task.loss: target is bad",
        ),
        ("loss: {target: x}", "loss has no _target_; say which class or function it is"),
        (
            "loss: {_target_: no_such_package.Loss}",
            "loss needs the package no_such_package, which is not installed; pip install no_such_package",
        ),
    ],
)
def test_what_the_config_is_to_blame_for(yaml, message):
    with pytest.raises(UserError) as caught:
        build(next(iter(config(yaml).values())))
    assert str(caught.value) == message


@pytest.mark.parametrize("wrap", ["{}", "{{_target_: toy_fab.losses.Anything, inner: {}}}"])
def test_a_bug_keeps_its_own_exception(wrap):
    cfg = config("x: " + wrap.format("{_target_: toy_fab.CrossEntropy, target: bug}"))
    with pytest.raises(TypeError, match="a bug"):
        build(cfg.x)


def test_resolved_is_plain():
    assert resolved(config("a: 1\nb: {c: '${a}'}")) == {"a": 1, "b": {"c": 1}}
    with pytest.raises(UserError, match=r"\?\?\?|missing|Missing"):
        resolved(config("a: '???'"))
    assert not isinstance(resolved(config("a: {b: 1}"))["a"], DictConfig)


ENCODER = "wafer_lab.models.wafer_cnn.WaferCNN"


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": ENCODER, "width": ({"_target_": "os.system", "command": "true"},)},
        {"_target_": ENCODER, "width": OrderedDict(a=[{"_target_": "os.system"}])},
        {"_target_": ENCODER, "width": MappingProxyType({"_target_": "os.system"})},
        {"_target_": ENCODER, "width": UserList([{"_target_": "os.system"}])},
        {"_target_": ENCODER, "width": {1, 2}},
        {"_target_": ENCODER, "width": b"24"},
        {"_target_": ENCODER, "width": "${evil}"},
        {"_target_": ENCODER, "width": "${oc.create:'{_target_: os.system, command: true}'}"},
        {"_target_": ENCODER, "width": "\\${oc.create:'{_target_: os.system, command: true}'}"},
        {"_target_": ENCODER, "${oc.env:HOME}": 1},
        {"_target_": ["os.system"]},
        {"_target_": "${oc.env:TARGET}"},
        {"_target_": "wafer_lab.models.resnet.nn.Sequential"},
        {"_target_": "wafer_lab.models.mobilenet._torchvision_models"},
        {"_target_": "wafer_lab.models.resnet.ResNet.__init__"},
        {"_target_": "wafer_lab.modelsx.Net"},
        {"_target_": "wafer_lab.data.prepare.cached"},
    ],
    ids=str,
)
def test_a_stored_config_names_nothing_to_run(node):
    with pytest.raises(UserError, match=r"^FILE .*not loaded"):
        check_targets({"model": node}, "wafer_lab.models", "FILE")


def test_functions_can_be_refused():
    node = {"_target_": "wafer_lab.models.resnet.resnet", "in_channels": 3}
    check_targets(node, "wafer_lab.models", "FILE")
    with pytest.raises(UserError, match="resnet"):
        check_targets(node, "wafer_lab.models", "FILE", classes_only=True)


def test_plain_values_pass_with_a_dollar_or_without():
    values = {"a": "costs 5 $", "b": "$HOME/{x}", "c": [1, 2.5, None, True, ("x",)], 3: {}}
    check_plain(values, "FILE")
    assert OmegaConf.to_container(OmegaConf.create(values), resolve=True)["b"] == "$HOME/{x}"


SOURCES = sorted(Path(wafer_lab.__file__).parent.rglob("*.py"))
WRITERS = {"open_dict", "read_write", "flag_override", "set_struct"}


def names_used(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def written_to(tree):
    """The leftmost names of everything assigned to or deleted by attribute or item: cfg in `cfg.a.b = 1`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            while isinstance(node, ast.Attribute | ast.Subscript):
                node = node.value
            if isinstance(node, ast.Name):
                yield node.id


def updates(tree):
    return any(
        isinstance(node, ast.Attribute) and node.attr == "update" and ast.unparse(node.value) == "OmegaConf"
        for node in ast.walk(tree)
    )


def test_only_build_instantiates():
    users = [path.name for path in SOURCES if "instantiate" in names_used(ast.parse(path.read_text()))]
    assert users == ["build.py"]


def test_nothing_writes_into_a_config():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert not WRITERS & set(names_used(tree)), path
        assert not {"cfg", "config"} & set(written_to(tree)), path
        assert not updates(tree), path
