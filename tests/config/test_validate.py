import ast
import inspect
import re

import pytest
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from wafer_lab.config.validate import RUNTIME, problems, validate
from wafer_lab.errors import UserError
from wafer_lab.workflows import assemble


def found(yaml):
    return [str(problem) for problem in problems(OmegaConf.create(yaml))]


def test_a_good_config_passes_and_is_locked():
    cfg = OmegaConf.create("model: {_target_: toy_fab.Network, depth: 18}\nwidth: ${model.depth}")
    validate(cfg)
    with pytest.raises(ReadonlyConfigError):
        cfg.model.depth = 50


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "loss: {_target_: toy_fab.losses.Focal, target: x, gama: 2}",
            "loss.gama: Focal takes no gama; did you mean gamma?",
        ),
        (
            "loss: {_target_: toy_fab.losses.Focal, target: x, zeta: 2}",
            "loss.zeta: Focal takes no zeta; it takes gamma, mode, target",
        ),
        (
            "loss: {_target_: toy_fab.losses.Focal, target: x, _partal_: true}",
            "loss._partal_: Focal takes no _partal_; did you mean _partial_?",
        ),
        ("model: {_target_: toy_fab.Network}", "model: lacks depth, which Network needs; set it with +model.depth=..."),
        (
            "model: {_target_: toy_fab.Network, depth: ten}",
            "model.depth: must be a whole number, not 'ten'",
        ),
        (
            "model: {_target_: toy_fab.Network, depth: 1, drop: '1e-3'}",
            "model.drop: must be a number, not '1e-3', which is text; write 1.0e-3 without quotes",
        ),
        (
            "model: {_target_: toy_fab.Network, depth: 1, name: 5}",
            "model.name: must be text or null, not 5; write 'model.name=\"5\"'",
        ),
        (
            "loss: {_target_: toy_fab.losses.Focal, target: x, mode: multilable}",
            "loss.mode: must be one of multiclass, multilabel, not 'multilable'; did you mean multilabel?",
        ),
        (
            "model: {_target_: toy_fab.Nework}",
            "model._target_: toy_fab.Nework: no 'Nework' in toy_fab; did you mean Network?",
        ),
        (
            "model: {_target_: no_such_package.Net}",
            "model._target_: no_such_package.Net: no package 'no_such_package' is installed; "
            "correct the name or pip install it",
        ),
        (
            "model: {_target_: toy_fab.nets}",
            "model._target_: toy_fab.nets: toy_fab.nets is a module, not a class or a function",
        ),
        (
            "data: {path: '???'}",
            "data.path: needs a value, the data set's file or folder, as downloaded; set it with data.path=...",
        ),
        (
            "data: {classes: 9}\nhead: {n: '${data.clases}'}",
            "head.n: ${data.clases} refers to data.clases, which is not there; did you mean data.classes?",
        ),
        (
            "a: ${oc.env:NO_SUCH_VARIABLE}",
            "a: ${oc.env:NO_SUCH_VARIABLE}: Environment variable 'NO_SUCH_VARIABLE' not found",
        ),
        ("a: ${nosuch:1}", "a: ${nosuch:1}: Unsupported interpolation type nosuch"),
        (
            "data: {target: mask}\nloss: {_target_: toy_fab.losses.Focal, target: '${data.target}'}",
            "loss: Focal serves multiclass and multilabel targets, but data.target is mask; "
            "choose another loss or other data",
        ),
        ("task: {monitor: val/loss, mode: max}", "task.mode: val/loss is best where it is lowest; set task.mode=min"),
        (
            "task: {monitor: val/f1_macro, mode: min}",
            "task.mode: val/f1_macro is best where it is highest; set task.mode=max",
        ),
    ],
)
def test_each_problem_in_one_line(yaml, message):
    assert found(yaml) == [message]


@pytest.mark.parametrize(
    "yaml",
    [
        "optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 1e-3}",  # params come later
        "loss: {_target_: toy_fab.losses.Focal, target: x, class_weights: '???'}",  # the workflow's
        "workflow: {_target_: toy_fab.nets.run}",
        "model: {_target_: toy_fab.nets.make, width: 3, _args_: [1]}",
        "x: {_target_: toy_fab.losses.Anything, whatever: 3}",
        "x: {_target_: math.sqrt, whatever: 3}",
        "augment: null\nscheduler: {}\nempty: []",
        "task: {monitor: val/something, mode: min}",
        "callbacks: {best: {}, history: {}}",
    ],
)
def test_what_is_not_a_problem(yaml):
    assert found(yaml) == []


def test_a_package_is_missed_only_where_it_is_used():
    augment = (
        "augment: {maps: null, images: {_target_: no_such_package.Compose, steps: [{_target_: no_such_package.A}]}}"
    )
    assert found(augment + "\ndata: {augment: '${augment.maps}'}") == []
    assert [line.split(":")[0] for line in found(augment + "\ndata: {augment: '${augment.images}'}")] == [
        "augment.images._target_",
        "augment.images.steps.0._target_",
    ]
    misspelt = "augment: {images: {_target_: toy_fab.Nework}}\ndata: {augment: null}"
    assert len(found(misspelt)) == 1  # what is installed is checked all the same


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "loss: {_target_: toy_fab.CrossEntropy, target: x, class_weights: [1, 2]}",
            "loss.class_weights: set by the workflow; use imbalance=class_weights",
        ),
        ("task: {_target_: toy_fab.losses.Anything, class_names: [a]}", "task.class_names: {}"),
        ("trainer: {_target_: lightning.pytorch.Trainer, logger: true}", "trainer.logger: {}; use tracking=..."),
        (
            "trainer: {_target_: lightning.pytorch.Trainer, callbacks: [{_target_: toy_fab.losses.Anything}]}",
            "trainer.callbacks: {}; use callbacks=... or +callbacks.<name>",
        ),
        (
            "trainer: {_target_: lightning.pytorch.Trainer, enable_progress_bar: true}",
            "trainer.enable_progress_bar: {}",
        ),
    ],
)
def test_what_the_workflow_sets_is_not_the_configs_to_set(yaml, message):
    by_workflow = "set by the workflow" if "; use" in message else "set by the workflow; leave it out"
    assert found(yaml) == [message.format(by_workflow)]


def test_runtime_keys_are_those_that_the_workflow_passes():
    tree = ast.parse(inspect.getsource(assemble))
    passed = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "build":
            group = ast.unparse(call.args[0]).partition(".")[2]
            passed[group] = {keyword.arg for keyword in call.keywords if keyword.arg}  # not those of a **
    passed = {group: keys for group, keys in passed.items() if keys}
    assert {"loss", "task", "trainer", "head"} <= set(passed)
    assert passed == {group: RUNTIME[group] for group in passed}


def test_what_hydra_knows_only_inside_a_run_is_not_a_problem():
    setup_globals()
    assert found("run: ${hydra:runtime.output_dir}\nfigures: ${run}/figures") == []


def test_nodes_in_lists_and_in_nodes():
    assert found(
        "augment: {_target_: toy_fab.losses.Anything, steps: [{_target_: toy_fab.Network, dpth: 3, depth: 1}]}"
    ) == ["augment.steps.0.dpth: Network takes no dpth; did you mean depth?"]


def test_a_value_used_in_several_places_is_one_problem_where_it_is_written():
    yaml = (
        "size: big\na: {_target_: toy_fab.Network, depth: '${size}'}\nb: {_target_: toy_fab.Network, depth: '${size}'}"
    )
    assert found(yaml) == ["size: must be a whole number, not 'big'"]


def test_what_refers_to_a_wrong_value_is_no_other_problem():
    setup_globals()
    told = found("data: {path: nowhere, num_classes: '${class_folders:${data.path}}'}")
    assert told == ["data.path: there is nothing at nowhere; check the path"]


def test_a_failing_resolver_is_told_once_where_it_is_written():
    assert found("a: ${oc.env:NO_SUCH_VARIABLE}\nb: ${a}\nc: ${missing}\nd: ${c}") == [
        "a: ${oc.env:NO_SUCH_VARIABLE}: Environment variable 'NO_SUCH_VARIABLE' not found",
        "c: ${missing} refers to missing, which is not there",
    ]


def test_a_missing_value_is_told_once():
    assert len(found("data: {path: '???'}\nsource: {path: '${data.path}'}")) == 1


def test_all_problems_in_one_error():
    cfg = OmegaConf.create("model: {_target_: toy_fab.Network, dpth: 3}\ndata: {path: '???'}")
    with pytest.raises(UserError, match=re.escape("3 things to put right:\n  model.dpth: ")) as caught:
        validate(cfg)
    assert len(str(caught.value).splitlines()) == 4


def test_a_word_that_the_workflow_replaces_is_no_mistake():
    node = "trainer: {_target_: lightning.pytorch.Trainer, precision: %s}"
    assert problems(OmegaConf.create(node % "auto")) == []
    assert [problem.path for problem in problems(OmegaConf.create(node % "fast"))] == ["trainer.precision"]
