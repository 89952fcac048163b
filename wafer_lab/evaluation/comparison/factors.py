"""By which choices runs differ: from their resolved configs to the factors and levels of an experiment.

A factor is one choice that varies over the runs, named as it is typed on the command line: `model.attention` with the
levels `none` and `cbam`. Where the class of a node varies, or several of its values vary but not in all combinations,
the node as a whole is one factor: `loss` with the levels `CrossEntropyLoss`, `FocalLoss(gamma=1)` and
`FocalLoss(gamma=2)`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TARGET = "_target_"
# Who a run is and where things lie; `augment` is both presets, of which `data.augment` is the one that is used.
_IDENTITY = ("name", "seed", "paths", "tracking", "figures", "ckpt_path", "hydra", "augment")
# What cannot change weights or decisions among runs whose data and split have the same digest.
_IDLE = (
    "data.path",
    "data.cache",
    "data.source",
    "data.views",
    "data.num_workers",
    "data.external",
    "data.external_classes",
)
_ABSENT = "absent"
_LONGEST = 40

Leaves = dict[str, Any]


def settings(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The factors that vary over some runs, and each run's levels of them.

    Left out are the seed and what follows from it, names, folders and tracking, facts that one node takes over from
    another, and where the data lie.

    Args:
        configs: the runs' resolved configs as plain containers.

    Returns:
        For each config, factor -> level, all with the same factors in the configs' order; empty where nothing varies.
    """
    leaves = [dict(_leaves(config)) for config in configs]
    varying = _varying(configs, leaves)
    groups: dict[str, list[str]] = {}
    for key in varying:
        groups.setdefault(_node(key, leaves), []).append(key)
    found: list[dict[str, str]] = [{} for _ in configs]
    for node, keys in groups.items():
        for factor, levels in _factors(node, [{key: run.get(key, _ABSENT) for key in keys} for run in leaves]):
            for run, level in zip(found, levels, strict=True):
                run[factor] = level
    return found


def name(setting: Mapping[str, str]) -> str:
    """A setting in one line: `model.attention=cbam loss=FocalLoss(gamma=2)`."""
    parts = [f"{factor}{'' if level.startswith('(') else '='}{level}" for factor, level in setting.items()]
    return " ".join(parts) or "all runs"


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything that is not a mapping; lists are values."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _varying(configs: Sequence[Mapping[str, Any]], leaves: Sequence[Leaves]) -> list[str]:
    """The keys whose values are choices and differ between runs, in the configs' order."""
    keys = list(dict.fromkeys(key for run in leaves for key in run))
    columns = {key: [run.get(key, _ABSENT) for run in leaves] for key in keys}
    columns = {key: values for key, values in columns.items() if len({_plain(value) for value in values}) > 1}
    seeds = [config.get("seed") for config in configs]
    places = [tuple(str((config.get("paths") or {}).get(k) or "\0") for k in ("run", "cache")) for config in configs]

    def chosen(key: str, values: list[Any]) -> bool:
        if key.split(".")[0] in _IDENTITY or any(f"{key}.".startswith(f"{idle}.") for idle in _IDLE):
            return False
        if "seed" in key.rpartition(".")[2] and values == seeds:
            return False
        return not any(isinstance(v, str) and v.startswith(own) for v, own in zip(values, places, strict=True))

    kept = {key: values for key, values in columns.items() if chosen(key, values)}
    # data and task state facts (channels, monitor) that other nodes interpolate; channels follow from the encoding
    facts = [values for key, values in kept.items() if key.split(".")[0] in ("data", "task")]
    kept = {key: v for key, v in kept.items() if key.split(".")[0] in ("data", "task") or v not in facts}
    if "data.encoding" in kept:
        kept.pop("data.in_channels", None)
    return list(kept)


def _node(key: str, leaves: Sequence[Leaves]) -> str:
    """The nearest node around a key that has a class in some run, else the config group."""
    node = key.rpartition(".")[0]
    while node and not any(f"{node}.{_TARGET}" in run for run in leaves):
        node = node.rpartition(".")[0]
    return node or key.split(".")[0]


def _factors(node: str, runs: Sequence[Leaves]) -> Iterator[tuple[str, list[str]]]:
    """Name and levels (one a run) of a node's factors: its values one by one if they are crossed, else all together."""
    target = f"{node}.{_TARGET}"
    classes = [run.get(target) for run in runs]
    keys = [key for key in runs[0] if key == target or _varies_within(key, runs, classes)]
    combinations = {tuple(_plain(run[key]) for key in keys) for run in runs}
    crossed = 1
    for key in keys:
        crossed *= len({_plain(run[key]) for run in runs})
    if len(combinations) == crossed:
        for key in keys:
            short = [_class_name(run[key]) if key == target else _text(run[key]) for run in runs]
            yield (node if key == target else key), short
    else:
        yield node, _joint_levels(node, [key for key in keys if key != target], runs)


def _varies_within(key: str, runs: Sequence[Leaves], classes: Sequence[Any]) -> bool:
    """Whether a value differs between runs of one class; else the class says it all."""
    values: dict[Any, set[str]] = {}
    for run, kind in zip(runs, classes, strict=True):
        values.setdefault(kind, set()).add(_plain(run[key]))
    return any(len(found) > 1 for found in values.values())


def _joint_levels(node: str, keys: Sequence[str], runs: Sequence[Leaves]) -> list[str]:
    """A node's class with the values by which a run differs from what most runs of that class have."""
    target = f"{node}.{_TARGET}"
    levels = []
    for run in runs:
        peers = [other for other in runs if other.get(target) == run.get(target)]
        varied = [key for key in keys if len({_plain(peer[key]) for peer in peers}) > 1]
        usual = {key: Counter(_plain(peer[key]) for peer in peers).most_common(1)[0][0] for key in varied}
        shown = [key for key in varied if _plain(run[key]) != usual[key]] or varied
        shown = [key for key in shown if run[key] != _ABSENT] or shown
        values = ", ".join(f"{key.removeprefix(f'{node}.')}={_text(run[key])}" for key in shown)
        levels.append((_class_name(run[target]) if target in run else "") + (f"({values})" if values else ""))
    return levels


def _class_name(target: Any) -> str:
    return "none" if target in (None, _ABSENT) else str(target).rpartition(".")[2]


def _plain(value: Any) -> str:
    """Equal for equal values; 1 and 1.0 are the same choice."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(value, sort_keys=True, default=str)


def _text(value: Any) -> str:
    """A value as a person types it; one too long to read is cut and told apart by a hash."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else _plain(value).replace('"', "")
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 10]}...{hashlib.sha256(_plain(value).encode()).hexdigest()[:6]}"
