"""Attributes to sentences and back, in English, Korean and Chinese, from one grammar.

A sentence is a template around an object's noun phrase and a background. Templates and words of the languages
correspond one to one. An object whose texture is unsaid is plain; one whose size is unsaid may have any.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from ldm.util import UserError
from ldm.world.attributes import VALUES, Attributes

SAY_PLAIN = 0.3  # share of plain objects whose caption says so
FIRST_FORM = 0.7  # share of words that take their most usual form
FIRST_TEMPLATE = 0.4  # share of sentences in the shortest template

Forms = Mapping[str, Mapping[str, tuple[str, ...]]]
Words = dict[str, str]  # attribute -> word; what is unsaid is absent


@dataclass(frozen=True)
class Language:
    """One language: its words, and the phrases that its templates are made of."""

    forms: Forms  # attribute -> value -> words, the most usual first
    templates: tuple[str, ...]
    phrases: Callable[[Words], dict[str, str]]  # words -> the templates' fields
    patterns: Mapping[str, str]  # field -> regular expression with one group an attribute


def _either(forms: Forms, attribute: str) -> str:
    words = [word for value in forms[attribute].values() for word in value]
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def _object_pattern(forms: Forms, gap: str) -> str:
    """size? texture? colour texture? shape: 'plain' stands before the colour in some languages."""
    size, texture, colour, shape = (_either(forms, name) for name in ("size", "texture", "colour", "shape"))
    return (
        f"(?:(?P<size>{size}){gap})?(?:(?P<texture>{texture}){gap})?(?P<colour>{colour}){gap}"
        f"(?:(?P<pattern>{texture}){gap})?(?P<shape>{shape})"
    )


_EN: Forms = {
    "shape": {
        "circle": ("circle",),
        "square": ("square",),
        "triangle": ("triangle",),
        "diamond": ("diamond",),
        "star": ("star",),
        "heart": ("heart",),
        "cross": ("cross",),
        "moon": ("moon", "crescent"),
    },
    "colour": {
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
        "black": ("black",),
        "white": ("white",),
    },
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "texture": {"plain": ("plain",), "striped": ("striped",), "dotted": ("dotted", "spotted")},
}
_KO: Forms = {
    "shape": {
        "circle": ("원", "동그라미"),
        "square": ("정사각형", "네모"),
        "triangle": ("삼각형", "세모"),
        "diamond": ("마름모",),
        "star": ("별",),
        "heart": ("하트",),
        "cross": ("십자가",),
        "moon": ("초승달",),
    },
    "colour": {
        "red": ("빨간색", "빨간"),
        "orange": ("주황색",),
        "yellow": ("노란색", "노란"),
        "green": ("초록색", "녹색"),
        "cyan": ("청록색",),
        "blue": ("파란색", "파란"),
        "purple": ("보라색",),
        "pink": ("분홍색",),
        "black": ("검은색", "검은"),
        "white": ("흰색", "하얀"),
    },
    "size": {"small": ("작은",), "large": ("큰", "커다란")},
    "texture": {"plain": ("민무늬",), "striped": ("줄무늬",), "dotted": ("물방울무늬", "점무늬")},
}
_ZH: Forms = {
    "shape": {
        "circle": ("圆形",),
        "square": ("正方形",),
        "triangle": ("三角形",),
        "diamond": ("菱形",),
        "star": ("星星", "五角星"),
        "heart": ("爱心", "心形"),
        "cross": ("十字", "十字形"),
        "moon": ("月牙",),
    },
    "colour": {
        "red": ("红色",),
        "orange": ("橙色",),
        "yellow": ("黄色",),
        "green": ("绿色",),
        "cyan": ("青色",),
        "blue": ("蓝色",),
        "purple": ("紫色",),
        "pink": ("粉色", "粉红色"),
        "black": ("黑色",),
        "white": ("白色",),
    },
    "size": {"small": ("小的",), "large": ("大的",)},
    "texture": {"plain": ("无花纹的",), "striped": ("条纹",), "dotted": ("波点", "圆点")},
}


def _join(words: Words, gap: str, *, plain_first: bool, plain: str) -> str:
    order = ["size", "colour", "texture", "shape"]
    if plain_first and words.get("texture") == plain:
        order = ["size", "texture", "colour", "shape"]
    return gap.join(words[name] for name in order if name in words)


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _english(words: Words) -> dict[str, str]:
    bare = _join(words, " ", plain_first=True, plain="plain")
    ground = f"{words['background']} background"
    return {"object": _article(bare), "bare": bare, "ground": _article(ground), "bareground": ground}


def _korean(words: Words) -> dict[str, str]:
    bare = _join(words, " ", plain_first=False, plain="민무늬")
    closed = (ord(bare[-1]) - ord("가")) % 28 != 0  # the last syllable ends in a consonant: 이, else 가
    return {"object": bare, "subject": bare + ("이" if closed else "가"), "ground": f"{words['background']} 배경"}


def _chinese(words: Words) -> dict[str, str]:
    bare = _join(words, "", plain_first=True, plain="无花纹的")
    classifier = "一颗" if words["shape"] in ("星星", "五角星", "爱心") else "一个"
    return {"object": classifier + bare, "bare": bare, "ground": f"{words['background']}背景"}


_EN_OBJECT, _KO_OBJECT, _ZH_OBJECT = _object_pattern(_EN, " "), _object_pattern(_KO, " "), _object_pattern(_ZH, "")
_EN_GROUND = f"(?P<background>{_either(_EN, 'colour')}) background"

LANGUAGES: dict[str, Language] = {
    "en": Language(
        forms=_EN,
        templates=(
            "{object} on {ground}",
            "a picture of {object} on {ground}",
            "{object} in front of {ground}",
            "{ground} with {object}",
            "{bare}, {bareground}",
            "there is {object} on {ground}",
        ),
        phrases=_english,
        patterns={
            "object": f"an? {_EN_OBJECT}",
            "bare": _EN_OBJECT,
            "ground": f"an? {_EN_GROUND}",
            "bareground": _EN_GROUND,
        },
    ),
    "ko": Language(
        forms=_KO,
        templates=(
            "{ground} 위의 {object}",
            "{ground} 위의 {object} 그림",
            "{ground} 앞의 {object}",
            "{subject} 있는 {ground}",
            "{object}, {ground}",
            "{ground}에 {subject} 있다",
        ),
        phrases=_korean,
        patterns={
            "object": _KO_OBJECT,
            "subject": f"{_KO_OBJECT}[이가]",
            "ground": f"(?P<background>{_either(_KO, 'colour')}) 배경",
        },
    ),
    "zh": Language(
        forms=_ZH,
        templates=(
            "{ground}上的{object}",
            "一张{ground}上有{object}的图片",
            "{ground}前的{object}",
            "有{object}的{ground}",
            "{bare}，{ground}",
            "{ground}上有{object}",
        ),
        phrases=_chinese,
        patterns={
            "object": f"一[个颗]{_ZH_OBJECT}",
            "bare": _ZH_OBJECT,
            "ground": f"(?P<background>{_either(_ZH, 'colour')})背景",
        },
    ),
}


def language_of(name: str) -> Language:
    """The language called 'en', 'ko' or 'zh'.

    Raises:
        UserError: another name.
    """
    if name not in LANGUAGES:
        raise UserError(f"the captions know no language '{name}'; they know: {', '.join(LANGUAGES)}")
    return LANGUAGES[name]


def caption(attributes: Attributes, language: str = "en", variant: int = 0) -> str:
    """Say what is in a picture.

    Args:
        attributes: a size of None is left unsaid.
        language: 'en', 'ko' or 'zh'.
        variant: 0 takes the first template and the most usual words, and leaves plain unsaid; any other number is a
            seed that chooses among all of them (the same template in every language).
    """
    speech = language_of(language)
    rng = random.Random(variant)
    template, say_plain = rng.random(), rng.random()
    words: Words = {}
    for attribute in VALUES:
        value, draw, form = getattr(attributes, attribute), rng.random(), rng.random()
        unsaid = value is None or (value == "plain" and (variant == 0 or say_plain >= SAY_PLAIN))
        if not unsaid:
            forms = speech.forms["colour" if attribute == "background" else attribute][value]
            words[attribute] = forms[0 if variant == 0 or draw < FIRST_FORM else int(form * len(forms))]
    number = 0
    if variant != 0 and template >= FIRST_TEMPLATE:
        number = 1 + int((template - FIRST_TEMPLATE) / (1 - FIRST_TEMPLATE) * (len(speech.templates) - 1))
    return speech.templates[number].format_map(speech.phrases(words))


def parse(text: str, language: str | None = None) -> Attributes:
    """Read a caption of the world back; None as the language tries all of them.

    Raises:
        UserError: the sentence is not one of the grammar's, or says something that the world does not have.
    """
    line = " ".join(text.split()).rstrip(".。")
    for name in [language] if language else list(LANGUAGES):
        for expression in _expressions(name):
            match = expression.fullmatch(line)
            if match:
                return _attributes(match.groupdict(), language_of(name).forms)
    raise UserError(
        f"'{text}' is not a caption of the rendered world; one is 'a small red striped star on a blue background'"
    )


@cache
def _expressions(language: str) -> tuple[re.Pattern[str], ...]:
    speech = language_of(language)
    expressions = []
    for template in speech.templates:
        parts = string.Formatter().parse(template)
        regex = "".join(re.escape(text) + (speech.patterns[field] if field else "") for text, field, _, _ in parts)
        expressions.append(re.compile(regex, re.IGNORECASE))
    return tuple(expressions)


def _attributes(groups: Mapping[str, str | None], forms: Forms) -> Attributes:
    said = {name: word for name, word in groups.items() if word is not None}
    if "pattern" in said:
        said["texture"] = said.pop("pattern")
    values = {}
    for attribute, word in said.items():
        table = forms["colour" if attribute == "background" else attribute]
        values[attribute] = next(value for value, words in table.items() if word.lower() in words)
    return Attributes(**values)
