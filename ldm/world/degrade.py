"""What a generator and an autoencoder do to a picture, imitated: the scorer must see through it.

kornia blurs. Its other augmentations would not do: they draw from torch's global generator, where here every amount
comes from the one that is given; its elastic transform smooths a noise of one value a pixel, where here 6x6 values are
enough; and it has no cosine transform.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

PATCH = 8
_TO_LUMA = ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.0, -0.5), (-0.25, 0.5, -0.25))


def degrade(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Wobbling edges, blur, colour shifts, coarse patches and noise, each by an amount of its own per picture.

    Args:
        images: [B, 3, H, W] in [-1, 1], sides divisible by 8.
        generator: where all amounts come from.
        strength: factor on all amounts; 0 returns the pictures as they are.
    """
    amounts = torch.rand(5, len(images), generator=generator).square() * strength  # most pictures suffer little
    images = wobble(images, 0.03 * amounts[0], generator)
    images = blur(images, 1.2 * amounts[1])
    images = shift_colours(images, 0.12 * amounts[2], generator)
    images = coarse_patches(images, amounts[3], generator)
    noise = torch.randn(images.shape, generator=generator)
    return (images + 0.2 * _each(amounts[4]) * noise).clamp(-1, 1)


def _each(amounts: Tensor) -> Tensor:
    return amounts[:, None, None, None]


def wobble(images: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Move each point by a smooth random field, `amounts` [B] widths in standard deviation."""
    b, _, h, w = images.shape
    coarse = torch.randn(b, 2, 6, 6, generator=generator) * 2 * _each(amounts)
    field = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = F.affine_grid(torch.eye(2, 3).expand(b, 2, 3), [b, 3, h, w], align_corners=False)
    return F.grid_sample(images, still + field, padding_mode="border", align_corners=False)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """A Gaussian of `sigmas` [B] pixels on images [B, 3, H, W], cut at 3 pixels; 0 leaves a picture as it is."""
    sigmas = sigmas.clamp(min=1e-3)[:, None].expand(-1, 2)  # kornia divides by them
    return gaussian_blur2d(images, (7, 7), sigmas, border_type="replicate")


def shift_colours(images: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Another gain and offset for each channel, in standard deviations of `amounts` [B]."""
    gain, offset = torch.randn(2, len(images), 3, 1, 1, generator=generator) * _each(amounts)
    return images * (1 + gain) + 0.7 * offset


def coarse_patches(images: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Lose the fine part of each 8x8 patch's cosine transform and disturb the rest, as an f = 8 latent does.

    An amount of 1 leaves about 12 of 64 coefficients of the brightness and 3 of 64 of each colour difference.

    Shapes: images [B, 3, H, W] in [-1, 1], sides that 8 divides, amounts [B] in [0, 1] -> as the images.
    """
    b, _, h, w = images.shape
    basis = _cosines()
    patches = images.reshape(b, 3, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    colours = torch.tensor(_TO_LUMA)
    spectrum = torch.einsum("kc,byxcij,ui,vj->byxkuv", colours, patches, basis, basis)
    frequency = torch.arange(PATCH).float()
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    limits = torch.tensor([3.5, 1.6, 1.6])[None, :] ** amounts[:, None] * 11 ** (1 - amounts[:, None])
    kept = (radius <= limits[:, :, None, None]).float()[:, None, None]
    noise = torch.randn(spectrum.shape, generator=generator) * (0.25 * amounts)[:, None, None, None, None, None]
    changed = (spectrum + noise) * kept
    mixed = torch.einsum("ck,byxkuv,ui,vj->byxcij", torch.linalg.inv(colours), changed, basis, basis)
    coarse = mixed.permute(0, 3, 1, 4, 2, 5).reshape(b, 3, h, w)
    return torch.where(_each(amounts) > 0, coarse, images)


@cache
def _cosines() -> Tensor:
    """The orthonormal 8-point cosine transform, [frequency, position]."""
    k, n = torch.arange(PATCH)[:, None], torch.arange(PATCH)[None]
    basis = torch.cos(math.pi / PATCH * (n + 0.5) * k) * math.sqrt(2 / PATCH)
    basis[0] /= math.sqrt(2)
    return basis
