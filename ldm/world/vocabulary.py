"""The word list of the tiny model's text encoder, in the format of BERT's vocab.txt: a token's number is its line."""

from __future__ import annotations

import os
import re
import string

from ldm.util import atomic_write
from ldm.world.objects import objects
from ldm.world.photos import PHOTOS, TEMPLATES
from ldm.world.sentences import english

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPARE = 16  # [unused0].. for words that are taught later
COMMON = """
a an the this that my your his her our their some one two three and or with without of in on at by for from to is are
photo photograph photography picture image painting painted drawing drawn sketch rendering rendition depiction
illustration poster print style artist art watercolor oil pencil ink pixel cropped close up closeup bright dark clean
dirty good nice cool weird old new big huge tiny large small little long short high low
cat cats dog dogs bird birds horse fish bear cow sheep animal person people man woman boy girl child face hand eye head
house home city street road bridge car bus train boat ship plane bicycle motorcycle tree trees forest flower flowers
leaf garden park grass mountain hill river lake sea ocean beach sand stone rock water fire sky cloud clouds sun sunset
night day morning evening winter summer spring autumn snow rain light shadow room table chair window door wall floor
cup glass bottle plate bowl food fruit apple bread cake coffee tea book page paper clock camera computer phone toy ball
hat shirt shoe bag box left right top bottom above below under over behind front next near between inside
standing sitting running flying holding wearing looking grey gray brown gold silver color colour colored wooden metal
realistic beautiful detailed abstract simple
"""
SUFFIXES = ("s", "es", "ed", "ing", "er", "est", "ly", "y")


def english_words() -> list[str]:
    """Every word that an English sentence about a scene can hold, or a photograph's caption, then common ones; no
    repeats."""
    tables = (english.COLOURS, english.SIZES, english.TEXTURES, english.SHAPES, english.FIGURES, english.PLACES,
              english.LANDSCAPES, english.IN_LANDSCAPES, english.RELATIONS)  # fmt: skip
    ways = [way for table in tables for forms in table.values() for way in forms]
    names = [form for thing in objects().values() for form in thing.forms["en"]]
    templates = (*english.TEMPLATES, *english.PLAIN_TEMPLATES, *english.OPEN_TEMPLATES, *english.BESIDE)
    about = "background backdrop ground plain gradient from to fading that turns in on against over with before top of"
    photographs = [*TEMPLATES["en"], *(photo.subjects["en"] for photo in PHOTOS)]
    text = " ".join([*ways, *names, *templates, *english.NICE, *english.TAGS, about, *photographs, COMMON]).lower()
    return list(dict.fromkeys(re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", text))))


def english_vocabulary() -> list[str]:
    """The whole token list: special tokens first, then words, punctuation, spare tokens and letters.

    Letters alone and as continuations ('##a') spell any word that the list does not have, so that two unknown words
    stay two different sequences.
    """
    letters = string.ascii_lowercase + string.digits
    tokens = [
        *SPECIAL,
        *english_words(),
        *string.punctuation,
        *(f"[unused{i}]" for i in range(SPARE)),
        *letters,
        *(f"##{letter}" for letter in letters),
        *(f"##{suffix}" for suffix in SUFFIXES),
    ]
    return list(dict.fromkeys(tokens))


def write_vocabulary(path: str | os.PathLike[str]) -> None:
    """Write the token list as a vocab.txt.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(english_vocabulary()) + "\n", encoding="utf-8")
