"""Learned words in a text: they are found before it is taken apart into tokens, whatever stands beside them.

Tokenizers join what belongs together in a language (CLIP's makes one token of "*," and several of "<cat-toy>"), so that
a learned word would be lost among their tokens.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

_LATIN = "a-z0-9\u00c0-\u024f"


@runtime_checkable
class HasPlaceholders(Protocol):
    """What an encoder needs to know about learned words; an EmbeddingManager does."""

    @property
    def placeholders(self) -> Sequence[str]:
        """The words that stand for learned vectors."""
        ...


def placeholders_of(change: Any) -> Sequence[str]:
    """The learned words of what an encoder calls between its token vectors and its positions; none without any."""
    return change.placeholders if isinstance(change, HasPlaceholders) else ()


def split_at(text: str, placeholders: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """A text as pieces, each (text before, placeholder); the last piece has None.

    The longest match wins; a placeholder that begins or ends with a Latin letter or a digit is not found inside a
    longer Latin word; case is ignored, as the tokenizers ignore it.
    """
    start = 0
    if placeholders:
        names = {name.lower(): name for name in placeholders}
        either = re.compile("|".join(map(_pattern, sorted(names, key=len, reverse=True))), re.IGNORECASE)
        for found in either.finditer(text):
            yield text[start : found.start()], names[found.group().lower()]
            start = found.end()
    yield text[start:], None


def stand_in(word: str) -> int:
    """The id of a learned word that is no single token: a negative number, which no vocabulary has."""
    return -1 - (zlib.crc32(word.lower().encode()) & 0x3FFFFFFF)


def _pattern(name: str) -> str:
    before = f"(?<![{_LATIN}])" if _is_latin(name[0]) else ""
    after = f"(?![{_LATIN}])" if _is_latin(name[-1]) else ""
    return before + re.escape(name) + after


def _is_latin(letter: str) -> bool:
    return re.match(f"[{_LATIN}]", letter, re.IGNORECASE) is not None
