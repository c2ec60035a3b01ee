"""Captions in three languages: what they say is what is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.attributes import COLOURS, VALUES, Attributes, combinations
from ldm.world.captions import LANGUAGES, caption, parse
from ldm.world.render import render


@pytest.mark.parametrize(
    ("attributes", "sentences"),
    [
        (
            Attributes("star", "red", "blue", "small", "striped"),
            (
                "a small red striped star on a blue background",
                "파란색 배경 위의 작은 빨간색 줄무늬 별",
                "蓝色背景上的一颗小的红色条纹星星",
            ),
        ),
        (
            Attributes("circle", "orange", "white"),
            ("an orange circle on a white background", "흰색 배경 위의 주황색 원", "白色背景上的一个橙色圆形"),
        ),
    ],
)
def test_the_usual_sentences(attributes: Attributes, sentences: tuple[str, str, str]) -> None:
    assert tuple(caption(attributes, language) for language in ("en", "ko", "zh")) == sentences


@pytest.mark.parametrize(
    "sentence",
    [
        "a big turquoise spotted crescent in front of an orange background",
        "A large plain black diamond on a pink background.",
        "there is an orange heart on a white background",
        "small violet square, yellow background",
        "별이 있는 파란 배경",
    ],
)
def test_the_parser_reads_free_variants(sentence: str) -> None:
    if sentence.startswith("별"):
        with pytest.raises(UserError, match="not a caption"):
            parse(sentence)  # a colour is never left out
    else:
        assert parse(sentence).agrees(parse(sentence.lower()))


def test_particles_follow_the_last_syllable() -> None:
    found = {caption(Attributes("star", "red", "blue"), "ko", v) for v in range(1, 200)}
    found |= {caption(Attributes("heart", "red", "blue"), "ko", v) for v in range(1, 200)}
    assert any("별이 있" in text for text in found) and any("하트가 있" in text for text in found)
    assert not any("별가" in text or "하트이" in text for text in found)


def test_articles_follow_the_first_letter() -> None:
    for variant in range(1, 200):
        text = caption(Attributes("star", "orange", "green"), "en", variant)
        assert "a orange" not in text and "an green" not in text and "a an" not in text


def test_three_captions_of_one_picture_draw_that_picture() -> None:
    for number, item in enumerate(combinations()[::3]):
        pictures = []
        for language in LANGUAGES:
            said = parse(caption(item, language, number))
            assert said == parse(caption(item, language, number), language) == item
            pictures.append(render([said], 32))
        expected = render([item], 32)
        assert all(np.array_equal(picture, expected) for picture in pictures)


def test_an_open_size_stays_open_and_plain_need_not_be_said() -> None:
    item = Attributes("moon", "cyan", "black", None, "plain")
    for language in LANGUAGES:
        texts = {caption(item, language, variant) for variant in range(100)}
        assert {parse(text) for text in texts} == {item}
        plain = LANGUAGES[language].forms["texture"]["plain"][0]
        assert any(plain in text for text in texts) and not all(plain in text for text in texts)


def test_languages_correspond() -> None:
    counts = {len(language.templates) for language in LANGUAGES.values()}
    assert len(counts) == 1
    for language in LANGUAGES.values():
        for attribute in ("shape", "colour", "size", "texture"):
            assert tuple(language.forms[attribute]) == VALUES[attribute]
            words = [word for forms in language.forms[attribute].values() for word in forms]
            assert len(words) == len(set(words))


def test_all_templates_and_words_occur() -> None:
    for language, speech in LANGUAGES.items():
        texts = [caption(item, language, v) for v, item in enumerate(combinations()[::2], 1)]
        for values in speech.forms.values():
            for words in values.values():
                assert all(any(word in text for text in texts) for word in words)


def test_what_is_no_caption_is_refused() -> None:
    with pytest.raises(UserError, match="'a cat' is not a caption of the rendered world"):
        parse("a cat")
    with pytest.raises(UserError, match="cannot be seen"):
        parse("a red star on a red background")
    with pytest.raises(UserError, match="no language 'fr'; they know: en, ko, zh"):
        caption(combinations()[0], "fr")


def test_every_field_of_the_attributes_is_said() -> None:
    item = Attributes("star", "red", "blue", "small", "striped")
    for field in dataclasses.fields(item):
        other = next(v for v in VALUES[field.name] if v != getattr(item, field.name) and v not in ("red", "blue"))
        changed = dataclasses.replace(item, **{field.name: other})
        assert all(caption(changed, language) != caption(item, language) for language in LANGUAGES)
    assert len(COLOURS) == 10
