"""What a scene of the world is made of, and which of its combinations no training run ever sees.

A scene is a background with one or two things in it. A thing is an object of real life in its own colours, or a
geometric shape in any colour and texture. Places and sizes are counted in cells of the latent (8 pixels), so that the
same thing is cut by the cells in the same way wherever it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ldm.draws import uniform
from ldm.util import UserError
from ldm.world.objects import objects

Split = Literal["train", "heldout", "all"]

COLOURS = {  # sRGB
    "red": (220, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (255, 225, 40),
    "green": (30, 150, 60),
    "cyan": (70, 215, 225),
    "blue": (30, 70, 210),
    "purple": (135, 30, 165),
    "pink": (255, 150, 200),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
    "brown": (125, 75, 35),
    "grey": (140, 140, 145),
}
SHADES = {  # the second tone of patterns: lighter or darker by 30 to 50 L*
    "red": (95, 8, 15),
    "orange": (120, 62, 0),
    "yellow": (120, 100, 10),
    "green": (165, 230, 175),
    "cyan": (15, 105, 115),
    "blue": (160, 185, 255),
    "purple": (205, 165, 250),
    "pink": (165, 45, 105),
    "black": (135, 135, 135),
    "white": (120, 120, 120),
    "brown": (215, 175, 130),
    "grey": (60, 60, 65),
}
SHAPES = (
    "circle", "square", "triangle", "diamond", "star", "heart", "cross", "moon",
    "pentagon", "hexagon", "ring", "oval", "rectangle", "arrow",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checked", "halved")
SIZES = ("small", "large")
PLACES = {
    "middle": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
PAIRS = {"left of": ("left", "right"), "above": ("top", "bottom")}  # relation -> places of the first and the second

SPLIT_SEED = 20261126
HELD_OUT = 3  # of the backgrounds, for each thing in each place
KEPT_OUT = {("circle", "checked")}  # concepts that are taught later as words


@dataclass(frozen=True)
class Ground:
    """A background: one colour, a pattern of two, a slow change from one to another, or a landscape."""

    kind: str  # 'plain', 'striped', 'dotted', 'checked', 'graded' or the landscape's name
    first: str = ""
    second: str = ""


_PATTERNS = {"striped": ("blue", "red", "green"), "dotted": ("pink", "yellow", "purple"),
             "checked": ("grey", "orange", "cyan")}  # fmt: skip
_GRADES = (("blue", "white"), ("pink", "yellow"), ("purple", "blue"), ("green", "white"))
LANDSCAPES = ("meadow", "beach", "night", "snow", "desert", "sea")
GROUNDS: dict[str, Ground] = {
    **{colour: Ground("plain", colour) for colour in COLOURS},
    **{f"{kind} {c}": Ground(kind, c, "white") for kind, colours in _PATTERNS.items() for c in colours},
    **{f"{first} to {second}": Ground("graded", first, second) for first, second in _GRADES},
    **{name: Ground(name) for name in LANDSCAPES},
}


@dataclass(frozen=True)
class Thing:
    """An object or a shape; what is None is left open, and an object has neither colour nor texture of its own.

    Raises:
        UserError: a name or value that the world does not have.
    """

    name: str
    size: str | None = None
    place: str | None = None
    colour: str | None = None
    texture: str | None = None

    def __post_init__(self) -> None:
        if self.name not in SHAPES and self.name not in objects():
            raise UserError(f"the world has no thing '{self.name}'; it has: {', '.join((*SHAPES, *objects()))}")
        _check("size", self.size, SIZES)
        _check("place", self.place, PLACES)
        _check("colour", self.colour, COLOURS)
        _check("texture", self.texture, TEXTURES)
        if self.name in objects() and (self.colour or self.texture):
            raise UserError(f"a {self.name} has its own colours; only shapes take a colour or texture")

    @property
    def is_shape(self) -> bool:
        return self.name in SHAPES

    @property
    def kind(self) -> str:
        """What makes it another thing where combinations are held out: the object, or the shape in its colour."""
        return f"{self.colour} {self.name}" if self.is_shape else self.name


@dataclass(frozen=True)
class Scene:
    """A background with one or two things; None is left open. Two things stand in the two places of a relation.

    Raises:
        UserError: an unknown background, or no things or more than two.
    """

    ground: str | None
    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        _check("background", self.ground, GROUNDS)
        if not 1 <= len(self.things) <= 2:
            raise UserError(f"a scene has one thing or two, not {len(self.things)}")

    @property
    def relation(self) -> str | None:
        """'left of' or 'above' for two things that stand so, the first one named first."""
        places = tuple(thing.place for thing in self.things)
        return next((name for name, pair in PAIRS.items() if pair == places), None)

    @property
    def triples(self) -> Iterator[tuple[str, str | None, str | None]]:
        """(what, background, place) of each thing."""
        return ((thing.kind, self.ground, thing.place) for thing in self.things)

    @property
    def held_out(self) -> bool:
        """Whether training never sees it, because of any of its things."""
        return any(ground in held_out_grounds(kind, place) for kind, ground, place in self.triples if ground and place)


@cache
def held_out_grounds(kind: str, place: str) -> frozenset[str]:
    """The backgrounds before which a thing in a place is never shown, whatever its size and texture: 3 of 31."""
    names = tuple(GROUNDS)
    order = np.argsort(uniform(SPLIT_SEED, np.arange(len(names)), f"{kind} {place}"), kind="stable")
    return frozenset(names[i] for i in order[:HELD_OUT])


def _check(what: str, value: str | None, known: Collection[str]) -> None:
    if value is not None and value not in known:
        raise UserError(f"the world has no {what} '{value}'; it has: {', '.join(known)}")
