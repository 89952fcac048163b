"""What must fit between the groups of a config; each rule is a function config -> problems, listed in RULES."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wafer_lab.config.messages import Problem
from wafer_lab.config.signatures import read_signature
from wafer_lab.config.sources import UnknownTargetError

_BETTER_LOW = {"loss", "error", "ece", "nll", "brier", "mae", "mse"}
_BETTER_HIGH = {"f1", "accuracy", "precision", "recall", "auroc", "ap", "iou", "dice", "match"}


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
    """A task or loss names the kinds of target it serves in a class attribute, `targets`."""
    target = value_at(cfg, "data.target")
    for group in ("task", "loss"):
        name = value_at(cfg, f"{group}._target_")
        try:
            signature = read_signature(name) if isinstance(name, str) else None
        except UnknownTargetError:
            continue
        served = signature.attributes.get("targets") if signature else None
        if isinstance(target, str) and isinstance(served, tuple) and served and target not in served:
            yield Problem(
                group,
                f"{str(name).rpartition('.')[2]} serves {' and '.join(served)} targets, but data.target is "
                f"{target}; choose another {group} or other data",
            )


def _one_answer_to_imbalance(cfg: DictConfig) -> Iterator[Problem]:
    off = (None, False, "none")
    sampler, weights = value_at(cfg, "imbalance.sampler"), value_at(cfg, "imbalance.class_weights")
    if sampler not in off and weights not in off:
        yield Problem(
            "imbalance",
            f"sampler={sampler} and class_weights={weights} both favour rare classes, so they count twice; "
            "set one of them to none",
            level="warning",
        )


def _mode_fits_monitor(cfg: DictConfig) -> Iterator[Problem]:
    monitor, mode = value_at(cfg, "task.monitor"), value_at(cfg, "task.mode")
    words = set(str(monitor).rpartition("/")[2].split("_"))
    expected = "min" if words & _BETTER_LOW else "max" if words & _BETTER_HIGH else None
    if mode in ("min", "max") and expected and mode != expected:
        best = "lowest" if expected == "min" else "highest"
        yield Problem("task.mode", f"{monitor} is best where it is {best}; set task.mode={expected}")


RULES = (_serves_target, _one_answer_to_imbalance, _mode_fits_monitor)
