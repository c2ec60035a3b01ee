"""Which scene comes at a number of a training: a function of (seed, number), and never one that is held out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ldm.draws import uniform
from ldm.util import UserError
from ldm.world.figures import coverage, pattern, random_outline
from ldm.world.grounds import ground
from ldm.world.objects import objects
from ldm.world.paint import box, compose, is_outlined
from ldm.world.scene import (
    COLOURS,
    GROUNDS,
    KEPT_OUT,
    PAIRS,
    PLACES,
    SHAPES,
    TEXTURES,
    Scene,
    Split,
    Thing,
)

Array = NDArray[np.float32]
Draws = NDArray[np.float64]

CENTRED = 0.6  # share of single things that stand in the middle; only small ones stand elsewhere
LARGE_SHARE = 0.65  # of those in the middle
PLAIN_SHAPES = 0.4
DRAWN = 24  # draws a scene


@dataclass(frozen=True)
class Shares:
    """What scenes are made of; what is left of a share is single objects."""

    shapes: float = 0.22  # of single things
    two: float = 0.2  # scenes with two things
    figures: float = 0.06  # scenes with a figure that has no name
    outlined: float = 0.0  # of the scenes with named things: one of them nearly as its background, so with an outline


def draws(seed: int, numbers: NDArray[np.int64]) -> Draws:
    """[N, DRAWN] numbers in [0, 1), a row for each item."""
    return np.stack([uniform(seed, numbers, f"scene {i}") for i in range(DRAWN)], axis=1)


def pick(values: tuple[str, ...], draw: float) -> str:
    """One of the values, for a draw in [0, 1)."""
    return values[int(draw * len(values))]


def draw_scene(row: Draws, split: Split, shares: Shares, names: tuple[str, ...]) -> Scene:
    """The scene of a row of draws, with objects of the given names.

    Its background is the first one that the split allows, from a drawn one on: in training none that is held out for
    any of its things; in 'heldout' one that is. Where a thing is to be outlined, it is the first one before which it
    is, if there is any.
    """
    things: tuple[Thing, ...]
    if row[0] < shares.two:
        things = _two(row, shares, names)
    else:
        middle = row[1] < CENTRED
        size = "large" if middle and row[2] < LARGE_SHARE else "small"
        place = "middle" if middle else tuple(PLACES)[1 + int(row[3] * (len(PLACES) - 1))]
        things = (_thing(row[4:10], size, place, shares, names),)
    return _on_ground(things, row[10], split, outlined=bool(row[17] < shares.outlined))


def _two(row: Draws, shares: Shares, names: tuple[str, ...]) -> tuple[Thing, Thing]:
    places = PAIRS[pick(tuple(PAIRS), row[3])]
    first = _thing(row[4:10], "small", places[0], shares, names)
    second = _thing(row[11:17], "small", places[1], shares, names)
    if first.name == second.name and not first.is_shape:
        other = names[(names.index(second.name) + 1) % len(names)]
        second = Thing(other, second.size, second.place)
    return first, second


def _thing(row: Draws, size: str, place: str, shares: Shares, names: tuple[str, ...]) -> Thing:
    if row[0] >= shares.shapes:
        return Thing(pick(names, row[1]), size, place)
    texture = "plain" if row[4] < PLAIN_SHAPES else pick(TEXTURES[1:], (row[4] - PLAIN_SHAPES) / (1 - PLAIN_SHAPES))
    shape = pick(SHAPES, row[1])
    if (shape, texture) in KEPT_OUT:
        texture = "plain"
    return Thing(shape, size, place, pick(tuple(COLOURS), row[3]), texture)


def _on_ground(things: tuple[Thing, ...], draw: float, split: Split, outlined: bool = False) -> Scene:
    names = tuple(GROUNDS)
    start = int(draw * len(names))
    scenes = (Scene(name, things) for name in (*names[start:], *names[:start]))
    allowed = [scene for scene in scenes if split == "all" or scene.held_out == (split == "heldout")]
    if outlined:
        allowed = [one for one in allowed if any(is_outlined(thing, str(one.ground)) for thing in things)] or allowed
    if allowed:
        return allowed[0]
    raise UserError(f"no background is left for {things} in the split '{split}'")


@dataclass(frozen=True)
class Figure:
    """A figure without a name: what can be said of it, and how it is drawn."""

    kind: str  # 'polygon', 'rosette', 'blob' or 'gear'
    texture: str
    colours: tuple[str, str]  # the nearest named ones
    ground: str
    tones: tuple[tuple[float, ...], tuple[float, ...]]
    row: tuple[float, ...]


def draw_figure(row: Draws) -> Figure:
    """The figure of a row of draws; its colours lie between the named ones."""
    kind, _ = random_outline(row[:16])
    texture = pick(TEXTURES, row[16])
    if (kind, texture) == ("blob", "checked"):  # too like a chequered disc, which is kept out
        texture = "halved"
    tones = (tuple(row[17:20]), tuple((row[17:20] + 0.35 + 0.3 * row[20]) % 1))
    names = (nearest_colour(tones[0]), nearest_colour(tones[1]))
    return Figure(kind, texture, names, pick(tuple(GROUNDS), row[21]), tones, tuple(row))


def paint_figure(figure: Figure, size: int) -> Array:
    """[size, size, 3] float32 in [-1, 1]."""
    picture = ground(figure.ground, size).copy()
    row = np.array(figure.row)
    large = row[22] < 0.7
    left, top, side = box("large" if large else "small", "middle", size)
    inside = coverage(random_outline(row[:16])[1], side)[..., None]
    second = pattern(figure.texture, side, max(1, side * 64 // (size * 8)), row[23] * np.pi)[..., None]
    first_tone, second_tone = (np.array(tone, np.float32) for tone in figure.tones)
    sprite = np.concatenate([(first_tone + second * (second_tone - first_tone)) * inside, inside], axis=-1)
    compose(picture, sprite.astype(np.float32), left, top)
    return np.clip(picture * 2 - 1, -1, 1)


@lru_cache(maxsize=4096)
def nearest_colour(tone: tuple[float, ...]) -> str:
    """The named colour that is nearest in sRGB; tones in [0, 1]."""
    values = np.array(list(COLOURS.values()), float) / 255
    return tuple(COLOURS)[int(np.square(values - np.array(tone)).sum(1).argmin())]


def chosen_objects(count: int | None) -> tuple[str, ...]:
    """The first ``count`` objects, or all.

    Raises:
        UserError: there are not so many.
    """
    names = tuple(objects())
    if count is not None and not 2 <= count <= len(names):
        raise UserError(f"the world has {len(names)} objects; 2 or more can be asked for, not {count}")
    return names[:count]
