"""From a config node to the object it names: the one module that calls Hydra's instantiate."""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wafer_lab.errors import UserError

# What constructors raise when they do not accept a value; Lightning's exception is named, not imported.
_REFUSALS = {"UserError", "ValueError", "FileNotFoundError", "MisconfigurationException"}


def build(node: DictConfig | None, **runtime: Any) -> Any:
    """Build what a node's `_target_` names, and everything below it that has a `_target_`.

    Lists and dicts arrive as plain Python containers unless the node sets `_convert_`.

    Args:
        node: a node of a validated config; None builds nothing.
        **runtime: keywords known only now, such as class_weights; they are passed on as the objects they are
            and beat the node's own.

    Returns:
        The object; a callable that still takes arguments where the node says `_partial_: true`; None for None.

    Raises:
        UserError: the node has no `_target_`, what it needs is not installed, or a constructor refuses a value.
    """
    if node is None:
        return None
    deferred = function(node)
    if node.get("_partial_"):
        return functools.partial(deferred, **runtime) if runtime else deferred
    try:
        return deferred(**runtime)
    except Exception as error:
        if told := _told(error, node, ""):
            raise told from error
        raise


def function(node: DictConfig) -> Callable[..., Any]:
    """What a node's `_target_` names, with the node's values filled in but not yet called.

    Args:
        node: a node with a `_target_`, such as the workflow's.

    Raises:
        UserError: as for `build`.
    """
    if "_target_" not in node:
        raise UserError(f"{_path(node)} has no _target_; say which class or function it is")
    try:
        deferred: Callable[..., Any] = instantiate(node, _partial_=True, _convert_=node.get("_convert_", "all"))
    except InstantiationException as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        key = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
        if told := _told(cause, node, key):
            raise told from cause
        raise cause from None
    return deferred


def check_plain(node: Any, where: Any) -> None:
    """Let a config that came with a file hold nothing but plain values: resolving an interpolation can run code.

    A stored config is resolved already, so a `${` in it is either somebody's trap or a text that OmegaConf would take
    for an interpolation.

    Args:
        node: read from the file.
        where: the file, for the message.

    Raises:
        UserError: it holds an interpolation, or a value that is no text, number, list or mapping.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            check_plain(key, where)
            check_plain(value, where)
    elif isinstance(node, list | tuple):
        for value in node:
            check_plain(value, where)
    elif isinstance(node, str):
        if "${" in node:
            raise UserError(
                f"{where} holds the interpolation {node[:100]}; it was not loaded, because resolving it could run "
                "code. The config of a run has plain values only: write the value itself"
            )
    elif node is not None and type(node) not in (bool, int, float):
        raise UserError(
            f"{where} holds a {type(node).__name__} where a config has texts, numbers, lists and mappings; it was not "
            "loaded. Use the file that train.py wrote"
        )


def check_targets(node: Any, room: str, where: Any, classes_only: bool = False) -> None:
    """Let a config that came with a file name nothing but what one room offers: building runs code.

    Args:
        node: read from the file.
        room: such as ``wafer_lab.models``.
        where: the file, for the message.
        classes_only: refuse functions too, where the room has some that write files.

    Raises:
        UserError: as `check_plain`, or a `_target_` in it is defined elsewhere or private.
    """
    check_plain(node, where)
    for target in _targets(node):
        offered = _offered(target, room)
        if offered is None or (classes_only and not isinstance(offered, type)):
            raise UserError(
                f"{where} asks for {target}, which is not of {room}; it was not loaded, because loading it could run "
                "code. Use the file that train.py wrote"
            )


def _targets(node: Any) -> Iterator[Any]:
    """Every `_target_` of plain containers."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def _offered(target: Any, room: str) -> Any:
    """The public thing of a room that a target names, else None; modules from elsewhere are not imported."""
    if not isinstance(target, str) or any(part.startswith("_") for part in target.split(".")):
        return None
    module, _, name = target.rpartition(".")
    if not f"{module}.".startswith(f"{room}."):
        return None
    try:
        thing = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return thing if getattr(thing, "__module__", "").startswith(f"{room}.") else None


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain Python containers with every interpolation resolved.

    Raises:
        UserError: a value is missing or refers to nothing.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error


def _told(error: Exception, node: DictConfig, key: str) -> UserError | None:
    """The error as the user should read it where the config or the installation is at fault, else None."""
    path = key or _path(node)
    if package := _absent_package(error):
        return UserError(f"{path} needs the package {package}, which is not installed; pip install {package}")
    if isinstance(error, UserError) and str(error).startswith(path):
        return UserError(str(error))
    if any(base.__name__ in _REFUSALS for base in type(error).__mro__):
        return UserError(f"{path}: {error}")
    return None


def _absent_package(error: BaseException | None) -> str | None:
    """The package that an import asked for and did not find."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.split(".")[0]
            return package if importlib.util.find_spec(package) is None else None
        error = error.__cause__
    return None


def _path(node: DictConfig) -> str:
    return node._get_full_key(None) or str(node.get("_target_", "the config"))
