"""A small network that puts right pixels of pictures of a world that an autoencoder draws a little wrong.

A decoder that has to draw whatever there is leaves edges soft and grounds uneven where latents are not quite a true
picture's. Another network, trained on nothing but drawn and true pictures of the world, knows what is likely there. It
looks at patches of two by two cells, which begin at any of them, each with the ring of cells around it, and adds a
little to the drawn pixels.
"""

from __future__ import annotations

import itertools
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoint import load_weights
from ldm.modules.corrector import PATCH

AROUND = PATCH + 2  # cells along each side of what is looked at
STRENGTH = 0.1  # of a change, so that a first step of training makes none that is seen
SPREAD = 2.0  # what pixels are told times, to be as far apart as latents


def surroundings(padded: Tensor) -> Tensor:
    """The patches with a ring of cells around each, [B, P, 16 C], of latents [B, C, h+2, w+2] with such a ring."""
    return F.unfold(padded, AROUND, stride=PATCH).transpose(1, 2)


def pixel_patches(pictures: Tensor, side: int) -> Tensor:
    """Pictures [B, 3, H, W] as patches of ``side`` pixels, [B, H/side * W/side, 3 side^2]."""
    return F.unfold(pictures, side, stride=side).transpose(1, 2)


def from_pixel_patches(patches: Tensor, height: int, width: int, side: int) -> Tensor:
    """Patches [B, H/side * W/side, 3 side^2] as the pictures [B, 3, H, W]."""
    return F.fold(patches.transpose(1, 2), (height, width), side, stride=side)


def window(height: int, width: int, side: int) -> Tensor:
    """What a patch's pixels count, for each patch of a picture, [H, W]: most in its middle, next to nothing at its rim.

    Half a patch aside, both windows come to one.
    """
    down, across = (((torch.arange(n) % side + 0.5) * torch.pi / side).sin().square() for n in (height, width))
    return down[:, None] * across


class Retoucher(nn.Module):
    """Layers over a patch's latents and pixels; the last one, which says what to add, begins at zero.

    Args:
        channels: C of the latents.
        side: pixels along each side of a patch.
        width: of the layers.
        depth: how many there are behind the first one, each added to what comes into it.
        ckpt_path: weights; none leaves them random.
    """

    def __init__(
        self, channels: int, side: int = 16, width: int = 1024, depth: int = 1,
        ckpt_path: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels, self.side = channels, side
        pixels = 3 * side**2
        self.first = nn.Sequential(nn.Linear(AROUND**2 * channels + pixels, width), nn.GELU())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(depth)
        )
        self.last = nn.Linear(width, pixels)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        if ckpt_path is not None:
            load_weights(self, ckpt_path, strict=True)

    def forward(self, around: Tensor, drawn: Tensor) -> Tensor:
        """What is missing in each patch: latents [..., 16 C] and pixels [..., 3 side^2] -> like the pixels."""
        h = self.first(torch.cat([around, SPREAD * drawn], dim=-1))
        for layer in self.layers:
            h = h + layer(h)
        return STRENGTH * self.last(h)

    def retouched(self, pictures: Tensor, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] that were decoded from ``latents`` [B, C, h, w], with what is missing in them.

        Four grids of patches, each a cell aside of the others, are blended under their windows: no border shows.
        """
        cell = self.side // PATCH
        padded = F.pad(latents.to(pictures.dtype), (1,) * 4, mode="replicate")
        missing, counted = torch.zeros_like(pictures), torch.zeros_like(pictures[:1, :1])
        for top, left in itertools.product(range(PATCH), repeat=2):
            rows, columns = (
                (n - begin) // PATCH * PATCH for n, begin in zip(latents.shape[-2:], (top, left), strict=True)
            )
            if not rows or not columns:
                continue  # a picture of one patch a side has no other grids
            where = (..., slice(top * cell, (top + rows) * cell), slice(left * cell, (left + columns) * cell))
            around = surroundings(padded[..., top : top + rows + 2, left : left + columns + 2])
            added = self(around, pixel_patches(pictures[where], self.side))
            counts = window(rows * cell, columns * cell, self.side).to(pictures)
            missing[where] += counts * from_pixel_patches(added, rows * cell, columns * cell, self.side)
            counted[where] += counts
        return pictures + missing / counted
