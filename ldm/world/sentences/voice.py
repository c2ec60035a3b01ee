"""What all languages' sentences share: choices, what a sentence leaves open, and the slips of people who type."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ldm.world.objects import objects
from ldm.world.scene import Thing

USUAL = 0.45  # share of choices that take the first, most usual way to say it
Words = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Voice:
    """Somebody who chooses words; without a generator they choose the most usual ones."""

    rng: random.Random | None
    usual: float = USUAL

    def pick(self, ways: Sequence[str]) -> str:
        """One of the ways to say something; the first is the most usual."""
        if self.rng is None or self.rng.random() < self.usual:
            return ways[0]
        return self.rng.choice(ways)

    def any(self, ways: Sequence[str]) -> str:
        """One of the ways, all as likely."""
        return ways[0] if self.rng is None else self.rng.choice(ways)

    def shuffled(self, parts: Sequence[str]) -> list[str]:
        """Parts in any order."""
        return list(parts) if self.rng is None else self.rng.sample(list(parts), len(parts))

    def chance(self, share: float) -> bool:
        """True in this share of calls, between 0 and 1; never without a generator."""
        return self.rng is not None and self.rng.random() < share


@dataclass(frozen=True)
class Named:
    """One thing in a sentence: what is said of it, and the colour that is named although it goes without saying."""

    thing: Thing  # None is unsaid
    own_colour: str | None = None
    tones: tuple[str, str] | None = None  # two colours of a figure without a name
    figure: str | None = None  # its kind: 'polygon', ...
    slot: str | None = None  # stands for its name: a word that is learned later


@dataclass(frozen=True)
class Wish:
    """All that a sentence says."""

    named: tuple[Named, ...]
    ground: str | None  # None is unsaid
    relation: str | None = None  # of two things
    aside: bool = False  # the relation is said as 'beside' or 'and': which is left is the order in the sentence


def without(named: Named, *unsaid: str) -> Named:
    """A thing of which some is left out here: 'size', 'colour', 'texture'."""
    thing = named.thing
    kept = Thing(
        thing.name,
        None if "size" in unsaid else thing.size,
        thing.place,
        None if "colour" in unsaid else thing.colour,
        None if "texture" in unsaid else thing.texture,
    )
    return replace(named, thing=kept, own_colour=None if "colour" in unsaid else named.own_colour)


def pose(named: Named) -> str:
    """The row of a language's POSES that a thing has."""
    if named.thing.is_shape or named.slot or named.figure:
        return "shape"
    return objects()[named.thing.name].pose


def with_slip(text: str, rng: random.Random) -> str:
    """The text with one plausible typing error in a word of five letters or more: swapped, doubled or lost letters."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isascii() and word.isalpha()]
    if not long:
        return text
    i = rng.choice(long)
    word, at, slip = words[i], rng.randrange(1, len(words[i]) - 2), rng.randrange(3)
    if slip == 0:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif slip == 1:
        word = word[:at] + word[at] + word[at:]
    else:
        word = word[:at] + word[at + 1 :]
    words[i] = word
    return " ".join(words)
