"""Sentences about scenes as people write them: in three languages, in many ways, with much left open.

What a sentence leaves open is drawn at random in its picture, except for two things that go without saying: an unsaid
place is the middle, and an unsaid texture is plain.
"""

from __future__ import annotations

import random
from dataclasses import replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ldm.draws import choose
from ldm.util import UserError
from ldm.world.objects import objects
from ldm.world.scene import PAIRS, Scene, Thing
from ldm.world.sentences import chinese, english, korean
from ldm.world.sentences.voice import USUAL, Named, Voice, Wish

LANGUAGES: dict[str, ModuleType] = {"en": english, "ko": korean, "zh": chinese}

OPEN_GROUND, OPEN_COLOUR, OPEN_SIZE = 0.12, 0.12, 0.5
SAY_MIDDLE, SAY_PLAIN, SAY_OWN_COLOUR = 0.08, 0.08, 0.12
ASIDE = 0.4  # share of pairs side by side whose relation is 'and' or 'next to'


def language_called(name: str) -> ModuleType:
    """The language called 'en', 'ko' or 'zh'.

    Raises:
        UserError: another name.
    """
    if name not in LANGUAGES:
        raise UserError(f"the sentences know no language '{name}'; they know: {', '.join(LANGUAGES)}")
    return LANGUAGES[name]


def languages_of(language: str, seed: int, numbers: NDArray[np.int64]) -> list[str]:
    """The language of each item [N]: the one asked for, or one of the three where 'mixed' is."""
    if language != "mixed":
        return [language] * len(numbers)
    names = tuple(LANGUAGES)
    return [names[i] for i in choose(seed, numbers, "language", len(names))]


def say(scene: Scene, language: str, rng: random.Random | None = None) -> str:
    """A sentence about a scene; without a generator the plainest one, which says everything that can vary.

    Raises:
        UserError: an unknown language.
    """
    return speak(wish_for(scene, rng), language, rng)


def speak(wish: Wish, language: str, rng: random.Random | None = None) -> str:
    """A sentence that says all of a wish and nothing else.

    Raises:
        UserError: an unknown language.
    """
    speech = language_called(language)
    voice = Voice(rng, getattr(speech, "USUAL", USUAL))
    return str(speech.finish(speech.sentence(wish, voice), voice))


def wish_for(scene: Scene, rng: random.Random | None = None) -> Wish:
    """What a sentence about a scene says; the rest is left open."""
    voice = Voice(rng)
    ground = None if voice.chance(OPEN_GROUND) else scene.ground
    if len(scene.things) == 2:
        things = tuple(_said(thing, voice, pair=True) for thing in scene.things)
        return Wish(things, ground, scene.relation, scene.relation == "left of" and voice.chance(ASIDE))
    return Wish((_said(scene.things[0], voice, pair=False),), ground)


def asked(wish: Wish) -> Scene:
    """The scene that a wish asks for, with None where it leaves something open; two things 'side by side' have no
    places."""
    things = tuple(named.thing for named in wish.named)
    if wish.relation and not wish.aside:
        things = tuple(replace(thing, place=place) for thing, place in zip(things, PAIRS[wish.relation], strict=True))
    return Scene(wish.ground, things)


def _said(thing: Thing, voice: Voice, pair: bool) -> Named:
    said = thing
    unsaid_place = thing.place == "middle" and not voice.chance(SAY_MIDDLE)
    if pair or unsaid_place:
        said = replace(said, place=None)
    if pair or voice.chance(OPEN_SIZE) or (voice.rng is None and thing.place != "middle"):
        said = replace(said, size=None)
    if thing.is_shape:
        if voice.chance(OPEN_COLOUR):
            said = replace(said, colour=None)
        if thing.texture == "plain" and not voice.chance(SAY_PLAIN):
            said = replace(said, texture=None)
        return Named(said)
    colour = objects()[thing.name].colour
    return Named(said, colour if voice.chance(SAY_OWN_COLOUR) else None)


def figure_wish(kind: str, texture: str, tones: tuple[str, str], ground: str, rng: random.Random) -> Wish:
    """What a sentence says about a figure without a name: its kind, its pattern and the nearest colours."""
    thing = Thing("circle", texture=texture)  # only the texture is said
    return Wish((Named(thing, tones=tones, figure=kind),), None if rng.random() < OPEN_GROUND else ground)
