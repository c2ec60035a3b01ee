"""Decoding in tiles, where a whole picture does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TILE, OVERLAP = 64, 16  # cells of a latent


def in_tiles(
    decode: Callable[[Tensor], Tensor], z: Tensor, factor: int, tile: int = TILE, overlap: int = OVERLAP
) -> Tensor:
    """Pictures [B, 3, h f, w f] of latents [B, C, h, w], decoded tile by tile; neighbours fade into each other.

    A decoder that normalises over the whole picture, as all of them here do, gives each tile a slightly different tone:
    what is made is close to the whole picture's, and not the same.

    Args:
        factor: f.
        tile, overlap: sides of a tile and of what it shares with each neighbour, in cells.
    """
    rows, columns = (starts(side, tile, overlap) for side in z.shape[-2:])
    total: Tensor | None = None
    for top in rows:
        for left in columns:
            piece = decode(z[..., top : top + tile, left : left + tile]).float()
            weight = faded(piece, top, left, (z.shape[-2], z.shape[-1]), factor, overlap)
            if total is None:
                size = (piece.shape[0], piece.shape[1], z.shape[-2] * factor, z.shape[-1] * factor)
                total, weights = piece.new_zeros(size), piece.new_zeros(1, 1, *size[2:])
            place = (..., slice(top * factor, top * factor + piece.shape[-2]),
                     slice(left * factor, left * factor + piece.shape[-1]))  # fmt: skip
            total[place] += weight * piece
            weights[place] += weight
    assert total is not None
    return total / weights


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, so that they cover it and neighbours share ``overlap`` cells at least."""
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def faded(piece: Tensor, top: int, left: int, size: tuple[int, int], factor: int, overlap: int) -> Tensor:
    """The weight of a tile's pixels [h, w]: 1, and less towards the edges that it shares with a neighbour."""
    sides = []
    for begin, whole, length in ((top, size[0], piece.shape[-2]), (left, size[1], piece.shape[-1])):
        place = torch.arange(length, device=piece.device, dtype=piece.dtype) + 0.5
        ramp = torch.ones_like(place)
        if begin > 0:
            ramp = torch.minimum(ramp, place / (overlap * factor))
        if begin * factor + length < whole * factor:
            ramp = torch.minimum(ramp, (length - place) / (overlap * factor))
        sides.append(ramp)
    return sides[0][:, None] * sides[1]
