"""True pictures of scenes: things on the latent's grid of cells, with an outline where they would not stand out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from ldm.util import UserError
from ldm.world.figures import shape_layers
from ldm.world.grounds import CELL, ground, rgb
from ldm.world.objects import drawing
from ldm.world.scene import COLOURS, PLACES, SHADES, Scene, Thing

Array = NDArray[np.float32]

LARGE, SMALL = 0.8, 0.5  # of the picture's side, before they are rounded to an even number of cells
CONTRAST = 0.22  # a rim point stands out where one channel differs from the background by this much of its range
HIDDEN = 0.35  # an outline is drawn where more of the rim than this does not stand out
DARK, LIGHT = rgb((35, 35, 40)), rgb((250, 250, 245))


def check_size(size: int) -> None:
    """Refuse a picture whose cells cannot be halved evenly.

    Raises:
        UserError: the side is no multiple of 16, or under 32.
    """
    if size < 4 * CELL or size % (2 * CELL):
        raise UserError(f"a scene's side is a multiple of {2 * CELL}, at least {4 * CELL}; got {size}")


def box(size_name: str, place: str, size: int) -> tuple[int, int, int]:
    """Where a thing stands in a picture of ``size`` pixels: left, top and side in pixels, whole cells all three."""
    cells = size // CELL
    side = 2 * round((LARGE if size_name == "large" else SMALL) * cells / 2)
    spare = (cells - side) // 2
    dx, dy = PLACES[place]
    return (spare + dx * spare) * CELL, (spare + dy * spare) * CELL, side * CELL


def layer(thing: Thing, side: int, size: int) -> Array:
    """A complete thing alone, [side, side, 4] in [0, 1]: colours times coverage, and coverage."""
    if not thing.is_shape:
        return drawing(thing.name, side)
    return _shape(thing.name, str(thing.colour), str(thing.texture), side, size)


@cache
def _shape(name: str, colour: str, texture: str, side: int, size: int) -> Array:
    period = CELL * size // 64  # a pattern is as fine as the picture: one cell of 64 pixels
    inside, second = shape_layers(name, texture, side, max(side // period, 1))
    tone, shade = rgb(COLOURS[colour]), rgb(SHADES[colour])
    colours = tone + second[..., None] * (shade - tone)
    return np.concatenate([colours * inside[..., None], inside[..., None]], axis=-1).astype(np.float32)


def compose(picture: Array, sprite: Array, left: int, top: int) -> None:
    """Lay a sprite [side, side, 4] over a picture [H, W, 3], both in [0, 1], outlined where it would not stand out."""
    side = sprite.shape[0]
    under = picture[top : top + side, left : left + side]
    if hidden_share(sprite, under) > HIDDEN:
        width = max(1, picture.shape[0] // 48)
        halo = maximum_filter(sprite[..., 3], 2 * width + 1)[..., None]
        under[:] = under + halo * ((DARK if under.mean() > 0.45 else LIGHT) - under)
    under[:] = under * (1 - sprite[..., 3:]) + sprite[..., :3]


def hidden_share(sprite: Array, under: Array) -> float:
    """The share of a sprite's rim that has nearly the background's colour; 0 without a rim.

    Shapes: the sprite [side, side, 4], what is under it [side, side, 3].
    """
    solid = sprite[..., 3]
    rim = (solid > 0.95) & (minimum_filter(solid, 5) < 0.5)
    if not rim.any():
        return 0.0
    return float((np.abs(sprite[rim][:, :3] - under[rim]).max(-1) < CONTRAST).mean())


@lru_cache(maxsize=2**16)
def is_outlined(thing: Thing, ground_name: str, size: int = 64) -> bool:
    """Whether a complete thing is drawn with an outline before a background, because it would not stand out."""
    left, top, side = box(str(thing.size), str(thing.place), size)
    under = ground(ground_name, size)[top : top + side, left : left + side]
    return hidden_share(layer(thing, side, size), under) > HIDDEN


def paint(scenes: Sequence[Scene], size: int = 64) -> Array:
    """Draw complete scenes; the pictures of a batch do not depend on each other.

    Returns:
        [N, size, size, 3] float32 in [-1, 1].

    Raises:
        UserError: a size that the grid does not take, or a scene with something left open.
    """
    check_size(size)
    pictures = np.empty((len(scenes), size, size, 3), np.float32)
    for picture, scene in zip(pictures, scenes, strict=True):
        _require_complete(scene)
        picture[:] = ground(str(scene.ground), size)
        for thing in scene.things:
            left, top, side = box(str(thing.size), str(thing.place), size)
            compose(picture, layer(thing, side, size), left, top)
    return np.clip(pictures * 2 - 1, -1, 1, out=pictures)


def silhouette(scene: Scene, size: int = 64) -> Array:
    """How much of each pixel the things of a complete scene cover, [size, size] in [0, 1], outlines not counted."""
    covered = np.zeros((size, size), np.float32)
    for thing in scene.things:
        left, top, side = box(str(thing.size), str(thing.place), size)
        under = covered[top : top + side, left : left + side]
        np.maximum(under, layer(thing, side, size)[..., 3], out=under)
    return covered


def _require_complete(scene: Scene) -> None:
    for thing in scene.things:
        needed = [thing.size, thing.place, *((thing.colour, thing.texture) if thing.is_shape else ())]
        if scene.ground is None or None in needed:
            raise UserError(f"a scene must be complete to be drawn, this one leaves something open: {scene}")
