"""Check a composed config before anything is built, and say everything that is wrong with it at once."""

import re
import warnings
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from wafer_lab.config import annotations
from wafer_lab.config.messages import (
    ConfigWarning,
    Problem,
    as_number,
    closest,
    did_you_mean,
    listed,
    refuse,
    show,
)
from wafer_lab.config.rules import RULES, keys_of, value_at
from wafer_lab.config.signatures import Parameter, Signature, read_signature
from wafer_lab.config.sources import UnknownTargetError

# What workflows add when they build a group's node; the config need not give it.
RUNTIME: dict[str, set[str]] = {
    "head": {"in_features"},
    "loss": {"class_weights", "log_prior", "class_counts"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps"},
    "task": {"network", "loss", "class_names", "optimizer", "scheduler", "finetune", "record"},
    "trainer": {
        "callbacks",
        "logger",
        "default_root_dir",
        "enable_progress_bar",
        "enable_model_summary",
        "use_distributed_sampler",
        "plugins",
    },
    "workflow": {"cfg"},
}
# Words that a workflow replaces by what the hardware asks for, before the target sees them.
AUTOMATIC = {"trainer.precision": "auto"}
# What to use instead of setting one of those keys.
_INSTEAD: dict[str, str] = {
    "loss.class_weights": "imbalance=class_weights",
    "loss.log_prior": "imbalance=logit_adjustment",
    "task.finetune": "finetune=...",
    "trainer.callbacks": "callbacks=... or +callbacks.<name>",
    "trainer.default_root_dir": "paths.outputs=...",
    "trainer.logger": "tracking=...",
}
# Groups whose entries are built only where another group refers to them: ${augment.maps}.
_LIBRARIES = {"augment"}
# What to put where the config says ???.
HINTS: dict[str, str] = {"data.path": "the data set's file or folder, as downloaded"}
_INSTANTIATE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def problems(cfg: DictConfig) -> list[Problem]:
    """Everything wrong with a composed config; nothing is imported and nothing is changed.

    Args:
        cfg: the whole composed config; its `hydra` node, if there, is passed over.

    Returns:
        Problems of values and keys in the config's order, then those between groups.
    """
    found: list[Problem] = []
    for key in keys_of(cfg):
        if key != "hydra":
            found += _value_problems(cfg, cfg, key, key)
    found += [problem for rule in RULES for problem in rule(cfg)]
    found = list(dict.fromkeys(found))  # a value used in several places is one problem
    errors = [problem for problem in found if problem.level == "error"]

    def follows(one: Problem) -> bool:
        """Whether it is wrong only because a value that it refers to is."""
        return any(f"${{{other.path}}}" in one.message for other in errors if other is not one)

    return [one for one in found if not follows(one)]


def validate(cfg: DictConfig) -> None:
    """Refuse a config that cannot work, and make a good one read-only.

    Args:
        cfg: the whole composed config.

    Raises:
        UserError: lists every problem, one line each.
    """
    found = problems(cfg)
    for problem in found:
        if problem.level == "warning":
            warnings.warn(str(problem), ConfigWarning, stacklevel=2)
    refuse(found)
    OmegaConf.set_readonly(cfg, True)


# ------------------------------------------------------------------------------------------- values and keys


def _value_problems(cfg: DictConfig, node: Any, path: str, key: Any) -> Iterator[Problem]:
    """Problems of `node[key]` and of all below it."""
    if OmegaConf.is_missing(node, key):
        if not _is_supplied(node, path, key):
            hint = f", {HINTS[path]}" if path in HINTS else ""
            yield Problem(path, f"needs a value{hint}; set it with {path}=...")
    elif str(key) in RUNTIME.get(path.rpartition(".")[0], ()):
        yield Problem(path, set_by_workflow(path))
    elif OmegaConf.is_interpolation(node, key):
        yield from _interpolation_problems(cfg, node, path, key)
    else:
        value = node[key]
        if isinstance(value, DictConfig) and "_target_" in value:
            yield from _target_problems(cfg, value, path)
        if isinstance(value, DictConfig):
            for inner in keys_of(value):
                yield from _value_problems(cfg, value, f"{path}.{inner}", inner)
        elif isinstance(value, ListConfig):
            for position in range(len(value)):
                yield from _value_problems(cfg, value, f"{path}.{position}", position)


def _is_supplied(node: Any, path: str, key: Any) -> bool:
    """Whether a ??? is filled at build time: by the workflow, or by whoever calls the partial."""
    if not isinstance(node, DictConfig):
        return False
    return bool(node.get("_partial_")) or str(key) in RUNTIME.get(path.rpartition(".")[0], set())


def _interpolation_problems(cfg: DictConfig, node: Any, path: str, key: Any) -> Iterator[Problem]:
    written = _written(node, key)
    source = _referred(written)
    try:
        node[key]
    except OmegaConfBaseException as error:
        if isinstance(error, InterpolationToMissingValueError) or (source and _is_there(cfg, source)):
            return  # said where the value itself is written
        if source and isinstance(error, InterpolationKeyError):
            hint = did_you_mean(source, _paths(cfg))
            yield Problem(path, f"{written} refers to {source}, which is not there{hint}")
            return
        said = resolver_message(error)
        if "HydraConfig was not set" not in said:  # ${hydra:...} has a value only inside a run
            yield Problem(path, f"{written}: {said}")


def resolver_message(error: OmegaConfBaseException) -> str:
    """What went wrong in an interpolation, without OmegaConf's words around it."""
    said = str(error).partition(" raised while resolving interpolation: ")[2] or str(error)
    return said.splitlines()[0].strip("'\"")


def _written(node: Any, key: Any) -> str:
    """An interpolation as it stands in the file."""
    container: Any = OmegaConf.to_container(node, resolve=False)
    return str(container[key])


def _referred(written: str) -> str | None:
    """The path in "${data.num_classes}"; None for anything more than one path."""
    plain = re.fullmatch(r"\$\{(\w[\w.]*)\}", written)
    return plain.group(1) if plain else None


def _is_there(cfg: DictConfig, path: str) -> bool:
    parent, _, key = path.rpartition(".")
    return key in keys_of(value_at(cfg, parent) if parent else cfg)


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    for key in keys_of(node):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _paths(node[key], f"{prefix}{key}.")


# ------------------------------------------------------------------------------------- nodes with a _target_


def _target_problems(cfg: DictConfig, node: DictConfig, path: str) -> Iterator[Problem]:
    target = value_at(node, "_target_")
    if not isinstance(target, str):
        return  # missing or broken: said where the value is looked at
    try:
        signature = read_signature(target)
    except UnknownTargetError as error:
        if error.name == target.split(".")[0] and not _is_built(cfg, path):
            return  # a package that is not installed, for something that this run does not use
        yield Problem(f"{path}._target_", f"{target}: {error}{did_you_mean(error.name, error.candidates)}")
        return
    if signature is not None:
        yield from _keyword_problems(node, path, target.rpartition(".")[2], signature)
        yield from _lacking_problems(node, path, target.rpartition(".")[2], signature)


def _is_built(cfg: DictConfig, path: str) -> bool:
    """Whether a run builds the node: always, but in a library only what an interpolation refers to."""
    if path.split(".")[0] not in _LIBRARIES:
        return True
    groups = [key for key in keys_of(cfg) if key != "hydra" and isinstance(cfg._get_node(key), DictConfig)]
    written = (OmegaConf.to_yaml(cfg._get_node(key)) for key in groups)
    referred = {name for text in written for name in re.findall(r"\$\{(\w[\w.]*)\}", text)}
    return any(f"{path}.".startswith(f"{name}.") for name in referred)


def _keyword_problems(node: DictConfig, path: str, short: str, signature: Signature) -> Iterator[Problem]:
    for key in keys_of(node):
        if key in _INSTANTIATE_KEYS or (key in RUNTIME.get(path, ()) and not OmegaConf.is_missing(node, key)):
            continue  # of the latter it is said that the workflow sets them
        if key in signature.parameters:
            yield from _type_problems(node, path, key, signature.parameters[key])
        elif not signature.accepts_kwargs:
            yield Problem(f"{path}.{key}", unknown_key(key, short, keywords(signature, path)))


def _lacking_problems(node: DictConfig, path: str, short: str, signature: Signature) -> Iterator[Problem]:
    if value_at(node, "_partial_") or "_args_" in node:
        return
    supplied = RUNTIME.get(path, set()) | set(keys_of(node))
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in supplied:
            yield Problem(path, f"lacks {name}, which {short} needs; set it with +{path}.{name}=...")


def keywords(signature: Signature, path: str) -> list[str]:
    """The keywords that are the config's to set: those of the target without what the workflow adds."""
    return [name for name in signature.parameters if name not in RUNTIME.get(path, set())]


def set_by_workflow(path: str) -> str:
    """Message for one of the keys in RUNTIME, which would be replaced without a word."""
    return f"set by the workflow; use {_INSTEAD[path]}" if path in _INSTEAD else "set by the workflow; leave it out"


def unknown_key(key: str, short: str, names: list[str]) -> str:
    """Message for a keyword that a target does not take; `names` are those it does."""
    guess = closest(key, [*names, *_INSTANTIATE_KEYS] if key.startswith("_") else names)
    if guess or not names:
        return f"{short} takes no {key}" + (f"; did you mean {guess}?" if guess else "")
    return f"{short} takes no {key}; it takes {listed(names)}"


def _type_problems(node: DictConfig, path: str, key: str, parameter: Parameter) -> Iterator[Problem]:
    if parameter.annotation is None or OmegaConf.is_missing(node, key):
        return
    try:
        value = node[key]
    except OmegaConfBaseException:
        return  # said where the value is looked at
    if value == AUTOMATIC.get(f"{path}.{key}", ...):
        return
    if not annotations.fits(value, parameter.annotation, parameter.module):
        referred = _referred(_written(node, key)) if OmegaConf.is_interpolation(node, key) else None
        origin = referred or f"{path}.{key}"
        yield Problem(origin, _type_message(origin, value, parameter))


def _type_message(path: str, value: object, parameter: Parameter) -> str:
    annotation = parameter.annotation or ""
    wanted = annotations.describe(annotation, parameter.module)
    message = f"must be {wanted}, not {show(value)}"
    if isinstance(value, str):
        if "number" in wanted and (number := as_number(value)) is not None:
            return f"{message}, which is text; write {number} without quotes"
        choices = (str(choice) for choice in annotations.literals(annotation, parameter.module))
        return message + did_you_mean(value, choices)
    if isinstance(value, int | float) and annotations.fits(str(value), annotation, parameter.module):
        return f"{message}; write '{path}=\"{value}\"'"
    return message
