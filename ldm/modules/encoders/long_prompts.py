"""Prompts that are longer than a text encoder reads at once: in chunks, one after the other, side by side in a context.

As the programs do it in which most such prompts were written (AUTOMATIC1111's web UI): each chunk has as many tokens as
fit between the markers, 75 for CLIP, and ``BREAK`` ends one early.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm.modules.encoders.learned_words import placeholders_of, split_at

BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")
BEHIND_COMMA = 20  # positions, the comma's own included


class Chunked(Protocol):
    """What is needed of a text encoder."""

    @property
    def max_length(self) -> int: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    def placeholder_id(self, word: str) -> int: ...

    def encode_tokens(self, tokens: Tensor, embedding_manager: Any = None) -> Tensor: ...


def chunks_of(encoder: Chunked, text: str, words: Any = None) -> list[list[int]]:
    """The tokens of a text, without markers, chunk by chunk; at least one, which may be empty.

    Args:
        words: what the encoder calls between token vectors and positions; a learned word is never parted.
    """
    return [[token for token, _ in chunk] for chunk in _chunked(encoder, text, words)]


def places_in_chunks(encoder: Chunked, text: str, words: Any = None) -> list[int]:
    """The place in the context [K * N] of each position of a text, of learned words one for each vector."""
    lengths = [sum(width for _, width in chunk) for chunk in _chunked(encoder, text, words)]
    return [k * encoder.max_length + 1 + i for k, length in enumerate(lengths) for i in range(length)]


def positions_before(encoder: Chunked, text: str, words: Any = None) -> int:
    """How many positions a text takes, that is where the next begins among those of a longer one."""
    return sum(width for part in BREAK.split(text) for _, width in tokens_of(encoder, part, words))


def _chunked(encoder: Chunked, text: str, words: Any) -> list[list[tuple[int, int]]]:
    """Tokens with their widths, chunk by chunk.

    Where a chunk is full, what stands behind its last comma goes to the next one if that is at most ``BEHIND_COMMA``
    positions, so that what belongs together is read together.
    """
    room = encoder.max_length - 2
    comma = next(iter(encoder.tokenizer.pieces(",")), None)
    comma = None if comma == encoder.tokenizer.unknown else comma
    found: list[list[tuple[int, int]]] = []
    for part in BREAK.split(text):
        chunk: list[tuple[int, int]] = []
        for token, width in tokens_of(encoder, part, words):
            if chunk and _length(chunk) + width > room:
                kept, moved = _at_comma(chunk, comma if token != comma else None)
                found.append(kept)
                chunk = moved
            chunk.append((token, width))
        if chunk:
            found.append(chunk)
    return found or [[]]


def _length(chunk: Sequence[tuple[int, int]]) -> int:
    return sum(width for _, width in chunk)


def _at_comma(chunk: list[tuple[int, int]], comma: int | None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """A full chunk up to its last comma, and what stands behind that; nothing where it is too much, or no comma."""
    ends = [end for end in range(1, len(chunk) + 1) if comma is not None and chunk[end - 1][0] == comma]
    behind = chunk[ends[-1] :] if ends else chunk
    return (chunk[: ends[-1]], behind) if ends and _length(behind) < BEHIND_COMMA else (chunk, [])


def long_context(encoder: Chunked, texts: Sequence[str], words: Any = None) -> Tensor:
    """Texts -> context [B, K * N, D] of their K chunks.

    A text with fewer chunks than another has its own again and again: attention sees the same in equal shares, so that
    nothing but the rounding depends on what a text is encoded beside.
    """
    cut = [chunks_of(encoder, text, words) for text in texts]
    rows = encoder.tokenizer.rows([chunk for chunks in cut for chunk in chunks]).to(encoder.device)
    states = encoder.encode_tokens(rows, words).split([len(chunks) for chunks in cut])
    return torch.stack(equally_long([own.flatten(0, 1) for own in states]))


def equally_long(contexts: Sequence[Tensor], dim: int = 0) -> list[Tensor]:
    """Contexts of several lengths along ``dim``, each repeated as a whole until all are equally long."""
    length = math.lcm(*(context.shape[dim] for context in contexts))
    return [torch.cat([context] * (length // context.shape[dim]), dim=dim) for context in contexts]


def tokens_of(encoder: Chunked, text: str, words: Any) -> list[tuple[int, int]]:
    """Tokens of a text, each with the positions that it takes."""
    placed: list[tuple[int, int]] = []
    for before, name in split_at(text, placeholders_of(words)):
        placed += [(token, 1) for token in encoder.tokenizer.pieces(before)]
        if name is not None:
            placed.append((encoder.placeholder_id(name), positions_of(words, name)))
    return placed


def positions_of(words: Any, name: str) -> int:
    """How many positions a learned word takes in a prompt."""
    with words.paused():  # this is no look at a word that gets more vectors from time to time
        return words.at()[name].shape[-2]
