"""Backgrounds: one colour, patterns, slow changes, and landscapes drawn with a few lines."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldm.draws import uniform
from ldm.world.figures import pattern
from ldm.world.scene import COLOURS, GROUNDS

Array = NDArray[np.float32]

PALE = 0.45  # how far the first colour of a pattern goes towards the second: things must stand out before it
CELL = 8  # pixels a cell of the latent
_SKY, _PALE_SKY, _GRASS, _DARK_GRASS = (105, 175, 240), (205, 230, 250), (110, 185, 75), (70, 145, 50)
_SAND, _DARK_SAND, _SEA, _DEEP_SEA = (240, 215, 150), (215, 175, 105), (60, 150, 205), (20, 90, 160)
_SNOW, _SHADED_SNOW, _NIGHT, _DEEP_NIGHT = (240, 246, 252), (205, 220, 238), (45, 50, 110), (12, 14, 45)
_LANDSCAPES = {  # bands from the top: lower edge as a share of the height, colours at the band's top and bottom
    "meadow": ((0.5, _SKY, _PALE_SKY), (1.0, _GRASS, _DARK_GRASS)),
    "beach": ((0.375, _SKY, _PALE_SKY), (0.625, _DEEP_SEA, _SEA), (1.0, _SAND, _SAND)),
    "night": ((1.0, _DEEP_NIGHT, _NIGHT),),
    "snow": ((0.5, _PALE_SKY, _PALE_SKY), (1.0, _SNOW, _SHADED_SNOW)),
    "desert": ((0.5, _PALE_SKY, (250, 225, 170)), (1.0, _SAND, _DARK_SAND)),
    "sea": ((0.375, _SKY, _PALE_SKY), (1.0, _SEA, _DEEP_SEA)),
}
STARS = 24


@cache
def ground(name: str, size: int) -> Array:
    """The background of that name, [size, size, 3] float32 in [0, 1]; not to be written to."""
    kind, first, second = GROUNDS[name].kind, GROUNDS[name].first, GROUNDS[name].second
    picture: NDArray[Any]
    if kind in _LANDSCAPES:
        picture = _landscape(kind, size)
    elif kind == "plain":
        picture = np.broadcast_to(rgb(COLOURS[first]), (size, size, 3))
    elif kind == "graded":
        share = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None, None]
        picture = np.broadcast_to((1 - share) * rgb(COLOURS[first]) + share * rgb(COLOURS[second]), (size, size, 3))
    else:
        top, base = rgb(COLOURS[first]), rgb(COLOURS[second])
        pale = top + np.float32(PALE) * (base - top)
        base_share = pattern(kind, size, size / (2 * CELL))[..., None]
        picture = base_share * base + (1 - base_share) * pale
    result = np.ascontiguousarray(picture, np.float32)
    result.setflags(write=False)
    return result


def rgb(colour: tuple[int, int, int]) -> Array:
    """A colour of three bytes as [3] float32 in [0, 1]."""
    return (np.array(colour, np.float32) / np.float32(255)).astype(np.float32)


def _landscape(name: str, size: int) -> Array:
    picture = np.empty((size, size, 3), np.float32)
    top = 0.0
    height = (np.arange(size, dtype=np.float32) + 0.5) / size
    for bottom, above, below in _LANDSCAPES[name]:
        rows = (height >= top) & (height < bottom)
        share = ((height[rows] - top) / (bottom - top))[:, None, None]
        picture[rows] = (1 - share) * rgb(above) + share * rgb(below)
        top = bottom
    if name == "night":
        where = uniform(0, np.arange(STARS), "star x"), uniform(0, np.arange(STARS), "star y")
        column, row = ((axis * (size - 2)).astype(int) for axis in where)
        width = max(1, size // 64)
        for x, y in zip(column, row, strict=True):
            picture[y : y + width, x : x + width] = rgb((255, 250, 215))
    return picture
