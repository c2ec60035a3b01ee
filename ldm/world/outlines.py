"""Pictures of the world from signed distances: one shape, centred, anti-aliased, any resolution, many at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ldm.world.attributes import COLOURS, SHADES, SHAPES, TEXTURES, Attributes

Array = NDArray[np.float32]

RADIUS = {"small": 0.235, "large": 0.42}  # of the picture's width
PERIOD = 0.125  # of the width: 8 pixels of 64, so that an f = 8 autoencoder sees each stripe whole
STRIPE = 0.47  # share of a period in the second tone
DOT = 0.3  # radius of a dot, in periods


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


def render(items: Sequence[Attributes], size: int = 64, offsets: Array | None = None) -> Array:
    """Draw complete attribute combinations; the pictures of a batch do not depend on each other.

    Args:
        items: N attributes with their size given.
        size: width and height in pixels.
        offsets: [N, 2] shift of each object in units of the picture's width (x to the right, y down); None centres.

    Returns:
        [N, size, size, 3] float32 in [-1, 1].
    """
    n = len(items)
    shift = np.zeros((n, 2), np.float32) if offsets is None else np.asarray(offsets, np.float32)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5).astype(np.float32)
    x = axis[None, None, :] - shift[:, 0, None, None]  # [N, 1, size] in widths
    y = axis[None, :, None] - shift[:, 1, None, None]  # [N, size, 1]
    inside = _coverage(items, x, y, size)
    second = _second_tone(items, x, y, size)
    ground, tone, shade = (_palette(colours) for colours in zip(*map(_three_colours, items), strict=True))
    amounts = np.stack([1 - inside, inside * (1 - second), inside * second], axis=-1)  # [N, size, size, 3]
    colours = np.stack([ground, tone, shade], axis=1)  # [N, 3 parts, 3 channels]
    picture = np.matmul(amounts.reshape(n, size * size, 3), colours).reshape(n, size, size, 3)
    return np.clip(picture, -1, 1, out=picture)


def _coverage(items: Sequence[Attributes], x: Array, y: Array, size: int) -> Array:
    """How much of each pixel the object covers, [N, size, size] in [0, 1]."""
    radius = np.array([RADIUS[str(item.size)] for item in items], np.float32)[:, None, None]
    inside = np.empty((len(items), size, size), np.float32)
    shapes = np.array([item.shape for item in items])
    for shape in SHAPES:
        rows = np.flatnonzero(shapes == shape)
        if rows.size:
            distance = DISTANCES[shape](x[rows] / radius[rows], y[rows] / radius[rows])
            inside[rows] = 0.5 - distance * (radius[rows] * size)
    return np.clip(inside, 0, 1, out=inside)


def _second_tone(items: Sequence[Attributes], x: Array, y: Array, size: int) -> Array:
    """How much of each pixel stripes or dots cover, [N, size, size] in [0, 1]; the pattern moves with the object."""
    textures = np.array([item.texture for item in items])
    second = np.zeros((len(items), size, size), np.float32)
    for texture in TEXTURES[1:]:
        rows = np.flatnonzero(textures == texture)
        u, v = _within_period(x[rows]), _within_period(y[rows])  # in periods, 0 in a cell's middle
        distance = np.abs(v) - np.float32(STRIPE / 2) + 0 * u if texture == "striped" else np.hypot(u, v) - DOT
        second[rows] = np.clip(0.5 - distance * np.float32(PERIOD * size), 0, 1)
    return second


def _within_period(position: Array) -> Array:
    return (position / np.float32(PERIOD)) % np.float32(1) - np.float32(0.5)


def _three_colours(item: Attributes) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return COLOURS[item.background], COLOURS[item.colour], SHADES[item.colour]


def _palette(colours: Sequence[tuple[int, ...]]) -> Array:
    return (np.array(colours, np.float32) / 127.5 - 1).astype(np.float32)
