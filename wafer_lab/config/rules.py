"""What must fit between the groups of a config; each rule is a function config -> problems, listed in RULES."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wafer_lab.config.messages import Problem, did_you_mean, listed
from wafer_lab.config.signatures import read_signature
from wafer_lab.config.sources import UnknownTargetError
from wafer_lab.tracking.mlflow_tracker import masked

_BETTER_LOW = {"loss", "error", "ece", "nll", "brier", "mae", "mse", "escape", "alarm"}
_BETTER_HIGH = {"f1", "accuracy", "precision", "recall", "auroc", "ap", "iou", "dice", "match"}

# What our tasks log of an epoch's validation, by kind of target: their loss and the scores of wafer_lab.metrics,
# named here because importing those takes too long for a typing mistake. A test compares.
CLASSIFICATION = "wafer_lab.tasks.classification.ClassificationTask"
SEGMENTATION = "wafer_lab.tasks.segmentation.SegmentationTask"
_LOGGED_BY = {"multiclass": CLASSIFICATION, "multilabel": CLASSIFICATION, "mask": SEGMENTATION}
_ALWAYS = {"loss", "f1_macro", "precision_macro", "recall_macro", "escape_rate", "false_alarm_rate"}
MONITORS = {
    "multiclass": _ALWAYS | {"accuracy", "balanced_accuracy"},
    "multilabel": _ALWAYS | {"exact_match", "hamming_accuracy", "f1_micro"},
    "mask": {"loss", "iou_macro", "dice_macro"},
}
# followed by the name of a class
MONITORS_PER_CLASS: dict[str, tuple[str, ...]] = {
    "multiclass": ("f1/", "precision/", "recall/"),
    "multilabel": ("f1/", "precision/", "recall/"),
    "mask": ("iou/", "dice/"),
}
_LARGEST_SEED = 2**32 - 1  # NumPy's
# What to do about a task that the data are not for, by whether the data have masks.
_REMEDIES = {
    ("task", True): "set task=segmentation, or other data",
    ("task", False): "set task=classification, or data with masks: simulated_masks, mixedwm38_masks",
}


def value_at(cfg: DictConfig, path: str) -> Any:
    """A value, or None where it is absent, missing or cannot be resolved."""
    try:
        return OmegaConf.select(cfg, path, throw_on_missing=False)
    except OmegaConfBaseException:
        return None


def keys_of(node: Any) -> list[str]:
    """The keys of a mapping; none for anything else, such as null."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return []
    return [key for key in node if isinstance(key, str)]


def _serves_target(cfg: DictConfig) -> Iterator[Problem]:
    """A task, head or loss names the kinds of target it serves in a class attribute, `targets`."""
    target = value_at(cfg, "data.target")
    refused = False
    for group in ("task", "head", "loss"):
        name = value_at(cfg, f"{group}._target_")
        try:
            signature = read_signature(name) if isinstance(name, str) else None
        except UnknownTargetError:
            continue
        served = signature.attributes.get("targets") if signature else None
        if isinstance(target, str) and isinstance(served, tuple) and served and target not in served:
            if group == "head" and refused:
                continue  # it follows the task
            refused = True
            yield Problem(
                group,
                f"{str(name).rpartition('.')[2]} serves {' and '.join(served)} targets, but data.target is "
                f"{target}; {_REMEDIES.get((group, target == 'mask'), f'choose another {group} or other data')}",
            )


def _serves_kind(cfg: DictConfig) -> Iterator[Problem]:
    """A task that is not for every kind of data names those it is for in a class attribute, `kinds`."""
    found: dict[str, Any] = {}
    for group, attribute in (("task", "kinds"), ("data", "kind")):
        name = value_at(cfg, f"{group}._target_")
        try:
            signature = read_signature(name) if isinstance(name, str) else None
        except UnknownTargetError:
            continue
        found[group] = signature.attributes.get(attribute) if signature else None
    kinds, kind = found.get("task"), found.get("data")
    if isinstance(kinds, tuple) and isinstance(kind, str) and kind not in kinds:
        task = str(value_at(cfg, "task._target_")).rpartition(".")[2]
        yield Problem(
            "task", f"{task} is for wafer maps, but the data are {kind}; set task=classification, or other data"
        )


def _prior_of_whole_wafers(cfg: DictConfig) -> Iterator[Problem]:
    if value_at(cfg, "data.target") == "mask" and value_at(cfg, "imbalance.tau") not in (None, 0):
        yield Problem(
            "imbalance.tau",
            "logit adjustment serves multiclass and multilabel targets, but data.target is mask: how many wafers have "
            "a pattern is not how many pixels do; set imbalance.tau=0",
        )


def _one_answer_to_imbalance(cfg: DictConfig) -> Iterator[Problem]:
    off = (None, False, "none", 0)
    sampler = value_at(cfg, "imbalance.sampler")
    for name, nothing in (("class_weights", "none"), ("tau", "0")):
        value = value_at(cfg, f"imbalance.{name}")
        if sampler not in off and value not in off:
            yield Problem(
                "imbalance",
                f"sampler={sampler} and {name}={value} both favour rare classes, so they count twice; "
                f"set sampler=none or {name}={nothing}",
                level="warning",
            )


def _mode_fits_monitor(cfg: DictConfig) -> Iterator[Problem]:
    monitor, mode = value_at(cfg, "task.monitor"), value_at(cfg, "task.mode")
    words = set(str(monitor).rpartition("/")[2].split("_"))
    expected = "min" if words & _BETTER_LOW else "max" if words & _BETTER_HIGH else None
    if mode in ("min", "max") and expected and mode != expected:
        best = "lowest" if expected == "min" else "highest"
        yield Problem("task.mode", f"{monitor} is best where it is {best}; set task.mode={expected}")


def _monitor_is_logged(cfg: DictConfig) -> Iterator[Problem]:
    monitor, target = value_at(cfg, "task.monitor"), value_at(cfg, "data.target")
    if not isinstance(monitor, str):
        return
    split, _, score = monitor.partition("/")
    if split != "val":
        yield Problem("task.monitor", f"must be a validation score such as val/f1_macro, not {monitor}")
    elif target in MONITORS and value_at(cfg, "task._target_") == _LOGGED_BY[target]:
        names = MONITORS[target]
        if score not in names and not score.startswith(MONITORS_PER_CLASS[target]):
            hint = did_you_mean(score, names) or f"; choose one of {listed(names)}"
            yield Problem("task.monitor", f"validation of {target} data gives no {score}{hint}")


def several_devices(cfg: DictConfig) -> bool:
    """Whether a run may use more than one device, as far as its config tells."""
    devices, nodes = (value_at(cfg, f"trainer.{name}") for name in ("devices", "num_nodes"))
    one = devices in (1, "1") or (isinstance(devices, ListConfig) and len(devices) == 1)  # [3], the fourth GPU
    return "devices" in keys_of(value_at(cfg, "trainer")) and not (one and nodes in (None, 1, "1"))


def _several_devices(cfg: DictConfig) -> Iterator[Problem]:
    if not several_devices(cfg):
        return
    workflow, strategy = value_at(cfg, "workflow._target_"), value_at(cfg, "trainer.strategy")
    if workflow not in (None, "wafer_lab.workflows.fit.fit"):
        yield Problem(
            "workflow",
            f"{str(workflow).rpartition('.')[2]} trains one model after another, each on one device; set "
            "trainer.devices=1 and trainer.num_nodes=1",
        )
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        yield Problem("trainer.strategy", f"{strategy} loses the trained model with its processes; use trainer=ddp")
    if value_at(cfg, "finetune.mode") not in (None, "full") and strategy in (None, "auto", "ddp"):
        yield Problem(
            "trainer.strategy",
            f"{strategy or 'auto'} waits for the gradients of layers that finetune.mode="
            f"{value_at(cfg, 'finetune.mode')} freezes; use trainer.strategy=ddp_find_unused_parameters_true",
        )
    devices, nodes, size = (value_at(cfg, key) for key in ("trainer.devices", "trainer.num_nodes", "data.batch_size"))
    count = len(devices) if isinstance(devices, ListConfig) else devices
    if isinstance(count, int) and count > 0 and isinstance(nodes or 1, int) and isinstance(size, int):
        count *= nodes or 1
        if size % count:
            yield Problem(
                "data.batch_size",
                f"{size} is of all {count} devices together, and cannot be shared equally; use "
                f"{size - size % count or count}",
            )


def _no_fast_dev_run(cfg: DictConfig) -> Iterator[Problem]:
    if value_at(cfg, "trainer.fast_dev_run"):
        yield Problem("trainer.fast_dev_run", "leaves no checkpoint to judge; use debug=smoke")


def _needed_callbacks(cfg: DictConfig) -> Iterator[Problem]:
    why = {"best": "the best checkpoint is what is judged", "history": "the report shows its epochs"}
    for name, reason in why.items():
        if "callbacks" in keys_of(cfg) and value_at(cfg, f"callbacks.{name}") is None:
            yield Problem(f"callbacks.{name}", f"cannot be left out: {reason}; take it from callbacks=default")


def _seeds_in_range(cfg: DictConfig) -> Iterator[Problem]:
    for path in ("seed", "data.seed"):
        seed = value_at(cfg, path)
        if isinstance(seed, int) and not 0 <= seed <= _LARGEST_SEED:
            yield Problem(path, f"must be from 0 to {_LARGEST_SEED}, not {seed}")


def _no_password(cfg: DictConfig) -> Iterator[Problem]:
    uri = value_at(cfg, "tracking.uri")
    if isinstance(uri, str) and masked(uri) != uri:
        yield Problem(
            "tracking.uri",
            "has a password, and a config is kept with every run and checkpoint; "
            "set the environment variable MLFLOW_TRACKING_URI instead",
        )


def _files_exist(cfg: DictConfig) -> Iterator[Problem]:
    for key in ("data.path", "data.external", "data.labelled", "task.teacher", "ckpt_path"):
        path = value_at(cfg, key)
        if isinstance(path, str) and not Path(path).exists():
            yield Problem(key, f"there is nothing at {path}; check the path")


def _data_belong_together(cfg: DictConfig) -> Iterator[Problem]:
    """What a data module would say only after the data were opened."""
    if value_at(cfg, "data.external_classes") and value_at(cfg, "data.external") is None:
        yield Problem("data.external_classes", "renames the classes of data.external, which is not set; name its path")
    masks = value_at(cfg, "data.masks")
    if value_at(cfg, "data.target") == "mask" and "masks" in keys_of(value_at(cfg, "data")) and masks is None:
        yield Problem("data.masks", "is null, but data.target is mask; set patterns, weak or a COCO file")


def _weights_are_there(cfg: DictConfig) -> Iterator[Problem]:
    weights, mode = value_at(cfg, "weights"), value_at(cfg, "finetune.mode")
    if weights is None:
        if mode not in (None, "full"):
            yield Problem(
                "finetune",
                f"mode={mode} is for pretrained layers, and with weights=null they are random; "
                "set weights=imagenet or a file",
                level="warning",
            )
    elif not isinstance(weights, str):
        yield Problem("weights", f"must be imagenet, a file or a run's folder, not {weights}")
    elif weights != "imagenet" and value_at(cfg, "ckpt_path") is None and not Path(weights).exists():
        hint = did_you_mean(weights, ["imagenet"]) or "; give imagenet, a file or a run's folder"
        yield Problem("weights", f"there is nothing at {weights}{hint}")


RULES = (
    _files_exist,
    _data_belong_together,
    _weights_are_there,
    _serves_target,
    _serves_kind,
    _prior_of_whole_wafers,
    _one_answer_to_imbalance,
    _mode_fits_monitor,
    _monitor_is_logged,
    _several_devices,
    _no_fast_dev_run,
    _needed_callbacks,
    _seeds_in_range,
    _no_password,
)
