"""Find every mistake on a command line at once.

Hydra stops at the first one. Here each argument is checked by itself: group choices against the options on disk,
keys against the config that the valid choices compose, and what is left goes through `validate.problems`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from wafer_lab.config import resolvers
from wafer_lab.config.messages import Problem, closest, did_you_mean, listed, show
from wafer_lab.config.rules import keys_of, value_at
from wafer_lab.config.signatures import read_signature
from wafer_lab.config.sources import UnknownTargetError
from wafer_lab.config.validate import RUNTIME, keywords, problems, set_by_workflow, unknown_key

# What composing can raise: Hydra uses bare ValueErrors for some misuse of groups.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
# Options of hydra/launcher that come with a package.
_LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
_Step = tuple[Problem | None, Override | None]  # what is wrong with an argument, and what to go on with


@dataclass(frozen=True)
class CommandLine:
    """What Hydra is asked to compose.

    Attributes:
        config_dir: the folder of the configs.
        config_name: the primary config, "train".
        overrides: the arguments, "model=resnet18".
        multirun: whether commas and ranges sweep.
        extra_dir: a further folder of configs, as given with --config-dir.
    """

    config_dir: Path
    config_name: str
    overrides: tuple[str, ...] = ()
    multirun: bool = False
    extra_dir: str | None = None


def diagnose(line: CommandLine) -> list[Problem]:
    """Every problem of a command line and of the config it composes; empty when all is well.

    A sweep is expanded, and each of its jobs is checked. A mistyped argument is replaced by what was probably
    meant, so that the others can still be checked.

    Args:
        line: the command line.

    Returns:
        Problems in the order of the arguments, then those of the composed config.
    """
    composer = Composer.create(line)
    readable, found = _parsed(line)
    jobs = [readable]
    if line.multirun:
        try:
            jobs = _jobs(composer, readable)
        except HydraException as error:  # a sweep that cannot be enumerated
            return [*found, Problem("--multirun", str(error))]
    sure = not found
    for job in jobs:
        found += _job_problems(composer, job, sure)
    return list(dict.fromkeys(found))


class Composer:
    """Composes configs, and knows the groups and their options."""

    def __init__(self, loader: ConfigLoaderImpl, name: str) -> None:
        self.loader, self.name = loader, name
        # Composing takes a quarter of a second, and a search for mistakes asks for the same config again and again.
        self._composed = lru_cache(maxsize=8)(self._load)

    @classmethod
    def create(cls, line: CommandLine) -> "Composer":
        """A composer over the configs that a command line reads."""
        version.setbase("1.3")
        setup_globals()  # Hydra's resolvers: now, hydra, python_version
        resolvers.register()
        path = create_config_search_path(str(line.config_dir))
        if line.extra_dir:
            extra = f"file://{Path(line.extra_dir).absolute()}"
            path.prepend("command-line", extra, SearchPathQuery(provider="schema"))
        return cls(ConfigLoaderImpl(path), line.config_name)

    def compose(self, overrides: Sequence[Override]) -> DictConfig:
        """The composed config with its hydra node, to be read only."""
        return self._composed(tuple(str(override.input_line) for override in overrides))

    def _load(self, lines: tuple[str, ...]) -> DictConfig:
        return self.loader.load_configuration(self.name, list(lines), run_mode=RunMode.RUN, from_shell=False)

    def is_group(self, override: Override) -> bool:
        """Whether the argument chooses an option of a group."""
        parent, _, name = override.key_or_group.rpartition("/")
        return name in self.loader.list_groups(parent) and not isinstance(override.value(), dict)

    def options(self, group: str) -> list[str]:
        """The options of a group; none where there is no such group."""
        parent, _, name = group.rpartition("/")
        known = name in self.loader.list_groups(parent)
        return self.loader.get_group_options(group, ObjectType.CONFIG) if known else []

    def composable(
        self, base: list[Override], more: list[Override]
    ) -> tuple[list[Override], list[tuple[Override, Exception]]]:
        """Add overrides to a base that composes; those that break it come back with the error."""
        try:
            self.compose([*base, *more])
            return [*base, *more], []
        except COMPOSITION_ERRORS:
            good, bad = list(base), []
        for override in more:
            try:
                self.compose([*good, override])
                good.append(override)
            except COMPOSITION_ERRORS as error:
                bad.append((override, error))
        return good, bad


def parse(text: str) -> Override:
    """One argument of a command line.

    Raises:
        HydraException: it cannot be read.
    """
    return OverridesParser.create().parse_overrides([text])[0]


def _parsed(line: CommandLine) -> tuple[list[Override], list[Problem]]:
    """The arguments that can be read, and problems for those that cannot."""
    readable, found = [], []
    for text in line.overrides:
        try:
            override = parse(text)
        except HydraException:
            key, equals, value = text.partition("=")
            hint = f"quote the value: '{key}=\"{value}\"'" if equals else "write it as key=value"
            found.append(Problem(text, f"cannot be read; {hint}"))
            continue
        if override.is_sweep_override() and not line.multirun:
            hint = "add --multirun to run each, or write [a,b] for a list"
            found.append(Problem(text, f"gives several values; {hint}"))
        else:
            readable.append(override)
    return readable, found


def _jobs(composer: Composer, overrides: list[Override]) -> list[list[Override]]:
    """The overrides of each job of a sweep."""
    for override in overrides:
        override.config_loader = composer.loader  # glob(...) asks it for the options
    batches = BasicSweeper.split_arguments(overrides, None)
    return [[parse(text) for text in job] for job in batches[0]]


def _job_problems(composer: Composer, overrides: list[Override], sure: bool) -> list[Problem]:
    """Problems of one job; `sure` is False where arguments had to be left out already."""
    try:
        cfg = composer.compose(overrides)
        found: list[Problem] = []
    except COMPOSITION_ERRORS:
        try:
            overrides, found, all_replaced = _repaired(composer, overrides)
            cfg = composer.compose(overrides)
        except COMPOSITION_ERRORS as error:  # without any argument, too: the files themselves are at fault
            return [Problem(composer.name, _said(error))]
        sure = sure and all_replaced
    rest = problems(cfg)
    if not sure:  # the rest may be wrong only for want of what was left out: judge what was typed
        typed = {override.key_or_group for override in overrides}
        rest = [problem for problem in rest if problem.path in typed]
    told = {problem.path for problem in rest}
    unsigned = [o for o in overrides if o.key_or_group not in told and _is_unsigned_text(composer, o, cfg)]
    if unsigned:
        usual = composer.compose([override for override in overrides if override not in unsigned])
        rest += [problem for override in unsigned if (problem := _text_for_number(override, usual))]
    return found + rest


def _repaired(composer: Composer, overrides: list[Override]) -> tuple[list[Override], list[Problem], bool]:
    """Overrides that compose, the problems of the others, and whether each of those could be replaced."""
    steps: dict[str, _Step] = {}
    choices = [override for override in overrides if composer.is_group(override)]
    for override in choices:
        steps[str(override.input_line)] = _check_choice(composer, override)
    good, bad = composer.composable([], [meant for _, meant in steps.values() if meant])
    cfg = composer.compose(good)
    dropped = {o.key_or_group for o in choices if steps[str(o.input_line)][1] is None}
    for override in overrides:
        key = override.key_or_group
        if override not in choices and key.split(".")[0] not in dropped:
            steps[str(override.input_line)] = _check_key(composer, cfg, override)
    values = [steps[str(o.input_line)][1] for o in overrides if o not in choices and str(o.input_line) in steps]
    good, worse = composer.composable(good, [meant for meant in values if meant])
    for override, error in bad + worse:
        steps[str(override.input_line)] = (Problem(str(override.input_line), _said(error)), None)
    in_order = [steps[line] for o in overrides if (line := str(o.input_line)) in steps]
    found = [problem for problem, _ in in_order if problem]
    return good, found, len(steps) == len(overrides) and all(meant for _, meant in in_order)


# --------------------------------------------------------------------------------------- one argument at a time


def _check_choice(composer: Composer, override: Override) -> _Step:
    """A group choice against the options of its group."""
    group, value, text = override.key_or_group, override.value(), str(override.input_line)
    if override.is_delete():
        return None, override
    options = composer.options(group)
    if value is None:
        return Problem(text, f"{group} cannot be null; to leave it out, write ~{group}"), None
    for choice in value if isinstance(value, list) else [value]:
        name = str(choice).removesuffix(".yaml")
        folder, _, leaf = f"{group}/{name}".rpartition("/")
        if leaf and leaf in composer.options(folder):
            continue
        if group == "hydra/launcher" and name in _LAUNCHERS:
            package = _LAUNCHERS[name]
            return Problem(text, f"needs the package {package}, which is not installed; pip install {package}"), None
        guess = closest(name, options) if name else None
        wrong = f"{group} has no option {name}" if name else "names no option"
        hint = f"; did you mean {guess}?" if guess else ";"
        problem = Problem(text, f"{wrong}{hint} options: {', '.join(options) or 'none yet'}")
        # A guessed experiment would bring wants of its own, which nobody asked about.
        return problem, parse(f"{override.get_key_element()}={guess}") if guess and group != "experiment" else None
    return None, override


def _check_key(composer: Composer, cfg: DictConfig, override: Override) -> _Step:
    """A key against the config that the group choices compose."""
    key, text = override.key_or_group, str(override.input_line)
    parts = [part for part in re.split(r"[.\[\]]+", key) if part]
    owner: Any = cfg
    for position, part in enumerate(parts):
        if not _holds(owner, part):
            if override.is_add() or override.is_force_add():
                return None, override
            return _unknown_key(composer, cfg, owner, parts, position, override)
        owner = value_at(owner, part) if isinstance(owner, DictConfig) else owner[int(part)]
    if override.is_add() and owner is not None and not isinstance(override.value(), dict | list):
        return Problem(text, "is in the config already; drop the +"), parse(text.removeprefix("+"))
    return None, override


def _holds(owner: object, part: str) -> bool:
    if isinstance(owner, ListConfig):
        return part.isdigit() and int(part) < len(owner)
    return part in keys_of(owner)


def _unknown_key(
    composer: Composer, cfg: DictConfig, owner: Any, parts: list[str], position: int, override: Override
) -> _Step:
    """Problem for the first part of a key that is not there, with the argument that was probably meant."""
    text, part = str(override.input_line), parts[position]
    prefix = ".".join(parts[:position])
    sign, below = "~" if override.is_delete() else "", f"{prefix}." if prefix else ""
    _, equals, value = text.partition("=")
    rest = "".join(f".{inner}" for inner in parts[position + 1 :]) + equals + value
    takes, taker = _keywords(owner, prefix)
    inner = ".".join(parts[position:])
    dotted = next((key for key in keys_of(owner) if "." in key and f"{inner}.".startswith(f"{key}.")), None)
    if dotted:  # an entry of study.space: its name is a path, which Hydra would split
        deeper = inner.removeprefix(dotted).lstrip(".")
        tail = f"{{{deeper}: {value}}}" if deeper else "null" if override.is_delete() else value
        return Problem(text, f"{dotted} is one name; write '+{prefix}={{{dotted}: {tail}}}'"), None
    if part in RUNTIME.get(prefix, ()):
        return Problem(text, set_by_workflow(f"{prefix}.{part}")), None
    if part in takes and not sign:
        full = f"+{below}{part}{rest}"
        return Problem(text, f"{taker} takes it, but the config does not set it; write {full}"), parse(full)
    names = [*keys_of(owner), *takes] + ([] if prefix else composer.loader.list_groups(""))
    guess = closest(part, [name for name in names if name != "hydra"])
    looks_elsewhere = not prefix or not guess  # workflow.folds is data.folds
    elsewhere = [path for path in _leaves(cfg) if path.endswith(f".{part}")] if looks_elsewhere else []
    wrong = f"{prefix or 'the config'} has no {part}"
    if len(elsewhere) > 1:
        return Problem(text, f"{wrong}; did you mean one of {listed(elsewhere)}?"), None
    if elsewhere or guess:
        full = elsewhere[0] if elsewhere else f"{below}{guess}"
        sign = sign or ("+" if guess in takes and guess not in keys_of(owner) else "")
        meant = None if sign == "~" else _meant(composer, sign + full + rest)  # nothing is removed on a guess
        return Problem(text, f"{wrong}; did you mean {sign}{full}{rest}?"), meant
    if takes:
        return Problem(text, unknown_key(part, taker, takes)), None
    return Problem(text, wrong if sign else f"{wrong}; to add it, write +{text}"), None


def _meant(composer: Composer, text: str) -> Override | None:
    """The guessed argument, unless it is a choice that has to be checked in turn (`lss=focl`)."""
    override = parse(text)
    if composer.is_group(override) and not override.is_delete():
        return _check_choice(composer, override)[1]
    return override


def _keywords(owner: object, path: str) -> tuple[list[str], str]:
    """The keywords that a node's target takes, and the target's short name."""
    target = value_at(owner, "_target_") if isinstance(owner, DictConfig) else None
    try:
        signature = read_signature(target) if isinstance(target, str) else None
    except UnknownTargetError:
        signature = None
    return keywords(signature, path) if signature else [], str(target).rpartition(".")[2]


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    for key in keys_of(node):
        if key != "hydra":
            yield f"{prefix}{key}"
            yield from _leaves(value_at(node, key), f"{prefix}{key}.")


def _is_unsigned_text(composer: Composer, override: Override, cfg: DictConfig) -> bool:
    """Whether an argument types a text where no signature, with which validate compares, says what belongs there."""
    key, value = override.key_or_group, override.value()
    parent = key.rpartition(".")[0]
    if not isinstance(value, str) or "${" in value or override.is_add() or composer.is_group(override):
        return False
    return not parent or not _keywords(value_at(cfg, parent), parent)[0]


def _text_for_number(override: Override, usual: DictConfig) -> Problem | None:
    """A text typed over a number or a switch of the usual config: `seed=abc`."""
    key, value = override.key_or_group, value_at(usual, override.key_or_group)
    if not isinstance(value, int | float):
        return None
    wanted = "true or false" if isinstance(value, bool) else "a number"
    return Problem(key, f"must be {wanted} (it is {show(value)} by default), not {override.value()!r}")


def _said(error: Exception) -> str:
    """Hydra's, OmegaConf's or the YAML reader's message in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem}; mend the file"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        hint = did_you_mean(error.missing_cfg_file.rpartition("/")[2], error.options or [])
        return f"there is no {error.missing_cfg_file}.yaml{hint}"
    message = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
    if "No match in the defaults list" in message:
        return "is not in the defaults list; put a + before it to add it"
    if "appears more than once" in message or "Multiple values for" in message:
        return "is in the defaults list already; drop the +"
    if error.__cause__ is not None and "is not in struct" in str(error.__cause__):
        return "adds a key that the config does not have; put a + before it"
    if error.__cause__ is not None and "Cannot merge" in str(error.__cause__):
        return "puts a list in the place of key: value pairs, or these in its place; do that in a file of the group"
    if error.__cause__ is not None and str(error.__cause__):
        message += f": {str(error.__cause__).splitlines()[0]}"
    return message
