"""Which classes are simulated, how often, and in what order they leave the fab."""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.errors import UserError

Frequencies = str | Mapping[str, float] | None

# Labelled wafers per class in WM-811K (Wu et al. 2015), 172,950 in all.
WM811K_COUNTS: dict[str, float] = {
    "Center": 4294,
    "Donut": 555,
    "Edge-Loc": 5189,
    "Edge-Ring": 9680,
    "Loc": 3593,
    "Near-full": 149,
    "Random": 866,
    "Scratch": 1193,
    "none": 147431,
}

# WM-811K's order of classes, with the imbalance milder (27 to 1 instead of 989 to 1), so that a few
# thousand wafers hold enough of the rarest class to learn it and to measure it.
MILD_COUNTS: dict[str, float] = {
    "Center": 110,
    "Donut": 30,
    "Edge-Loc": 120,
    "Edge-Ring": 150,
    "Loc": 90,
    "Near-full": 15,
    "Random": 35,
    "Scratch": 50,
    "none": 400,
}


def _combinations() -> tuple[tuple[str, ...], ...]:
    """MixedWM38's 38 types, from none to four patterns; a wafer has one core, one edge, and so on."""
    parts = (
        ((), ("Center",), ("Donut",)),
        ((), ("Edge-Loc",), ("Edge-Ring",)),
        ((), ("Loc",)),
        ((), ("Scratch",)),
    )
    mixed = [tuple(name for part in chosen for name in part) for chosen in product(*parts)]
    return tuple(sorted([*mixed, ("Near-full",), ("Random",)], key=len))


COMBINATIONS = _combinations()


def pattern_bits(names: tuple[str, ...]) -> int:
    """The bit mask of a set of patterns: bit k stands for ``MIXEDWM38_CLASSES[k]``."""
    return sum(1 << MIXEDWM38_CLASSES.index(name) for name in names)


def wafer_types(target: str) -> dict[str, int]:
    """The names that class frequencies are given for, each with its pattern bits.

    Args:
        target: ``"multiclass"``: the nine classes of WM-811K, in label order. ``"multilabel"``: the 38
            combinations of MixedWM38, patterns joined by ``+`` and the normal wafer called ``none``.

    Raises:
        UserError: If the target is neither.
    """
    if target == "multiclass":
        return {name: pattern_bits((name,)) if name != "none" else 0 for name in WM811K_CLASSES}
    if target == "multilabel":
        return {"+".join(names) or "none": pattern_bits(names) for names in COMBINATIONS}
    raise UserError(f"simulator: target={target!r} is not one it makes; use 'multiclass' or 'multilabel'")


def _known(name: str, types: dict[str, int]) -> str:
    """The name as `types` spells it: the order of a combination's patterns is free."""
    spelling = {frozenset(known.split("+")): known for known in types}
    known = spelling.get(frozenset(str(name).split("+")))
    if known is None:
        near = get_close_matches(str(name), types, n=3) or list(types)[:9]
        raise UserError(
            f"simulator: class_frequencies names {name!r}, which is not a wafer type of this target; "
            f"did you mean one of {', '.join(near)}?"
        )
    return known


def class_weights(target: str, frequencies: Frequencies) -> dict[str, float]:
    """The share of each wafer type, summing to one, in the order of `wafer_types`.

    Args:
        target: ``"multiclass"`` or ``"multilabel"``.
        frequencies: None: milder than WM-811K for multiclass, uniform for multilabel. ``"wm811k"``: the
            real labelled counts. ``"uniform"``: all alike. A mapping: relative frequencies, zero for types
            left out.

    Raises:
        UserError: If a name is unknown, a frequency is negative or not finite, or all are zero.
    """
    types = wafer_types(target)
    if frequencies is None:
        frequencies = MILD_COUNTS if target == "multiclass" else "uniform"
    if isinstance(frequencies, str):
        presets = {"wm811k": WM811K_COUNTS, "uniform": dict.fromkeys(types, 1.0)}
        if frequencies not in presets:
            raise UserError(
                f"simulator: class_frequencies={frequencies!r} is unknown; "
                "use 'wm811k', 'uniform', a mapping of class names to frequencies, or null"
            )
        frequencies = presets[frequencies]
    weights = dict.fromkeys(types, 0.0)
    for name, value in frequencies.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UserError(f"simulator: class_frequencies[{name!r}]={value!r}; give a number that is zero or more")
        weights[_known(name, types)] += float(value)
    total = sum(weights.values())
    if total == 0:
        raise UserError("simulator: class_frequencies are all zero; give at least one class a positive number")
    return {name: value / total for name, value in weights.items()}


def class_counts(weights: dict[str, float], num_wafers: int) -> NDArray[np.int64]:
    """Wafers of each type: shares rounded by the largest remainder, so that they sum to `num_wafers`."""
    exact = np.array(list(weights.values())) * num_wafers
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: num_wafers - counts.sum()]] += 1
    return counts


def production_order(counts: NDArray[np.int64], wafers_per_lot: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The type of every wafer in production order, (N,) indices into `counts`.

    A process that drifts spoils wafers in a row, so types come in runs of about a quarter of a lot, and a
    lot holds a few types only. Inside a lot the slots are shuffled.
    """
    runs = []
    for kind, count in enumerate(counts):
        ends = np.cumsum(rng.geometric(1 / max(1, wafers_per_lot // 4), size=count))
        cuts = np.minimum(np.concatenate([[0], ends[ends < count], [count]]), count)
        runs += [(kind, length) for length in np.diff(cuts)]
    order = rng.permutation(len(runs))
    types = np.repeat([runs[i][0] for i in order], [runs[i][1] for i in order]).astype(np.int64)
    lots = np.arange(len(types)) // wafers_per_lot
    return np.asarray(types[np.lexsort((rng.random(len(types)), lots))])
