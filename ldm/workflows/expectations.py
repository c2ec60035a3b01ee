"""What a person should know of a request before its pictures come: words and signs that are not read, odd sizes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

from ldm.languages import detect_language
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.modules.encoders.learned_words import split_at
from ldm.workflows.prompt_syntax import not_understood

log = logging.getLogger(__name__)

MUCH_LARGER, MUCH_SMALLER = 1.5, 0.6  # of a side, beside that of the training
_WORD = re.compile(r"[^\W\d_]+")
EMOJI = "\u2190"  # the first sign that may be one: below are the degree, copyright and the like
_LEARNED = re.compile(r"(?<!\S)\*(?![\w*])|<[\w-]+>")  # as learned words are usually written


def report_prompts(model: Any, prompts: Sequence[str], learned: Iterable[str] = (), taught: bool = False) -> None:
    """Warn about words that the model lacks, learned ones that no file brings, and signs that mean nothing here.

    Args:
        prompts: all that is read.
        learned: placeholders, which are known however they are written; so are those that the model has itself.
        taught: whether a LoRA is on the model, which may have been taught under a word that the model lacks.
    """
    own = () if model.embedding_manager is None else model.embedding_manager.placeholders
    learned = list(dict.fromkeys([*learned, *own]))
    for prompt in dict.fromkeys(prompts):
        plain = " ".join(before for before, _ in split_at(prompt, learned))
        for signs, meaning in not_understood(plain).items():
            log.warning("'%s' %s in other programs; here it is read as it stands", signs, meaning)
        for name in dict.fromkeys(_LEARNED.findall(plain)):
            log.warning("no file brings the learned word '%s' of '%s': --embedding_path FILE would", name, prompt)
        unknown = unknown_words(next(iter(text_encoders_of(model.cond_stage_model)), None), plain)
        if unknown:
            listed = ", ".join(f"'{word}'" for word in unknown)
            instead = "what a LoRA was taught by that name, or nothing" if taught else "letters, or nothing, to it"
            log.warning("the model has no word for %s: in '%s' that is %s", listed, prompt, instead)


def unknown_words(encoder: Any, text: str) -> list[str]:
    """The words of an English text that the encoder's vocabulary lacks, in order, and then its emoji.

    Such a word is the unknown one, or it is taken apart into pieces most of which are single letters; an emoji, of
    which some encoders know the bytes, is the unknown one only.
    """
    if not isinstance(encoder, TextEncoder) or encoder.tokenizer is None or detect_language(text) != "en":
        return []
    tokenizer = encoder.tokenizer
    found = []
    for word in dict.fromkeys(_WORD.findall(text)):
        pieces = tokenizer.pieces(word)
        if tokenizer.unknown in pieces or (len(pieces) > 2 and 2 * len(pieces) > len(word)):
            found.append(word)
    signs = dict.fromkeys(sign for sign in text if category(sign) == "So" and sign >= EMOJI)
    return found + [sign for sign in signs if tokenizer.unknown in tokenizer.pieces(sign)]


def report_size(size: tuple[int, int], trained: tuple[int, int]) -> None:
    """Warn about a size (width, height) in pixels that is far from the one of the training."""
    ratios = [side / usual for side, usual in zip(size, trained, strict=True)]
    expected = ""
    if max(ratios) >= MUCH_LARGER:
        expected = "things often come twice, or fall apart"
    elif min(ratios) <= MUCH_SMALLER:
        expected = "things are often cut off or blurred"
    if expected:
        log.warning("%dx%d is far from the %dx%d that this model is for: %s", *size, *trained, expected)
