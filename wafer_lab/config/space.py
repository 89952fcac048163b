"""Search spaces: which keys of a config a study samples, from what, and when; checked without composing anything."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import product
from math import isclose, prod
from typing import Any, Literal

from hydra.core.override_parser.types import Quote, QuotedString

from wafer_lab.config.messages import Problem, did_you_mean, listed, show

PATH = "study.space"
_TAKES = {
    "float": ("low", "high", "log", "step", "when"),
    "int": ("low", "high", "log", "step", "when"),
    "choice": ("choices", "when"),
}
_FEW = 6  # compositions, at a third of a second each; of a larger product every choice is composed once


@dataclass(frozen=True)
class Entry:
    """One key that is sampled.

    Attributes:
        key: a key of the config, or a group: "optimizer.lr", "loss".
        kind: what is sampled.
        low: smallest number.
        high: largest number.
        log: whether every factor is equally likely, rather than every difference.
        step: distance between the numbers; None: any (of an int: 1).
        choices: of a choice, the options.
        when: other keys with the values that they must have for this one to be sampled.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def values(self) -> list[Any] | None:
        """Every value there is, or None where they cannot be counted."""
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int" and not self.log:
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.kind == "float" and self.step:
            return [self.low + k * self.step for k in range(round((self.high - self.low) / self.step) + 1)]
        return None

    def ends(self) -> list[Any]:
        """The values that show whether the config takes them: all choices, or the smallest and largest number."""
        return list(self.choices) if self.kind == "choice" else [self.low, self.high]

    def suggest(self, trial: Any) -> Any:
        """Let an Optuna trial choose."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.choices)
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step)

    def follows(self, sampled: Mapping[str, Any], others: Mapping[str, "Entry"]) -> bool:
        """Whether its conditions hold; those on keys outside the space were found to hold beforehand.

        Args:
            sampled: what was sampled before it.
            others: the whole space by key.
        """
        return all(
            key not in others or (key in sampled and sampled[key] in wanted) for key, wanted in self.when.items()
        )


def override(key: str, value: Any) -> str:
    """A value as an argument of the command line: "optimizer.lr=0.001"."""
    if isinstance(value, str) and not value.replace("_", "").replace("/", "").isalnum():
        return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def read_space(space: Mapping[str, Any]) -> tuple[list[Entry], list[Problem]]:
    """The entries of a search space, each after those that its conditions ask about, and what is wrong with others.

    Args:
        space: key -> a list of choices, or a mapping of `type` and what that type takes; None leaves a key out.
    """
    entries: dict[str, Entry] = {}
    found: list[Problem] = []
    for key, spec in space.items():
        if spec is None:
            continue
        wrong = list(_entry_problems(spec))
        found += [Problem(f"{PATH}.{key}", text) for text in wrong]
        if not wrong:
            entries[key] = _entry(key, spec)
    if not entries and not found:
        found.append(Problem(PATH, "is empty; name the keys to search, as in conf/study/lr_wd.yaml"))
    for entry in entries.values():
        found += _condition_problems(entry, entries)
    try:
        order = TopologicalSorter({key: [k for k in one.when if k in entries] for key, one in entries.items()})
        return [entries[key] for key in order.static_order()], found
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        return [], [*found, Problem(PATH, f"conditions go round in a circle: {circle}; drop one of them")]


def probes(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Samples that hold every choice and both ends of every range; of a small space, every combination of choices.

    Args:
        entries: in the order of `read_space`.
    """
    by_key = {entry.key: entry for entry in entries}
    choices = [entry for entry in entries if entry.kind == "choice"]
    rows: list[tuple[Any, ...]]
    if prod(len(entry.choices) for entry in choices) <= _FEW:
        rows = list(product(*(entry.choices for entry in choices)))
    else:
        longest = max(len(entry.choices) for entry in choices)
        rows = [tuple(entry.choices[row % len(entry.choices)] for entry in choices) for row in range(longest)]
    seen = []
    for position, row in enumerate(rows * 2 if len(rows) == 1 else rows):
        chosen = dict(zip((entry.key for entry in choices), row, strict=True))
        sampled: dict[str, Any] = {}
        for entry in entries:
            if entry.follows(sampled, by_key):
                sampled[entry.key] = chosen.get(
                    entry.key, entry.ends()[position % 2] if entry.kind != "choice" else None
                )
        if sampled not in seen:
            seen.append(sampled)
            yield sampled


def _entry(key: str, spec: Any) -> Entry:
    if isinstance(spec, list):
        return Entry(key, "choice", choices=tuple(spec))
    conditions = {
        name: tuple(wanted) if isinstance(wanted, list) else (wanted,)
        for name, wanted in (spec.get("when") or {}).items()
    }
    if spec["type"] == "choice":
        return Entry(key, "choice", choices=tuple(spec["choices"]), when=conditions)
    number = {"low": spec["low"], "high": spec["high"], "log": spec.get("log") or False, "step": spec.get("step")}
    return Entry(key, spec["type"], **number, when=conditions)


def _entry_problems(spec: Any) -> Iterator[str]:
    """What is wrong with one entry, whatever its key."""
    if isinstance(spec, list):
        spec = {"type": "choice", "choices": spec}
    if not isinstance(spec, Mapping):
        yield f"must be a list of choices or {{type: float, low: ..., high: ...}}, not {show(spec)}"
        return
    kind = spec.get("type")
    if kind not in _TAKES:
        hint = did_you_mean(str(kind), _TAKES) if kind else ""
        yield f"has {f'the type {kind}' if kind else 'no type'}{hint or f'; choose one of {listed(_TAKES)}'}"
        return
    for name in spec:
        if name not in _TAKES[kind] and name != "type":
            yield f"takes no {name}{did_you_mean(str(name), _TAKES[kind]) or f'; it takes {listed(_TAKES[kind])}'}"
    yield from _choice_problems(spec.get("choices")) if kind == "choice" else _number_problems(spec, kind)
    if spec.get("when") is not None and not isinstance(spec["when"], Mapping):
        yield f"when must be of the form {{loss: focal}}, not {show(spec['when'])}"


def _choice_problems(choices: Any) -> Iterator[str]:
    if not isinstance(choices, list) or len(choices) < 2:
        yield "needs choices, a list of two or more; a single value belongs on the command line"
        return
    for value in choices:
        if value is not None and not isinstance(value, str | int | float):
            yield f"cannot choose {show(value)}; choices are texts, numbers, true, false and null"
    if len({json.dumps(value, default=str) for value in choices}) < len(choices):
        yield "names a choice twice; name each once"


def _number_problems(spec: Mapping[str, Any], kind: str) -> Iterator[str]:
    wanted, kinds = ("a whole number", int) if kind == "int" else ("a number", int | float)
    bad = False
    for name in ("low", "high", "step"):
        value = spec.get(name)
        if value is None and name == "step":
            continue
        if not isinstance(value, kinds) or isinstance(value, bool):
            bad = True
            yield f"needs {name}, {wanted}" if value is None else f"{name} must be {wanted}, not {show(value)}"
    log = spec.get("log") or False
    if not isinstance(log, bool):
        bad = True
        yield f"log must be true or false, not {show(log)}"
    if not bad:
        yield from _range_problems(spec["low"], spec["high"], spec.get("step"), log)


def _range_problems(low: float, high: float, step: float | None, log: bool) -> Iterator[str]:
    if low >= high:
        yield f"low={low} must be less than high={high}"
    elif log and low <= 0:
        yield f"low={low} must be greater than 0 where log is true"
    elif log and step is not None:
        yield "cannot have both log and step; drop one"
    elif step is not None and step <= 0:
        yield f"step={step} must be greater than 0"
    elif step is not None and not isclose((high - low) / step, round((high - low) / step), abs_tol=1e-6):
        yield f"from low={low} to high={high} must be a whole number of steps of {step}"


def _condition_problems(entry: Entry, entries: Mapping[str, Entry]) -> Iterator[Problem]:
    """Conditions on other entries that can never hold."""
    for key, wanted in entry.when.items():
        other = entries.get(key)
        if other is None:
            continue  # a fixed value: compared with the composed config
        path = f"{PATH}.{entry.key}.when"
        if other.kind != "choice":
            yield Problem(path, f"{key} is sampled from a range; a condition needs one that has choices")
            continue
        for value in wanted:
            if value not in other.choices:
                hint = (
                    did_you_mean(str(value), map(str, other.choices))
                    or f"; it is one of {listed(map(str, other.choices))}"
                )
                yield Problem(path, f"{key} is never {show(value)}{hint}")
