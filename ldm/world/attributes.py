"""What a rendered picture is made of, and which combinations no training run ever sees."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

import numpy as np

from ldm.util import UserError

Split = Literal["train", "heldout", "all"]

SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "moon")
COLOURS = {  # sRGB; every pair at least 18 CIEDE2000 apart
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
}
SHADES = {  # the second tone of stripes and dots: lighter or darker by 30 to 50 L*, away from all plain colours
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
}
BACKGROUNDS = tuple(COLOURS)
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": BACKGROUNDS,
    "size": SIZES,
    "texture": TEXTURES,
}
ATTRIBUTES = tuple(VALUES)

SPLIT_SEED = 20240229
HELDOUT_SHARE = 0.1


@dataclass(frozen=True)
class Attributes:
    """One picture of the world, or what a caption says about one: only the size may be left open (None).

    Raises:
        UserError: a value that the world does not have, or an object of its background's colour.
    """

    shape: str
    colour: str
    background: str
    size: str | None = None
    texture: str = "plain"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in VALUES[field.name] and not (value is None and field.name == "size"):
                choices = ", ".join(VALUES[field.name])
                raise UserError(f"the rendered world has no {field.name} '{value}'; it has: {choices}")
        if self.colour == self.background:
            raise UserError(f"a {self.colour} {self.shape} cannot be seen on a {self.background} background")

    def agrees(self, other: Attributes) -> bool:
        """Whether nothing that one of the two says is contradicted by the other."""
        return replace(self, size=None) == replace(other, size=None) and (
            self.size is None or other.size is None or self.size == other.size
        )


@cache
def heldout_triples() -> frozenset[tuple[str, str, str]]:
    """The (shape, colour, background) triples, a tenth of all, that training never sees in any size or texture.

    Whole triples are held out, so that a caption which leaves the size open gives nothing away. The choice
    is fixed, and even: each shape loses 9 of its 90 triples.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    grounds = [(c, b) for c, b in itertools.product(COLOURS, BACKGROUNDS) if c != b]
    per_shape = round(HELDOUT_SHARE * len(grounds))
    order = rng.permutation(len(grounds))[: per_shape * len(SHAPES)]
    return frozenset((SHAPES[i % len(SHAPES)], *grounds[j]) for i, j in enumerate(order))


@cache
def combinations(split: Split = "all") -> tuple[Attributes, ...]:
    """All complete attribute combinations of a split, in a fixed order.

    Raises:
        UserError: an unknown split.
    """
    if split not in ("train", "heldout", "all"):
        raise UserError(f"the rendered world has no split '{split}'; it has: train, heldout, all")
    held = heldout_triples()
    visible = (c for c in itertools.product(*VALUES.values()) if c[1] != c[2])
    return tuple(Attributes(*c) for c in visible if split == "all" or (c[:3] in held) == (split == "heldout"))
