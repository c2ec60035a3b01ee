"""Korean: the background comes first or last, particles follow the last syllable, and much is said after the noun."""

from __future__ import annotations

from ldm.world.objects import objects
from ldm.world.scene import GROUNDS
from ldm.world.sentences.korean_templates import (
    BESIDE,
    CLAUSES,
    COLOUR_AFTER,
    FRAMES,
    LANDSCAPE_FRAMES,
    LISTED,
    OPEN_TEMPLATES,
    PLACED_TEMPLATES,
    PLAIN_FRAMES,
    POSED,
    RELATIONS,
    TEMPLATES,
    UNPLACED_FRAMES,
)
from ldm.world.sentences.korean_words import (
    COLOURS,
    COUNTERS,
    DRAW,
    ENDS,
    FIGURES,
    GROUND_TEXTURES,
    IS,
    LANDSCAPES,
    NICE,
    NOUNS,
    PICTURES,
    PLACES,
    POSES,
    SHAPES,
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
CLAUSED, LISTING, PLACED, AFTER, COUNTED = 0.5, 0.08, 0.25, 0.15, 0.15
PARTICLES = {
    "이": ("이", "가"), "을": ("을", "를"), "은": ("은", "는"), "와": ("과", "와"), "만": ("만", "만"),
    "으로": ("으로", "로"), "인": ("인", "인"), "이랑": ("이랑", "랑"), "하고": ("하고", "하고"),
    "이고": ("이고", "고"), "이면": ("이면", "면"), "인데": ("인데", "인데"),
}  # fmt: skip


def with_particle(phrase: str, particle: str) -> str:
    """A phrase with the form of a particle that fits its last syllable: 별이, 고양이가; 서울로."""
    closed, opened = PARTICLES[particle]
    final = (ord(phrase[-1]) - ord("가")) % 28 if "가" <= phrase[-1] <= "힣" else 0
    if particle == "으로" and final == 8:  # ㄹ
        return phrase + opened
    return phrase + (closed if final else opened)


class Fields(dict[str, str]):
    """The fields of a template; one with a particle ('T이') is made from the one without."""

    def __missing__(self, key: str) -> str:
        return with_particle(self[key[0]], key[1:])


def sentence(wish: Wish, voice: Voice) -> str:
    """A sentence that says all of a wish and nothing else."""
    single = len(wish.named) == 1 and not wish.named[0].figure
    if single and voice.chance(LISTING):
        return _listed(wish, voice)
    if not wish.named[0].figure and voice.chance(CLAUSED):
        return _claused(wish, voice)
    phrases = [noun(named, voice) for named in wish.named]
    if voice.chance(COUNTED):
        phrases = [_counted(phrase, named, voice) for phrase, named in zip(phrases, wish.named, strict=True)]
    whole = phrases[0]
    if len(phrases) == 2:
        ways = BESIDE if wish.aside else RELATIONS[str(wish.relation)]
        whole = voice.pick(ways).format_map(Fields(A=phrases[0], Z=phrases[1]))
    place = wish.named[0].thing.place if len(phrases) == 1 else None
    fields = Fields(T=whole, **_doing(wish, voice), **_ground_fields(wish.ground, voice))
    if place and wish.ground and voice.chance(PLACED):
        fields["P"] = voice.pick(PLACES[place])
        return voice.pick(PLACED_TEMPLATES).format_map(fields)
    said = voice.pick(PLACES[place]) if place else ""
    if said and not voice.chance(0.2):
        fields["T"], said = f"{said}에 있는 {whole}" if voice.chance(0.5) else f"{said}의 {whole}", ""
    template = voice.pick(OPEN_TEMPLATES if wish.ground is None else TEMPLATES)
    text = template.format_map(fields)
    return f"{said}에, {text}" if said else text


def _claused(wish: Wish, voice: Voice) -> str:
    """A clause ('왼쪽에 고양이가 있다'), what is said after it ('크기는 작게'), and the background around them."""
    fields = _doing(wish, voice)
    after: list[str] = []
    if len(wish.named) == 2:
        phrases = [noun(named, voice) for named in wish.named]
        if voice.chance(2 * COUNTED):
            phrases = [_counted(phrase, named, voice) for phrase, named in zip(phrases, wish.named, strict=True)]
        fields |= {"A": phrases[0], "Z": phrases[1]}
        kind = "aside" if wish.aside else str(wish.relation)
    else:
        kind, fields, after = _single(wish.named[0], voice, fields)
    clauses = (*CLAUSES[kind], *POSED) if kind == "one" and fields["V"] != "있" else CLAUSES[kind]
    clause = voice.pick(clauses).format_map(Fields(fields))
    clause = ", ".join([clause.rstrip("?") if after else clause, *after])
    if wish.ground is None:
        return clause
    frames: tuple[str, ...] = FRAMES
    if wish.ground in LANDSCAPES:
        frames = (*FRAMES, *LANDSCAPE_FRAMES)
    elif GROUNDS[wish.ground].kind == "plain":
        frames = (*FRAMES, *PLAIN_FRAMES)
    if kind in ("one", "sized"):
        frames = (*frames, *UNPLACED_FRAMES)
    return voice.pick(frames).format_map(Fields(C=clause, **_ground_fields(wish.ground, voice)))


def _single(named: Named, voice: Voice, doing: dict[str, str]) -> tuple[str, dict[str, str], list[str]]:
    """The kind of the clause about one thing, its fields, and what is said after it."""
    thing = named.thing
    sized = bool(thing.size) and voice.chance(0.5)
    bare, after = _said_after(named, voice, size=not sized)
    if sized:
        bare = without(bare, "size")
    fields = {**doing, "T": noun(bare, voice), "K": counter(named, voice)}
    if thing.size:
        fields["S"] = voice.pick(SIZES_AFTER[thing.size])
    if thing.place:
        fields["P"] = voice.pick(PLACES[thing.place])
    kind = ("sized placed" if thing.place else "sized") if sized else ("placed" if thing.place else "one")
    return kind, fields, after


def _said_after(named: Named, voice: Voice, size: bool) -> tuple[Named, list[str]]:
    """A thing without some of what is said of it, and those as phrases on their own."""
    thing, after, gone = named.thing, [], []
    if thing.size and size and voice.chance(AFTER):
        after.append(voice.pick(SIZES_AFTER[thing.size]))
        gone.append("size")
    colour = thing.colour or named.own_colour
    if colour and voice.chance(AFTER):
        after.append(voice.pick(COLOUR_AFTER).format_map(Fields(N=voice.pick(NOUNS[colour]))))
        gone.append("colour")
    if thing.texture and voice.chance(AFTER):
        after.append(voice.pick(TEXTURES_AFTER[thing.texture]))
        gone.append("texture")
    return without(named, *gone), after


def _listed(wish: Wish, voice: Voice) -> str:
    """All that is said as a list: '고양이, 작게, 왼쪽 위, 파란 배경'."""
    named = wish.named[0]
    bare, parts = _said_after(named, voice, size=True)
    first = noun(bare, voice)
    if voice.chance(0.3):
        first = f"{first} {counter(named, voice)}"
    if named.thing.place:
        parts.append(voice.pick(PLACES[named.thing.place]) + voice.pick(("", "에")))
    if voice.chance(0.5):
        parts = voice.shuffled(parts)
    if wish.ground:
        fields = Fields(_ground_fields(wish.ground, voice))
        ground = voice.pick(("{G}", "{N} 배경", "배경은 {N}", "배경 {N}", "배경: {N}", "{G으로}")).format_map(fields)
        parts = [*parts, ground] if voice.chance(0.6) else [ground, *parts]
    parts = [first, *parts] if voice.chance(0.7) else [*parts, first]
    return voice.pick(LISTED).join(parts)


def _doing(wish: Wish, voice: Voice) -> dict[str, str]:
    """What things do, the end of a sentence, a request, and a word for a picture."""
    kinds = {pose(named) for named in wish.named}
    stem = voice.any(POSES[kinds.pop()]) if len(kinds) == 1 and voice.chance(0.6) else "있"
    return {"V": stem, "E": voice.pick(IS), "D": voice.pick(DRAW), "I": voice.pick(PICTURES)}


def counter(named: Named, voice: Voice) -> str:
    """'한 마리', '1마리' or '하나'."""
    thing = named.thing
    plain = named.slot or named.figure or thing.is_shape
    words = COUNTERS.get(thing.name, ("개",)) if plain else objects()[thing.name].counters["ko"]
    word = voice.pick(words)
    ways = (f"한 {word}", f"한 {word}", f"1{word}", f"한{word}", "하나")
    return voice.any(ways) if word in ("개", "송이", "대") else voice.any(ways[:4])


def _counted(phrase: str, named: Named, voice: Voice) -> str:
    return phrase if " 한 " in phrase else f"{phrase} {counter(named, voice)}"


def _ground_fields(ground: str | None, voice: Voice) -> dict[str, str]:
    if ground is None:
        return {}
    about = GROUNDS[ground]
    if ground in LANDSCAPES:
        name = voice.pick(LANDSCAPES[ground])
        return {"G": name, "N": name}
    word = voice.pick(("배경", "배경", "바탕", "배경", "배경색", "뒷배경", "백그라운드"))
    first = voice.pick(COLOURS[about.first])
    if about.kind == "plain":
        first = f"{voice.any(('단색', '순', '온통'))} {first}" if voice.chance(0.04) else first
        return {"G": f"{first} {word}", "N": voice.pick(NOUNS[about.first])}
    firsts, seconds = voice.pick(NOUNS[about.first]), voice.pick(NOUNS[about.second])
    if about.kind == "graded":
        return _graded(firsts, seconds, word, voice)
    texture = voice.pick(TEXTURES[about.kind])
    noun = voice.pick(GROUND_TEXTURES[about.kind])
    both = with_particle(firsts, "와")
    name = voice.pick((
        f"{both} {seconds} {texture}", f"{first} {texture}", f"{firsts} {seconds} {texture}", f"{texture} {first}",
        f"{with_particle(firsts, '이랑')} {seconds} {texture}", f"{seconds}에 {firsts} {texture}", f"{first} {texture}",
    ))  # fmt: skip
    return {"G": f"{name} {word}", "N": voice.pick((f"{first} {noun}", f"{both} {seconds} {noun}"))}


def _graded(first: str, second: str, word: str, voice: Voice) -> dict[str, str]:
    """A background that turns from one colour into another."""
    change = voice.pick(("그라데이션", "그라데이션", "그러데이션", "그라디언트", "그라데이션 색"))
    both = f"{with_particle(first, '와')} {second} {change}"
    to = with_particle(second, "으로")
    name = voice.pick((
        f"{first}에서 {to} 변하는", both, f"{first}에서 {to} 바뀌는", f"{first}에서 {second} {change}",
        f"{first} {second} {change}", f"{first}에서 {to} 이어지는", f"{first}에서 {to} 가는 {change}",
        f"{first}에서 {to} 번지는", f"{first}에서 점점 {to} 변하는",
        f"위는 {first} 아래는 {second}인 {change}",
    ))  # fmt: skip
    return {"G": f"{name} {word}", "N": voice.pick((both, f"{first}에서 {to} 가는 {change}"))}


def noun(named: Named, voice: Voice) -> str:
    """A thing with what is said of it."""
    thing = named.thing
    words = [voice.pick(SIZES[thing.size])] if thing.size else []
    if voice.chance(0.08):
        words.insert(0, voice.any(NICE))
    if named.figure:
        first, second = (voice.pick(NOUNS[c]) for c in named.tones or ("red", "red"))
        if thing.texture == "plain":
            return " ".join([*words, first, voice.pick(FIGURES[named.figure])])
        colours = f"{with_particle(first, '와')} {second}"
        return " ".join([*words, colours, voice.pick(TEXTURES[str(thing.texture)]), voice.pick(FIGURES[named.figure])])
    colour = thing.colour or named.own_colour
    if colour:
        words.append(voice.pick(COLOURS[colour]))
    if thing.texture:
        words.append(voice.pick(TEXTURES[thing.texture]))
    if voice.chance(0.15):
        words.reverse()  # '빨간 작은 별', '줄무늬 빨간 별'
    forms = SHAPES[thing.name] if thing.is_shape else objects()[thing.name].forms["ko"]
    if not thing.is_shape and voice.chance(0.04):
        forms = (objects()[thing.name].forms["en"][0].removeprefix("+"),)
    return " ".join([*words, named.slot or voice.pick(forms)])


def finish(text: str, voice: Voice) -> str:
    """Slips, chatter, tags, quotes, full stops, and spaces that people leave out."""
    if voice.rng is None:
        return text
    if voice.chance(0.04):
        slips = [(right, wrong) for right, wrong in TYPOS if right in text]
        text = text.replace(*voice.rng.choice(slips), 1) if slips else text
    text = _spaced(text, voice)
    if voice.chance(0.1):
        text = f"{text}, {', '.join(voice.rng.sample(TAGS, voice.rng.randint(1, 2)))}"
    if voice.chance(0.04):
        text = voice.any(STARTS) + text
    if voice.chance(0.07):
        text = text.rstrip("?") + voice.any(ENDS)
    elif voice.chance(0.15) and text[-1] not in "?!.":
        text += "."
    return f'"{text}"' if voice.chance(0.02) else text


def _spaced(text: str, voice: Voice) -> str:
    """Spaces that people leave out, or type twice."""
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    if not spaces or voice.rng is None:
        return text
    look = voice.rng.random()
    if look < 0.1:
        at = voice.rng.choice(spaces)
        return text[:at] + text[at + 1 :]
    if look < 0.13:
        return text.replace(" ", "")
    if look < 0.18:
        return "".join("" if letter == " " and voice.chance(0.4) else letter for letter in text)
    if look < 0.2:
        at = voice.rng.choice(spaces)
        return f"{text[:at]} {text[at:]}"
    return text
