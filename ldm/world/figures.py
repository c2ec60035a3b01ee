"""Geometric shapes and figures that have no name: outlines as signed distances, fillings as two-tone patterns.

Coordinates are in units of half the figure's box: x to the right, y down, [-1, 1] inside. Distances are negative
inside an outline and in the same units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ldm.world.outlines import DISTANCES

Array = NDArray[np.float32]
Distance = Callable[[Array, Array], Array]

PERIODS = 6  # of a pattern, along the side of a large figure's box of 48 pixels: one each cell of the latent
CONTOUR = 48  # points of a random outline


def polygon(corners: Array) -> Distance:
    """The signed distance of a polygon, negative inside, with corners [N, 2] in either direction around it."""
    start, edge = corners, np.roll(corners, -1, axis=0) - corners

    def distance(x: Array, y: Array) -> Array:
        px, py = x[..., None] - start[:, 0], y[..., None] - start[:, 1]
        along = (px * edge[:, 0] + py * edge[:, 1]) / np.maximum((edge**2).sum(1), 1e-9)
        along = np.clip(along, 0, 1)
        near = np.hypot(px - along * edge[:, 0], py - along * edge[:, 1]).min(-1)
        upward = (py >= 0) != (py - edge[:, 1] >= 0)  # does the edge cross the point's row, and to its right?
        crossing = start[:, 0] + edge[:, 0] * py / np.where(edge[:, 1] == 0, 1, edge[:, 1])
        inside = ((upward & (x[..., None] < crossing + 0 * px)).sum(-1) % 2).astype(bool)
        return np.where(inside, -near, near).astype(np.float32)

    return distance


def _regular(corners: int, radius: float, lower: float = 0.0) -> Distance:
    angles = 2 * math.pi * np.arange(corners) / corners
    return polygon(np.stack([radius * np.sin(angles), lower - radius * np.cos(angles)], 1).astype(np.float32))


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - np.float32(0.68)) - np.float32(0.25)


def _oval(x: Array, y: Array) -> Array:
    wide, high = np.float32(0.95), np.float32(0.58)
    radius = np.hypot(x / wide, y / high)
    slope = np.hypot(x / wide**2, y / high**2) / np.maximum(radius, np.float32(1e-6))
    return (radius - 1) / np.maximum(slope, np.float32(0.5))


def _rectangle(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - np.float32(0.93), np.abs(y) - np.float32(0.5))


_ARROW = ((-0.95, -0.28), (0.1, -0.28), (0.1, -0.75), (0.97, 0), (0.1, 0.75), (0.1, 0.28), (-0.95, 0.28))
SHAPE_DISTANCES: dict[str, Distance] = {
    **DISTANCES,
    "pentagon": _regular(5, 1.0, 0.08),
    "hexagon": _regular(6, 0.97),
    "ring": _ring,
    "oval": _oval,
    "rectangle": _rectangle,
    "arrow": polygon(np.array(_ARROW, np.float32)),
}


@cache
def axes(side: int) -> tuple[Array, Array]:
    """The middles of a box's pixels, x and y [side, side]; the box goes from -1 to 1."""
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def coverage(distance: Distance, side: int, shrink: float = 0.94) -> Array:
    """How much of each pixel an outline covers, [side, side] in [0, 1]; ``shrink`` leaves room at the box's edges."""
    x, y = axes(side)
    scale = np.float32(shrink)
    return np.clip(0.5 - distance(x / scale, y / scale) * scale * np.float32(side / 2), 0, 1).astype(np.float32)


def pattern(texture: str, side: int, periods: float, angle: float = 0.0) -> Array:
    """How much of each pixel is of the second tone, [side, side] in [0, 1]."""
    x, y = axes(side)
    if angle:
        x, y = (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle)),
                y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle)))  # fmt: skip
    u, v = (((axis + 1) / 2 * np.float32(periods)) % np.float32(1) - np.float32(0.5) for axis in (x, y))
    sharp = np.float32(side / periods)  # pixels a period
    if texture == "striped":
        return np.clip(0.5 - (np.abs(v) - np.float32(0.235)) * sharp, 0, 1)
    if texture == "dotted":
        return np.clip(0.5 - (np.hypot(u, v) - np.float32(0.3)) * sharp, 0, 1)
    if texture == "checked":
        # squares of a whole period, so that a cell of the latent holds one
        across, down = (np.floor((axis + 1) / 2 * np.float32(periods)) for axis in (x, y))
        return ((across + down) % 2).astype(np.float32)
    if texture == "halved":
        return np.clip(0.5 + x * np.float32(side / 2), 0, 1)
    return np.zeros((side, side), np.float32)


@cache
def shape_layers(shape: str, texture: str, side: int, periods: int) -> tuple[Array, Array]:
    """Coverage and second tone of a named shape, each [side, side]."""
    return coverage(SHAPE_DISTANCES[shape], side), pattern(texture, side, periods)


def random_outline(draws: NDArray[np.float64]) -> tuple[str, Distance]:
    """A figure without a name, and the kind of figure it is, from 16 draws in [0, 1).

    Rosettes have 3, 4, 6, 7 or 8 petals: five are left for a word to be learned.
    """
    kind = ("polygon", "rosette", "blob", "gear")[int(draws[0] * 4)]
    turn = draws[1] * 2 * math.pi
    if kind == "polygon":
        corners = 3 + int(draws[2] * 6)
        angles = turn + 2 * math.pi * (np.arange(corners) + 0.5 * (draws[3 : 3 + corners] - 0.5)) / corners
        radii = 0.55 + 0.42 * draws[np.arange(8, 8 + corners) % 16]
    else:
        angles = turn + 2 * math.pi * np.arange(CONTOUR) / CONTOUR
        radii = _radii(kind, angles, draws)
    return kind, polygon(np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1).astype(np.float32))


def _radii(kind: str, angles: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "rosette":
        petals = (3, 4, 6, 7, 8)[int(draws[2] * 5)]
        return 0.3 + 0.65 * np.abs(np.cos(petals / 2 * angles)) ** (0.5 + draws[3])
    if kind == "gear":
        teeth = 6 + int(draws[2] * 5)
        return 0.78 + 0.16 * np.sign(np.cos(teeth * angles + draws[3]))
    waves = sum((draws[2 * k] - 0.5) / k * np.cos(k * angles + 6.3 * draws[2 * k + 1]) for k in range(1, 6))
    return 0.7 + 0.25 * np.tanh(waves)
