"""Outlines of masks along the edges of their dies."""

import numpy as np
from numpy.typing import NDArray

# Right, down, left, up: clockwise where y points down.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outlines(mask: NDArray[np.bool_]) -> tuple[list[list[int]], bool]:
    """Trace every connected region (four neighbours) of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Closed polygons, [x0, y0, x1, y1, ...] corners of dies, clockwise round a region and the other way round a
        hole; and whether there is a hole.
    """
    edges, polygons, hole = _edges(mask), [], False
    for start in sorted(edges):
        if start not in edges:  # on a loop that has been taken out
            continue
        corners, area = _walk(start, edges)
        polygons.append(corners)
        hole |= area < 0
    return polygons, hole


def _edges(mask: NDArray[np.bool_]) -> set[tuple[int, int, int]]:
    """(x, y, direction) of every edge between inside and outside; the inside lies to its right."""
    padded = np.pad(mask, 1)
    up, right, down, left = padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]
    edges: set[tuple[int, int, int]] = set()
    for direction, (neighbour, dx, dy) in enumerate(((up, 0, 0), (right, 1, 0), (down, 1, 1), (left, 0, 1))):
        y, x = np.nonzero(mask & ~neighbour)
        edges.update(zip((x + dx).tolist(), (y + dy).tolist(), [direction] * len(x), strict=True))
    return edges


def _walk(start: tuple[int, int, int], edges: set[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Take one closed loop out of the edges: its corners, and twice the area that it runs round clockwise."""
    corners: list[int] = []
    area, here = 0, start
    while True:
        edges.remove(here)
        x, y, direction = here
        dx, dy = _STEPS[direction]
        area += x * dy - y * dx
        x, y = x + dx, y + dy
        # Right before straight before left: where two regions touch at a corner, that stays with its own.
        turns = ((x, y, (direction + turn) % 4) for turn in (1, 0, 3))
        here = next((edge for edge in turns if edge in edges), start)
        if here[2] != direction:
            corners += [x, y]
        if here == start:
            return corners, area
