"""What a style of simulated wafers is, and the two there are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.simulator import fab, fab_patterns, grids, patterns
from wafer_lab.data.simulator.grids import Grid
from wafer_lab.data.simulator.patterns import Field, Pattern


@dataclass(frozen=True)
class Style:
    """The parts that the wafers of a lot are made of.

    Attributes:
        version: Raised whenever the same parameters give other wafers, so that stores made before are made anew.
        draw_shape: Height and width in dies of a lot's grid.
        survival: Of a grid, its dies on the wafer, a number of wafers, `random_defects` and `texture` of the
            simulator: the probability that a die survives the random defects, (n, H, W) float32.
        patterns: What kills the dies of a pattern, by name, in MixedWM38's column order.
        num_traits: How many traits a pattern reads.
        leave_traces: Lowers the survival of wafers that carry a trace of a pattern that is not theirs.
        chance: (n, H, W) float32 in [0, 1), uniform for each die: the die fails where it reaches the survival.
    """

    version: int
    draw_shape: Callable[[np.random.Generator], tuple[int, int]]
    survival: Callable[
        [Grid, NDArray[np.bool_], int, tuple[float, float], float, np.random.Generator], NDArray[np.float32]
    ]
    patterns: Mapping[str, Pattern]
    num_traits: int
    leave_traces: Callable[[Field, NDArray[np.uint8], Grid, np.random.Generator], None]
    chance: Callable[[tuple[int, ...], np.random.Generator], NDArray[np.float32]]


def _textbook_survival(
    grid: Grid,
    on: NDArray[np.bool_],
    num_wafers: int,
    random_defects: tuple[float, float],
    texture: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Defects of a lot lie between low and high, evenly on a log scale, and by one map for all of its wafers."""
    low, high = np.log(random_defects)
    defects = np.exp(rng.uniform(low, high) + 0.15 * rng.normal(size=(num_wafers, 1, 1)))
    rate = (-defects / on.sum()).astype(np.float32) * grids.background(grid, float(texture), rng)
    return np.asarray(np.exp(rate, out=rate), np.float32)


def _no_traces(survival: Field, bits: NDArray[np.uint8], grid: Grid, rng: np.random.Generator) -> None:
    """A wafer of the textbook carries what its label says."""


def _independent(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.random(shape, dtype=np.float32)


STYLES: dict[str, Style] = {
    "textbook": Style(
        version=1,
        draw_shape=grids.draw_shape,
        survival=_textbook_survival,
        patterns=patterns.PATTERNS,
        num_traits=patterns.NUM_TRAITS,
        leave_traces=_no_traces,
        chance=_independent,
    ),
    "fab": Style(
        version=1,
        draw_shape=fab.draw_shape,
        survival=fab.survival,
        patterns=fab_patterns.PATTERNS,
        num_traits=fab_patterns.NUM_TRAITS,
        leave_traces=fab.leave_traces,
        chance=fab.chance,
    ),
}
