"""Die grids: how many dies a wafer has along each side, and where on the disc each of them lies."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MIN_SIDE, MAX_SIDE = 25, 175

# Summary statistics of WM-811K's maps (Wu et al. 2015; 346 shapes): the quantiles of the geometric mean
# side, with median 33 and 2 % over 64, and those of height / width.
_SIDE_QUANTILES = (
    (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.995, 1.0),
    (25, 26, 27.5, 33, 41, 51, 61, 110, 150),
)
_ASPECT_QUANTILES = (
    (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0),
    (0.6, 0.73, 0.87, 0.93, 1, 1.06, 1.2, 1.4, 1.8),
)


@dataclass(frozen=True)
class Grid:
    """The dies of one product, in units of the wafer's radius; every array is (H, W) float32.

    Dies are rectangles, so a grid that is not square still covers a round wafer: coordinates run from -1 to
    1 along both sides, and `radius` is the distance from the wafer's centre.

    Attributes:
        x: Rightward coordinate of the die's centre.
        y: Downward coordinate of the die's centre.
        radius: Distance from the wafer's centre.
        cos: Cosine of the die's polar angle.
        sin: Sine of the die's polar angle.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    radius: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in dies."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def pitch(self) -> float:
        """The longer side of a die, in wafer radii."""
        return 2 / min(self.shape)


def draw_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in dies of a product, as frequent as in WM-811K: 25 to 175 a side, median 33."""
    side = np.interp(rng.random(), *_SIDE_QUANTILES)
    stretch = np.sqrt(np.interp(rng.random(), *_ASPECT_QUANTILES))
    height, width = np.clip(np.rint([side * stretch, side / stretch]), MIN_SIDE, MAX_SIDE).astype(int)
    return int(height), int(width)


@lru_cache(maxsize=256)
def make_grid(height: int, width: int) -> Grid:
    """The coordinates of a grid's dies; cached, because lots of one product share them."""
    down, right = ((2 * np.arange(side) + 1) / side - 1 for side in (height, width))
    y, x = np.meshgrid(down, right, indexing="ij")
    radius = np.hypot(x, y)
    safe = np.maximum(radius, 1e-6)
    arrays = [array.astype(np.float32) for array in (x, y, radius, x / safe, y / safe)]
    for array in arrays:
        array.flags.writeable = False
    return Grid(*arrays)


def draw_wafer(grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which dies are on the wafer, (H, W).

    The disc ends a little inside the grid's border, as real ones do, and one product in ten gives up some
    dies inside it to process monitors.
    """
    on = grid.radius <= rng.uniform(0.975, 1.005)
    if rng.random() < 0.1:
        sites = rng.integers(4, 10)
        rows, columns = (rng.integers(side // 5, side - side // 5, sites) for side in grid.shape)
        on[rows, columns] = False
    return on


def background(grid: Grid, texture: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Relative density of random defects over a lot's wafers, (H, W), about 1 away from the edge.

    A smooth field (three plane waves), losses at the edge (three times the rate in the last 5 % of the
    radius, as in WM-811K's class none), a weak centre, and sometimes streaks along the rows or columns.

    Args:
        grid: The lot's dies.
        texture: Strength of the smooth field and the streaks: the standard deviation of the log density.
        rng: The lot's random numbers.
    """
    kx, ky = rng.normal(0, 3, (2, 3, 1, 1))
    phase = rng.uniform(0, 2 * np.pi, (3, 1, 1))
    log_density = texture * np.sqrt(2 / 3) * np.cos(kx * grid.x + ky * grid.y + phase).sum(axis=0)
    streaks, axis = rng.random(2)
    if streaks < 0.15:
        sides = (grid.shape[0], 1) if axis < 0.5 else (1, grid.shape[1])
        log_density = log_density + 1.5 * texture * rng.normal(size=sides)
    edge_loss, weak_centre = rng.lognormal(np.log(4), 0.4), rng.uniform(0, 1)
    density = np.exp(log_density)
    density *= 1 + edge_loss * np.exp(np.minimum(grid.radius - 1, 0) / 0.05)
    density *= 1 + weak_centre * np.exp(-((grid.radius / 0.1) ** 2))
    return np.asarray(density, np.float32)
