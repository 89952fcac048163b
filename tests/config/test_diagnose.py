from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from wafer_lab.config.diagnose import CommandLine, _check_choice, diagnose, parse


@pytest.fixture
def told(conf):
    def run(*overrides, multirun=False, name="train", extra=None):
        return [str(problem) for problem in diagnose(CommandLine(conf, name, overrides, multirun, extra))]

    return run


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=net_deep", "loss=focal", "loss.gamma=1.5", "data=mixed", "data.path=."),
        ("experiment=deep", "debug=smoke", "~imbalance"),
        ("+trainer.limit_val_batches=2", "++seed=4", "optimizer.lr=1e-4", "name=mine"),
    ],
)
def test_good_command_lines(told, overrides):
    assert told(*overrides) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=nett", "model=nett: model has no option nett; did you mean net? options: net, net_deep"),
        ("model=vgg", "model=vgg: model has no option vgg; options: net, net_deep"),
        ("model=", "model=: names no option; options: net, net_deep"),
        ("model=null", "model=null: model cannot be null; to leave it out, write ~model"),
        ("lss=focal", "lss=focal: the config has no lss; did you mean loss=focal?"),
        ("model.dpth=3", "model.dpth=3: model has no dpth; did you mean model.depth=3?"),
        ("model.dropp=0.5", "model.dropp=0.5: model has no dropp; did you mean +model.drop=0.5?"),
        (
            "trainer.limit_val_batches=2",
            "trainer.limit_val_batches=2: Trainer takes it, but the config does not set it; "
            "write +trainer.limit_val_batches=2",
        ),
        ("max_epochs=3", "max_epochs=3: the config has no max_epochs; did you mean trainer.max_epochs=3?"),
        ("target=mask", "target=mask: the config has no target; did you mean one of data.target, loss.target?"),
        (
            "imbalance.target=mask",
            "imbalance.target=mask: imbalance has no target; did you mean one of data.target, loss.target?",
        ),
        ("loss.zzz=1", "loss.zzz=1: CrossEntropy takes no zzz; it takes target"),
        ("data.zzz=1", "data.zzz=1: data has no zzz; to add it, write +data.zzz=1"),
        ("data.canvas.zzz=1", "data.canvas.zzz=1: data.canvas has no zzz; to add it, write +data.canvas.zzz=1"),
        ("~data.canvs", "~data.canvs: data has no canvs; did you mean ~data.canvas?"),
        ("+data.canvas=32", "+data.canvas=32: is in the config already; drop the +"),
        ("+model=net", "+model=net: is in the defaults list already; drop the +"),
        ("model", "model: cannot be read; write it as key=value"),
        ("name=a=b", "name=a=b: cannot be read; quote the value: 'name=\"a=b\"'"),
        ("seed=1,2", "seed=1,2: gives several values; add --multirun to run each, or write [a,b] for a list"),
        ("seed=abc", "seed: must be a number (it is 0 by default), not 'abc'"),
        ("figures=perhaps", "figures: must be true or false (it is true by default), not 'perhaps'"),
        ("trainer.max_epochs=ten", "trainer.max_epochs: must be a whole number or null, not 'ten'"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: Trainer takes no max_epoch; did you mean max_epochs?"),
        ("data.target=multilabel", "loss: CrossEntropy serves multiclass targets, but data.target is multilabel; "
         "choose another loss or other data"),
        ("experiment=broken", "experiment=broken: there is no model/net_dep.yaml; did you mean net_deep?"),
        ("+loss.class_weights=[1,2]", "loss.class_weights: set by the workflow; use imbalance=class_weights"),
        ("loss.class_weights=[1,2]", "loss.class_weights=[1,2]: set by the workflow; use imbalance=class_weights"),
        ("+trainer.logger=true", "trainer.logger: set by the workflow; use tracking=..."),
        ("hydra.swep.dir=x", "hydra.swep.dir=x: hydra has no swep; did you mean hydra.sweep.dir=x?"),
    ],
)  # fmt: skip
def test_each_mistake(told, override, message):
    assert told(override) == [message]


def test_all_mistakes_on_one_line(told):
    assert told("model=nett", "loss=focal", "loss.gama=2", "trainer.max_epochs=ten") == [
        "model=nett: model has no option nett; did you mean net? options: net, net_deep",
        "loss.gama=2: loss has no gama; did you mean loss.gamma=2?",
        "trainer.max_epochs: must be a whole number or null, not 'ten'",
    ]


def test_an_answer_composes_no_config_twice(told, monkeypatch):
    load, asked = ConfigLoaderImpl.load_configuration, []
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_configuration",
        lambda self, name, lines, **options: asked.append(tuple(lines)) or load(self, name, lines, **options),
    )
    told("model=nett", "loss=focal", "loss.gama=2")
    assert len(asked) == len(set(asked)) == 3  # as typed, the choices alone, as meant


def test_the_meant_argument_is_checked_in_turn(told):
    assert told("model.dpth=ten") == [
        "model.dpth=ten: model has no dpth; did you mean model.depth=ten?",
        "model.depth: must be a whole number, not 'ten'",
    ]


def test_what_was_left_out_causes_no_further_complaints(told):
    # vgg resembles nothing, so its keys cannot be judged, and data=mixed without a path is not the point yet
    assert told("model=vgg", "model.blocks=3", "data=mixed", "trainer.max_epochs=ten") == [
        "model=vgg: model has no option vgg; options: net, net_deep",
        "trainer.max_epochs: must be a whole number or null, not 'ten'",
    ]


def test_every_job_of_a_sweep_is_checked(told):
    assert told("model=net,nett", "seed=1,x", "loss=glob(*)", multirun=True) == [
        "seed: must be a number (it is 0 by default), not 'x'",
        "model=nett: model has no option nett; did you mean net? options: net, net_deep",
    ]


def test_a_good_sweep(told):
    assert told("model=net,net_deep", "seed=range(3)", multirun=True) == []
    assert told("seed=interval(0,1)", multirun=True)[0].startswith("--multirun: ")


def test_broken_files_are_named(told, conf):
    (conf / "loss" / "broken.yaml").write_text("a: [1\nb: 2")
    assert told("loss=broken") == [
        f"loss=broken: {conf}/loss/broken.yaml, line 2: expected ',' or ']', but got ':'; mend the file"
    ]
    assert told(name="tran") == ["tran: there is no tran.yaml"]


def test_a_further_folder_of_configs(told, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: toy_fab.Network\ndepth: 2\n")
    assert told("model=own", extra=str(tmp_path / "mine")) == []
    assert told("model=own") == ["model=own: model has no option own; options: net, net_deep"]


def test_a_launcher_that_is_not_installed_is_named_with_its_package():
    without = SimpleNamespace(options=lambda group: ["basic"])  # Hydra knows the options of installed packages alone
    problem, _ = _check_choice(without, parse("hydra/launcher=submitit_slurm"))
    assert str(problem) == (
        "hydra/launcher=submitit_slurm: needs the package hydra-submitit-launcher, which is not installed; "
        "pip install hydra-submitit-launcher"
    )
