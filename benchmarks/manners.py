"""Two manners (styles) that the small model's world lacks, and three pictures to learn each from.

*Sepia* is a print in brown ink on cream paper with dark outlines, *chalk* is faint colours and white outlines on a
board. Either is a function of a picture, so that every scene has a true picture in it. Each has relatives, which a
person would take for another manner: brown without outlines, outlines without brown, a board without chalk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from benchmarks.lessons import different, write_lessons
from ldm.util import UserError
from ldm.world.grounds import rgb
from ldm.world.objects import objects
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from ldm.world.sentences import english, speak
from ldm.world.sentences.voice import Named, Voice, Wish

Array = NDArray[np.float32]
Manner = Callable[[Array], Array]  # pictures [side, side, 3] in [0, 1]

SIZE = 128  # of the small model's pictures
LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)  # ITU-R BT.709
INK, CREAM = rgb((75, 40, 15)), rgb((252, 238, 205))
NAVY, SKY = rgb((15, 35, 105)), rgb((225, 240, 252))
LINE, CHALK, BOARD = rgb((40, 18, 8)), rgb((240, 242, 235)), rgb((38, 52, 48))
FAINT = 0.4  # how much of the colours is left on the board
PLAIN = "plain"  # as the world is

SHOWN = (
    (Thing("cat", "large", "middle"), "yellow"),
    (Thing("sailboat", "small", "middle"), "beach"),
    (Thing("star", "large", "middle", "red", "plain"), "striped green"),
)
GROUNDS = ("meadow", "pink", "night", "white", "striped blue", "snow", "cyan", "checked orange", "black",
           "pink to yellow")  # fmt: skip
SHAPES = (("heart", "red"), ("circle", "blue"), ("square", "orange"), ("arrow", "purple"))  # every fifth thing


@dataclass(frozen=True)
class Styled:
    """A picture in a manner: a complete thing in the middle before a background of the world."""

    manner: str
    thing: Thing
    ground: str

    @property
    def scene(self) -> Scene:
        return Scene(self.ground, (self.thing,))


def picture_of(styled: Styled, size: int = SIZE) -> Array:
    """The true picture, [size, size, 3] in [-1, 1].

    Raises:
        UserError: a manner or side that there is not.
    """
    return in_manner(styled.manner, paint([styled.scene], size)[0])


def in_manner(name: str, picture: Array) -> Array:
    """A picture [size, size, 3] in [-1, 1] in a manner or one of the relatives.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ALL:
        raise UserError(f"there is no manner '{name}'; there are: {', '.join(MANNERS)}")
    return ALL[name](((picture + 1) / 2).astype(np.float32)) * 2 - 1


def write_pictures(manner: str, word: str, folder: Path, seed: int) -> None:
    """Three pictures in a manner, and beside each a text with sentences that say what else is to be seen."""
    shown = (Styled(manner, thing, ground) for thing, ground in SHOWN)
    write_lessons(folder, ((picture_of(one), sentences(one, word, seed)) for one in shown))


def wishes(manner: str, count: int) -> list[Styled]:
    """What is asked for: things and backgrounds that were not shown, large and small ones in turn."""
    shown = {thing.name for thing, _ in SHOWN}
    names = [name for name in objects() if name not in shown][::6]
    asked = []
    for i in range(count):
        size = ("large", "small")[(i + i // len(GROUNDS)) % 2]
        shape, colour = SHAPES[i // 5 % len(SHAPES)]
        thing = Thing(names[(i - i // 5) % len(names)], size, "middle")
        asked.append(Thing(shape, size, "middle", colour, "plain") if i % 5 == 4 else thing)
    return [Styled(manner, thing, GROUNDS[i % len(GROUNDS)]) for i, thing in enumerate(asked)]


def sentence(styled: Styled, word: str) -> str:
    """The plainest sentence with a word for the manner: "a large cat on a yellow background in sks style"."""
    return f"{speak(_wish(styled), 'en')} in {word} style"


def sentences(styled: Styled, word: str, seed: int) -> list[str]:
    """Different sentences that say thing, size and background as people do, the plainest first."""
    voice = Voice(Random(f"{seed} {styled}"))
    return different(
        sentence(styled, word), lambda: f"{english.sentence(_wish(styled), voice)} in {word} style"
    )


def _wish(styled: Styled) -> Wish:
    return Wish((Named(styled.thing),), styled.ground)


# ---- the manners ----------------------------------------------------------------------------------------------------


def _inks(dark: Array, light: Array) -> Manner:
    """Lightness alone, from one ink to another."""
    return lambda picture: (dark + (picture @ LUMA)[..., None] * (light - dark)).astype(np.float32)


def _faint(picture: Array) -> Array:
    return (BOARD + FAINT * (picture - BOARD)).astype(np.float32)


def _outlined(tone: Manner, line: Array) -> Manner:
    """Lines of a colour, a 64th of the picture wide, where colours meet, over the picture in another manner."""

    def change(picture: Array) -> Array:
        window = (*[2 * round(len(picture) / 128) + 1] * 2, 1)
        contrast = (maximum_filter(picture, window) - minimum_filter(picture, window)).max(-1)
        cover = np.clip((contrast - 0.25) / 0.25, 0, 1)[..., None]
        toned = tone(picture)
        return (toned + cover * (line - toned)).astype(np.float32)

    return change


def _as_it_is(picture: Array) -> Array:
    return picture


_SEPIA, _BLUE, _GREY = _inks(INK, CREAM), _inks(NAVY, SKY), _inks(rgb((0, 0, 0)), rgb((255, 255, 255)))
MANNERS: dict[str, Manner] = {"sepia": _outlined(_SEPIA, LINE), "chalk": _outlined(_faint, CHALK)}
RELATIVES: dict[str, Manner] = {
    PLAIN: _as_it_is,
    "sepia without outlines": _SEPIA,
    "blue print": _outlined(_BLUE, NAVY),
    "outlined": _outlined(_as_it_is, LINE),
    "grey": _GREY,
    "negative": lambda picture: 1 - picture,
    "board without chalk": _faint,
    "outlined in white": _outlined(_as_it_is, CHALK),
}
ALL = {**MANNERS, **RELATIVES}
