"""How near a picture is to a style and to a content, by measures that need no trained network.

Colour: sliced Wasserstein distance between the pixels of two pictures in CIELAB (Rabin et al. 2012). Texture: distance
of Gram matrices (Gatys et al. 2016) of rectified responses to Gabor filters at three scales, in place of a network's
features. Structure: how little two pictures' edges agree, and one minus SSIM (Wang et al. 2004), both of luminance.
They say nothing about what is shown; a person has to look at that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from kornia.filters import gaussian_blur2d, spatial_gradient
from kornia.metrics import ssim
from skimage.filters import gabor_kernel
from torch import Tensor

from ldm.metrics.distance import Distance

PROJECTIONS = 64
QUANTILES = 512
ANGLES = 4
FREQUENCY = 0.2  # of the Gabor filters, in cycles a pixel; each scale halves the picture
SCALES = 3
EDGE_BLUR = 1.5  # pixels within which edges count as the same
SSIM_WINDOW = 11


def lab(picture: Tensor) -> Tensor:
    """CIELAB [3, H, W] of a picture [3, H, W] in [-1, 1]; L from 0 to 100."""
    return rgb_to_lab(((picture.float() + 1) / 2).clamp(0, 1))


def colour_quantiles(picture: Tensor) -> Tensor:
    """How the colours [3, H, W] of a picture lie along some directions of CIELAB: [directions, quantiles]."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(PROJECTIONS, 3, generator=generator), dim=1)
    places = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    # one direction at a time: torch takes no more than 2^24 values
    return torch.stack([torch.quantile(along, places) for along in directions @ lab(picture).flatten(1)])


def gabor_bank() -> Tensor:
    """Even and odd filters of every angle without an average: [2 angles, 1, k, k], each of norm 1."""
    kernels = [gabor_kernel(FREQUENCY, theta=np.pi * i / ANGLES, bandwidth=1.0) for i in range(ANGLES)]
    size = max(max(kernel.shape) for kernel in kernels)
    bank = []
    for kernel in kernels:
        rows, columns = ((size - side) // 2 for side in kernel.shape)
        whole = np.pad(kernel, ((rows, size - rows - kernel.shape[0]), (columns, size - columns - kernel.shape[1])))
        for part in (whole.real, whole.imag):
            centred = np.where(whole == 0, 0.0, part - part[whole != 0].mean())
            bank.append(centred / np.linalg.norm(centred))
    return torch.from_numpy(np.stack(bank)).float()[:, None]


def texture_grams(picture: Tensor) -> list[Tensor]:
    """Gram matrices [C, C], one a scale, of what Gabor filters find in L, a and b of a picture [3, H, W]."""
    bank, channels, grams = gabor_bank(), lab(picture)[:, None], []
    pad = bank.shape[-1] // 2
    for _ in range(SCALES):
        found = F.conv2d(F.pad(channels, (pad,) * 4, mode="reflect"), bank)
        flat = torch.cat([found.relu(), (-found).relu()], dim=1).flatten(0, 1).flatten(1)
        grams.append(flat @ flat.T / flat.shape[1])
        channels = F.avg_pool2d(channels, 2)
    return grams


def between_grams(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """||A - B|| / (||A|| + ||B||), the mean over scales: 0 the same, at most 1."""
    pairs = zip(a, b, strict=True)
    return float(torch.stack([(x - y).norm() / (x.norm() + y.norm()).clamp_min(1e-12) for x, y in pairs]).mean())


def edges(picture: Tensor) -> Tensor:
    """How strongly luminance changes at each place [H, W], within a few pixels."""
    gradient = spatial_gradient(lab(picture)[None, :1])
    size = 2 * round(3 * EDGE_BLUR) + 1
    return gaussian_blur2d(gradient.square().sum(dim=2).sqrt(), (size, size), (EDGE_BLUR, EDGE_BLUR))[0, 0]


def between_edges(a: Tensor, b: Tensor) -> float:
    """One minus their correlation: 0 the same up to contrast, about 1 unrelated."""
    return 1 - float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def luminance(picture: Tensor) -> Tensor:
    """L from 0 to 1: [1, 1, H, W]."""
    return lab(picture)[None, :1] / 100


STYLE = {  # of pictures [3, H, W] in [-1, 1], wherever colours and textures lie
    "colour": Distance(colour_quantiles, lambda a, b: float((a - b).abs().mean())),  # in units of CIELAB
    "texture": Distance(texture_grams, between_grams),
}
CONTENT = {  # of pictures of one size
    "edges": Distance(edges, between_edges),
    "ssim": Distance(luminance, lambda a, b: 1 - float(ssim(a, b, SSIM_WINDOW).mean())),
}


def measures(picture: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
    """All distances of a picture [3, H, W] to its style (of any size) and its content (of the same size)."""
    to_style = {name: distance(picture, style) for name, distance in STYLE.items()}
    return to_style | {name: distance(picture, content) for name, distance in CONTENT.items()}
