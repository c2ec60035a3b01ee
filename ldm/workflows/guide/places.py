"""Where the words of a prompt stand among the tokens that the network sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.multilingual import Multilingual
from ldm.util import UserError

# English words that name no thing: what is left of a prompt are its nouns, more or less
NO_NOUNS = frozenset({
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "no", "each", "every", "both", "all", "one",
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "and", "or", "but", "nor", "of", "in",
    "on", "at", "by", "to", "for", "from", "with", "without", "into", "onto", "over", "under", "above", "below",
    "behind", "before", "after", "beside", "between", "near", "next", "through", "against", "around", "inside",
    "outside", "left", "right", "top", "bottom", "middle", "upper", "lower", "is", "are", "was", "were", "be",
    "being", "been", "has", "have", "having", "do", "does", "it", "its", "his", "her", "their", "there", "here",
    "as", "like", "than", "very", "so", "too", "not", "red", "green", "blue", "yellow", "orange", "purple", "pink",
    "brown", "black", "white", "grey", "gray", "cyan", "magenta", "golden", "silver", "dark", "light", "bright",
    "small", "tiny", "little", "big", "large", "huge", "tall", "short", "long", "wide", "old", "new", "young",
    "plain", "striped", "dotted", "checkered", "beautiful",
})  # fmt: skip
SIGNS = re.compile(r"[^\w]+")
Place = tuple[int, ...]


def places(model: Any, prompt: str, word: str) -> list[Place]:
    """The places in the context of a word (or of several), once for each time that it stands in a prompt.

    ``word#2`` is the second time alone. In a language that is translated, a word is looked for in the English that the
    prompt is read as: a foreign one is read by itself first.

    Args:
        model: a LatentDiffusion.
        prompt: a text without weights.

    Raises:
        UserError: the model reads no text, or the prompt does not have the word (so often), or is cut before it.
    """
    encoder = encoder_of(model)
    row = row_of(model, prompt)
    wanted, number = numbered(word)
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        found = _foreign(model, prompt, wanted, row)
    else:
        found = _occurrences(row, pieces_of(model, wanted))
    if not found:
        raise UserError(_lacking(model, prompt, wanted))
    if number is None:
        return found
    if not 1 <= number <= len(found):
        raise UserError(f"the prompt '{prompt}' has '{wanted}' {len(found)} times, so there is no '{word}'")
    return [found[number - 1]]


def encoder_of(model: Any) -> TextEncoder:
    """The model's text encoder; of several, which have one vocabulary, the first.

    Raises:
        UserError: the model reads no text.
    """
    encoder = next(iter(text_encoders_of(model.cond_stage_model)), None)
    if encoder is None or encoder.tokenizer is None:
        raise UserError("this model reads no text, so that no word can be looked for")
    return encoder


def row_of(model: Any, prompt: str) -> list[int]:
    """The token ids of a prompt as the network's context has them, learned words with a place for each vector."""
    encoder, learned = encoder_of(model), model.embedding_manager
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        tokens = encoder.reading([prompt], placeholders_of(learned)).tokens.cpu()
        return (tokens if learned is None else learned.expanded(tokens))[0].tolist()
    return encoder.tokenize(prompt)[0].tolist() if learned is None else learned.row_of(prompt)


def pieces_of(model: Any, words: str) -> list[int]:
    """The token ids of words alone, without markers; learned words with a place for each vector."""
    encoder = encoder_of(model)
    assert encoder.tokenizer is not None
    if model.embedding_manager is None:
        return encoder.tokenizer.pieces(words)
    row, empty = model.embedding_manager.row_of(words), encoder.tokenize("")[0].tolist()
    end = empty[1]
    return row[1 : row.index(end, 1) if end in row[1:] else None]


def end_of(model: Any, prompt: str) -> int:
    """The place of a prompt's end marker."""
    row, empty = row_of(model, prompt), encoder_of(model).tokenize("")[0].tolist()
    return row.index(empty[1], 1) if empty[1] in row[1:] else len(row)


def nouns(model: Any, prompt: str) -> list[str]:
    """The words of an English prompt that may name a thing: all but those of ``NO_NOUNS``; learned words, too.

    Raises:
        UserError: there are none, or the prompt is in another language.
    """
    encoder = encoder_of(model)
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        read = encoder.translate([prompt], placeholders_of(model.embedding_manager))[0]
        raise UserError(f"the words of '{prompt}' are not chosen by themselves: name some of '{read}', as it is read")
    learned = [word for word in placeholders_of(model.embedding_manager) if word in prompt]
    rest = prompt
    for word in learned:
        rest = rest.replace(word, " ")
    words = [word for word in SIGNS.split(rest) if len(word) > 1 and word.lower() not in NO_NOUNS]
    found = list(dict.fromkeys([*learned, *words]))
    if not found:
        raise UserError(f"the prompt '{prompt}' has no word that names a thing; say which words are meant")
    return found


def numbered(word: str) -> tuple[str, int | None]:
    """A word and which of its times is meant, of ``star#2``; None where all are."""
    match = re.fullmatch(r"(.+?)\s*#(\d+)", word.strip())
    return (match[1], int(match[2])) if match else (word.strip(), None)


def _occurrences(row: Sequence[int], pieces: Sequence[int]) -> list[Place]:
    """Where some ids stand next to each other in a row of ids."""
    count = len(pieces)
    starts = [i for i in range(len(row)) if count and list(row[i : i + count]) == list(pieces)]
    return [tuple(range(start, start + count)) for start in starts]


def _foreign(model: Any, prompt: str, word: str, row: Sequence[int]) -> list[Place]:
    """A word of a prompt whose English tokens are ``row``; a foreign one by the tokens that it has by itself."""
    encoder = encoder_of(model)
    assert isinstance(encoder, Multilingual)
    if not encoder.is_foreign(word):
        return _occurrences(row, pieces_of(model, word))
    special = set(encoder.tokenize("")[0].tolist())
    plain = {token for name in NO_THING for token in pieces_of(model, name)} | special
    read = [token for token in row_of(model, word) if token not in plain and token in row]
    whole = _occurrences(row, read)
    return whole or [(place,) for place, token in enumerate(row) if token in read]


NO_THING = ("a", "an", "the", "on", "of", "in", ",", ".")  # what a phrase shares with any other


def _lacking(model: Any, prompt: str, word: str) -> str:
    encoder = encoder_of(model)
    if isinstance(encoder, Multilingual) and encoder.is_foreign(prompt):
        read, *others = encoder.translate([prompt, *([word] if encoder.is_foreign(word) else [])])
        by_itself = f", and the word by itself as '{others[0]}'" if others else ""
        return f"'{prompt}' is read as '{read}'{by_itself}: '{word}' is not found there; name an English word of it"
    pieces = pieces_of(model, word)
    assert encoder.tokenizer is not None
    if _occurrences(encoder.tokenizer.pieces(prompt), pieces):
        return f"the prompt '{prompt}' is cut before '{word}': it has more than {encoder.max_length} tokens"
    return f"the prompt '{prompt}' has no word '{word}'"
