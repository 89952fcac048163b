"""The eight failure patterns, as the processes behind them make them.

Each function takes a grid and `z`, (n, `NUM_TRAITS`) standard normal traits of n wafers, and returns the
probability that the pattern kills a die, (n, H, W) float32, zero outside the pattern's region. Traits become
sizes, places and angles here, so wafers of correlated traits share a signature. Lengths are in wafer radii;
sizes and densities were set beside WM-811K's maps (Wu et al. 2015), class by class.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.simulator.grids import Grid

NUM_TRAITS = 12

Traits = NDArray[np.float32]
Field = NDArray[np.float32]
Pattern = Callable[[Grid, Traits], Field]


def _uniform(z: Traits, low: float, high: float) -> Field:
    """Normal traits (n,) to values in low..high, near uniform (logistic approximation), as (n, 1, 1)."""
    return _column(low + (high - low) / (1 + np.exp(-1.702 * z)))


def _log_normal(z: Traits, median: float, spread: float, low: float, high: float) -> Field:
    """Normal traits (n,) to log-normal sizes, cut to low..high, as (n, 1, 1)."""
    return _column(np.clip(median * np.exp(spread * z), low, high))


def _direction(a: Traits, b: Traits) -> tuple[Field, Field]:
    """Two normal traits to the cosine and sine of a uniform angle, as (n, 1, 1)."""
    length = np.hypot(a, b) + 1e-6
    return _column(a / length), _column(b / length)


def _column(values: NDArray[np.floating]) -> Field:
    return values.astype(np.float32)[:, None, None]


def _rotate(x: Field, y: Field, cos: Field, sin: Field) -> tuple[Field, Field]:
    """Coordinates along and across a direction, (n, H, W)."""
    return x * cos + y * sin, y * cos - x * sin


def _ripple(u: Field, v: Field, z: Traits, waves: float) -> Field:
    """A smooth field in -1..1 over coordinates u, v that makes outlines irregular; `waves` per radius."""
    k = np.float32(2 * np.pi * waves)
    waves_along = np.cos(k * u + _column(3 * z[:, 0]))
    return np.asarray(waves_along * np.cos(np.float32(0.8) * k * v + _column(3 * z[:, 1])), np.float32)


def _kill(depth: Field, density: Field) -> Field:
    """Probability of a fail from the depth inside a region (zero and below: outside, one: well inside)."""
    return np.asarray((depth > 0) * density * np.clip(0.55 + 0.9 * depth, 0, 1), np.float32)


def _blob(grid: Grid, place: tuple[Field, Field], radius: Field, stretch: Field, z: Traits) -> Field:
    """Depth inside an irregular ellipse, one at its centre; four traits give its angle and outline."""
    u, v = _rotate(grid.x - place[0], grid.y - place[1], *_direction(z[:, 0], z[:, 1]))
    squared = (u / (radius * stretch)) ** 2 + (v * stretch / radius) ** 2
    return np.asarray(1 - squared * (1 + 0.5 * _ripple(u, v, z[:, 2:4], 1.5)), np.float32)


def center(grid: Grid, z: Traits) -> Field:
    """A blob in the middle (film or plasma not uniform)."""
    radius = _log_normal(z[:, 0], 0.24, 0.5, max(0.1, 1.2 * grid.pitch), 0.65)
    place = _column(0.04 * np.clip(z[:, 1], -2, 2)), _column(0.04 * np.clip(z[:, 2], -2, 2))
    depth = _blob(grid, place, radius, _uniform(z[:, 3], 1, 1.25), z[:, 4:8])
    return _kill(depth, _uniform(z[:, 8], 0.65, 1))


def donut(grid: Grid, z: Traits) -> Field:
    """A ring about the middle, seldom evenly thick, often open on one side (spin coating, developing)."""
    x, y = (
        (grid.x - _column(0.07 * np.clip(z[:, 2], -2, 2))),
        (grid.y - _column(0.07 * np.clip(z[:, 3], -2, 2))),
    )
    u, v = _rotate(x, y, *_direction(z[:, 0], z[:, 1]))
    radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
    middle = _uniform(z[:, 4], 0.32, 0.56)
    uneven = 1 + _uniform(z[:, 5], 0, 0.9) * u / radius + 0.25 * _ripple(u, v, z[:, 6:8], 1.5)
    half = np.maximum(middle * _uniform(z[:, 8], 0.2, 0.55), np.float32(0.9 * grid.pitch)) * uneven
    depth = 1 - ((radius - middle) / np.maximum(half, np.float32(1e-3))) ** 2
    return _kill(depth, _uniform(z[:, 9], 0.6, 1))


def edge_loc(grid: Grid, z: Traits) -> Field:
    """An arc at the edge, thickest in its middle (handling, uneven heating, a film that peels)."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    half_angle = _log_normal(z[:, 2], 0.7, 0.5, 0.25, 1.6)
    # Long arcs are thin and short ones deep.
    width = _log_normal(z[:, 3] - 0.5 * z[:, 2], 0.2, 0.55, max(0.09, 1.4 * grid.pitch), 0.6)
    opening = np.cos(half_angle)
    across = np.clip((grid.cos * cos + grid.sin * sin - opening) / (1 - opening), 0, 1)
    depth = np.sqrt(across) - (1 - grid.radius) / width
    return _kill(np.asarray(depth * (across > 0), np.float32), _uniform(z[:, 4], 0.75, 1))


def edge_ring(grid: Grid, z: Traits) -> Field:
    """A ring at the edge, a die or two wide, wider on one side (etch or film thickness at the bevel)."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    width = np.maximum(_log_normal(z[:, 2], 0.055, 0.35, 0.03, 0.2), np.float32(1.1 * grid.pitch))
    width = width * (1 + _uniform(z[:, 3], 0, 0.4) * (grid.cos * cos + grid.sin * sin))
    depth = np.asarray(1 - (1 - grid.radius) / width, np.float32)
    return _kill(depth, _uniform(z[:, 4], 0.75, 1))


def loc(grid: Grid, z: Traits) -> Field:
    """A cluster anywhere between the middle and the edge (particles, slurry, a clogged shower head)."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    distance = _uniform(z[:, 2], 0.35, 0.78)
    radius = _log_normal(z[:, 3], 0.17, 0.45, max(0.11, 1.5 * grid.pitch), 0.42)
    place = cos * distance, sin * distance
    depth = _blob(grid, place, radius, _log_normal(z[:, 4], 1.2, 0.2, 1, 1.6), z[:, 5:9])
    return _kill(depth, _uniform(z[:, 9], 0.75, 1))


def near_full(grid: Grid, z: Traits) -> Field:
    """Nearly every die dead; the few survivors keep together."""
    survivors = _log_normal(z[:, 0], 0.05, 1.3, 0, 0.22)
    u, v = _rotate(grid.x, grid.y, *_direction(z[:, 1], z[:, 2]))
    field = np.exp(_uniform(z[:, 3], 0, 3.5) * u + _ripple(u, v, z[:, 4:6], 0.6))
    return np.asarray(1 - np.clip(survivors * field, 0, 0.95), np.float32)


def scratch(grid: Grid, z: Traits) -> Field:
    """One to three parallel arcs, a die or two wide, some broken (handling, a particle under the pad)."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    heading_cos, heading_sin = _direction(z[:, 3], z[:, 4])
    distance = _uniform(z[:, 2], 0.15, 0.85)
    bend = _log_normal(z[:, 5], 2.0, 0.7, 0.6, 12)
    # The arc passes through its middle point, `distance` out; its circle's centre lies `bend` beside that.
    x = grid.x - cos * distance + bend * heading_cos
    y = grid.y - sin * distance + bend * heading_sin
    radius = np.sqrt(x * x + y * y) + np.float32(1e-6)
    ahead, along = _rotate(x, y, heading_cos, heading_sin)
    off = np.abs(radius - bend)
    gap = np.maximum(_uniform(z[:, 9], 0.12, 0.3), np.float32(4 * grid.pitch))
    for side, rare in ((1, 1.1), (-1, 2.0)):
        beside = np.abs(radius - bend - side * gap)
        off = np.where(_column(z[:, 11]) > rare, np.minimum(off, beside), off)
    # A line one die wide takes the dies it crosses along their longer step, as Bresenham's does: no holes.
    step = np.maximum(np.abs(x) * np.float32(2 / grid.shape[1]), np.abs(y) * np.float32(2 / grid.shape[0]))
    thickness = np.where(_column(z[:, 6]) > 0.4, np.float32(0.95), np.float32(0.55)) * step / radius
    half_length = _log_normal(z[:, 7], 0.55, 0.4, max(0.25, 5 * grid.pitch), 1)
    whole = np.sin(along * _uniform(z[:, 8], 8, 20) + _column(3 * z[:, 9])) > _column(np.minimum(z[:, 10] - 2.1, 0))
    inside = (off <= thickness) & (np.abs(along) <= half_length) & (ahead > 0) & whole
    return np.asarray(inside * _uniform(z[:, 10], 0.9, 1), np.float32)


def random(grid: Grid, z: Traits) -> Field:
    """A high density of fails all over, in faint clouds (contamination, a process out of control)."""
    level = np.clip(0.4 + 0.12 * z[:, 0], 0.2, 0.65)
    u, v = _rotate(grid.x, grid.y, *_direction(z[:, 1], z[:, 2]))
    clouds = _uniform(z[:, 3], 0, 1.0) * _ripple(u, v, z[:, 4:6], 0.4)
    return np.asarray(np.clip(_column(level) * np.exp(clouds), 0.05, 0.95), np.float32)


# In MixedWM38's column order, which numbers the bits of a pattern mask.
PATTERNS: dict[str, Pattern] = {
    "Center": center,
    "Donut": donut,
    "Edge-Loc": edge_loc,
    "Edge-Ring": edge_ring,
    "Loc": loc,
    "Near-full": near_full,
    "Scratch": scratch,
    "Random": random,
}
