"""A linear path between picture and latent: the lowest frequencies of a patch-wise cosine transform.

It lets a small autoencoder start as a working codec, so that training only has to learn what the transform loses.
The initial values are a fixed function of the shapes; they are ordinary parameters and train with the rest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

COLOURS = 3
# Typical deviation of the cosine coefficients of natural pictures in [-1,1] at total frequency 1, for luma and the two
# chroma axes. It falls as 1 / frequency (pictures have power spectra near 1/f^2); the mean is about 5 times larger.
AMPLITUDES = (1.4, 0.6, 0.4)
MEAN_RATIO = 5.0


def cosine_basis(size: int) -> torch.Tensor:
    """Rows of the orthonormal DCT-II: [size, size], row k has frequency k / 2 cycles over the window."""
    position = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5
    frequency = torch.arange(size, dtype=torch.float64, device="cpu")
    rows = torch.cos(math.pi / size * frequency[:, None] * position) * math.sqrt(2.0 / size)
    rows[0] /= math.sqrt(2.0)
    return rows


def typical_deviation(colour: int, u: int, v: int) -> float:
    """Deviation expected of the coefficient of colour axis ``colour`` at vertical and horizontal frequency (u, v)."""
    return AMPLITUDES[colour] / (u + v) if u + v else AMPLITUDES[colour] * MEAN_RATIO


def lowest_frequencies(count: int, patch: int) -> list[tuple[int, int, int]]:
    """The ``count`` coefficients (colour, u, v) with the largest expected deviation, largest first.

    16 of them are 10 luma and 3 + 3 chroma, each in a triangle of low frequencies.
    """
    every = [(c, u, v) for c in range(COLOURS) for u in range(patch) for v in range(patch)]
    return sorted(every, key=lambda cuv: -typical_deviation(*cuv))[:count]


def patch_basis(count: int, patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal patches [count, 3, patch, patch] and the expected deviation [count] of the coefficient of each.

    The colour axes are the three-point DCT over (R, G, B): luma, red against blue, green against both.
    """
    colour, space = cosine_basis(COLOURS), cosine_basis(patch)
    chosen = lowest_frequencies(count, patch)
    basis = torch.stack([torch.einsum("c,h,w->chw", colour[c], space[u], space[v]) for c, u, v in chosen])
    scale = torch.tensor([typical_deviation(*cuv) for cuv in chosen], dtype=torch.float64, device="cpu")
    return basis.float(), scale.float()


class PatchEncoder(nn.Conv2d):
    """Pictures to posterior moments, one patch at a time: means of about unit variance, a constant log-variance.

    With ``overlap`` each patch is seen with so many pixels around it, repeated at the picture's edges; at first they
    count for nothing.
    """

    def __init__(self, latent_channels: int, patch: int, log_variance: float | None, overlap: int = 0) -> None:
        """``log_variance`` None: no moments, only the latent itself (``double_z: false``)."""
        moments = 1 if log_variance is None else 2
        super().__init__(COLOURS, moments * latent_channels, patch + 2 * overlap, stride=patch)
        self.overlap = overlap
        basis, scale = patch_basis(latent_channels, patch)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()  # type: ignore[union-attr]
            self.weight[:latent_channels].copy_(surrounded(basis / scale[:, None, None, None], overlap))
            if log_variance is not None:
                self.bias[latent_channels:].fill_(log_variance)  # type: ignore[index]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,moments,H/patch,W/patch]."""
        if self.overlap:
            input = F.pad(input, (self.overlap,) * 4, mode="replicate")
        return super().forward(input)


class PatchDecoder(nn.ConvTranspose2d):
    """Latents to pictures, the inverse of ``PatchEncoder`` on the frequencies that it keeps.

    With ``overlap`` neighbouring patches fade into each other over so many pixels to both sides of their border, so
    that small errors of neighbouring latents leave no seam.
    """

    def __init__(self, latent_channels: int, patch: int, overlap: int = 0) -> None:
        super().__init__(latent_channels, COLOURS, patch + 2 * overlap, stride=patch, padding=overlap)
        self.overlap, self.patch = overlap, patch
        basis, scale = patch_basis(latent_channels, patch)
        with torch.no_grad():
            self.bias.zero_()  # type: ignore[union-attr]
            self.weight.copy_(faded(basis * scale[:, None, None, None], overlap))

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """[B,latent_channels,h,w] -> [B,3,h*patch,w*patch]."""
        if not self.overlap:
            return super().forward(input, output_size)
        wide = super().forward(F.pad(input, (1,) * 4, mode="replicate"))  # else the picture's edges would fade out
        return wide[..., self.patch : -self.patch, self.patch : -self.patch]


def surrounded(patches: torch.Tensor, overlap: int) -> torch.Tensor:
    """An encoder's patches [..., p, p] with ``overlap`` pixels of nothing around them."""
    return F.pad(patches, (overlap,) * 4)


def faded(patches: torch.Tensor, overlap: int) -> torch.Tensor:
    """A decoder's patches [..., p, p] continued by reflection, fading out as sin^2: neighbours add up to one.

    A cosine is its own reflection, so what is smooth across a border stays so.
    """
    if not overlap:
        return patches
    size = patches.shape[-1]
    position = torch.arange(-overlap, size + overlap, device="cpu")
    inside = torch.where(position < 0, -1 - position, torch.where(position >= size, 2 * size - 1 - position, position))
    depth = torch.minimum(position, size - 1 - position).double() + 0.5  # from the nearest border, inwards
    window = torch.sin(math.pi / 4 * (1 + (depth / overlap).clamp(-1, 1))).square().to(patches)
    return patches[..., inside, :][..., inside] * window[:, None] * window
