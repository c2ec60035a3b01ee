"""The outlines of shapes as signed distances: negative inside; x to the right, y down, [-1, 1] inside a shape's box."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - np.float32(0.92)


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.84)


def _triangle(x: Array, y: Array) -> Array:
    """Equilateral, circumradius 1.1, its centroid lowered so that the bounding box is centred."""
    y = y - np.float32(0.25)
    side = np.abs(x) * np.float32(math.sqrt(3) / 2) - y * np.float32(0.5)
    return np.maximum(side, y) - np.float32(0.55)


def _diamond(x: Array, y: Array) -> Array:
    """A rhombus, higher than wide, so that it is not a square on its corner."""
    wide, high = np.float32(0.78), np.float32(1.08)
    return (np.abs(x) * high + np.abs(y) * wide - wide * high) / np.hypot(wide, high)


def _star(x: Array, y: Array) -> Array:
    """Five tips at radius 1.08; folded into one tenth of the turn, its outline is a single line."""
    y = y - np.float32(0.08)
    outer, inner, sector = 1.08, 0.47, math.pi / 5
    angle = np.abs((np.arctan2(x, -y) + np.float32(sector)) % np.float32(2 * sector) - np.float32(sector))
    radius = np.hypot(x, y)
    u, v = radius * np.cos(angle), radius * np.sin(angle)
    du, dv = inner * math.cos(sector) - outer, inner * math.sin(sector)
    return ((u - np.float32(outer)) * dv - v * du) / np.float32(math.hypot(du, dv))


def _heart(x: Array, y: Array) -> Array:
    """A square on its corner and a half disc on each of its upper sides."""
    half = 0.58  # half the square's side
    y = y - np.float32(0.12)
    offset = half / math.sqrt(2)
    square = (np.abs(x) + np.abs(y)) / np.float32(math.sqrt(2)) - np.float32(half)
    lobe = np.hypot(np.abs(x) - np.float32(offset), y + np.float32(offset)) - np.float32(half)
    return np.minimum(square, lobe)


def _cross(x: Array, y: Array) -> Array:
    long, short = np.float32(0.95), np.float32(0.34)
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - long, y - short), np.maximum(x - short, y - long))


def _moon(x: Array, y: Array) -> Array:
    """A disc less a smaller one to its right, shifted so that what is left is in the middle."""
    x = x - np.float32(0.15)
    disc = np.hypot(x, y) - np.float32(0.98)
    bite = np.hypot(x - np.float32(0.52), y + np.float32(0.06)) - np.float32(0.72)
    return np.maximum(disc, -bite)


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "moon": _moon,
}
