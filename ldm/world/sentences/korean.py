"""Korean: the background comes first or last, particles follow the last syllable, and everyday words for colours."""

from __future__ import annotations

from ldm.world.objects import objects
from ldm.world.scene import GROUNDS
from ldm.world.sentences.voice import Named, Voice, Wish, Words

COLOURS: Words = {  # before a noun
    "red": ("빨간", "빨간색", "붉은", "새빨간", "빨강"),
    "orange": ("주황색", "주황", "오렌지색"),
    "yellow": ("노란", "노란색", "샛노란", "노랑"),
    "green": ("초록색", "녹색", "초록", "초록빛"),
    "cyan": ("청록색", "하늘색", "옥색"),
    "blue": ("파란", "파란색", "푸른", "새파란", "파랑"),
    "purple": ("보라색", "보라", "보랏빛", "자주색"),
    "pink": ("분홍색", "분홍", "핑크색", "핑크"),
    "black": ("검은", "검은색", "까만", "검정", "검정색", "까만색"),
    "white": ("흰", "하얀", "흰색", "하얀색", "새하얀"),
    "brown": ("갈색", "밤색", "고동색"),
    "grey": ("회색", "잿빛"),
}
NOUNS: Words = {  # a colour on its own
    "red": ("빨간색", "빨강", "붉은색"),
    "orange": ("주황색", "주황"),
    "yellow": ("노란색", "노랑"),
    "green": ("초록색", "녹색", "초록"),
    "cyan": ("청록색", "하늘색"),
    "blue": ("파란색", "파랑", "푸른색"),
    "purple": ("보라색", "보라"),
    "pink": ("분홍색", "핑크색", "분홍"),
    "black": ("검은색", "검정", "검정색"),
    "white": ("흰색", "하얀색", "하양"),
    "brown": ("갈색", "밤색"),
    "grey": ("회색",),
}
SIZES: Words = {"small": ("작은", "조그만", "자그마한"), "large": ("큰", "커다란", "큼직한")}
TEXTURES: Words = {
    "plain": ("민무늬", "단색"),
    "striped": ("줄무늬", "줄무늬가 있는"),
    "dotted": ("물방울무늬", "점무늬", "땡땡이"),
    "checked": ("체크무늬", "바둑판무늬"),
    "halved": ("두 가지 색의", "반반 색의"),
}
SHAPES: Words = {
    "circle": ("원", "동그라미"),
    "square": ("정사각형", "네모"),
    "triangle": ("삼각형", "세모"),
    "diamond": ("마름모",),
    "star": ("별", "별 모양"),
    "heart": ("하트", "하트 모양"),
    "cross": ("십자가", "십자 모양"),
    "moon": ("초승달", "달"),
    "pentagon": ("오각형",),
    "hexagon": ("육각형",),
    "ring": ("고리", "반지 모양"),
    "oval": ("타원", "타원형"),
    "rectangle": ("직사각형",),
    "arrow": ("화살표",),
}
FIGURES: Words = {
    "polygon": ("다각형", "각진 도형"),
    "rosette": ("꽃 모양", "꽃무늬 도형"),
    "blob": ("둥근 도형", "덩어리"),
    "gear": ("톱니바퀴",),
}
PLACES: Words = {
    "middle": ("가운데", "중앙", "한가운데"),
    "left": ("왼쪽", "좌측", "왼편"),
    "right": ("오른쪽", "우측", "오른편"),
    "top": ("위쪽", "상단", "맨 위"),
    "bottom": ("아래쪽", "하단", "맨 아래"),
    "top left": ("왼쪽 위", "왼쪽 상단", "좌측 상단", "왼쪽 위 구석"),
    "top right": ("오른쪽 위", "오른쪽 상단", "우측 상단", "오른쪽 위 구석"),
    "bottom left": ("왼쪽 아래", "왼쪽 하단", "좌측 하단", "왼쪽 아래 구석"),
    "bottom right": ("오른쪽 아래", "오른쪽 하단", "우측 하단", "오른쪽 아래 구석"),
}
LANDSCAPES: Words = {
    "meadow": ("풀밭", "초원", "잔디밭", "들판"),
    "beach": ("해변", "바닷가", "모래사장", "해변가"),
    "night": ("밤하늘", "별이 빛나는 밤하늘"),
    "snow": ("눈밭", "눈 덮인 들판", "설원"),
    "desert": ("사막", "모래사막"),
    "sea": ("바다", "푸른 바다", "넓은 바다"),
}
NICE = ("귀여운", "예쁜", "멋진", "아름다운", "단순한", "재미있는")
TAGS = ("고화질", "4k", "고해상도", "디테일한", "벡터 아트", "심플하게", "클립아트", "선명하게")

# T: the thing, T이 T을 T은: with its particle; G: the background, G을; N: what it is ('파란색', '바다'), N을
TEMPLATES = (
    "{G} 위의 {T}", "{G}에 {T}", "{G} 위에 {T}", "{G} 앞의 {T}", "{G}의 {T}", "{G} 위에 있는 {T}", "{G}에 있는 {T}",
    "{G} 앞에 있는 {T}", "{G}에 놓인 {T}", "{G}에 {T이} 있다", "{G}에 {T이} 있어요", "{G}에 {T이} 있습니다",
    "{G} 위에 {T이} 있다", "{G} 위에 {T이} 있어요", "{G} 위에 {T이} 있습니다", "{G} 앞에 {T이} 있다",
    "{G}에 {T이} 하나 있다", "{G}에 {T이} 있는 그림", "{G} 위에 {T이} 있는 그림", "{G}에 {T을} 그려줘",
    "{G}에 {T을} 그려 주세요", "{G}에 {T을} 그려주세요", "{G} 위에 {T을} 그려줘", "{G}에 {T} 그려줘",
    "{G}에 {T} 하나 그려줘", "{G} 위의 {T} 그림", "{G}의 {T} 그림", "{T}, {G}", "{G}, {T}", "{T} {G}", "{G} {T}",
    "{T이} 있는 {G}", "{T이} 보이는 {G}", "{T이} {G} 위에 있다", "{T이} {G}에 있어요", "{T이} {G} 앞에 있습니다",
    "{T을} {G} 위에 그려줘", "{T을} {G}에 그려 주세요", "{T} 그림, {G}", "{T} 이미지, {G}", "{G}에서 {T이} 보인다",
    "{G}에 {T이} 보여요", "{G}에 {T을} 보여줘", "{G}에 {T을} 만들어줘", "{G}에 {T을} 넣어줘",
    "{G} 위의 {T을} 보고 싶어", "{G}에 {T이} 그려진 그림", "{T} - {G}", "{T} ({G})", "{G}: {T}",
    "{G}에 {T을} 부탁해", "{G}에 {T} 부탁드려요", "{G} 위의 {T} 일러스트", "{G} 위의 {T} 아이콘",
    "{G}에 {T만} 있는 그림", "{G}에 {T을} 그려 줄래?", "{G}에 {T을} 그려봐", "{G} 위의 {T}입니다",
    "{G} 위에 놓여 있는 {T}", "{N을} 배경으로 한 {T}", "{N을} 배경으로 {T을} 그려줘", "{N을} 배경으로 {T이} 있다",
    "{N} 배경에 {T}", "배경은 {N}, {T}", "{T}, 배경은 {N}", "{T을} 그려줘, 배경은 {N으로}",
    "{T을} 그리고 배경은 {N으로} 해줘", "배경이 {N인} {T}",
)  # fmt: skip
OPEN_TEMPLATES = (
    "{T}", "{T} 그림", "{T을} 그려줘", "{T을} 그려 주세요", "{T} 하나", "{T} 하나 그려줘", "{T이} 있다",
    "{T이} 있는 그림", "{T} 이미지", "{T} 보여줘", "{T을} 보여 주세요", "{T} 일러스트", "{T을} 만들어줘",
    "{T을} 그려 줄래?", "{T} 그려줘", "{T}입니다", "{T을} 보고 싶어요", "{T} 부탁해",
)  # fmt: skip
BESIDE = ("{A와} {Z}", "나란히 있는 {A와} {Z}", "{A} 옆의 {Z}", "{A} 그리고 {Z}", "{A} 옆에 있는 {Z}")
RELATIONS: Words = {
    "left of": (
        "{Z} 왼쪽에 있는 {A}", "{Z} 왼쪽의 {A}", "왼쪽의 {A와} 오른쪽의 {Z}", "{A} 오른쪽의 {Z}",
        "{A} 오른쪽에 있는 {Z}", "왼쪽에 {A}, 오른쪽에 {Z}",
    ),
    "above": (
        "{Z} 위의 {A}", "{Z} 위에 있는 {A}", "위쪽의 {A와} 아래쪽의 {Z}", "{A} 아래의 {Z}", "{A} 아래에 있는 {Z}",
        "위에 {A}, 아래에 {Z}",
    ),
}  # fmt: skip
PARTICLES = {"이": ("이", "가"), "을": ("을", "를"), "은": ("은", "는"), "와": ("과", "와"), "만": ("만", "만"),
             "으로": ("으로", "로"), "인": ("인", "인")}  # fmt: skip


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
    phrases = [noun(named, voice) for named in wish.named]
    whole = phrases[0]
    if len(phrases) == 2:
        ways = BESIDE if wish.aside else RELATIONS[str(wish.relation)]
        whole = voice.pick(ways).format_map(Fields(A=phrases[0], Z=phrases[1]))
    place = wish.named[0].thing.place if len(phrases) == 1 else None
    said = voice.pick(PLACES[place]) if place else ""
    if said and not voice.chance(0.3):
        whole, said = f"{said}에 있는 {whole}" if voice.chance(0.5) else f"{said}의 {whole}", ""
    template = voice.pick(OPEN_TEMPLATES if wish.ground is None else TEMPLATES)
    text = template.format_map(Fields(T=whole, **_ground_fields(wish.ground, voice)))
    return f"{said}에, {text}" if said else text


def _ground_fields(ground: str | None, voice: Voice) -> dict[str, str]:
    if ground is None:
        return {}
    about = GROUNDS[ground]
    if ground in LANDSCAPES:
        name = voice.pick(LANDSCAPES[ground])
        return {"G": name, "N": name}
    word = voice.pick(("배경", "배경", "바탕"))
    first = voice.pick(COLOURS[about.first])
    if about.kind == "plain":
        return {"G": f"{first} {word}", "N": voice.pick(NOUNS[about.first])}
    firsts, seconds = voice.pick(NOUNS[about.first]), voice.pick(NOUNS[about.second])
    if about.kind == "graded":
        both = f"{with_particle(firsts, '와')} {seconds} 그라데이션"
        name = voice.pick((f"{firsts}에서 {with_particle(seconds, '으로')} 변하는", both))
        return {"G": f"{name} {word}", "N": both}
    texture = voice.pick(TEXTURES[about.kind])
    noun = TEXTURES[about.kind][0]
    name = voice.pick((f"{with_particle(firsts, '와')} {seconds} {texture}", f"{first} {texture}"))
    return {"G": f"{name} {word}", "N": f"{first} {noun}"}


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
    forms = SHAPES[thing.name] if thing.is_shape else objects()[thing.name].forms["ko"]
    return " ".join([*words, named.slot or voice.pick(forms)])


def finish(text: str, voice: Voice) -> str:
    """Tags, quotes, full stops, and spaces that people leave out."""
    if voice.rng is None:
        return text
    if voice.chance(0.06) and " " in text:
        spaces = [i for i, letter in enumerate(text) if letter == " "]
        at = voice.rng.choice(spaces)
        text = text[:at] + text[at + 1 :]
    if voice.chance(0.1):
        text = f"{text}, {', '.join(voice.rng.sample(TAGS, voice.rng.randint(1, 2)))}"
    if voice.chance(0.15) and text[-1] not in "?!":
        text += "."
    return f'"{text}"' if voice.chance(0.03) else text
