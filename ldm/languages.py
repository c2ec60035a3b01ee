"""Which language a sentence is in, by its script, and whether its characters survived their way here."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from ldm.util import UserError

LANGUAGES = ("en", "ko", "zh")
OTHER = "other"  # written neither in Latin letters, Hangul nor Chinese characters
SCRIPTS = {
    "ko": ("Hangul", re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")),
    "zh": ("Chinese characters", re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")),
}
REPLACEMENT = "\ufffd"
MISREADINGS = ("cp1252", "latin-1", "gbk", "cp949")  # what UTF-8 is most often taken for


def detect_language(text: str) -> str:
    """'ko' where there is any Hangul, 'zh' for Chinese characters, OTHER for another script, else 'en'.

    One foreign letter is enough, so a mixed sentence counts as foreign; no letters at all count as English.
    """
    for language, (_, script) in SCRIPTS.items():
        if script.search(text):
            return language
    return "en" if all(map(_is_latin, text)) else OTHER


def simplified(text: str) -> str:
    """Chinese in traditional characters in simplified ones, which is what is learned here; other text as it is."""
    return _converter().convert(text) if detect_language(text) == "zh" else text


@cache
def _converter() -> Any:
    from opencc import OpenCC  # imported here: its tables are for Chinese prompts alone

    return OpenCC("t2s")


def check_language(name: str, *more: str) -> str:
    """``name``, if it is one of LANGUAGES or of ``more``.

    Raises:
        UserError: it is another one.
    """
    known = (*LANGUAGES, *more)
    if name not in known:
        raise UserError(f"unknown language '{name}'; known: {', '.join(known)}")
    return name


def what_is_wrong(text: str, language: str) -> str | None:
    """Why ``text`` cannot be a sentence in ``language``; None when nothing speaks against it.

    Found are characters that a wrong encoding has destroyed, and sentences without a letter of the language's script.
    A sentence without any letter, such as a lone placeholder, is fine.
    """
    if REPLACEMENT in text or any(_was_misread(text, encoding) for encoding in MISREADINGS):
        return "is garbled: the file was read or saved in a wrong encoding; save it as UTF-8"
    letters = [char for char in text if char.isalpha()]
    if language in SCRIPTS:
        script, letter = SCRIPTS[language]
        if letters and not letter.search(text):
            return f"has no {script}"
    elif language == "en" and not all(map(_is_latin, letters)):
        return "is not English: it has letters of another script"
    return None


def _is_latin(char: str) -> bool:
    return char.isascii() or not char.isalpha() or "LATIN" in unicodedata.name(char, "LATIN")


def _was_misread(text: str, encoding: str) -> bool:
    """Whether ``text`` is what UTF-8 looks like when it is read as ``encoding``."""
    if text.isascii():
        return False
    try:
        meant = text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False
    # a few Chinese characters can be UTF-8 of another script by chance: garbled is what was in one of these languages
    letters = [char for char in meant if char.isalpha() and not char.isascii()]
    return bool(letters) and all(any(script.match(char) for _, script in SCRIPTS.values()) for char in letters)
