"""Acquisition functions by name: which wafers of a pool to label next."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wafer_lab.active.diversity import gradient_factor, k_centre, k_means_seeds
from wafer_lab.active.uncertainty import bald, entropy, margin
from wafer_lab.errors import UserError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """What a model says of N wafers without a label; an acquisition needs some of it, see `NEEDS`.

    Attributes:
        target: `multiclass` or `multilabel`.
        size: N.
        probabilities: (N, C).
        members: (M, N, C) probabilities of several networks, or of one under several draws of its dropout.
        features: (N, D) what the last layer sees.
        labelled: (L, D) the same of the wafers that have a label.
        oversample: Of `hybrid`: how many times as many unsure wafers to take as are chosen among them.
    """

    target: str
    size: int
    probabilities: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))
    members: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0, 0)))
    features: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    labelled: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    oversample: int = 5


def _random(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    return generator.permutation(pool.size)[:count].astype(np.int64)


def _entropy(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    return highest(entropy(pool.probabilities, pool.target), count, generator)


def _margin(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    return highest(margin(pool.probabilities, pool.target), count, generator)


def _bald(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    return highest(bald(pool.members, pool.target), count, generator)


def _core_set(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    return k_centre(pool.features, pool.labelled, count)


def _badge(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    factor = gradient_factor(torch.from_numpy(np.asarray(pool.probabilities)), pool.target)
    return k_means_seeds(factor.to(pool.features.device), pool.features, count, generator)


def _hybrid(pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    """The most unsure by margin, `oversample` times too many; of these the greedy k-centre."""
    unsure = highest(margin(pool.probabilities, pool.target), min(pool.oversample * count, pool.size), generator)
    return unsure[k_centre(pool.features[torch.from_numpy(unsure)], pool.labelled, count)]


#: Name -> its function and what of a pool it needs beyond the size.
_KNOWN: dict[str, tuple[Callable[[Pool, int, np.random.Generator], Rows], tuple[str, ...]]] = {
    "random": (_random, ()),
    "entropy": (_entropy, ("probabilities",)),
    "margin": (_margin, ("probabilities",)),
    "bald": (_bald, ("members",)),
    "core_set": (_core_set, ("features",)),
    "badge": (_badge, ("probabilities", "features")),
    "hybrid": (_hybrid, ("probabilities", "features")),
}
NAMES = tuple(_KNOWN)


def needs(name: str) -> tuple[str, ...]:
    """What an acquisition takes of a pool: `probabilities`, `members` or `features` (of pool and labelled wafers).

    Raises:
        UserError: There is no such acquisition.
    """
    if name not in _KNOWN:
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"choose among {', '.join(NAMES)}"
        raise UserError(f"workflow.acquisition: there is no acquisition {name}; {hint}")
    return _KNOWN[name][1]


def choose(name: str, pool: Pool, count: int, generator: np.random.Generator) -> Rows:
    """Choose wafers to label.

    Args:
        name: One of `NAMES`.
        pool: Has what `needs(name)` says.
        count: How many.
        generator: Of what is drawn, and of the order of equals.

    Returns:
        (count,) positions in the pool, each once.

    Raises:
        UserError: There is no such acquisition, or the pool is smaller than `count`.
    """
    needs(name)
    if count > pool.size:
        raise UserError(f"{count} wafers cannot be chosen from a pool of {pool.size}; choose fewer")
    return _KNOWN[name][0](pool, count, generator)


def highest(score: NDArray[Any], count: int, generator: np.random.Generator) -> Rows:
    """(count,) positions of the highest scores, from the highest on; equals in random order."""
    return np.lexsort((generator.random(len(score)), -score))[:count]
