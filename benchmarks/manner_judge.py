"""A judge of pictures that were asked for in a manner: classical measures against true pictures, learned from nothing.

Whether the manner is there is told from what has no place in the picture: how lightness, the two axes of colour, and
thin dark and bright lines are distributed over its pixels, beside the same of true pictures in all manners, of what was
asked for and of what is seen: a thing drawn wrongly is no other manner. Thing and background are the nearest of all
that could stand there, in the manner that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, grey_closing, grey_opening
from skimage.color import deltaE_ciede2000

from benchmarks.manners import ALL, Styled, in_manner
from ldm.world.grounds import CELL, ground
from ldm.world.judge import BLUR, candidates, to_lab
from ldm.world.paint import box, paint
from ldm.world.scene import GROUNDS, Scene, Thing

Array = NDArray[np.float32]

HALF = 0.5  # a manner is there where a picture is nearer to it than half the way from a plain one
ALIKE = 3.0  # CIEDE2000: colours that differ by less in a manner are one colour in it
LINE = 5  # pixels of 128: what is narrower is a line


@dataclass(frozen=True)
class Finding:
    """What was found on one picture."""

    manner: str  # the nearest: a manner, one of the relatives, or plain
    thing_seen: str
    ground_seen: str
    in_manner: bool  # whether the manner is the one that was asked for, and near enough
    thing: bool
    ground: bool
    distance: float  # of the distributions from the true picture's, in units of a plain picture's: 0 the same, 1 plain

    @property
    def noted(self) -> dict[str, bool | float]:
        """What a table has of it, by the names of its columns."""
        return {"in the manner": self.in_manner, "thing": self.thing, "background": self.ground,
                "distance": self.distance}  # fmt: skip


def judge_manner(picture: Array, asked: Styled) -> Finding:
    """Judge a picture [size, size, 3] in [-1, 1] that was asked for in a manner.

    Raises:
        UserError: a manner or a size that there is not.
    """
    lab = to_lab(picture)
    thing, seen = nearest_thing(lab, asked), nearest_ground(lab, asked.manner)
    either = (manner_distances(picture, scene) for scene in (asked.scene, Scene(seen, (thing,))))
    distances = {name: min(found) for name, *found in zip(ALL, *(one.values() for one in either), strict=True)}
    nearest = min(distances, key=lambda name: distances[name])
    relative = distances[asked.manner] / from_plain(asked, len(lab))
    return Finding(
        manner=nearest,
        thing_seen=f"{thing.colour} {thing.texture} {thing.name}" if thing.is_shape else thing.name,
        ground_seen=seen,
        in_manner=nearest == asked.manner and relative <= HALF,
        thing=thing.name == asked.thing.name and _alike(asked, Scene(asked.ground, (thing,)), len(lab)),
        ground=seen == asked.ground or _same_border(asked.manner, seen, asked.ground, len(lab)),
        distance=relative,
    )


def manner_distances(picture: Array, scene: Scene) -> dict[str, float]:
    """How far a picture [size, size, 3] in [-1, 1] of a complete scene is from each manner, plain among them.

    The mean over five measures of a pixel of the first Wasserstein distance between their distributions on the picture
    and on the true picture of the scene in the manner, in units of CIELAB.
    """
    true, seen = paint([scene], len(picture))[0], _distributions(picture)
    return {name: float(np.abs(seen - _distributions(in_manner(name, true))).mean()) for name in ALL}


def from_plain(asked: Styled, size: int) -> float:
    """The distance of the plain picture of what is asked for from the one in the manner."""
    return manner_distances(paint([asked.scene], size)[0], asked.scene)[asked.manner]


def _distributions(picture: Array) -> Array:
    """The sorted values [5, pixels] of L, a, b, thin dark lines and thin bright lines."""
    lab = to_lab(picture)
    width = LINE * len(picture) // 128
    light = lab[..., 0]
    lines = grey_closing(light, width) - light, light - grey_opening(light, width)
    return np.sort(np.stack([*np.moveaxis(lab, -1, 0), *lines]).reshape(5, -1), axis=1)


def nearest_thing(lab: Array, asked: Styled) -> Thing:
    """Which thing stands there: of all that could, the one whose true picture in the manner is nearest.

    ``lab`` is the picture's CIELAB [size, size, 3].
    """
    soft = gaussian_filter(lab, (BLUR, BLUR, 0))[_window(asked.thing, len(lab))]
    distances = [np.linalg.norm(true - soft, axis=-1).mean() for true in _rivals(asked, len(lab))]
    return list(candidates(asked.thing))[int(np.argmin(distances))]


@lru_cache(maxsize=1)
def _rivals(asked: Styled, size: int) -> list[Array]:
    """CIELAB of all that could stand there, softened, where it stands."""
    scenes = (Scene(asked.ground, (rival,)) for rival in candidates(asked.thing))
    window = _window(asked.thing, size)
    pictures = (to_lab(in_manner(asked.manner, paint([scene], size)[0])[window]) for scene in scenes)
    return [gaussian_filter(picture, (BLUR, BLUR, 0)) for picture in pictures]


def _window(thing: Thing, size: int) -> tuple[slice, slice]:
    left, top, side = box(str(thing.size), "middle", size)
    return slice(top, top + side), slice(left, left + side)


def nearest_ground(lab: Array, manner: str) -> str:
    """The background in a manner that the border of a picture's CIELAB [size, size, 3] is most like."""
    seen = lab[_border(len(lab))]
    distances = {name: np.median(deltaE_ciede2000(seen, _border_lab(manner, name, len(lab)))) for name in GROUNDS}
    return min(distances, key=lambda name: distances[name])


@cache
def _border_lab(manner: str, name: str, size: int) -> Array:
    return to_lab(in_manner(manner, ground(name, size) * 2 - 1))[_border(size)]


def _border(size: int) -> NDArray[np.bool_]:
    border = np.ones((size, size), bool)
    border[CELL:-CELL, CELL:-CELL] = False
    return border


def _same_border(manner: str, one: str, other: str, size: int) -> bool:
    """Whether two backgrounds are the same in a manner, as red and blue are in brown ink."""
    difference = deltaE_ciede2000(_border_lab(manner, one, size), _border_lab(manner, other, size))
    return float(difference.mean()) < ALIKE


def _alike(asked: Styled, other: Scene, size: int) -> bool:
    """Whether the thing of another scene has the same colours as what was asked for, as far as the manner shows it."""
    window = _window(asked.thing, size)
    one, two = (to_lab(in_manner(asked.manner, picture)[window]) for picture in paint([asked.scene, other], size))
    return float(deltaE_ciede2000(one, two).mean()) < ALIKE
