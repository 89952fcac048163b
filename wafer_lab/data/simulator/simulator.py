"""A source of simulated wafer maps that knows which dies each pattern covers."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.data.rows import FAIL, PASS, Kind, Rows
from wafer_lab.data.simulator.frequencies import class_counts, class_weights, production_order, wafer_types
from wafer_lab.data.simulator.grids import MAX_SIDE, MIN_SIDE, Grid, draw_wafer, make_grid
from wafer_lab.data.simulator.styles import STYLES
from wafer_lab.errors import UserError


@dataclass
class Simulator:
    """Simulated wafer maps, the same bytes for the same parameters.

    Wafers come in lots. A lot has one die grid, drawn as often as WM-811K has it, one background of random
    defects, and one signature per pattern that its wafers share up to `lot_similarity`. Random defects follow
    the Poisson yield model: a die fails with probability 1 - exp(-D / dies), so products with more and
    smaller dies yield better, as they do in WM-811K. Patterns that meet on a die kill it independently.

    Args:
        num_wafers: How many wafers, at least 1.
        target: ``"multiclass"``, WM-811K's nine classes, or ``"multilabel"``, MixedWM38's eight patterns in
            its 38 combinations.
        class_frequencies: None (multiclass: WM-811K's imbalance made milder, none 40 %, Near-full 1.5 %;
            multilabel: all combinations alike), ``"wm811k"`` (the real labelled counts), ``"uniform"``, or
            relative frequencies by class name; combinations are joined by ``+``, a normal wafer is ``none``.
        seed: Seed of everything random, 0 or more.
        wafers_per_lot: Wafers in a lot, at least 1.
        random_defects: Random defects per wafer, low and high; lots lie between, evenly on a log scale.
        texture: How unevenly random defects lie: standard deviation of their log density, 0 (evenly) to 2.
        pattern_density: Factor, above 0 and at most 1, on the probability that a pattern kills a die of its
            region; the lower, the fainter.
        lot_similarity: Correlation, 0 to 1, between the traits of a lot's wafers that share a pattern.
        shape: Height and width in dies of every wafer, each 25 to 175; None draws a grid per lot.
        lots_per_batch: Lots in one batch of `rows`: a matter of memory, the wafers do not depend on it.
        style: ``"textbook"``: clean examples of each pattern on even backgrounds. ``"fab"``: what real maps show
            beside them, see docs/data.md; made to train on for real wafers.

    Raises:
        UserError: If a parameter is out of its range or names an unknown class.
    """

    num_wafers: int = 10_000
    target: Literal["multiclass", "multilabel"] = "multiclass"
    class_frequencies: str | Mapping[str, float] | None = None
    seed: int = 0
    wafers_per_lot: int = 25
    random_defects: tuple[float, float] = (35.0, 140.0)
    texture: float = 0.3
    pattern_density: float = 1.0
    lot_similarity: float = 0.75
    shape: tuple[int, int] | None = None
    lots_per_batch: int = 40
    style: Literal["textbook", "fab"] = "textbook"

    name: str = field(init=False, default="simulator")
    kind: Kind = field(init=False, default="maps")
    class_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._weights = class_weights(self.target, self.class_frequencies)
        self.class_names = WM811K_CLASSES if self.target == "multiclass" else MIXEDWM38_CLASSES
        for parameter, (good, want) in _RANGES.items():
            value = getattr(self, parameter)
            if not good(value):
                raise UserError(f"simulator: {parameter}={value!r}; give {want}")
        self._style = STYLES[self.style]

    def fingerprint(self) -> str:
        """Hash of the parameters that the wafers depend on, and of the simulator's version."""
        parameters: list[Any] = [
            self._style.version,
            self.target,
            self._weights,
            self.num_wafers,
            self.seed,
            self.wafers_per_lot,
            [float(value) for value in self.random_defects],
            float(self.texture),
            float(self.pattern_density),
            float(self.lot_similarity),
            list(self.shape) if self.shape is not None else None,
        ]
        if self.style != "textbook":
            parameters.append(self.style)
        return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:16]

    def notes(self) -> dict[str, int | str]:
        """The number of lots."""
        return {"lots": -(-self.num_wafers // self.wafers_per_lot)}

    def rows(self) -> Iterator[Rows]:
        """Stream the wafers lot by lot, in batches of `lots_per_batch` lots."""
        counts = class_counts(self._weights, self.num_wafers)
        order = production_order(counts, self.wafers_per_lot, np.random.default_rng([self.seed, 0]))
        bits = np.array(list(wafer_types(self.target).values()), np.uint8)[order]
        num_lots = -(-self.num_wafers // self.wafers_per_lot)
        for first in range(0, num_lots, self.lots_per_batch):
            lots = range(first, min(first + self.lots_per_batch, num_lots))
            span = slice(first * self.wafers_per_lot, (lots[-1] + 1) * self.wafers_per_lot)
            yield self._batch(lots, order[span], bits[span])

    def _batch(self, lots: range, order: NDArray[np.int64], bits: NDArray[np.uint8]) -> Rows:
        made, wafer = [], []
        for i, lot in enumerate(lots):
            wafers = bits[i * self.wafers_per_lot : (i + 1) * self.wafers_per_lot]
            made.append(self._lot(lot, wafers))
            wafer.append(np.arange(1, len(wafers) + 1, dtype=np.int32))
        sizes = [len(cells) for cells, _ in made]
        shapes = np.repeat([cells.shape[1:] for cells, _ in made], sizes, axis=0).astype(np.int32)
        if self.target == "multiclass":
            label: NDArray[Any] = order.astype(np.int16)
        else:
            label = (bits[:, None] >> np.arange(len(MIXEDWM38_CLASSES)) & 1).astype(np.int8)
        return Rows(
            label=label,
            height=shapes[:, 0].copy(),
            width=shapes[:, 1].copy(),
            cells=np.concatenate([cells.ravel() for cells, _ in made]),
            patterns=np.concatenate([patterns.ravel() for _, patterns in made]),
            lot=[f"lot{lot + 1}" for lot, size in zip(lots, sizes, strict=True) for _ in range(size)],
            wafer=np.concatenate(wafer),
        )

    def _lot(self, lot: int, bits: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Die states and pattern bits of one lot, both (n, H, W) uint8, from a seed of the lot's own."""
        rng = np.random.default_rng([self.seed, 1, lot])
        grid = make_grid(*(self.shape or self._style.draw_shape(rng)))
        on = draw_wafer(grid, rng)
        survival = self._background_survival(grid, on, len(bits), rng)
        patterns = np.zeros(survival.shape, np.uint8)
        self._style.leave_traces(survival, bits, grid, rng)
        for k, pattern in enumerate(self._style.patterns.values()):
            hit = np.flatnonzero(bits >> k & 1)
            if len(hit):
                kill = pattern(grid, self._traits(len(hit), rng)) * on
                patterns[hit] |= (kill > 0).astype(np.uint8) << np.uint8(k)
                survival[hit] *= 1 - np.float32(self.pattern_density) * kill
        fails = self._style.chance(survival.shape, rng) >= survival
        return np.where(on, PASS + (FAIL - PASS) * fails.astype(np.uint8), np.uint8(0)), patterns

    def _background_survival(
        self, grid: Grid, on: NDArray[np.bool_], num_wafers: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Probability that a die survives the random defects alone, (n, H, W) float32."""
        return self._style.survival(grid, on, num_wafers, self.random_defects, self.texture, rng)

    def _traits(self, num_wafers: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Standard normal traits of wafers of one lot, (n, traits), correlated between the wafers."""
        shared = rng.standard_normal((1, self._style.num_traits), dtype=np.float32)
        own = rng.standard_normal((num_wafers, self._style.num_traits), dtype=np.float32)
        similarity = np.float32(self.lot_similarity)
        return np.asarray(np.sqrt(similarity) * shared + np.sqrt(1 - similarity) * own, np.float32)


def _whole(low: int, high: float = float("inf")) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _pair(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        not isinstance(value, str) and hasattr(value, "__len__") and len(value) == 2 and all(map(good, value))
    )


_TINY = 1e-6
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_wafers": (_whole(1), "a whole number, 1 or more"),
    "seed": (_whole(0), "a whole number, 0 or more"),
    "wafers_per_lot": (_whole(1), "a whole number, 1 or more"),
    "lots_per_batch": (_whole(1), "a whole number, 1 or more"),
    "random_defects": (
        lambda value: _pair(_number(_TINY, 1e6))(value) and value[0] <= value[1],
        "two positive numbers, low and high",
    ),
    "style": (lambda value: value in STYLES, " or ".join(map(repr, STYLES))),
    "texture": (_number(0, 2), "a number from 0 to 2"),
    "pattern_density": (_number(_TINY, 1), "a number above 0 and at most 1"),
    "lot_similarity": (_number(0, 1), "a number from 0 to 1"),
    "shape": (
        lambda value: value is None or _pair(_whole(MIN_SIDE, MAX_SIDE))(value),
        f"null, or height and width in dies, each {MIN_SIDE} to {MAX_SIDE}",
    ),
}
