import numpy as np
import pytest
from omegaconf import OmegaConf

from wafer_lab.config.messages import ConfigWarning
from wafer_lab.config.rules import CLASSIFICATION, MONITORS, MONITORS_PER_CLASS, SEGMENTATION
from wafer_lab.config.validate import problems, validate
from wafer_lab.metrics.masks import MaskCounts, mask_scores
from wafer_lab.metrics.scores import MultilabelCounts, multiclass_scores, multilabel_scores


def found(yaml):
    return [str(problem) for problem in problems(OmegaConf.create(yaml))]


def monitoring(monitor, target):
    lacking = "network: '???', loss: '???', class_names: '???', optimizer: '???'"
    kind = SEGMENTATION if target == "mask" else f"{CLASSIFICATION}, target: {target}"
    task = f"_target_: {kind}, monitor: {monitor}, {lacking}"
    return found(f"data: {{target: {target}}}\ntask: {{{task}}}")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "workflow: {_target_: wafer_lab.workflows.kfold.kfold}\ntrainer: {devices: 2}",
            "workflow: kfold trains one model after another, each on one device; set trainer.devices=1 and "
            "trainer.num_nodes=1",
        ),
        (
            "trainer: {devices: 1, num_nodes: 2, strategy: ddp_spawn}",
            "trainer.strategy: ddp_spawn loses the trained model with its processes; use trainer=ddp",
        ),
        (
            "trainer: {devices: auto}\nfinetune: {mode: gradual}\nweights: imagenet",
            "trainer.strategy: auto waits for the gradients of layers that finetune.mode=gradual freezes; use "
            "trainer.strategy=ddp_find_unused_parameters_true",
        ),
        (
            "trainer: {devices: [0, 1], num_nodes: 3}\ndata: {batch_size: 128}",
            "data.batch_size: 128 is of all 6 devices together, and cannot be shared equally; use 126",
        ),
        ("trainer: {fast_dev_run: true}", "trainer.fast_dev_run: leaves no checkpoint to judge; use debug=smoke"),
        ("trainer: {fast_dev_run: 3}", "trainer.fast_dev_run: leaves no checkpoint to judge; use debug=smoke"),
        (
            "callbacks: {best: null, history: {}}",
            "callbacks.best: cannot be left out: the best checkpoint is what is judged; take it from callbacks=default",
        ),
        (
            "callbacks: {best: {}}",
            "callbacks.history: cannot be left out: the report shows its epochs; take it from callbacks=default",
        ),
        ("seed: -1", "seed: must be from 0 to 4294967295, not -1"),
        ("data: {seed: -3}", "data.seed: must be from 0 to 4294967295, not -3"),
        ("data: {labelled: no.csv}", "data.labelled: there is nothing at no.csv; check the path"),
        ("weights: nowhere.pth", "weights: there is nothing at nowhere.pth; give imagenet, a file or a run's folder"),
        ("weights: imagnet", "weights: there is nothing at imagnet; did you mean imagenet?"),
        (
            "data: {external_classes: {a: b}, external: null}",
            "data.external_classes: renames the classes of data.external, which is not set; name its path",
        ),
        (
            "data: {target: mask, masks: null}",
            "data.masks: is null, but data.target is mask; set patterns, weak or a COCO file",
        ),
        ("weights: 3", "weights: must be imagenet, a file or a run's folder, not 3"),
        ("task: {monitor: test/f1_macro}", "task.monitor: must be a validation score such as val/f1_macro, "
         "not test/f1_macro"),
        ("task: {monitor: train/loss}", "task.monitor: must be a validation score such as val/f1_macro, "
         "not train/loss"),
        ("task: {monitor: f1_macro}", "task.monitor: must be a validation score such as val/f1_macro, not f1_macro"),
        ("task: {monitor: val/escape_rate, mode: max}", "task.mode: val/escape_rate is best where it is lowest; "
         "set task.mode=min"),
    ],
)  # fmt: skip
def test_each_rule(yaml, message):
    assert found(yaml) == [message]


@pytest.mark.parametrize(
    "yaml",
    [
        "trainer: {devices: 1, num_nodes: 1, fast_dev_run: false}",
        "trainer: {devices: '1'}",
        "trainer: {devices: [3]}",
        "trainer: {devices: [3]}\nworkflow: {_target_: wafer_lab.workflows.kfold.kfold}",
        "trainer: {devices: 4, num_nodes: 2, strategy: ddp}\ndata: {batch_size: 128}",
        "trainer: {devices: auto}\ndata: {batch_size: 127}",  # nobody knows yet how many there are
        "callbacks: {best: {}, history: {}, early_stopping: null}",
        "seed: 0\ndata: {seed: 4294967295}",
        "weights: null\nfinetune: {mode: full}",
        "weights: imagenet\nfinetune: {mode: frozen}",
        "weights: gone.pth\nckpt_path: .",  # the checkpoint has the weights
        "tracking: {uri: null}",
        "tracking: {uri: 'postgresql://me@db.example:5432/runs'}",
        "tracking: {uri: 'http://tracking.example:5000'}",
        "tracking: {uri: 'sqlite:////data/a:b@c/mlflow.db'}",
    ],
)
def test_what_is_not_a_problem(yaml):
    assert found(yaml) == []


def test_freezing_random_layers_is_warned_of():
    (message,) = found("weights: null\nfinetune: {mode: frozen}")
    assert message.startswith("finetune: mode=frozen is for pretrained layers, and with weights=null they are random")
    with pytest.warns(ConfigWarning, match="mode=gradual is for pretrained layers"):
        validate(OmegaConf.create("weights: null\nfinetune: {mode: gradual}"))


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:s3cret@db.example/runs",
        "postgresql+psycopg2://me:s3/cr@t@db.example/runs",
        "https://s3cret@tracking.example",
        "mysql://db.example/runs?user=me&password=s3cret",
    ],
)
def test_a_password_does_not_go_into_the_config(uri):
    cfg = OmegaConf.create({"tracking": {"uri": uri}})
    assert [str(problem) for problem in problems(cfg)] == [
        "tracking.uri: has a password, and a config is kept with every run and checkpoint; "
        "set the environment variable MLFLOW_TRACKING_URI instead"
    ]


@pytest.mark.parametrize(("name", "value"), [("class_weights", "balanced"), ("tau", 1.0)])
def test_a_sampler_and_a_second_correction_are_a_warning(name, value):
    cfg = OmegaConf.create({"imbalance": {"sampler": "balanced", name: value}})
    with pytest.warns(ConfigWarning, match=f"imbalance: sampler=balanced and {name}={value} both favour"):
        validate(cfg)


def test_one_correction_is_no_warning():
    assert found("imbalance: {sampler: balanced, class_weights: none, tau: 0.0}") == []
    assert found("imbalance: {sampler: none, class_weights: none, tau: 1.0}") == []


@pytest.mark.parametrize(
    ("monitor", "target"),
    [
        ("val/exact_match", "multiclass"),
        ("val/f1_micro", "multiclass"),
        ("val/hamming_accuracy", "multiclass"),
        ("val/balanced_accuracy", "multilabel"),
        ("val/accuracy", "multilabel"),
        ("val/auroc_macro", "multiclass"),
        ("val/f1_makro", "multilabel"),
        ("val/f1_macro", "mask"),
        ("val/f1/Loc", "mask"),
        ("val/iou_macro", "multilabel"),
    ],
)
def test_a_score_that_validation_does_not_give(monitor, target):
    (message,) = monitoring(monitor, target)
    assert message.startswith(f"task.monitor: validation of {target} data gives no {monitor[4:]};")


def test_monitors_are_the_scores_that_are_logged():
    names = ["none", "Loc"]
    scores = {
        "multiclass": multiclass_scores(np.eye(2), names),
        "multilabel": multilabel_scores(MultilabelCounts.of(np.eye(2), np.eye(2)), names),
        "mask": mask_scores(MaskCounts(*np.ones((3, 2))), names),
    }
    assert scores.keys() == MONITORS.keys()
    for target, given in scores.items():
        per_class = MONITORS_PER_CLASS[target]
        assert {name for name in given if not name.startswith(per_class)} | {"loss"} == MONITORS[target]
        for name in given:
            assert monitoring(f"val/{name}", target) == []


def test_a_prior_of_whole_wafers_is_refused_for_masks():
    (message,) = found("data: {target: mask}\nimbalance: {tau: 1.0}")
    assert message.startswith(
        "imbalance.tau: logit adjustment serves multiclass and multilabel targets, but data.target"
    )
    assert found("data: {target: mask}\nimbalance: {tau: 0.0}") == []
    assert found("data: {target: multilabel}\nimbalance: {tau: 1.0}") == []


def test_a_head_for_wafers_is_refused_for_masks():
    head = "{_target_: wafer_lab.models.heads.LinearHead, num_classes: 8}"
    (message,) = found(f"data: {{target: mask}}\nhead: {head}")
    assert message.startswith("head: LinearHead serves multiclass and multilabel targets, but data.target is mask")


def test_a_task_for_other_data_is_one_problem_with_its_remedy():
    head = "{_target_: wafer_lab.models.heads.LinearHead, num_classes: 8}"
    task = f"{{_target_: {CLASSIFICATION}, network: '???', loss: '???', class_names: '???', optimizer: '???'}}"
    problems_of = [text for text in found(f"data: {{target: mask}}\ntask: {task}\nhead: {head}") if "serves" in text]
    (message,) = problems_of
    assert message.startswith("task: ")
    assert message.endswith("set task=segmentation, or other data")


@pytest.mark.parametrize("task", ["simclr.SimCLRTask", "fixmatch.FixMatchTask"])
@pytest.mark.parametrize("data", ["images.ImageDataModule", "maps.MapDataModule"])
def test_tasks_for_wafer_maps_are_refused_on_images(task, data):
    said = found(f"data: {{_target_: wafer_lab.data.{data}}}\ntask: {{_target_: wafer_lab.tasks.{task}}}")
    name = task.partition(".")[2]
    refusal = f"task: {name} is for wafer maps, but the data are images; set task=classification, or other data"
    assert (refusal in said) == data.startswith("images")
