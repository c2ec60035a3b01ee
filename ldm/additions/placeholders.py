"""Placeholders in rows of tokens, as pure functions: where they expand to, and what is filled in.

A placeholder is one token in a prompt. In the encoder n learned vectors take its place, so the rest of the row moves
right and what does not fit falls off the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def expansion(tokens: Tensor, counts: Mapping[int, int]) -> tuple[Tensor, Tensor]:
    """Where every position of the expanded rows comes from.

    Args:
        tokens: ids [B, N], long.
        counts: token -> how many positions each of its occurrences takes, at least 1; other tokens take one.

    Returns:
        ``source`` [B, N]: the column of ``tokens`` that a position comes from, and ``slot`` [B, N]: 0 for the first
        position of an occurrence, 1 for the second, and so on. Both long; rows keep their length.
    """
    taken = torch.ones_like(tokens)
    for token, count in counts.items():
        taken = torch.where(tokens == token, count, taken)
    ends = taken.cumsum(dim=1)
    columns = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape).contiguous()
    source = torch.searchsorted(ends, columns, right=True)
    return source, columns - (ends - taken).gather(1, source)


def fill(tokens: Tensor, embedded: Tensor, vectors: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Expand placeholders and put their vectors in.

    Args:
        tokens: ids [B, N], long.
        embedded: the tokens' vectors [B, N, D], before positions are added.
        vectors: placeholder's token -> [n, D], n at least 1, or [B, n, D] where every row has its own.

    Returns:
        New tokens [B, N], in which every filled position has the placeholder's id, and vectors [B, N, D] in the
        precision of ``embedded``, with the gradient of what was filled in.
    """
    source, slot = expansion(tokens, {token: value.shape[-2] for token, value in vectors.items()})
    tokens = tokens.gather(1, source)
    row = torch.arange(len(tokens), device=tokens.device)[:, None]
    embedded = embedded[row, source]
    for token, value in vectors.items():
        value = value.to(embedded).expand(len(tokens), -1, -1)
        filled = value[row, slot.clamp(max=value.shape[1] - 1)]
        embedded = torch.where((tokens == token)[..., None], filled, embedded)
    return tokens, embedded


@dataclass(frozen=True)
class Beside:
    """A word's own part of a context.

    Attributes:
        vectors: [n, D].
        amount: 0 for the prompt's own context in their place, 1 for them.
    """

    vectors: Tensor
    amount: float = 1.0

    def part(self, text: Tensor) -> Tensor:
        """For a prompt's context [N, D]: the vectors over and over again, [N, D]."""
        repeated = self.vectors[torch.arange(len(text), device=self.vectors.device) % len(self.vectors)]
        return torch.lerp(text, repeated.to(text), self.amount)


def lengthened(context: Tensor, used: Sequence[Sequence[Beside]], words: int) -> Tensor:
    """Contexts of prompts with their words' own parts behind them.

    Prompts that use fewer words than another have what they have again and again: attention sees it in equal shares, so
    that nothing but the rounding depends on what a prompt is beside, and all that are encoded are equally long.

    Args:
        context: [B, N, D].
        used: the words that each of the B prompts uses.
        words: how many there are at most.

    Returns:
        [B, M, D], M being N times the least number that 1 to ``words`` + 1 divide.
    """
    length = math.lcm(*range(1, words + 2)) * context.shape[1]
    rows = [torch.cat([text, *(word.part(text) for word in own)]) for text, own in zip(context, used, strict=True)]
    return torch.stack([row.repeat(length // len(row), 1) for row in rows])


def spread(pieces: Tensor, count: int) -> Tensor:
    """The vectors [m, D] of a word's pieces as ``count`` vectors [count, D].

    One piece is repeated; several are dealt out in their order; where there are more pieces than vectors, neighbours
    are averaged (all of them for one vector).
    """
    return F.adaptive_avg_pool1d(pieces.T[None], count)[0].T.contiguous()
