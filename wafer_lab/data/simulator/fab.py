"""Wafers as fabs make them: the grids, the backgrounds and the clumped fails of WM-811K's maps, whatever their class.

The numbers are statistics of WM-811K's maps without their labels: how often a die grid occurs, how many dies fail
between .3 and .8 of the radius, how much denser fails are in the middle and at the edge, and how they correlate
between neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.simulator.fab_patterns import NUM_TRAITS, PATTERNS
from wafer_lab.data.simulator.grids import MAX_SIDE, MIN_SIDE, Grid

# Half of WM-811K's wafers come in three grids; of the others the quantiles of the geometric mean side and of
# height / width.
_COMMON_SHAPES = ((25, 27), (27, 25), (26, 26))
_COMMON = (0.25, 0.4, 0.51)
_SIDE_QUANTILES = ((0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0), (27, 31, 35, 40, 48, 62, 110, 160))
_ASPECT_QUANTILES = ((0.0, 0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0), (0.5, 0.7, 0.8, 0.91, 1, 1.06, 1.3, 1.5, 2))

# How often a wafer carries a faint trace of a pattern that is not its label: without a pattern of its own, and with.
_TRACES = (0.25, 0.2)
_TRACEABLE = ("Center", "Edge-Loc", "Edge-Ring", "Loc", "Scratch")


def draw_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in dies of a product, as frequent as among WM-811K's labelled wafers."""
    common, side, stretch = rng.random(3)
    if common < _COMMON[-1]:
        return _COMMON_SHAPES[int(np.searchsorted(_COMMON, common))]
    side = np.interp(side, *_SIDE_QUANTILES)
    stretch = np.sqrt(np.interp(stretch, *_ASPECT_QUANTILES))
    height, width = np.clip(np.rint([side * stretch, side / stretch]), MIN_SIDE, MAX_SIDE).astype(int)
    return int(height), int(width)


def survival(
    grid: Grid,
    on: NDArray[np.bool_],
    num_wafers: int,
    random_defects: tuple[float, float],
    texture: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Probability that a die survives the random defects alone, (n, H, W) float32.

    Nearly all lots (97 %) have `random_defects` low to high. A lot has a slope, clouds, an edge and a
    centre of its own, from which its wafers differ.
    """
    low, high = np.log(random_defects)
    defects = (low + high) / 2 + (high - low) / 4.4 * rng.normal() + 0.15 * rng.normal(size=(num_wafers, 1, 1))
    log_density = np.zeros((num_wafers, *grid.shape), np.float32)
    strength = texture * rng.lognormal(-0.8, 0.6)
    for scale in (2.0, 4.0, 7.0):
        kx, ky = rng.normal(0, scale, 2)
        phase = rng.uniform(0, 2 * np.pi) + 0.8 * rng.normal(size=(num_wafers, 1, 1))
        log_density += (strength * 0.8 * np.cos(kx * grid.x + ky * grid.y + phase)).astype(np.float32)
    log_density += _per_wafer(num_wafers, 0, 0.4, rng) * (grid.radius**2 - 0.5)
    if rng.random() < 0.2:  # a row or column of sites that a probe card touches badly
        sides = (1, grid.shape[0], 1) if rng.random() < 0.5 else (1, 1, grid.shape[1])
        log_density += (texture * rng.normal(size=sides)).astype(np.float32)
    density = np.exp(log_density)
    reach = rng.uniform(0.03, 0.09)
    edge = np.exp(_per_wafer(num_wafers, np.log(4.5), 0.5, rng))
    density *= 1 + edge * np.exp(np.minimum(grid.radius - 1, 0) / np.float32(reach))
    centre = np.exp(_per_wafer(num_wafers, np.log(0.9), 0.8, rng))
    wide = np.float32(max(rng.uniform(0.08, 0.25), 1.5 * grid.pitch))
    density *= 1 + centre * np.exp(-((grid.radius / wide) ** 2))
    rate = (-np.exp(defects) / on.sum()).astype(np.float32) * density
    return np.asarray(np.exp(rate, out=rate), np.float32)


def leave_traces(survival: NDArray[np.float32], bits: NDArray[np.uint8], grid: Grid, rng: np.random.Generator) -> None:
    """Let some wafers carry a faint pattern that neither their label nor their masks know."""
    rare = np.where(bits == 0, _TRACES[0], _TRACES[1])
    kind = rng.integers(len(_TRACEABLE), size=len(bits))
    traced = rng.random(len(bits)) < rare
    for k, name in enumerate(_TRACEABLE):
        hit = np.flatnonzero(traced & (kind == k))
        if len(hit):
            kill = PATTERNS[name](grid, rng.standard_normal((len(hit), NUM_TRAITS), dtype=np.float32))
            strength = rng.uniform(0.05, np.where(bits[hit] == 0, 0.3, 0.5))[:, None, None]
            survival[hit] *= 1 - strength.astype(np.float32) * kill


def _per_wafer(num_wafers: int, middle: float, spread: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A normal trait of a lot, on which its wafers vary half as much, as (n, 1, 1)."""
    lot = middle + spread * (0.87 * rng.normal() + 0.5 * rng.normal(size=(num_wafers, 1, 1)))
    return np.asarray(lot, np.float32)


def chance(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Uniform numbers, (n, H, W) float32, that neighbours share in part: what fails, fails in clumps."""
    white = rng.standard_normal(shape, dtype=np.float32)
    share = (0.2 * rng.random((shape[0], 1, 1)) ** 3).astype(np.float32)
    smooth = np.zeros_like(white)
    source = np.pad(rng.standard_normal(shape, dtype=np.float32), ((0, 0), (1, 0), (1, 0)))
    for down in (0, 1):
        for right in (0, 1):
            smooth += 0.5 * source[:, down : down + shape[1], right : right + shape[2]]
    normal = np.sqrt(1 - share) * white + np.sqrt(share) * smooth
    # The normal distribution function, to 2e-4 (Page 1977).
    return np.asarray(1 / (1 + np.exp(-(1.5957691 * normal + 0.0713548 * normal**3))), np.float32)
