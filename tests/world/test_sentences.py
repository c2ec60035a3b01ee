"""Sentences about scenes: each says what its scene shows, nothing else, in many ways and three languages."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from string import Formatter
from types import ModuleType

import numpy as np
import pytest
from transformers import BertTokenizer

from ldm.languages import simplified
from ldm.shipped import TINY
from ldm.util import UserError
from ldm.world.objects import objects
from ldm.world.scene import GROUNDS, SHAPES, Scene, Thing
from ldm.world.scenes import SceneWorld
from ldm.world.sentences import LANGUAGES, chinese, chinese_templates, english, korean_templates, say, wish_for
from ldm.world.sentences.korean import Fields, with_particle
from ldm.world.sentences.voice import Named, Voice, Wish, with_slip
from ldm.world.vocabulary import english_vocabulary

SCENES = [c for c in SceneWorld(length=1200, seed=9, figures=0.0).contents(range(1200)) if isinstance(c, Scene)]


def said(language: str) -> Iterable[tuple[Wish, str]]:
    """Wishes and sentences about them, before slips and tags."""
    for number, scene in enumerate(SCENES):
        rng = random.Random(number)
        wish = wish_for(scene, rng)
        yield wish, LANGUAGES[language].sentence(wish, Voice(rng))


def mentions(text: str, forms: Iterable[str], language: str) -> bool:
    if language == "en":
        return any(re.search(rf"\b{re.escape(form.removeprefix('+'))}\b", text) for form in forms)
    return any(form in text for form in forms)


@pytest.mark.parametrize("language", ["en", "ko", "zh"])
def test_a_sentence_says_all_that_it_is_to_say(language: str) -> None:
    speech = LANGUAGES[language]
    noun_colours = getattr(speech, "NOUNS", speech.COLOURS)
    names = {
        name: (*thing.forms[language], thing.forms["en"][0].removeprefix("+")) for name, thing in objects().items()
    }
    for wish, text in said(language):
        for named in wish.named:
            thing = named.thing
            forms = speech.SHAPES[thing.name] if thing.is_shape else names[thing.name]
            short = [form[1:] for form in forms if language == "zh" and form[0] in "大小"]  # 大树 after 大
            assert mentions(text, [*forms, *short], language), (text, thing)
            colour = thing.colour or named.own_colour
            said_of_it = (
                (("SIZES", "SIZES_AFTER"), thing.size),
                (("TEXTURES", "TEXTURES_AFTER"), thing.texture),
                (("COLOURS", "NOUNS"), colour),
                (("PLACES", "PLACES_AFTER"), thing.place),
            )
            for tables, value in said_of_it:
                ways = [way for table in tables for way in getattr(speech, table, {}).get(value, ())]
                assert value is None or mentions(text, ways, language), (text, value)
        if wish.ground in speech.LANDSCAPES:
            ways = [*speech.LANDSCAPES[wish.ground], *getattr(speech, "IN_LANDSCAPES", {}).get(wish.ground, ())]
            bare = [re.sub("^(an|a|the) ", "", way) for way in ways]
            assert mentions(text, [*ways, *bare], language), (text, wish.ground)
        elif wish.ground:
            colour = GROUNDS[wish.ground].first
            assert mentions(text, [*speech.COLOURS[colour], *noun_colours[colour]], language), (text, wish.ground)


def test_an_english_sentence_says_nothing_else() -> None:
    names = {name: thing.forms["en"] for name, thing in objects().items()} | dict(english.SHAPES)
    sized = [word for words in english.SIZES.values() for word in words]
    for wish, text in said("en"):
        rest = text.replace("a small picture of", "")
        for named in wish.named:
            for form in sorted(names[named.thing.name], key=len, reverse=True):
                rest = re.sub(rf"\b{re.escape(form.removeprefix('+'))}\b", "", rest)
        for colours in english.COLOURS.values():
            for colour in colours:  # 'orange' is no fruit here
                rest = re.sub(rf"\b{colour}\b", "", rest)
        others = [form for forms in names.values() for form in forms]
        assert not mentions(rest, others, "en"), text
        assert mentions(rest, sized, "en") == any(named.thing.size for named in wish.named), text


def test_relations_are_said_the_right_way_round() -> None:
    cat, dog = Named(Thing("cat")), Named(Thing("dog"))
    dog_first = {"left of": ("to the right of", " right of"), "above": ("below", "under", "beneath")}
    for relation in ("left of", "above"):
        wish = Wish((cat, dog), None, relation)
        for number in range(300):
            text = english.sentence(wish, Voice(random.Random(number)))
            cat_at, dog_at = (re.search(rf"\b({'|'.join(objects()[n].forms['en'])})\b", text) for n in ("cat", "dog"))
            assert cat_at and dog_at
            turned = any(way in text for way in dog_first[relation]) and "top, " not in text
            assert (dog_at.start() < cat_at.start()) == turned, text
    assert LANGUAGES["ko"].RELATIONS["left of"][0].format_map(Fields(A="고양이", Z="개")) == "개 왼쪽에 있는 고양이"
    assert LANGUAGES["zh"].RELATIONS["above"][0].format(A="猫", Z="狗") == "狗上方的猫"


@pytest.mark.parametrize("language", ["en", "ko", "zh"])
def test_there_are_many_ways_to_say_the_same(language: str) -> None:
    speech = LANGUAGES[language]
    assert len({*speech.TEMPLATES, *getattr(speech, "PLAIN_TEMPLATES", ())}) >= 50
    wish = Wish((Named(Thing("star", "small", None, "red")),), "blue")
    ways = {speech.sentence(wish, Voice(random.Random(number))) for number in range(2000)}
    assert len(ways) > 600
    pair = Wish((Named(Thing("cat")), Named(Thing("dog"))), "meadow", "left of")
    assert len({speech.sentence(pair, Voice(random.Random(number))) for number in range(2000)}) > 600


@pytest.mark.parametrize("templates", [korean_templates, chinese_templates])
def test_every_template_has_a_place_for_all_that_is_to_say(templates: ModuleType) -> None:
    thing, ground, pair, place = "TB", "GNW", ("A", "Z"), "PQ"
    needed = {"TEMPLATES": (thing, ground), "OPEN_TEMPLATES": (thing,), "PLACED_TEMPLATES": (thing, ground, place),
              "FRAMES": ("C", ground), "PLAIN_FRAMES": ("C", ground), "LANDSCAPE_FRAMES": ("C", ground)}  # fmt: skip
    kinds = {"one": (thing,), "placed": (thing, place), "sized": (thing, "S"), "sized placed": (thing, "S", place)}
    tables = [(getattr(templates, name), fields) for name, fields in needed.items()]
    tables += [(ways, kinds.get(kind, pair)) for kind, ways in templates.CLAUSES.items()]
    tables += [(ways, pair) for ways in (*templates.RELATIONS.values(), templates.BESIDE)]
    for ways, fields in tables:
        assert len(ways) == len(set(ways))
        for way in ways:
            held = [name[0] for _, name, _, _ in Formatter().parse(way) if name]
            assert all(sum(held.count(letter) for letter in field) == 1 for field in fields), way


@pytest.mark.parametrize("language", ["en", "ko", "zh"])
def test_much_is_left_open(language: str) -> None:
    wishes = [wish_for(scene, random.Random(number)) for number, scene in enumerate(SCENES)]
    single = [wish for wish in wishes if len(wish.named) == 1]
    assert 0.08 < np.mean([wish.ground is None for wish in wishes]) < 0.17
    assert 0.4 < np.mean([wish.named[0].thing.size is None for wish in single]) < 0.62
    shapes = [wish.named[0].thing for wish in single if wish.named[0].thing.is_shape]
    assert 0.06 < np.mean([thing.colour is None for thing in shapes]) < 0.2
    for scene, wish in zip(SCENES, wishes, strict=True):
        if len(scene.things) == 1 and scene.things[0].place != "middle":
            assert wish.named[0].thing.place == scene.things[0].place  # only the middle goes without saying
        assert wish.relation == scene.relation


def test_the_plainest_sentences() -> None:
    star = Scene("blue", (Thing("star", "small", "middle", "red", "striped"),))
    apple = Scene("meadow", (Thing("apple", "small", "top left"),))
    pair = Scene("checked orange", (Thing("grapes", "small", "left"), Thing("car", "small", "right")))
    assert say(star, "en") == "a small red striped star on a blue background"
    assert say(apple, "en") == "an apple in the top left corner in a meadow"
    assert say(pair, "en") == "grapes to the left of a car on an orange and white checked background"
    assert say(star, "ko") == "파란 배경 위의 작은 빨간 줄무늬 별"
    assert say(pair, "ko") == "주황색과 흰색 체크무늬 배경 위의 자동차 왼쪽에 있는 포도"
    assert say(star, "zh") == "蓝色背景上的小红色的条纹星星"
    assert say(apple, "zh") == "草地上的左上角的苹果"


def test_korean_particles_follow_the_last_syllable() -> None:
    assert with_particle("별", "이") == "별이" and with_particle("고양이", "이") == "고양이가"
    assert with_particle("풀밭", "으로") == "풀밭으로" and with_particle("하늘", "으로") == "하늘로"
    assert with_particle("바다", "을") == "바다를" and with_particle("집", "와") == "집과"


def test_traditional_characters() -> None:
    assert chinese.traditional("请画一只猫，蓝色背景，条纹") == "請畫一隻貓，藍色背景，條紋"
    assert chinese.traditional("只有面包在上面") == "只有麵包在上面"
    assert chinese.traditional("出租车", "s2twp") == "計程車"
    assert all(simplified(text) == text for _, text in said("zh"))  # sentences are made in simplified ones


def test_slips_change_one_word_a_little() -> None:
    text = "a purple triangle on a yellow background"
    for number in range(200):
        changed = with_slip(text, random.Random(number)).split()
        different = [pair for pair in zip(text.split(), changed, strict=True) if pair[0] != pair[1]]
        assert len(different) <= 1 and all(abs(len(a) - len(b)) <= 1 and a[0] == b[0] for a, b in different)
    assert with_slip("a cat", random.Random(0)) == "a cat"


def test_capitals_quotes_and_tags_occur() -> None:
    texts = [say(scene, "en", random.Random(number)) for number, scene in enumerate(SCENES)]
    assert any(t.isupper() for t in texts) and any(t.startswith('"') for t in texts)
    assert any("4k" in t for t in texts) and any("highly detailed" in t.lower() for t in texts)
    assert 0.2 < np.mean([t[0].isupper() for t in texts]) < 0.6
    assert any(say(s, "zh", random.Random(n)) != chinese.traditional(say(s, "zh", random.Random(n)))
               for n, s in enumerate(SCENES[:50]))  # fmt: skip


def test_the_word_list_is_the_committed_one_and_knows_every_word() -> None:
    path = TINY / "vocab.txt"
    tokens = english_vocabulary()
    assert path.read_text(encoding="utf-8").splitlines() == tokens and len(tokens) == len(set(tokens))
    tokenizer = BertTokenizer(str(path))
    for _, text in said("en"):
        pieces = tokenizer.tokenize(text)
        assert "[UNK]" not in pieces and not any(piece.startswith("##") for piece in pieces), text
        assert len(pieces) + 2 <= 40, text
    assert len(SHAPES) == len(english.SHAPES)


def test_unknown_languages_are_named() -> None:
    with pytest.raises(UserError, match="no language 'fr'; they know: en, ko, zh"):
        say(SCENES[0], "fr")
