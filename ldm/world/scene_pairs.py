"""Sentences about scenes with the plainest English of the same, for an aligner to learn from.

The English side says what the other says and nothing else, in the words and the order that the text-to-image model
knows best. A slot, "*" or "@", stands in both sentences for a word that is learned later. A few of the foreign
sentences have a word without meaning in them, so that words that nobody thought of are learned to be passed over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ldm.languages import what_is_wrong
from ldm.world.draw_scenes import Shares
from ldm.world.photos import PHOTOS
from ldm.world.photos import TEMPLATES as PHOTO_TEMPLATES
from ldm.world.scene import Scene, Split
from ldm.world.scenes import SceneWorld
from ldm.world.sentences import speak, wish_for
from ldm.world.sentences.voice import Wish

SLOTS = ("*", "@")
SYLLABLES = {
    "ko": "가나다라마바사아자차카타파하거너더러머버서어저처커고노도로모보소오조초코토구누두루무부수우주추",
    "zh": "啊呀嘛的了是我你他们这那就也都还又很来去把给让会能可以么什怎样些再已经正真其实好吧呢",
}
SHARES = {"ko": 0.42, "zh": 0.42, "en": 0.16}
SLOTTED, PHOTOGRAPHS, STRAY = 0.3, 0.06, 0.08
TOGETHER = 256  # scenes that are drawn at once


@dataclass(frozen=True)
class Pair:
    """A sentence, its language ('en', 'ko' or 'zh') and its translation."""

    language: str
    source: str
    english: str


def scene_pairs(
    n: int, split: Split = "train", seed: int = 0, shapes: float = Shares.shapes, two: float = Shares.two
) -> Iterator[Pair]:
    """``n`` pairs about the scenes of a split, each a function of (seed, its number).

    ``shapes`` of the things are geometric ones, ``two`` of the scenes have two things.
    """
    world = SceneWorld(split, length=max(n, 1), seed=seed, shapes=shapes, two=two, figures=0.0)
    for first in range(0, n, TOGETHER):
        numbers = range(first, min(first + TOGETHER, n))
        for number, scene in zip(numbers, world.contents(numbers), strict=True):
            rng = random.Random(seed * 1_000_003 + number)
            language = rng.choices(list(SHARES), list(SHARES.values()))[0]
            if rng.random() < PHOTOGRAPHS:
                yield photograph_pair(rng, language)
            elif isinstance(scene, Scene):
                yield _about(scene, language, rng)


def _about(scene: Scene, language: str, rng: random.Random) -> Pair:
    wish = wish_for(scene, rng)
    if rng.random() < SLOTTED:
        slotted = _with_slot(wish, rng)
        source = speak(slotted, language, rng)
        if what_is_wrong(source, language) is None and any(letter.isalpha() for letter in source):
            return Pair(language, source, speak(slotted, "en"))  # "*, 4k" is in no language
    source = speak(wish, language, rng)
    if what_is_wrong(source, language) is not None:  # 'red circle' in a Korean mouth
        source = speak(wish, language)
    if language in SYLLABLES and rng.random() < STRAY:
        source = with_stray_word(source, language, rng)
    return Pair(language, source, speak(wish, "en"))


def with_stray_word(text: str, language: str, rng: random.Random) -> str:
    """The sentence with two or three syllables of no meaning (in a pair of a thousand they make a word after all):
    between two words, or at an end where there are no spaces."""
    stray = "".join(rng.choices(SYLLABLES[language], k=rng.randint(2, 3)))
    words = text.split(" ")
    words.insert(rng.randint(0, len(words)), stray)
    return (" " if language == "ko" or len(words) > 2 else "").join(words)


def _with_slot(wish: Wish, rng: random.Random) -> Wish:
    """A slot in place of one thing's name, and of some of what is said about it."""
    chosen = rng.randrange(len(wish.named))
    named = wish.named[chosen]
    thing = named.thing
    if rng.random() < 0.6:
        thing = replace(thing, colour=None, texture=None)
    slotted = replace(named, thing=thing, own_colour=None, slot=rng.choice(SLOTS))
    return replace(wish, named=(*wish.named[:chosen], slotted, *wish.named[chosen + 1 :]))


def photograph_pair(rng: random.Random, language: str) -> Pair:
    """A photograph's caption, or that of something that only a slot names."""
    template = rng.randrange(3)
    subjects = rng.choice(PHOTOS).subjects
    if rng.random() < 0.3:
        slot = rng.choice(SLOTS)
        subjects = {"en": f"a {slot}", "ko": slot, "zh": rng.choice((slot, f"一个{slot}"))}
    english = PHOTO_TEMPLATES["en"][max(template, 1)]  # 'photograph' is a 'photo' in both other languages
    source = PHOTO_TEMPLATES[language][template].format(subjects[language])
    return Pair(language, source, english.format(subjects["en"]))
