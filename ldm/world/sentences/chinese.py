"""Chinese, simplified and traditional: measure words, the background before or after the thing, and lists."""

from __future__ import annotations

from functools import cache
from typing import Any

from ldm.world.objects import objects
from ldm.world.scene import GROUNDS
from ldm.world.sentences.chinese_templates import (
    BESIDE,
    CLAUSES,
    COLOUR_AFTER,
    FRAMES,
    LANDSCAPE_FRAMES,
    LISTED,
    OPEN_TEMPLATES,
    PLACED_TEMPLATES,
    PLAIN_FRAMES,
    RELATIONS,
    TEMPLATES,
)
from ldm.world.sentences.chinese_words import (
    COLOURS,
    DRAW,
    ENDS,
    FIGURES,
    GROUND_TEXTURES,
    LANDSCAPES,
    MEASURES,
    NICE,
    NOUNS,
    ON_LANDSCAPES,
    PICTURES,
    PLACES,
    PLACES_AFTER,
    POSES,
    SHAPES,
    SHEETS,
    SIZES,
    SIZES_AFTER,
    STARTS,
    TAGS,
    TEXTURES,
    TEXTURES_AFTER,
    TYPOS,
)
from ldm.world.sentences.voice import Named, Voice, Wish, pose, without

USUAL = 0.2  # share of choices that take the first, most usual way to say it
TRADITIONAL = 0.3  # share of sentences in traditional characters
WAYS = ("s2tw", "s2twp", "s2hk")  # OpenCC's: Taiwan's characters; its words, too; Hong Kong's characters
CLAUSED, LISTING, PLACED, AFTER = 0.5, 0.08, 0.25, 0.15


def traditional(text: str, way: str = "s2tw") -> str:
    """A sentence in traditional characters."""
    return str(_converter(way).convert(text))


@cache
def _converter(way: str) -> Any:
    from opencc import OpenCC  # imported here: its tables are for Chinese alone

    return OpenCC(way)


def sentence(wish: Wish, voice: Voice) -> str:
    """A sentence that says all of a wish and nothing else."""
    figure = wish.named[0].figure
    if len(wish.named) == 1 and not figure and voice.chance(LISTING):
        return _listed(wish, voice)
    if not figure and voice.chance(CLAUSED):
        return _claused(wish, voice)
    bare = [noun(named, voice) for named in wish.named]
    whole = [f"{counted(named, voice)}{phrase}" for named, phrase in zip(wish.named, bare, strict=True)]
    if len(bare) == 2:
        way = voice.pick(BESIDE if wish.aside else RELATIONS[str(wish.relation)])
        parts = whole if voice.rng is None or voice.chance(0.6) else bare
        whole = bare = [way.format(A=parts[0], Z=parts[1])]
    thing, named = whole[0], bare[0]
    place = wish.named[0].thing.place if len(wish.named) == 1 else None
    said = voice.pick(PLACES[place]) if place else ""
    fields = {"T": thing, "B": named, "P": said, **_doing(wish, voice), **_ground_fields(wish.ground, voice)}
    if said and wish.ground and wish.ground not in LANDSCAPES and voice.chance(PLACED):
        return voice.pick(PLACED_TEMPLATES).format_map(fields)
    if said and not voice.chance(0.2):
        fields, said = {**fields, "T": f"{said}的{thing}", "B": f"{said}的{named}"}, ""
    text = voice.pick(OPEN_TEMPLATES if wish.ground is None else TEMPLATES).format_map(fields)
    if said:
        text = f"{said}，{text}" if voice.chance(0.4) else f"{text.rstrip('？')}，在{said}"
    return text


def _claused(wish: Wish, voice: Voice) -> str:
    """A clause ('左边有一只猫'), what is said after it ('小一点'), and the background around them."""
    fields = _doing(wish, voice)
    after: list[str] = []
    if len(wish.named) == 2:
        phrases = [noun(named, voice) for named in wish.named]
        if voice.chance(0.6):
            phrases = [counted(named, voice) + phrase for named, phrase in zip(wish.named, phrases, strict=True)]
        fields |= {"A": phrases[0], "Z": phrases[1]}
        kind = "aside" if wish.aside else str(wish.relation)
    else:
        bare, after = _said_after(wish.named[0], voice)
        phrase, place, many = noun(bare, voice), bare.thing.place, counted(bare, voice)
        fields |= {"T": many + phrase, "B": phrase, "K": many}
        if place:
            fields |= {"P": voice.pick(PLACES[place]), "Q": voice.pick(PLACES_AFTER[place])}
        kind = "placed" if place else "one"
    clause = "，".join([voice.pick(CLAUSES[kind]).format_map(fields), *after])
    if wish.ground is None:
        return clause
    frames: tuple[str, ...] = FRAMES
    if wish.ground in LANDSCAPES:
        frames = (*FRAMES, *LANDSCAPE_FRAMES)
    elif GROUNDS[wish.ground].kind == "plain":
        frames = (*FRAMES, *PLAIN_FRAMES)
    return voice.pick(frames).format_map({"C": clause, **_ground_fields(wish.ground, voice)})


def _said_after(named: Named, voice: Voice) -> tuple[Named, list[str]]:
    """A thing without some of what is said of it, and those as phrases on their own."""
    thing, after, gone = named.thing, [], []
    if thing.size and voice.chance(1.5 * AFTER):
        after.append(voice.pick(SIZES_AFTER[thing.size]))
        gone.append("size")
    colour = thing.colour or named.own_colour
    if colour and voice.chance(AFTER):
        after.append(voice.pick(COLOUR_AFTER).format(N=voice.pick(NOUNS[colour])))
        gone.append("colour")
    if thing.texture and voice.chance(AFTER):
        after.append(voice.pick(TEXTURES_AFTER[thing.texture]))
        gone.append("texture")
    return without(named, *gone), voice.shuffled(after)


def _listed(wish: Wish, voice: Voice) -> str:
    """All that is said as a list: '猫，小一点，左上角，蓝色背景'."""
    named = wish.named[0]
    bare, parts = _said_after(named, voice)
    first = noun(bare, voice)
    look = voice.any(("whole", "bare", "after"))
    many = counted(named, voice)
    first = f"{many}{first}" if look == "whole" else f"{first}{many}" if look == "after" else first
    if named.thing.place:
        parts.append(voice.any((voice.pick(PLACES[named.thing.place]), voice.pick(PLACES_AFTER[named.thing.place]))))
    if voice.chance(0.5):
        parts = voice.shuffled(parts)
    if wish.ground:
        fields = _ground_fields(wish.ground, voice)
        ground = voice.pick(("{G}", "背景{N}", "背景是{N}", "{N}背景", "背景：{N}", "{N}的背景")).format_map(fields)
        parts = [*parts, ground] if voice.chance(0.6) else [ground, *parts]
    parts = [first, *parts] if voice.chance(0.7) else [*parts, first]
    return voice.pick(LISTED).join(parts)


def _doing(wish: Wish, voice: Voice) -> dict[str, str]:
    """What things do, a request, a sheet, and a word for a picture."""
    kinds = {pose(named) for named in wish.named}
    verb = voice.any(POSES[kinds.pop()]) if len(kinds) == 1 else "放"
    return {"V": verb, "D": voice.pick(DRAW), "J": voice.pick(SHEETS), "I": voice.pick(PICTURES)}


def _ground_fields(ground: str | None, voice: Voice) -> dict[str, str]:
    if ground is None:
        return {}
    about = GROUNDS[ground]
    if ground in LANDSCAPES:
        name = voice.pick(LANDSCAPES[ground])
        before = f"{name}背景" if voice.chance(0.4) else name
        return {"G": before, "N": name, "W": name + voice.pick(ON_LANDSCAPES[ground])}
    first, second = (voice.pick(NOUNS[colour]) if colour else "" for colour in (about.first, about.second))
    if about.kind == "plain":
        name = first + voice.pick(("", "", "的", "", ""))
    elif about.kind == "graded":
        name = voice.pick((
            f"从{first}到{second}渐变的", f"{first}到{second}的渐变", f"{first}到{second}渐变",
            f"{first}渐变到{second}的", f"{first}变{second}的渐变", f"从{first}渐变成{second}的",
            f"{first}{second}渐变", f"{first}和{second}渐变的", f"由{first}到{second}的渐变",
            f"{first}过渡到{second}的",
        ))  # fmt: skip
    else:
        texture = voice.pick(GROUND_TEXTURES[about.kind])
        name = voice.pick((
            f"{first}和{second}{texture}", f"{first}{second}相间的{texture}", f"{first}{texture}",
            f"{first}的{texture}", f"{first}{second}{texture}", f"{second}和{first}的{texture}",
            f"{first}与{second}的{texture}", f"{second}底{first}{texture}", f"{texture}{first}",
        ))  # fmt: skip
    word = voice.pick(("背景", "背景", "底", "底色", "背景色", "背景", "背景板"))
    where = voice.pick(("上", "上", "前", "下", "中", "里"))
    return {"G": f"{name}{word}", "N": name.removesuffix("的"), "W": f"{name}{word}{where}"}


def counted(named: Named, voice: Voice) -> str:
    """How many, with the measure word of a thing: '一只'."""
    return voice.pick(("一", "一", "1", "一")) + voice.pick(measures(named))


def measures(named: Named) -> tuple[str, ...]:
    """The measure words of a thing."""
    if named.figure or named.slot:
        return ("个",)
    name = named.thing.name
    return MEASURES.get(name, ("个",)) if named.thing.is_shape else objects()[name].counters["zh"]


def noun(named: Named, voice: Voice) -> str:
    """A thing with what is said of it, without a measure word."""
    thing = named.thing
    nice = voice.any(NICE) if voice.chance(0.08) else ""
    words = [voice.pick(SIZES[thing.size])] if thing.size else []
    if named.figure:
        first, second = (voice.pick(NOUNS[c]) for c in named.tones or ("red", "red"))
        if thing.texture == "plain":
            return "".join([nice, *words, first, voice.pick(FIGURES[named.figure])])
        texture = voice.pick(TEXTURES[str(thing.texture)])
        return "".join([nice, *words, first, "和", second, texture, voice.pick(FIGURES[named.figure])])
    colour = thing.colour or named.own_colour
    if colour:
        words.append(voice.pick(COLOURS[colour]))
    if thing.texture:
        words.append(voice.pick(TEXTURES[thing.texture]))
    if voice.chance(0.15):
        words = [*words[:-2], *reversed(words[-2:])]  # '红色小圆', '条纹红色圆'
    forms = SHAPES[thing.name] if thing.is_shape else objects()[thing.name].forms["zh"]
    if thing.size == "large":  # no large 小狗
        forms = tuple(form for form in forms if not form.startswith("小")) or forms
    if not thing.is_shape and voice.chance(0.04):
        forms = (objects()[thing.name].forms["en"][0].removeprefix("+"),)
    form = named.slot or voice.pick(forms)
    if words and words[-1] == "大" and form.startswith("大"):
        form = form[1:]
    if words and words[-1] == "小" and form.startswith("小"):
        form = form[1:]
    return "".join([nice, *words, form])


def finish(text: str, voice: Voice) -> str:
    """Slips, tags, traditional characters, spaces, quotes and full stops."""
    if voice.rng is None:
        return text
    if voice.chance(0.04):
        slips = [(right, wrong) for right, wrong in TYPOS if right in text]
        text = text.replace(*voice.rng.choice(slips), 1) if slips else text
    if voice.chance(0.1):
        text = f"{text}，{'，'.join(voice.rng.sample(TAGS, voice.rng.randint(1, 2)))}"
    if voice.chance(0.04):
        text = voice.any(STARTS) + text
    if voice.chance(TRADITIONAL):
        text = traditional(text, voice.any(WAYS))
    look = voice.rng.random()
    if look < 0.08:
        text = text.replace("，", voice.any((" ", ",", "、", "。", "")))
    if voice.chance(0.06):
        text = text.rstrip("？") + voice.any(ENDS)
    elif voice.chance(0.15) and text[-1] not in "？！。":
        text += "。"
    return f"“{text}”" if voice.chance(0.02) else text
