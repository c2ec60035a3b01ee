"""Four concepts that the small model's world lacks, drawn as its things are, and five pictures to learn each from.

A flower of five petals, a windmill whose sails have two tones, a disc with a chequered filling, and a creature that
nobody has met. Each has relatives, which a person would take for something else: a flower of four petals or of six, a
windmill whose sails have one tone, a striped disc, a creature with two eyes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lessons import different, write_lessons
from ldm.util import UserError
from ldm.world.figures import Distance, coverage, pattern, polygon
from ldm.world.grounds import CELL, ground, rgb
from ldm.world.paint import box, check_size, compose
from ldm.world.scene import COLOURS, SHADES, Thing
from ldm.world.sentences import english, speak
from ldm.world.sentences.voice import Named, Voice, Wish

Array = NDArray[np.float32]
Draw = Callable[[int], Array]  # side in pixels -> [side, side, 4] in [0, 1]: colours times coverage, and coverage
Part = tuple[Distance, tuple[int, int, int]]

SIZE = 128  # of the small model's pictures
FINE = 4  # sprites are drawn so many times larger
SHOWN = (("beach", "large"), ("yellow", "small"), ("striped green", "large"), ("blue to white", "small"),
         ("grey", "large"))  # fmt: skip
ASKED = ("meadow", "pink", "night", "white", "striped blue", "snow", "cyan", "checked orange", "black",
         "pink to yellow")  # fmt: skip

INK, CREAM, GOLD, WOOD = (40, 35, 60), (250, 240, 215), (255, 205, 50), (150, 95, 50)
ROSE, RED, TEAL, ORANGE = (225, 50, 120), (215, 45, 45), (20, 150, 140), (245, 130, 30)


@dataclass(frozen=True)
class Shown:
    """A concept before a background of the world, in one of its sizes, in the middle."""

    concept: str
    ground: str
    size: str


@dataclass(frozen=True)
class Concept:
    """What is to be learned.

    Attributes:
        draw: its picture.
        like: the word of the world that is nearest to it: what a learned word begins from.
        relatives: pictures of what is nearly it, by name.
    """

    draw: Draw
    like: str
    relatives: Mapping[str, Draw] = field(default_factory=dict)


def picture_of(shown: Shown, size: int = SIZE) -> Array:
    """The true picture, [size, size, 3] in [-1, 1].

    Raises:
        UserError: a concept or side that there is not.
    """
    check_size(size)
    canvas = ground(shown.ground, size).copy()
    left, top, side = box(shown.size, "middle", size)
    compose(canvas, sprite(shown.concept, side), left, top)
    return np.clip(canvas * 2 - 1, -1, 1)


def write_pictures(concept: str, word: str, folder: Path, seed: int) -> None:
    """Five pictures of a concept, and beside each a text with sentences that say its size and its background."""
    shown = (Shown(concept, name, size) for name, size in SHOWN)
    write_lessons(folder, ((picture_of(one), sentences(one, word, seed)) for one in shown))


def wishes(concept: str, count: int) -> list[Shown]:
    """What is asked for: the backgrounds that were not shown in turn, each in both sizes."""
    return [
        Shown(concept, ASKED[i % len(ASKED)], ("large", "small")[(i + i // len(ASKED)) % 2]) for i in range(count)
    ]


def sentence(shown: Shown, word: str) -> str:
    """The plainest sentence with a word for the concept: "a large * on a beach"."""
    return speak(_wish(shown, word), "en")


def sentences(shown: Shown, word: str, seed: int) -> list[str]:
    """Different sentences that say size and background as people do, the plainest first."""
    voice = Voice(random.Random(f"{seed} {shown}"))
    return different(sentence(shown, word), lambda: english.sentence(_wish(shown, word), voice))


def _wish(shown: Shown, word: str) -> Wish:
    return Wish((Named(Thing("robot", size=shown.size), slot=word),), shown.ground)  # the word takes its place


def sprite(name: str, side: int) -> Array:
    """A concept or a relative alone, [side, side, 4] in [0, 1]: colours times coverage, and coverage.

    Raises:
        UserError: there is none of that name.
    """
    known = {**{name: concept.draw for name, concept in CONCEPTS.items()}, **relatives()}
    if name not in known:
        raise UserError(f"there is no concept '{name}'; there are: {', '.join(CONCEPTS)}")
    return _small(name, known[name], side)


def relatives() -> dict[str, Draw]:
    """What is nearly one of the concepts, by name."""
    return {name: draw for concept in CONCEPTS.values() for name, draw in concept.relatives.items()}


@cache
def _small(name: str, draw: Draw, side: int) -> Array:
    return draw(side * FINE).reshape(side, FINE, side, FINE, 4).mean((1, 3), dtype=np.float32)


# ---- the drawings: coordinates are halves of a box's side, x to the right, y down -----------------------------------


def _painted(parts: Sequence[Part], side: int) -> Array:
    """Coloured outlines, each over those before it."""
    picture = np.zeros((side, side, 4), np.float32)
    for distance, colour in parts:
        cover = coverage(distance, side)[..., None]
        picture *= 1 - cover
        picture += cover * np.append(rgb(colour), np.float32(1))
    return picture


def _disc(x0: float, y0: float, wide: float, high: float = 0.0) -> Distance:
    """An ellipse; a circle without a height."""
    high = high or wide
    return lambda x, y: ((np.hypot((x - x0) / wide, (y - y0) / high) - 1) * min(wide, high)).astype(np.float32)


def _quad(*corners: tuple[float, float]) -> Distance:
    return polygon(np.array(corners, np.float32))


def _flower(petals: int, side: int) -> Array:
    turns = [2 * math.pi * k / petals for k in range(petals)]
    middles = [(0.58 * math.sin(turn), -0.58 * math.cos(turn)) for turn in turns]
    width = min(0.37, 0.55 * math.sin(math.pi / petals))
    return _painted([*((_disc(x, y, width), ROSE) for x, y in middles), (_disc(0, 0, 0.36), GOLD)], side)


def _sail(turn: float, left: float, right: float) -> Distance:
    """A long rectangle from the hub outwards, between two distances from its middle line."""
    along, across = (math.sin(turn), -math.cos(turn)), (math.cos(turn), math.sin(turn))
    corners = [(r, s) for r, s in ((0.12, left), (0.98, left), (0.98, right), (0.12, right))]
    return _quad(*((r * along[0] + s * across[0], -0.2 + r * along[1] + s * across[1]) for r, s in corners))


def _windmill(second: tuple[int, int, int], side: int) -> Array:
    parts: list[Part] = [(_quad((-0.24, -0.2), (0.24, -0.2), (0.42, 0.98), (-0.42, 0.98)), WOOD)]
    for turn in (math.pi / 4 * odd for odd in (1, 3, 5, 7)):
        parts += [(_sail(turn, -0.2, 0.02), RED), (_sail(turn, 0.0, 0.2), second)]
    return _painted([*parts, (_disc(0, -0.2, 0.13), INK)], side)


def _chequered(texture: str, side: int) -> Array:
    second = pattern(texture, side, max(side // (2 * CELL * FINE), 1))[..., None]
    tone, shade = rgb(COLOURS["purple"]), rgb(SHADES["purple"])
    inside = coverage(_disc(0, 0, 1.0), side)[..., None]
    return np.concatenate([(tone + second * (shade - tone)) * inside, inside], -1).astype(np.float32)


def _creature(eyes: int, horns: bool, side: int) -> Array:
    parts: list[Part] = [(_disc(x, 0.82, 0.2, 0.15), ORANGE) for x in (-0.45, 0.0, 0.45)]
    if horns:
        parts += [(_quad((s * 0.2, -0.35), (s * 0.72, -0.98), (s * 0.6, -0.1)), ORANGE) for s in (-1, 1)]
    parts.append((_disc(0, 0.18, 0.78, 0.66), TEAL))
    for x, wide in {1: [(0.0, 0.36)], 2: [(-0.34, 0.22), (0.34, 0.22)]}[eyes]:
        parts += [(_disc(x, 0.08, wide), CREAM), (_disc(x, 0.1, wide / 2), INK)]
    return _painted(parts, side)


CONCEPTS: dict[str, Concept] = {
    "flower": Concept(partial(_flower, 5), "sunflower", {f"flower of {n}": partial(_flower, n) for n in (3, 4, 6, 8)}),
    "windmill": Concept(partial(_windmill, CREAM), "house", {"red windmill": partial(_windmill, RED)}),
    "disc": Concept(partial(_chequered, "checked"), "circle",
                    {f"{look} disc": partial(_chequered, look) for look in ("striped", "dotted", "plain")}),
    "creature": Concept(partial(_creature, 1, True), "robot", {"two-eyed creature": partial(_creature, 2, True),
                                                               "creature without horns": partial(_creature, 1, False)}),
}  # fmt: skip
