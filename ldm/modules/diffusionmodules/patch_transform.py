"""A linear path between picture and latent: the lowest frequencies of a patch-wise cosine transform.

It lets a small autoencoder start as a working codec, so that training only has to learn what the transform loses.
The initial values are a fixed function of the shapes; they are ordinary parameters and train with the rest.
"""

from __future__ import annotations

import math

import torch
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
    """Pictures to posterior moments, one patch at a time: means of about unit variance, a constant log-variance."""

    def __init__(self, latent_channels: int, patch: int, log_variance: float | None) -> None:
        """``log_variance`` None: no moments, only the latent itself (``double_z: false``)."""
        moments = 1 if log_variance is None else 2
        super().__init__(COLOURS, moments * latent_channels, patch, stride=patch)
        basis, scale = patch_basis(latent_channels, patch)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()  # type: ignore[union-attr]
            self.weight[:latent_channels].copy_(basis / scale[:, None, None, None])
            if log_variance is not None:
                self.bias[latent_channels:].fill_(log_variance)  # type: ignore[index]


class PatchDecoder(nn.ConvTranspose2d):
    """Latents to pictures, the inverse of ``PatchEncoder`` on the frequencies that it keeps."""

    def __init__(self, latent_channels: int, patch: int) -> None:
        super().__init__(latent_channels, COLOURS, patch, stride=patch)
        basis, scale = patch_basis(latent_channels, patch)
        with torch.no_grad():
            self.bias.zero_()  # type: ignore[union-attr]
            self.weight.copy_(basis * scale[:, None, None, None])
