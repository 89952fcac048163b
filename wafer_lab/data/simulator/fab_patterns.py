"""The eight failure patterns as fabs show them: open rings, ragged outlines, faint borders, bent scratches.

The same contract as in `wafer_lab.data.simulator.patterns`: a grid and `z`, (n, `NUM_TRAITS`) standard normal traits,
to the probability that the pattern kills a die, (n, H, W) float32, zero outside the pattern's region.
"""

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.simulator.grids import Grid
from wafer_lab.data.simulator.patterns import (
    Field,
    Pattern,
    Traits,
    _column,
    _direction,
    _log_normal,
    _ripple,
    _rotate,
    _uniform,
)

NUM_TRAITS = 20


def _kill(depth: Field, z: Traits, low: float, high: float) -> Field:
    """Probability of a fail from the depth inside a region; how dense it is and how faint its border are traits."""
    border = _uniform(z[:, 0], 0.2, 0.95)
    density = np.minimum(_uniform(z[:, 1], low, high), 1)
    return np.asarray((depth > 0) * density * np.clip(border + 1.2 * depth, 0, 1), np.float32)


def _ragged(u: Field, v: Field, z: Traits) -> Field:
    """A smooth field in -1..1 of two scales, which makes outlines irregular."""
    return np.asarray(0.6 * _ripple(u, v, z[:, :2], 1.2) + 0.4 * _ripple(v, u, z[:, 2:4], 2.7), np.float32)


def _blob(grid: Grid, place: tuple[Field, Field], radius: Field, stretch: Field, z: Traits) -> Field:
    """Depth inside a ragged ellipse, one at its centre; six traits give its angle and outline."""
    u, v = _rotate(grid.x - place[0], grid.y - place[1], *_direction(z[:, 0], z[:, 1]))
    squared = (u / (radius * stretch)) ** 2 + (v * stretch / radius) ** 2
    return np.asarray(1 - squared * (1 + 0.7 * _ragged(u, v, z[:, 2:6])), np.float32)


def center(grid: Grid, z: Traits) -> Field:
    """A blob in the middle, often off it by a tenth of the radius."""
    radius = _log_normal(z[:, 0], 0.23, 0.5, max(0.1, 1.2 * grid.pitch), 0.65)
    place = _column(0.06 * np.clip(z[:, 1], -2.5, 2.5)), _column(0.06 * np.clip(z[:, 2], -2.5, 2.5))
    depth = _blob(grid, place, radius, _uniform(z[:, 3], 1, 1.45), z[:, 4:10])
    return _kill(depth, z[:, 10:12], 0.6, 1.1)


def donut(grid: Grid, z: Traits) -> Field:
    """A ring about the middle, uneven and often open on one side."""
    x = grid.x - _column(0.09 * np.clip(z[:, 2], -2, 2))
    y = grid.y - _column(0.09 * np.clip(z[:, 3], -2, 2))
    u, v = _rotate(x, y, *_direction(z[:, 0], z[:, 1]))
    radius = np.sqrt(u * u + (v * _uniform(z[:, 12], 0.85, 1.2)) ** 2) + np.float32(1e-6)
    middle = _uniform(z[:, 4], 0.28, 0.58)
    uneven = 1 + _uniform(z[:, 5], 0, 1.1) * u / radius + 0.35 * _ragged(u, v, z[:, 6:10])
    half = np.maximum(middle * _uniform(z[:, 13], 0.2, 0.6), np.float32(0.9 * grid.pitch)) * uneven
    depth = 1 - ((radius - middle) / np.maximum(half, np.float32(1e-3))) ** 2
    return _kill(np.asarray(depth, np.float32), z[:, 10:12], 0.6, 1.1)


def edge_loc(grid: Grid, z: Traits) -> Field:
    """An arc along the edge or a blob that the edge cuts; sometimes a second arc elsewhere."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    half_angle = _log_normal(z[:, 2], 0.6, 0.6, max(0.15, 1.5 * grid.pitch), 1.9)
    width = _log_normal(z[:, 3] - 0.5 * z[:, 2], 0.17, 0.65, max(0.07, 1.2 * grid.pitch), 0.8)
    depth = _arc(grid, cos, sin, half_angle, width)
    other = _direction(z[:, 13], z[:, 14])
    second = _arc(grid, *other, 0.6 * half_angle, np.maximum(0.7 * width, np.float32(1.1 * grid.pitch)))
    depth = np.where(_column(z[:, 15]) > 1, np.maximum(depth, second), depth)
    distance = _uniform(z[:, 16], 0.75, 1.05)
    radius = _log_normal(z[:, 2], 0.24, 0.5, max(0.12, 1.5 * grid.pitch), 0.7)
    reach = np.maximum(radius, distance - 0.8)  # the blob touches the last tenth of the radius
    blob = _blob(grid, (cos * distance, sin * distance), reach, _uniform(z[:, 17], 1, 1.3), z[:, 4:10])
    depth = np.where(_column(z[:, 12]) > 0.4, blob, depth + 0.3 * _ragged(grid.x, grid.y, z[:, 6:10]) * (depth > 0))
    return _kill(np.asarray(depth, np.float32), z[:, 10:12], 0.6, 1.1)


def _arc(grid: Grid, cos: Field, sin: Field, half_angle: Field, width: Field) -> Field:
    """Depth inside an arc at the edge about a direction, thickest in its middle."""
    opening = np.cos(half_angle)
    across = np.clip((grid.cos * cos + grid.sin * sin - opening) / (1 - opening), 0, 1)
    return np.asarray((np.sqrt(across) - (1 - grid.radius) / width) * (across > 0), np.float32)


def edge_ring(grid: Grid, z: Traits) -> Field:
    """A ring at the edge, a die or two wide, wider on one side; four in ten are open by up to a third of the turn."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    width = np.maximum(_log_normal(z[:, 2], 0.06, 0.45, 0.03, 0.25), np.float32(1.1 * grid.pitch))
    along = grid.cos * cos + grid.sin * sin
    width = width * (1 + _uniform(z[:, 3], 0, 0.6) * along + 0.2 * _ragged(grid.x, grid.y, z[:, 6:10]))
    depth = 1.6 * (1 - (1 - grid.radius) / width)
    gap_cos, gap_sin = _direction(z[:, 4], z[:, 5])
    gap = np.where(_column(z[:, 12]) > 0.25, _uniform(z[:, 13], 0.1, 1.1), np.float32(-1))
    closed = grid.cos * gap_cos + grid.sin * gap_sin < np.where(gap > 0, np.cos(gap), np.float32(2))
    return _kill(np.asarray(depth * closed, np.float32), z[:, 10:12], 0.75, 1.1)


def loc(grid: Grid, z: Traits) -> Field:
    """A cluster off the middle and inside the edge, round to twice as long as wide."""
    cos, sin = _direction(z[:, 0], z[:, 1])
    distance = _uniform(z[:, 2], 0.25, 0.82)
    radius = _log_normal(z[:, 3], 0.16, 0.5, max(0.1, 1.4 * grid.pitch), 0.45)
    stretch = _log_normal(z[:, 12], 1.25, 0.25, 1, 2)
    depth = _blob(grid, (cos * distance, sin * distance), radius, stretch, z[:, 4:10])
    return _kill(depth, z[:, 10:12], 0.6, 1.1)


def near_full(grid: Grid, z: Traits) -> Field:
    """Nearly every die dead; the few survivors keep together."""
    survivors = _log_normal(z[:, 0], 0.06, 1.2, 0, 0.2)
    u, v = _rotate(grid.x, grid.y, *_direction(z[:, 1], z[:, 2]))
    field = np.exp(_uniform(z[:, 3], 0, 3) * u + _ragged(u, v, z[:, 4:8]))
    return np.asarray(1 - np.clip(survivors * field, 0, 0.95), np.float32)


def scratch(grid: Grid, z: Traits) -> Field:
    """One to four roughly parallel lines that bend both ways, thin or thick, whole or in dashes."""
    height, width = grid.shape
    length = _log_normal(z[:, 0], 0.75, 0.5, max(0.3, 6 * grid.pitch), 1.8)[:, :, 0]
    heading = np.arctan2(z[:, 1], z[:, 2])[:, None]
    place = _uniform(z[:, 3], 0.05, 0.85)[:, :, 0]
    t = np.linspace(-0.5, 0.5, int(6 * max(height, width)), dtype=np.float32)[None]
    angle = heading + length * (1.1 * z[:, 4:5] * t + 0.9 * z[:, 5:6] * t * t)
    step = length / t.shape[1]
    x, y = (np.cumsum(wave(angle) * step, axis=1) for wave in (np.cos, np.sin))
    around = np.arctan2(z[:, 6], z[:, 7])[:, None]
    x += place * np.cos(around) - x.mean(axis=1, keepdims=True)
    y += place * np.sin(around) - y.mean(axis=1, keepdims=True)
    dashes = np.sin(2 * np.pi * t * length * (2 + np.exp(z[:, 8:9])) + 3 * z[:, 9:10])
    whole = dashes > np.clip(0.8 * z[:, 12:13] - 1.6, -2, 0.2)
    mask = np.zeros((len(z), height, width), np.float32)
    gap = np.maximum(0.12 * np.exp(0.5 * z[:, 13:14]), 3 * grid.pitch)
    for side, wanted in ((0, -9), (1, 0.9), (-1, 1.3), (2, 1.7)):
        shift = side * gap * (1 + 0.2 * np.sin(3 * angle))
        _draw(mask, x - shift * np.sin(heading), y + shift * np.cos(heading), whole & (z[:, 14:15] > wanted))
    for side, wanted in ((1, 0.3), (-1, 1.5)):
        off = side * grid.pitch * 0.8
        _draw(mask, x - off * np.sin(angle), y + off * np.cos(angle), whole & (z[:, 15:16] > wanted))
    missed = np.flatnonzero(~(mask * (grid.radius < 0.95)).any(axis=(1, 2)))
    _draw(mask, x, y, np.isin(np.arange(len(z)), missed)[:, None] & (np.abs(t) < 1))
    return np.asarray(mask * np.minimum(_uniform(z[:, 16], 0.75, 1.1), 1), np.float32)


def _draw(mask: Field, x: NDArray[np.floating], y: NDArray[np.floating], where: NDArray[np.bool_]) -> None:
    """Set the dies under the points (n, P) of n curves."""
    _, height, width = mask.shape
    row = np.floor((y + 1) * (height / 2)).astype(np.int64)
    column = np.floor((x + 1) * (width / 2)).astype(np.int64)
    wafer, point = np.nonzero(where & (row >= 0) & (row < height) & (column >= 0) & (column < width))
    mask[wafer, row[wafer, point], column[wafer, point]] = 1


def random(grid: Grid, z: Traits) -> Field:
    """A high density of fails all over, in clouds and with a slope."""
    level = np.clip(0.36 + 0.13 * z[:, 0], 0.15, 0.7)
    u, v = _rotate(grid.x, grid.y, *_direction(z[:, 1], z[:, 2]))
    clouds = _uniform(z[:, 3], 0, 1.1) * _ragged(u, v, z[:, 4:8]) + _column(0.3 * z[:, 8]) * u
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
