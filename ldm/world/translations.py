"""Sentences about the rendered world with their English translations, for an aligner to learn from.

The grammar is that of ``ldm.world.captions``, a little wider: further ways to say the same in Korean and Chinese,
sentences that mix languages, and slots. A slot, "*" or "@", stands in both sentences for a word that is learned later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ldm.world.attributes import VALUES, Attributes, Split, combinations
from ldm.world.captions import LANGUAGES, language_of
from ldm.world.photos import PHOTOS
from ldm.world.photos import TEMPLATES as PHOTO_TEMPLATES

SLOTS = ("*", "@")
SHARES = {"ko": 0.4, "zh": 0.4, "mixed": 0.15, "en": 0.05}
OPEN_SIZE, SAY_PLAIN, USUAL_FORM = 0.35, 0.15, 0.6
TRANSLATED_WORD = 0.4  # share of English words in a mixed sentence
SLOTTED, PHOTOGRAPHS = 0.4, 0.1
BESIDE_CHINESE = "(?<=[\u4e00-\u9fff]) | (?=[\u4e00-\u9fff])"  # spaces that may be left out

# template number -> other ways to say it; the last number is an object alone
MORE: dict[str, dict[int, tuple[str, ...]]] = {
    "en": {6: ("{object}",)},
    "ko": {
        0: ("{ground}에 {object}", "{ground} 위 {object}", "{ground}에 있는 {object}"),
        1: ("{ground}에 {object} 그림", "{ground} 위에 있는 {object} 그림"),
        5: ("{ground} 위에 {subject} 있다", "{ground} 위에 {subject} 있습니다", "{ground}에 {subject} 있습니다"),
        6: ("{object}",),
    },
    "zh": {
        0: ("{ground}上的{bare}", "{ground}上{object}", "在{ground}上的{object}", "{ground}，{object}"),
        1: ("{ground}上有{object}的图片", "一张{ground}上有{bare}的图片"),
        2: ("在{ground}前的{object}", "{ground}前的{bare}"),
        3: ("有{bare}的{ground}",),
        5: ("在{ground}上有{object}", "{ground}上有{bare}"),
        6: ("{object}", "{bare}"),
    },
}


@dataclass(frozen=True)
class Pair:
    """A sentence, its language ('en', 'ko', 'zh' or 'mixed') and its translation."""

    language: str
    source: str
    english: str


def world_pairs(n: int, split: Split = "train", seed: int = 0) -> Iterator[Pair]:
    """``n`` pairs about the combinations of a split, each a function of (seed, its number)."""
    known = combinations(split)
    for number in range(n):
        rng = random.Random(seed * 1_000_003 + number)
        language = rng.choices(list(SHARES), list(SHARES.values()))[0]
        if rng.random() < PHOTOGRAPHS:
            yield photograph_pair(rng, language)
        else:
            yield _about(rng, language, rng.choice(known))


def photograph_pair(rng: random.Random, language: str) -> Pair:
    """A photograph's caption, or that of something that only a slot names."""
    speech = rng.choice(("ko", "zh")) if language == "mixed" else language
    template = rng.randrange(3)
    subjects = rng.choice(PHOTOS).subjects
    if rng.random() < 0.3:
        slot = rng.choice(SLOTS)
        subjects = {"en": f"a {slot}", "ko": slot, "zh": rng.choice((slot, f"一个{slot}"))}
    english = PHOTO_TEMPLATES["en"][max(template, 1)]  # 'photograph' is a 'photo' in both other languages
    return Pair(speech, PHOTO_TEMPLATES[speech][template].format(subjects[speech]), english.format(subjects["en"]))


def _about(rng: random.Random, language: str, attributes: Attributes) -> Pair:
    foreign = rng.choice(("ko", "zh")) if language == "mixed" else language
    said = _said(rng, attributes)
    english = {name: LANGUAGES["en"].forms[_kind(name)][value][0] for name, value in said.items()}
    source = {name: _word(rng, foreign, name, value) for name, value in said.items()}
    if language == "mixed":
        source |= {name: f" {word} " for name, word in english.items() if rng.random() < TRANSLATED_WORD}
    if rng.random() < SLOTTED:
        _put_slots(rng, source, english)
    number = rng.randrange(len(LANGUAGES["en"].templates) + 1)
    text = _say(rng, foreign, number, source)
    if foreign == "ko" and rng.random() < 0.15:
        text = text.replace("배경", "바탕")
    return Pair(language, text, _say(rng, "en", number, english))


def _said(rng: random.Random, attributes: Attributes) -> dict[str, str]:
    said = {name: getattr(attributes, name) for name in VALUES}
    if rng.random() < OPEN_SIZE:
        del said["size"]
    if said["texture"] == "plain" and rng.random() >= SAY_PLAIN:
        del said["texture"]
    return said


def _kind(attribute: str) -> str:
    return "colour" if attribute == "background" else attribute


def _word(rng: random.Random, language: str, attribute: str, value: str) -> str:
    forms = LANGUAGES[language].forms[_kind(attribute)][value]
    return forms[0] if rng.random() < USUAL_FORM else rng.choice(forms)


def _put_slots(rng: random.Random, source: dict[str, str], english: dict[str, str]) -> None:
    """A slot in place of the shape, and of some of what is said about it; sometimes another for the background."""
    first, second = rng.sample(SLOTS, 2)
    unsaid = {"shape"} | {name for name in ("colour", "texture", "size") if rng.random() < 0.6}
    for words in (source, english):
        for name in unsaid & words.keys():
            del words[name]
        words["shape"] = first
    if rng.random() < 0.2:
        source["background"] = english["background"] = second


def _say(rng: random.Random, language: str, number: int, words: dict[str, str]) -> str:
    speech = language_of(language)
    usual = speech.templates[number : number + 1]
    more = MORE[language].get(number, ())
    template = usual[0] if usual and (not more or rng.random() < 0.6) else rng.choice(more)
    fields = speech.phrases(words)
    if language == "ko" and words["shape"].strip().isascii():
        fields["subject"] = fields["object"].rstrip() + rng.choice("이가")
    if language == "zh" and rng.random() < 0.2:
        fields["object"] = fields["object"].replace("一颗", "一个")
    text = " ".join(template.format_map(fields).split())
    return re.sub(BESIDE_CHINESE, "", text) if rng.random() < 0.5 else text
