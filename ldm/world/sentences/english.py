"""English: nouns with articles, where things are, and the ways in which people ask for a picture."""

from __future__ import annotations

from ldm.world.objects import objects
from ldm.world.scene import GROUNDS
from ldm.world.sentences.voice import Named, Voice, Wish, Words, with_slip

COLOURS: Words = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "turquoise", "aqua", "teal"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "black": ("black",),
    "white": ("white",),
    "brown": ("brown",),
    "grey": ("grey", "gray"),
}
SIZES: Words = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
TEXTURES: Words = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "polka dot"),
    "checked": ("checked", "checkered", "chequered"),
    "halved": ("two-tone", "half and half"),
}
SHAPES: Words = {
    "circle": ("circle", "disc", "disk"),
    "square": ("square",),
    "triangle": ("triangle",),
    "diamond": ("diamond", "rhombus"),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus sign"),
    "moon": ("moon", "crescent", "crescent moon"),
    "pentagon": ("pentagon",),
    "hexagon": ("hexagon",),
    "ring": ("ring",),
    "oval": ("oval", "ellipse"),
    "rectangle": ("rectangle",),
    "arrow": ("arrow",),
}
FIGURES: Words = {
    "polygon": ("polygon", "angular shape"),
    "rosette": ("rosette", "flower shape"),
    "blob": ("blob", "round shape"),
    "gear": ("gear", "cog", "cogwheel"),
}
PLACES: Words = {
    "middle": ("in the middle", "in the center", "in the centre", "centered"),
    "left": ("on the left", "on the left side", "at the left", "to the left"),
    "right": ("on the right", "on the right side", "at the right", "to the right"),
    "top": ("at the top", "near the top", "in the upper part", "up at the top"),
    "bottom": ("at the bottom", "near the bottom", "in the lower part", "down at the bottom"),
    "top left": ("in the top left corner", "at the top left", "in the upper left", "top left"),
    "top right": ("in the top right corner", "at the top right", "in the upper right", "top right"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left", "bottom left"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right", "bottom right"),
}
LANDSCAPES: Words = {  # nouns with their articles
    "meadow": ("a meadow", "a green field", "a lawn", "a grassy field"),
    "beach": ("a beach", "the beach", "a sandy beach", "the seaside"),
    "night": ("a night sky", "the night sky", "a starry sky", "a starry night"),
    "snow": ("a snowy field", "snow", "the snow", "a snowy landscape"),
    "desert": ("a desert", "the desert", "a sandy desert"),
    "sea": ("the sea", "the ocean", "the open sea", "a blue sea"),
}
IN_LANDSCAPES: Words = {
    "meadow": ("in a meadow", "on a meadow", "on the grass", "in a green field", "on a lawn", "on grass"),
    "beach": ("on a beach", "on the beach", "at the beach", "at the seaside"),
    "night": ("in the night sky", "at night", "in a starry night", "under the stars", "in front of a night sky"),
    "snow": ("in the snow", "on snow", "in a snowy field", "in a snowy landscape", "in winter"),
    "desert": ("in the desert", "in a desert", "in a sandy desert"),
    "sea": ("at sea", "on the sea", "on the ocean", "in front of the sea", "by the sea", "on the water"),
}
NICE = ("cute", "nice", "beautiful", "pretty", "lovely", "simple", "funny", "single")
TAGS = (
    "4k", "8k", "highly detailed", "high quality", "best quality", "masterpiece", "digital art", "flat design",
    "vector art", "clip art", "minimalist", "sharp", "hd", "trending on artstation", "no text",
)  # fmt: skip

# T: the thing with its article, B: without; W: where ('on a blue background'), G: the background with its article,
# H: without
TEMPLATES = (
    "{T} {W}", "{B} {W}", "{T}, {H}", "{B}, {H}", "a picture of {T} {W}", "an image of {T} {W}",
    "a drawing of {T} {W}", "a painting of {T} {W}", "an illustration of {T} {W}", "a cartoon of {T} {W}",
    "an icon of {T} {W}", "a sticker of {T} {W}", "picture of {T} {W}", "there is {T} {W}", "there's {T} {W}",
    "please draw me {T} {W}", "please draw {T} {W}", "draw {T} {W}", "draw me {T} {W}", "can you draw {T} {W}?",
    "could you paint {T} {W}, please?", "paint {T} {W}", "i want {T} {W}", "i would like {T} {W}",
    "i'd like to see {T} {W}", "show me {T} {W}", "show {T} {W}", "give me {T} {W}", "make {T} {W}",
    "make a picture of {T} {W}", "generate {T} {W}", "create an image of {T} {W}", "{W}, {T}", "{W} there is {T}",
    "{W} we see {T}", "{G} with {T}", "{G} and {T} in front of it", "{T} with {G} behind it",
    "{T} in front of {G}", "{T} before {G}", "{T} against {G}", "{T} set against {G}", "{T} over {G}",
    "{T}. background: {H}", "{B} | {H}", "{B} - {H}", "{B} ({H})", "{H}: {T}", "{H}, {T}", "{H} with {B}",
    "just {T} {W}", "the {B} {W}", "this is {T} {W}", "it's {T} {W}", "you can see {T} {W}", "look, {T} {W}!",
    "{T} shown {W}", "{T} placed {W}", "a simple drawing of {T} {W}", "a small picture of {T} {W}",
    "{B} {H}", "{T} as seen {W}",
)  # fmt: skip
PLAIN_TEMPLATES = (  # C: the colour of a plain background, D: with its article
    "{T} on {C}", "{B} on {C}", "{T} on {D} wall", "{T} against {D} backdrop", "{T} with {D} bg", "{B}, {C} bg",
    "{C} bg, {B}", "{T}. make the background {C}", "{T} and make the background {C}", "{T}, make the background {C}",
    "{T}, the background should be {C}", "{T} where the background is {C}", "{T}. the background is {C}",
    "{T} in front of {D} wall", "{T} before {D} screen", "{T} on a solid {C} background",
    "{T} on {C} paper", "{C} backdrop, {T}", "{T} (background {C})", "{T}, {C} behind it",
)  # fmt: skip
OPEN_TEMPLATES = (
    "{T}", "{B}", "a picture of {T}", "an image of {T}", "a drawing of {T}", "draw {T}", "please draw {T}",
    "please draw me {T}", "draw me {T}", "can you draw {T}?", "i want {T}", "show me {T}", "there is {T}",
    "make {T}", "generate {T}", "an icon of {T}", "a sticker of {T}", "a cartoon of {T}", "just {T}", "this is {T}",
    "a nice picture of {T}", "{T}, please", "i'd like {T}",
)  # fmt: skip
BESIDE = ("{A} and {Z}", "{A} next to {Z}", "{A} beside {Z}", "{A} and {Z} side by side", "{A} with {Z}")
RELATIONS: Words = {
    "left of": (
        "{A} to the left of {Z}", "{A} left of {Z}", "{A} on the left and {Z} on the right", "{Z} to the right of {A}",
        "{Z} right of {A}", "{A} on the left, {Z} on the right", "{A} on the left side of {Z}",
    ),
    "above": (
        "{A} above {Z}", "{A} over {Z}", "{A} at the top and {Z} at the bottom", "{Z} below {A}", "{Z} under {A}",
        "{A} on top, {Z} below", "{Z} beneath {A}",
    ),
}  # fmt: skip


def sentence(wish: Wish, voice: Voice) -> str:
    """A sentence that says all of a wish and nothing else."""
    phrases = [noun(named, voice) for named in wish.named]
    whole, bare = article(phrases[0]), phrases[0].removeprefix("+")
    if len(phrases) == 2:
        ways = BESIDE if wish.aside else RELATIONS[str(wish.relation)]
        first, second = (article(phrase) for phrase in phrases)
        whole = bare = voice.pick(ways).format(A=first, Z=second)
    place = wish.named[0].thing.place if len(phrases) == 1 else None
    said = voice.pick(PLACES[place]) if place else ""
    if said and not voice.chance(0.3):
        whole, bare, said = f"{whole} {said}", f"{bare} {said}", ""
    text = template(wish, voice, len(phrases) == 2).format_map(_fields(wish.ground, whole, bare, voice))
    if said:
        text = f"{said}, {text}" if voice.chance(0.4) else f"{text.rstrip('?!')}, {said}"
    return text


def template(wish: Wish, voice: Voice, two: bool) -> str:
    """How the sentence is built; two things are never called 'the'."""
    if wish.ground is None:
        return voice.pick(OPEN_TEMPLATES)
    plain = GROUNDS[wish.ground].kind == "plain" and voice.chance(0.3)
    chosen = voice.pick(PLAIN_TEMPLATES) if plain else voice.pick(TEMPLATES)
    return "{T} {W}" if two and chosen.startswith("the ") else chosen


def _fields(ground: str | None, whole: str, bare: str, voice: Voice) -> dict[str, str]:
    fields = {"T": whole, "B": bare}
    if ground is None:
        return fields
    name = ground_name(ground, voice)
    fields["G"] = name
    fields["H"] = name.removeprefix("an ").removeprefix("a ").removeprefix("the ")
    fields["W"] = _where(ground, name, voice)
    if GROUNDS[ground].kind == "plain":
        fields["C"] = voice.pick(COLOURS[GROUNDS[ground].first])
        fields["D"] = article(fields["C"])
    return fields


def _where(ground: str, name: str, voice: Voice) -> str:
    if ground in IN_LANDSCAPES:
        return voice.pick(IN_LANDSCAPES[ground])
    return f"{voice.pick(('on', 'against', 'in front of', 'over', 'with', 'before', 'on top of'))} {name}"


def ground_name(ground: str, voice: Voice) -> str:
    """A background with its article."""
    if ground in LANDSCAPES:
        return voice.pick(LANDSCAPES[ground])
    about = GROUNDS[ground]
    first, second = (voice.pick(COLOURS[colour]) if colour else "" for colour in (about.first, about.second))
    word = voice.pick(("background", "backdrop", "ground"))
    if about.kind == "plain":
        return article(f"{voice.pick(('', '', 'plain '))}{first} {word}")
    if about.kind == "graded":
        return voice.pick((
            f"a {word} fading from {first} to {second}", f"{article(first)} to {second} gradient",
            f"a gradient from {first} to {second}", f"{article(first)} {word} that turns {second}",
        ))  # fmt: skip
    texture = voice.pick(TEXTURES[about.kind])
    return article(voice.pick((
        f"{first} and {second} {texture} {word}", f"{texture} {word} in {first} and {second}",
        f"{texture} {first} {word}", f"{first} {texture} {word}", f"{second} and {first} {texture} {word}",
    )))  # fmt: skip


def noun(named: Named, voice: Voice) -> str:
    """A thing without its article; '+' before it says that it takes none."""
    thing = named.thing
    words = [voice.pick(SIZES[thing.size])] if thing.size else []
    if voice.chance(0.08):
        words.insert(0, voice.any(NICE))
    if named.figure:
        first, second = (voice.pick(COLOURS[c]) for c in named.tones or ("red", "red"))
        texture = [] if thing.texture == "plain" else [voice.pick(TEXTURES[str(thing.texture)])]
        colours = [first] if thing.texture == "plain" else [first, "and", second]
        return " ".join([*words, *texture, *colours, voice.pick(FIGURES[named.figure])])
    if named.own_colour:
        words.append(voice.pick(COLOURS[named.own_colour]))
    if thing.colour:
        words.append(voice.pick(COLOURS[thing.colour]))
    if thing.texture:
        at = len(words) - 1 if thing.colour and voice.chance(0.4) else len(words)
        words.insert(at, voice.pick(TEXTURES[thing.texture]))
    forms = SHAPES[thing.name] if thing.is_shape else objects()[thing.name].forms["en"]
    form = named.slot or voice.pick(forms)
    many = "+" if form.startswith("+") else ""
    return many + " ".join([*words, form.removeprefix("+")])


def article(phrase: str) -> str:
    """A noun phrase with 'a' or 'an', or with none where '+' says so."""
    if phrase.startswith("+"):
        return phrase[1:]
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def finish(text: str, voice: Voice) -> str:
    """Tags, quotes, capitals, full stops and slips."""
    if voice.rng is None:
        return text
    if voice.chance(0.06):
        text = with_slip(text, voice.rng)
    if voice.chance(0.1):
        tags = ", ".join(voice.rng.sample(TAGS, voice.rng.randint(1, 3)))
        text = f"{tags}, {text}" if voice.chance(0.2) else f"{text}, {tags}"
    if voice.chance(0.15) and text[-1] not in "?!":
        text += "."
    look = voice.rng.random()
    if look < 0.3:
        text = text[0].upper() + text[1:]
    elif look < 0.34:
        text = text.upper()
    elif look < 0.37:
        text = text.title()
    return f'"{text}"' if voice.chance(0.03) else text
