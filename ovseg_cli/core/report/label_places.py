"""Where does each name of a scatter plot stand so that it covers no point and no other name?"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = 16
RINGS = (6, 10, 16, 24, 34, 46, 60, 76, 94)
"""Distances in pixels from a point to its name that are tried, the nearest first."""
Box = tuple[float, float, float, float]  # left, bottom, right, top


def place_labels(
    points: NDArray[np.float64],
    sizes: Sequence[tuple[float, float]],
    room: Box,
    avoid: NDArray[np.float64],
    radii: NDArray[np.float64],
) -> list[Box | None]:
    """Find a box for each name, one after the other: the nearest free one around its point.

    Args:
        points: (n, 2), x and y of the points that have names, in pixels.
        sizes: Width and height of each name, in pixels.
        room: What the boxes must stay inside.
        avoid: (m, 2) all points that no box may cover, those with names among them.
        radii: (m,) of these points.

    Returns:
        A box for each name; None where all places near its point are taken.
    """
    taken: list[Box] = []
    found: list[Box | None] = []
    for (x, y), (width, height) in zip(points.tolist(), sizes, strict=True):
        boxes = _boxes_around(x, y, width, height)
        box = next((box for box in boxes if _is_free(box, room, taken, avoid, radii)), None)
        found.append(box)
        if box is not None:
            taken.append(box)
    return found


def _boxes_around(x: float, y: float, width: float, height: float) -> Iterator[Box]:
    """Boxes whose nearest edge or corner lies on rings around a point; right of it first."""
    for ring in RINGS:
        for step in range(DIRECTIONS):
            across, up = (round(f(2 * math.pi * step / DIRECTIONS), 6) for f in (math.cos, math.sin))
            left = x + ring * across - width * (1 - across) / 2
            bottom = y + ring * up - height * (1 - up) / 2
            yield left, bottom, left + width, bottom + height


def _is_free(box: Box, room: Box, taken: Sequence[Box], avoid: NDArray[np.float64], radii: NDArray[np.float64]) -> bool:
    left, bottom, right, top = box
    if left < room[0] or bottom < room[1] or right > room[2] or top > room[3]:
        return False
    if any(left < o[2] and o[0] < right and bottom < o[3] and o[1] < top for o in taken):
        return False
    reach = radii[:, None]
    inside = (avoid > np.array([left, bottom]) - reach) & (avoid < np.array([right, top]) + reach)
    return not bool(inside.all(axis=1).any())
