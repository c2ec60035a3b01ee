"""What is too much at once, in portions: pictures through an autoencoder, a film through a decoder of films."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.util import UserError


def in_portions(function: Callable[[Tensor], Any], rows: Tensor, largest: int | None) -> Any:
    """What a function of the autoencoder makes of rows [B, ...], given a few at once."""
    if largest is None or len(rows) <= largest:
        return function(rows)
    made = [function(portion) for portion in rows.split(largest)]
    if isinstance(made[0], DiagonalGaussianDistribution):
        return DiagonalGaussianDistribution(torch.cat([posterior.parameters for posterior in made]))
    return torch.cat(made)


def in_blended_chunks(decode: Callable[[Tensor], Tensor], frames: Tensor, chunk: int, overlap: int = 0) -> Tensor:
    """A film [T, ...] decoded ``chunk`` frames at once, of which neighbouring chunks share some.

    A decoder of films sees a chunk as a film of its own, so that where two meet they do not agree. Frames that both
    have go over from one to the other, evenly; the last chunk is as long as the others, which shares more if need be.

    Args:
        decode: frames [n, ...] -> pictures [n, 3, H, W].
        overlap: frames that two neighbours share, less than ``chunk``; 0 as the public program has it, whose last chunk
            may be shorter.

    Raises:
        UserError: numbers that do not fit each other.
    """
    if chunk < 1 or not 0 <= overlap < chunk:
        raise UserError(f"frames decoded at once are 1 or more, of which fewer overlap; got {chunk} and {overlap}")
    count = len(frames)
    if not overlap or count <= chunk:
        return torch.cat([decode(portion) for portion in frames.split(chunk)])
    starts = [*range(0, count - chunk, chunk - overlap), count - chunk]
    film: Tensor | None = None
    end = 0
    for start in starts:
        decoded = decode(frames[start : start + chunk])
        film = decoded.new_zeros(count, *decoded.shape[1:]) if film is None else film
        shared = max(end - start, 0)
        share = torch.arange(1, shared + 1, device=decoded.device, dtype=decoded.dtype) / (shared + 1)
        share = share.reshape(-1, *[1] * (decoded.dim() - 1))
        film[start:end] = torch.lerp(film[start:end], decoded[:shared], share)
        film[start + shared : start + chunk] = decoded[shared:]
        end = start + chunk
    assert film is not None
    return film
